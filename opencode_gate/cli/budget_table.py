"""Budgets below each other, and what became of one that was changed."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from opencode_gate.cli.render import Table

if TYPE_CHECKING:
    from opencode_gate.governance.policy import Budget
    from opencode_gate.governance.standing import BudgetStanding


def budgets_table(found: "Sequence[BudgetStanding]", *, width: int) -> Table:
    """All of some budgets: spent, held by what runs, left, and when they begin anew."""
    from opencode_gate.cli.budget_view import amount_text
    from opencode_gate.cli.figures import percent_text
    from opencode_gate.cli.fitted_table import FittedColumn, fitted_table

    def amounts(title: str, of: "Callable[[BudgetStanding], int]", rank: int = 0) -> FittedColumn:
        cells = [amount_text(of(one), one.unit) for one in found]
        return FittedColumn(title=title, cells=cells, justify="right", rank=rank)

    ends = [_end_text(one.budget) for one in found]
    columns = [
        FittedColumn(title="owner", cells=[_owner_text(one) for one in found], is_text=True),
        FittedColumn(title="window", cells=[_window_text(one.budget) for one in found]),
        amounts("limit", lambda one: one.limit),
        amounts("spent", lambda one: one.spent),
        amounts("held", lambda one: one.held, rank=1),
        amounts("left", lambda one: one.left),
        FittedColumn(
            title="used",
            cells=[percent_text(one.spent, one.limit) for one in found],
            justify="right",
            rank=4,
        ),
        FittedColumn(title="begins anew", cells=[_anew_text(one) for one in found], rank=2),
        FittedColumn(title="at its end", cells=ends, rank=3),
    ]
    if set(ends) == {"block"}:
        del columns[-1]
    return fitted_table(columns, width=width)


def _owner_text(standing: "BudgetStanding") -> str:
    from opencode_gate.cli.figures import short_id

    kind, name = standing.owner
    return f"{kind} {short_id(name) if kind == 'session' else name}"


def _window_text(budget: "Budget") -> str:
    return f"rolling {budget.window}" if budget.rolling else budget.window


def _end_text(budget: "Budget") -> str:
    return budget.at_end if budget.mode == "enforce" else f"{budget.at_end} (shadow)"


def _anew_text(standing: "BudgetStanding") -> str:
    """The moment by the owner's clock, with its zone where that is not this machine's."""
    from opencode_gate.core.local_time import local_zone_name
    from opencode_gate.governance.wording import instant_text

    if standing.resets_at_us is None:
        return "never"
    text = instant_text(standing.resets_at_us, standing.time_zone)
    return text.removesuffix(f" ({local_zone_name()})")


def change_sentence(standing: "BudgetStanding", former: "Budget | None") -> str:
    """What was changed to what, and how it stands."""
    from opencode_gate.governance.wording import amount_text, budget_text, instant_text

    unit, budget = standing.unit, standing.budget
    if former is None:
        was = "new"
    elif former.limit == budget.limit:
        was = "as before"
    else:
        was = f"was {amount_text(former.limit, unit)}"
    end = _end_text(budget)
    if end == "block" and (former is None or _end_text(former) == end):
        end = ""
    ends_us = standing.resets_at_us
    anew = "never begins anew"
    if ends_us is not None:
        anew = f"begins anew at {instant_text(ends_us, standing.time_zone)}"
    left = amount_text(standing.left, unit, is_rounded_up=False)
    return (
        f"{budget_text(standing.owner, budget)} ({was}): "
        f"{amount_text(standing.spent, unit)} spent, {amount_text(standing.held, unit)} held, "
        f"{left} left; {anew}{f'; at its end: {end}' if end else ''}"
    )


def former_limit(former: "Budget | None") -> str | int | None:
    """What it was before, for programs: a decimal string of dollars, or a number of tokens."""
    from opencode_gate.core.money import usd_text

    if former is None:
        return None
    return former.limit if former.unit == "tokens" else usd_text(former.limit)
