"""How budgets stand, shown: in a line of amounts, as warnings, as a document for programs.

The invariant: what is spent is rounded to cents for people and exact for programs, and a budget
that only counts, or only warns, is never shown as one that stops anything.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from opencode_gate.cli import figures
from opencode_gate.core.money import usd_text

if TYPE_CHECKING:
    from opencode_gate.governance.policy import Owner, Unit
    from opencode_gate.governance.standing import BudgetStanding

_WINDOWS = {
    "session": "session",
    "hour": "this hour",
    "day": "today",
    "week": "this week",
    "month": "this month",
    "quarter": "this quarter",
    "year": "this year",
    "total": "in all",
}


def standing_line(standings: "Iterable[BudgetStanding]", now_us: int) -> str:
    """`session $2.19 of $5.00 · today $6.40 of $20.00`."""
    return " · ".join(
        f"{label_text(one, now_us)} {amounts_text(one.spent, one.limit, one.unit)}"
        for one in standings
    )


def short_line(standings: "Iterable[BudgetStanding]", now_us: int) -> str:
    """Only what has reached a threshold: `today 84 % of $20.00`."""
    return " · ".join(
        f"{label_text(one, now_us)} {one.percent} % of {amount_text(one.limit, one.unit)}"
        for one in standings
        if one.warned_percent is not None
    )


def warning_lines(standings: "Iterable[BudgetStanding]") -> list[str]:
    """A sentence for each budget that has reached a threshold, with what raises it."""
    from opencode_gate.governance.sentences import budget_warning
    from opencode_gate.governance.windows import WindowSpan

    decisions = [
        budget_warning(
            one.owner,
            one.budget,
            WindowSpan(one.start_us, one.resets_at_us),
            percent=one.percent,
            spent=one.spent,
            reserved=one.held,
            zone_name=one.time_zone,
        )
        for one in standings
        if one.warned_percent is not None
    ]
    return [_joined(decision.message, decision.command) for decision in decisions]


def standing_style(standings: "Iterable[BudgetStanding]") -> str:
    """Red where a budget is spent, yellow where one has reached a threshold."""
    some = list(standings)
    if any(one.is_spent for one in some):
        return "red"
    return "yellow" if any(one.warned_percent is not None for one in some) else ""


def standing_document(standing: "BudgetStanding") -> dict[str, object]:
    """A budget for programs; amounts in dollars are exact decimal strings, tokens are numbers."""
    budget, unit = standing.budget, standing.unit
    return {
        "owner_kind": standing.owner.kind,
        "owner": standing.owner.name,
        "window": budget.window,
        "rolling": budget.rolling,
        "unit": unit,
        "limit": _exact(standing.limit, unit),
        "spent": _exact(standing.spent, unit),
        "held": _exact(standing.held, unit),
        "left": _exact(standing.left, unit),
        "percent": standing.percent,
        "warned_percent": standing.warned_percent,
        "at_end": budget.at_end,
        "mode": budget.mode,
        "starts_at": figures.iso_text(standing.start_us or None),
        "resets_at": figures.iso_text(standing.resets_at_us),
        "time_zone": standing.time_zone,
    }


def label_text(standing: "BudgetStanding", now_us: int) -> str:
    """Which budget it is, in a word or two: `today`, `key ci this month`, `2026-11-20`."""
    budget = standing.budget
    words = [_OWNERS.get(standing.owner.kind, ""), _owner_name(standing.owner)]
    if standing.owner.kind == "session" and budget.window != "session":
        words.append("session")
    words.append(_window_text(standing, now_us))
    if budget.mode == "shadow":
        words.append("(shadow)")
    return " ".join(filter(None, words))


def amounts_text(spent: int, limit: int, unit: "Unit") -> str:
    """`$2.19 of $5.00`, `12.3 k of 100.0 k tokens`."""
    if unit == "tokens":
        return f"{figures.count_text(spent)} of {figures.count_text(limit)} tokens"
    return f"{amount_text(spent, unit)} of {amount_text(limit, unit)}"


def amount_text(amount: int, unit: "Unit") -> str:
    """`$2.19`, `12.3 k tokens`."""
    return (
        f"{figures.count_text(amount)} tokens" if unit == "tokens" else figures.brief_money(amount)
    )


_OWNERS = {"vkey": "key", "team": "team", "customer": "customer"}


def _owner_name(owner: "Owner") -> str:
    return owner.name if owner.kind in _OWNERS else ""


def _window_text(standing: "BudgetStanding", now_us: int) -> str:
    budget = standing.budget
    ends_us = standing.resets_at_us
    is_now = ends_us is None or standing.start_us <= now_us < ends_us
    if is_now and not budget.rolling:
        return _WINDOWS[budget.window]
    if budget.window == "day" and not budget.rolling:
        return _local_day(standing)
    return f"{budget.window} since {figures.time_text(standing.start_us)}"


def _local_day(standing: "BudgetStanding") -> str:
    from opencode_gate.core.local_time import local_day

    return local_day(standing.start_us, standing.time_zone).isoformat()


def _exact(amount: int, unit: "Unit") -> str | int:
    return amount if unit == "tokens" else usd_text(amount)


def _joined(message: str, command: str | None) -> str:
    plain = message.removeprefix("ogate: ")
    return plain if command is None else f"{plain} → {command}"
