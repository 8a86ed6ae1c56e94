"""Owners, amounts, moments and commands, as they are written inside sentences about rules.

The invariants: what is needed or spent is rounded up, what is left is rounded down; an amount in
a command is one that Opencode never takes for the status of an error, since it would be broken
up on its way there (`wire.refusals.neutralise`) and a command is copied.
"""

import shlex
import zoneinfo
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType

from opencode_gate.core.money import NANO_PER_USD
from opencode_gate.governance.policy import Budget, Owner, Unit, Window

_CENT_NANO_USD = NANO_PER_USD // 100

_ADJECTIVES: Mapping[Window, str] = MappingProxyType(
    {
        "session": "session",
        "hour": "hourly",
        "day": "daily",
        "week": "weekly",
        "month": "monthly",
        "quarter": "quarterly",
        "year": "yearly",
        "total": "total",
    }
)


def owner_text(owner: Owner) -> str:
    """Whose rule it is, inside a sentence: `team core`, `this session`."""
    if owner.kind == "session":
        return "this session"
    return f"virtual key {owner.name}" if owner.kind == "vkey" else str(owner)


def amount_text(amount: int, unit: Unit, *, is_rounded_up: bool = True) -> str:
    """An amount of a budget: `$5`, `$429.50`, `$0.00043`, `12,000 tokens`.

    Dollars that are not whole are rounded to cents, below ten cents to two digits that count.
    """
    if unit == "tokens":
        return f"{amount:,} token" if amount == 1 else f"{amount:,} tokens"
    step = _CENT_NANO_USD
    while step > 1 and 0 < amount < 10 * step:
        step //= 10
    steps = -(-amount // step) if is_rounded_up else amount // step
    dollars, rest = divmod(steps * step, NANO_PER_USD)
    if rest == 0:
        return f"${dollars:,}" if dollars else "$0.00"
    digits = f"{rest:09}".rstrip("0").ljust(2, "0")
    return f"${dollars:,}.{digits}"


def instant_text(at_us: int, zone_name: str) -> str:
    """A moment in a zone: `2026-11-22 00:00 (Europe/Berlin)`; in UTC where there is no such."""
    try:
        moment = datetime.fromtimestamp(at_us // 1_000_000, zoneinfo.ZoneInfo(zone_name))
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OverflowError, OSError):
        # The last day there is in UTC is one day too many in zones east of it.
        zone_name, moment = "UTC", datetime.fromtimestamp(at_us // 1_000_000, UTC)
    seconds = f":{moment:%S}" if moment.second else ""
    return f"{moment:%Y-%m-%d %H:%M}{seconds} ({zone_name})"


def budget_text(owner: Owner, budget: Budget) -> str:
    """A budget inside a sentence: `the monthly budget of $500 of team core`."""
    rolling = "rolling " if budget.rolling else ""
    name = f"{rolling}{_ADJECTIVES[budget.window]} budget of "
    name += amount_text(budget.limit, budget.unit)
    if owner.kind == "user":
        return f"your {name}"
    is_plain = owner.kind == "session" and budget.window == "session"
    return f"the {name}" if is_plain else f"the {name} of {owner_text(owner)}"


def raise_command(owner: Owner, budget: Budget, *, needed: int = 0) -> str:
    """What to type so that a request of that size fits: `ogate budgets raise session 5`."""
    amount = round_amount(max(1, needed if budget.unit == "tokens" else -(-needed // NANO_PER_USD)))
    whole = budget.limit if budget.unit == "tokens" else budget.limit // NANO_PER_USD
    amount = max(amount, _round_below(whole))
    options = " --tokens" if budget.unit == "tokens" else ""
    if budget.rolling:
        options += " --rolling"
    # A budget without an owner is the running session's, or else one's own.
    is_understood = owner.kind == ("session" if budget.window == "session" else "user")
    if not is_understood:
        options += f" --{owner.kind} {shlex.quote(owner.name)}"
    return f"ogate budgets raise {budget.window} {amount}{options}"


def rules_command(owner: Owner, change: str | None = None) -> str:
    """What to type to change the rules of an owner, or to see them first.

    Args:
        change: the options that make the change (`--rpm 120`); owners that have none of their
            own commands are shown instead.
    """
    if owner.kind == "user" or owner.kind == "session":
        return "ogate policy show"
    rest = "" if change is None else f" {change}"
    return (
        f"ogate {owner.kind}s {'show' if change is None else 'set'} {shlex.quote(owner.name)}{rest}"
    )


_STEPS = (1, 2, 4)
"""No multiple of these by ten has the digits of an HTTP status that is tried again."""


def round_amount(amount: int) -> int:
    """The first of 1, 2, 4, 10, 20, 40, … that is no less than `amount`."""
    power: int = 10 ** (len(str(amount)) - 1)
    return next((step * power for step in _STEPS if step * power >= amount), 10 * power)


def _round_below(amount: int) -> int:
    """The last of these, and of 5 and 50, that is no more than `amount`, or 0."""
    if amount < 1:
        return 0
    power: int = 10 ** (len(str(amount)) - 1)
    steps = _STEPS if power > 10 else (*_STEPS, 5)
    return max(step * power for step in steps if step * power <= amount)
