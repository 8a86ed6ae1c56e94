"""What makes rules nonsense that a shape alone does not forbid.

The idea: rules come from options, from a policy file and from a ledger somebody copied; all of
them are asked the same. The invariant: every problem names the key it lies at, so that a file
can name the line and a command the option.
"""

import re
import zoneinfo
from collections.abc import Iterator, Mapping
from datetime import datetime

from opencode_gate.config.toml_shape import Place, ShapeProblem, nearest
from opencode_gate.core.money import NANO_PER_USD
from opencode_gate.governance.policy import (
    DOWNGRADE,
    Budget,
    Owner,
    OwnerKind,
    Policy,
    RateLimit,
    Rules,
    VirtualKey,
)
from opencode_gate.session.amounts import MOST_TOKENS, MOST_USD
from opencode_gate.session.policy_names import GROUPS, name_problem

_PUBLIC_ID = re.compile(r"[A-Za-z0-9]{12}")
_SECRET_HASH = re.compile(r"[0-9a-f]{32}\$[0-9a-f]{64}")

OWNER_KINDS: tuple[OwnerKind, ...] = ("session", "user", "vkey", "team", "customer")
"""All kinds of owners, nearest to a request first."""


def owned(policy: Policy, kind: OwnerKind) -> Mapping[str, Rules]:
    """All owners of a kind, by name."""
    found: dict[OwnerKind, Mapping[str, Rules]] = {
        "session": policy.sessions,
        "user": policy.users,
        "vkey": policy.virtual_keys,
        "team": policy.teams,
        "customer": policy.customers,
    }
    return found[kind]


def rules_problems(owner: Owner, rules: Rules) -> Iterator[ShapeProblem]:
    """What is wrong with the rules of one owner by themselves; places begin below the owner."""
    problem = name_problem(owner.kind, owner.name)
    if problem is not None:
        yield ShapeProblem((), f"cannot be called so: the name {problem}")
    if rules.time_zone is not None and not is_zone(rules.time_zone):
        yield ShapeProblem(
            ("time_zone",), f"{rules.time_zone!r} is no time zone", "one such as Europe/Berlin"
        )
    yield from _pattern_problems(rules)
    yield from _limit_problems(rules.limits)
    yield from _budget_problems(owner, rules.budgets)
    if isinstance(rules, VirtualKey):
        yield from _key_problems(rules)


def policy_problems(policy: Policy) -> Iterator[ShapeProblem]:
    """What is wrong with how owners refer to each other; places begin at the kind's table."""
    public_ids: dict[str, str] = {}
    for name, key in policy.virtual_keys.items():
        if key.team is not None and key.team not in policy.teams:
            yield _no_such("vkey", name, "team", key.team, policy.teams)
        other = public_ids.setdefault(key.public_id, name)
        if other != name:
            yield ShapeProblem(
                (GROUPS["vkey"], name, "public_id"),
                f"is that of {other} too; every key has its own",
            )
    for name, team in policy.teams.items():
        if team.customer is not None and team.customer not in policy.customers:
            yield _no_such("team", name, "customer", team.customer, policy.customers)


def is_zone(name: str) -> bool:
    """Whether this machine knows a time zone of that name."""
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def _no_such(
    kind: OwnerKind, name: str, group: OwnerKind, wanted: str, known: Mapping[str, object]
) -> ShapeProblem:
    close = nearest(wanted, known)
    hint = f"did you mean {close[0]}?" if close else f"ogate {GROUPS[group]} create {wanted}"
    text = f"is {wanted!r}, and there is no such {group}"
    return ShapeProblem((GROUPS[kind], name, group), text, hint)


def _pattern_problems(rules: Rules) -> Iterator[ShapeProblem]:
    if rules.models is None:
        return
    for key, patterns in (("allow", rules.models.allow or ()), ("deny", rules.models.deny)):
        for number, pattern in enumerate(patterns):
            place: Place = ("models", key, number)
            if not pattern.strip() or pattern != pattern.strip() or not pattern.isprintable():
                yield ShapeProblem(place, f"{pattern!r} matches no model")


def _limit_problems(limits: tuple[RateLimit, ...]) -> Iterator[ShapeProblem]:
    seen = set()
    for number, limit in enumerate(limits):
        what = (limit.measure, limit.per)
        if what in seen:
            per = "" if limit.per is None else f" a {limit.per}"
            yield ShapeProblem(("limits", number), f"is the second limit of {what[0]}{per}")
        seen.add(what)
        if limit.amount > MOST_TOKENS:
            yield ShapeProblem(("limits", number, limit.measure), "is more than can be counted")


def _budget_problems(owner: Owner, budgets: tuple[Budget, ...]) -> Iterator[ShapeProblem]:
    seen = set()
    for number, budget in enumerate(budgets):
        place = ("budgets", number)
        if budget.id_for(owner) in seen:
            rolling = "rolling " if budget.rolling else ""
            yield ShapeProblem(
                place, f"is the second {rolling}{budget.window} budget in {budget.unit}"
            )
        seen.add(budget.id_for(owner))
        if budget.window == "session" and owner.kind != "session":
            yield ShapeProblem(
                (*place, "window"),
                f"is session, and a {owner.kind} is none",
                "ogate run --budget USD for one session; total never begins anew either",
            )
        yield from _amount_problems(budget, place)
        target = budget.at_end.removeprefix(DOWNGRADE)
        if budget.at_end.startswith(DOWNGRADE) and not _is_model(target):
            yield ShapeProblem((*place, "at_end"), f"names no model: {target!r}", "downgrade:MODEL")
        if any(not 1 <= percent <= 100 for percent in budget.warn_at_percent):
            yield ShapeProblem((*place, "warn_at_percent"), "has shares of 1 to 100 percent")


def _amount_problems(budget: Budget, place: Place) -> Iterator[ShapeProblem]:
    if budget.usd is not None and budget.usd > MOST_USD:
        yield ShapeProblem((*place, "usd"), f"is more than ${MOST_USD:,}")
    elif budget.usd is not None and budget.usd * NANO_PER_USD % 1 != 0:
        yield ShapeProblem((*place, "usd"), "is finer than a billionth of a dollar")
    if budget.tokens is not None and budget.tokens > MOST_TOKENS:
        yield ShapeProblem((*place, "tokens"), "is more than can be counted")


def _key_problems(key: VirtualKey) -> Iterator[ShapeProblem]:
    if not _PUBLIC_ID.fullmatch(key.public_id):
        yield ShapeProblem(("public_id",), "is the twelve letters and digits behind ogk-")
    if not _SECRET_HASH.fullmatch(key.secret_hash):
        yield ShapeProblem(
            ("secret_hash",), "is not what ogate keeps of a secret", "ogate vkeys create NAME"
        )
    if key.expires_at is not None and not _is_instant(key.expires_at):
        yield ShapeProblem(
            ("expires_at",),
            f"{key.expires_at!r} is not a time with its offset from UTC",
            "one such as 2026-12-31T23:59:59+01:00",
        )
    for number, tag in enumerate(key.tags):
        if not tag.strip() or not tag.isprintable():
            yield ShapeProblem(("tags", number), f"{tag!r} is no word")


def _is_model(text: str) -> bool:
    return bool(text) and text.isprintable() and " " not in text


def _is_instant(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False
