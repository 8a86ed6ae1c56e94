"""Budgets below each other, and what became of one that was changed."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from opencode_gate.cli.render import Column, Table

if TYPE_CHECKING:
    from opencode_gate.governance.policy import Budget
    from opencode_gate.governance.standing import BudgetStanding


def budgets_table(found: "Sequence[BudgetStanding]") -> Table:
    """All of some budgets: spent, held by what runs, left, and when they begin anew."""
    from opencode_gate.cli.budget_view import amount_text
    from opencode_gate.cli.figures import percent_text, short_id
    from opencode_gate.governance.wording import instant_text

    def row(one: "BudgetStanding") -> tuple[str, ...]:
        budget, unit = one.budget, one.unit
        name = short_id(one.owner.name) if one.owner.kind == "session" else one.owner.name
        at_end = budget.at_end if budget.mode == "enforce" else f"{budget.at_end} (shadow)"
        return (
            f"{one.owner.kind} {name}",
            f"rolling {budget.window}" if budget.rolling else budget.window,
            amount_text(one.limit, unit),
            amount_text(one.spent, unit),
            amount_text(one.held, unit),
            amount_text(one.left, unit),
            percent_text(one.spent, one.limit),
            "never" if one.resets_at_us is None else instant_text(one.resets_at_us, one.time_zone),
            at_end,
        )

    return Table(
        columns=(
            Column("owner"),
            Column("window"),
            *(Column(title, "right") for title in ("limit", "spent", "held", "left", "used")),
            Column("begins anew", wrap=True),
            Column("at its end", wrap=True),
        ),
        rows=[row(one) for one in found],
    )


def change_sentence(standing: "BudgetStanding", former: "Budget | None") -> str:
    """What was changed to what, and how it stands."""
    from opencode_gate.governance.wording import amount_text, budget_text, instant_text

    unit = standing.unit
    was = "new" if former is None else f"was {amount_text(former.limit, unit)}"
    ends_us = standing.resets_at_us
    anew = "never begins anew"
    if ends_us is not None:
        anew = f"begins anew at {instant_text(ends_us, standing.time_zone)}"
    left = amount_text(standing.left, unit, is_rounded_up=False)
    return (
        f"{budget_text(standing.owner, standing.budget)} ({was}): "
        f"{amount_text(standing.spent, unit)} spent, {amount_text(standing.held, unit)} held, "
        f"{left} left; {anew}"
    )


def former_limit(former: "Budget | None") -> str | int | None:
    """What it was before, for programs: a decimal string of dollars, or a number of tokens."""
    from opencode_gate.core.money import usd_text

    if former is None:
        return None
    return former.limit if former.unit == "tokens" else usd_text(former.limit)
