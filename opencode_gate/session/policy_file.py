"""The policy as one TOML file: read with line and key in every error, written with comments kept.

A table per owner: `[customers.NAME]`, `[teams.NAME]`, `[vkeys.NAME]`, `[users.NAME]`, with the
keys of `governance.policy`. The rules of single sessions are not in it: they belong to a run,
and a file that takes the place of all rules must not lift the cap of one that is running. The
invariant: what is written reads back as the very same rules.
"""

import tomllib
from collections.abc import Mapping
from decimal import Decimal
from typing import cast

import msgspec

from opencode_gate.config.toml_lines import line_of
from opencode_gate.config.toml_shape import Place, ShapeProblem, dotted, nearest
from opencode_gate.core.errors import ConfigError
from opencode_gate.governance.policy import (
    KINDS,
    Customer,
    Owner,
    OwnerKind,
    Policy,
    Rules,
    Team,
    VirtualKey,
)
from opencode_gate.session.policy_names import GROUPS, normal
from opencode_gate.session.policy_sense import owned, policy_problems, rules_problems
from opencode_gate.session.policy_shape import read_struct

FILE_KINDS: tuple[OwnerKind, ...] = ("customer", "team", "vkey", "user")
"""The kinds of owners a file holds, in the order it is written in."""

_MOST_PROBLEMS = 10


class _Reading(msgspec.Struct, frozen=True, kw_only=True):
    """One file while it is read.

    `at_us` is when rolling budgets begin that say nothing of it and that `former` does not have.
    """

    text: str
    tables: Mapping[str, object]
    source: str
    at_us: int
    former: Policy
    is_checked: bool


def parse_policy(
    text: str,
    *,
    source: str,
    at_us: int,
    former: Policy | None = None,
    is_checked: bool = True,
) -> Policy:
    """The rules of a policy file.

    Args:
        source: names the file in errors.
        at_us: now; a rolling budget that does not say since when begins at this moment.
        former: the rules in force; a rolling budget that is there already goes on.
        is_checked: rules that make no sense are refused, not only those that cannot be read.

    Raises:
        ConfigError: `bad-policy`, naming line and key of the first problem, the others below it.
    """
    try:
        tables = tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError("bad-policy", f"{source} is not TOML: {error}") from error
    reading = _Reading(
        text=text,
        tables=tables,
        source=source,
        at_us=at_us,
        former=former or Policy(),
        is_checked=is_checked,
    )
    problems: list[ShapeProblem] = []
    found: dict[OwnerKind, dict[str, Rules]] = {kind: {} for kind in FILE_KINDS}
    kinds = {GROUPS[kind]: kind for kind in FILE_KINDS}
    for group, owners in tables.items():
        if group not in kinds:
            problems.append(_unknown_group(group, kinds))
        elif not isinstance(owners, Mapping):
            problems.append(ShapeProblem((group,), f"is tables, written [{group}.NAME]"))
        else:
            found[kinds[group]] = _owners(kinds[group], owners, reading, problems)
    policy = Policy(
        virtual_keys=cast(Mapping[str, VirtualKey], found["vkey"]),
        teams=cast(Mapping[str, Team], found["team"]),
        customers=cast(Mapping[str, Customer], found["customer"]),
        users=found["user"],
    )
    # A team that could not be read is not a team that is not there.
    if is_checked and not problems:
        problems.extend(policy_problems(policy))
    if problems:
        raise _bad(reading, problems)
    return policy


def read_owner(kind: OwnerKind, table: object, path: Place = ()) -> Rules:
    """The rules of one owner from its table.

    Raises:
        ShapeProblem: the table is none of such an owner.
    """
    if kind == "vkey":
        return read_struct(VirtualKey, table, path)
    if kind == "team":
        return read_struct(Team, table, path)
    return read_struct(Customer if kind == "customer" else KINDS[kind], table, path)


def is_same(one: Policy, other: Policy) -> bool:
    """Whether two policies hold the same rules, those of sessions and the revision aside."""
    return all(dict(owned(one, kind)) == dict(owned(other, kind)) for kind in FILE_KINDS)


def _owners(
    kind: OwnerKind,
    owners: Mapping[str, object],
    reading: _Reading,
    problems: list[ShapeProblem],
) -> dict[str, Rules]:
    found: dict[str, Rules] = {}
    for name, table in owners.items():
        path = (GROUPS[kind], name)
        owner = Owner(kind, normal(name))
        if owner.name in found:
            problems.append(ShapeProblem(path, "is there twice, written in two ways"))
            continue
        try:
            rules = read_owner(kind, _with_beginnings(table, owner, reading), path)
        except ShapeProblem as problem:
            problems.append(problem)
            continue
        found[owner.name] = rules
        problems.extend(
            ShapeProblem((*path, *problem.path), problem.text, problem.hint)
            for problem in (rules_problems(owner, rules) if reading.is_checked else ())
        )
    return found


def _with_beginnings(table: object, owner: Owner, reading: _Reading) -> object:
    """The table with `since_us` for each rolling budget that has none."""
    budgets = table.get("budgets") if isinstance(table, Mapping) else None
    if not isinstance(table, Mapping) or not isinstance(budgets, list):
        return table
    return {**table, "budgets": [_with_beginning(one, owner, reading) for one in budgets]}


def _with_beginning(budget: object, owner: Owner, reading: _Reading) -> object:
    if not isinstance(budget, Mapping) or budget.get("rolling") is not True:
        return budget
    if "since_us" in budget:
        return budget
    rules = owned(reading.former, owner.kind).get(owner.name)
    for former in rules.budgets if rules is not None else ():
        is_this = former.window == budget.get("window") and former.unit in budget
        if former.rolling and is_this and former.since_us is not None:
            return {**budget, "since_us": former.since_us}
    return {**budget, "since_us": reading.at_us}


def _unknown_group(group: str, kinds: Mapping[str, OwnerKind]) -> ShapeProblem:
    if group == "sessions":
        return ShapeProblem(
            (group,),
            "is not part of a policy file: rules of a session end with it",
            "ogate budgets set session USD --session ID",
        )
    close = nearest(group, kinds)
    hint = f"did you mean {close[0]}?" if close else f"known tables: {', '.join(kinds)}"
    return ShapeProblem((group,), "is not a table of a policy", hint)


def _bad(reading: _Reading, problems: list[ShapeProblem]) -> ConfigError:
    lines = [
        f"{_place(reading, problem)}: {dotted(problem.path)} {problem.text}" for problem in problems
    ]
    more = len(lines) - _MOST_PROBLEMS
    details = lines[1:_MOST_PROBLEMS] + ([f"and {more} more"] if more > 0 else [])
    hint = problems[0].hint
    return ConfigError(
        "bad-policy",
        lines[0],
        details=details,
        hint=hint if hint is not None else "docs/how-to/policy-file.md lists every key",
    )


def _place(reading: _Reading, problem: ShapeProblem) -> str:
    line, path = line_of(reading.text, problem.path), problem.path
    node: object = reading.tables
    for key in path:
        node = node[key] if isinstance(node, Mapping) and isinstance(key, str) else None
    # A table that has no line of its own begins where the first one in it does.
    while line is None and isinstance(node, Mapping) and node:
        key, node = next(iter(node.items()))
        path = (*path, key)
        line = line_of(reading.text, path)
    return f"{reading.source}, line {line}" if line is not None else reading.source
