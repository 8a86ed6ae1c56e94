"""Changes of the rules in the ledger: read, checked, written, all or none.

The invariants: two changes at once do not undo each other; what would make no sense is refused
before anything is written; every change names who made it.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import cast

import msgspec

from opencode_gate.config.paths import Paths
from opencode_gate.config.private_files import exclusive
from opencode_gate.config.toml_shape import ShapeProblem, dotted, nearest
from opencode_gate.core.errors import ConfigError, UsageError
from opencode_gate.governance.policy import (
    Customer,
    Owner,
    OwnerKind,
    Policy,
    Rules,
    Team,
    VirtualKey,
    document_of,
    rules_of,
)
from opencode_gate.governance.standing import read_policy
from opencode_gate.ledger.governance_store import GovernanceStore, PolicyDocument
from opencode_gate.session.operator import os_user
from opencode_gate.session.policy_file import FILE_KINDS
from opencode_gate.session.policy_names import GROUPS, NOUNS
from opencode_gate.session.policy_sense import OWNER_KINDS, owned, policy_problems, rules_problems

RuleChanges = Mapping[Owner, Rules | None]
"""New rules by owner; `None` takes an owner's rules away."""


class Changed(msgspec.Struct, frozen=True, kw_only=True):
    """The rules before a change and after it."""

    before: Policy
    after: Policy


@contextmanager
def open_rules(paths: Paths, *, read_only: bool = False) -> Iterator[GovernanceStore]:
    """The rules in the ledger.

    Raises:
        LedgerError: it cannot be opened.
    """
    from opencode_gate.ledger.sqlite.governance import open_governance

    store = open_governance(paths.ledger_file, read_only=read_only)
    try:
        yield store
    finally:
        store.close()


def current_policy(paths: Paths) -> Policy:
    """The rules in force.

    Raises:
        LedgerError: the ledger cannot be read.
        PolicyDenied: `policy-unreadable`.
    """
    with open_rules(paths, read_only=True) as store:
        return read_policy(store)


def change_rules(paths: Paths, edit: Callable[[Policy], RuleChanges], *, at_us: int) -> Changed:
    """Changes rules; `edit` is given those in force and says which are to be others.

    What it leaves as it is leaves no trace.

    Raises:
        ConfigError: `bad-policy`, the rules would make no sense.
        LedgerError: the ledger cannot be written.
        PolicyDenied: `policy-unreadable`.
    """
    # SQLite alone would let two read the same rules and the later one undo the earlier.
    with exclusive(paths.data / "policy"), open_rules(paths) as store:
        before = read_policy(store)
        changes = {
            owner: rules
            for owner, rules in edit(before).items()
            if owned(before, owner.kind).get(owner.name) != rules
        }
        return _put(store, before, changes, at_us)


def replace_all(paths: Paths, wanted: Policy, *, revision: int, at_us: int) -> Changed:
    """Puts all rules but those of sessions in the place of the present ones.

    Rules that cannot be read are replaced too: a file is how one gets out of that.

    Args:
        revision: of the rules that were looked at before this was decided.

    Raises:
        ConfigError: `bad-policy`, the rules make no sense or are not those that were looked at.
        LedgerError: the ledger cannot be written.
    """
    with exclusive(paths.data / "policy"), open_rules(paths) as store:
        before, unreadable = readable_policy(store)
        if before.revision != revision:
            raise ConfigError(
                "bad-policy",
                "the rules were changed while you looked at the difference",
                hint="look again: ogate policy apply FILE",
            )
        changes: dict[Owner, Rules | None] = dict.fromkeys(unreadable)
        changes |= differences(before, wanted)
        return _put(store, before, changes, at_us)


def differences(before: Policy, after: Policy) -> dict[Owner, Rules | None]:
    """What has to change for one policy to become another, sessions aside."""
    changes: dict[Owner, Rules | None] = {}
    for kind in FILE_KINDS:
        old, new = owned(before, kind), owned(after, kind)
        changes |= {Owner(kind, name): None for name in old if name not in new}
        changes |= {
            Owner(kind, name): rules for name, rules in new.items() if old.get(name) != rules
        }
    return changes


def readable_policy(store: GovernanceStore) -> tuple[Policy, list[Owner]]:
    """The rules as far as they can be read, and whose cannot."""
    revision, documents = store.policy()
    policy, unreadable = Policy(revision=revision), []
    for kind, name, text in documents:
        owner = Owner(cast(OwnerKind, kind), name)
        try:
            policy = with_rules(policy, {owner: rules_of(owner.kind, text or "")})
        except (KeyError, msgspec.DecodeError):
            unreadable.append(owner)
    return policy, unreadable


def with_rules(policy: Policy, changes: RuleChanges) -> Policy:
    """The policy as it would be."""
    found = {kind: dict(owned(policy, kind)) for kind in OWNER_KINDS}
    for owner, rules in changes.items():
        if rules is None:
            found[owner.kind].pop(owner.name, None)
        else:
            found[owner.kind][owner.name] = rules
    return Policy(
        revision=policy.revision,
        sessions=found["session"],
        users=found["user"],
        virtual_keys=cast(Mapping[str, VirtualKey], found["vkey"]),
        teams=cast(Mapping[str, Team], found["team"]),
        customers=cast(Mapping[str, Customer], found["customer"]),
    )


def rules_for(policy: Policy, owner: Owner) -> Rules:
    """The rules of an owner.

    Sessions and users are there whether they have rules or not.

    Raises:
        UsageError: `no-such-owner`.
    """
    known = owned(policy, owner.kind)
    rules = known.get(owner.name)
    if rules is not None:
        return rules
    if owner.kind in ("session", "user"):
        return Rules()
    close = nearest(owner.name, known)
    raise UsageError(
        "no-such-owner",
        f"there is no {NOUNS[owner.kind]} {owner.name!r}",
        details=(f"did you mean {close[0]}?",) if close else (),
        hint=f"ogate {GROUPS[owner.kind]} list",
    )


def _put(store: GovernanceStore, before: Policy, changes: RuleChanges, at_us: int) -> Changed:
    after = with_rules(before, changes)
    _require_sense(before, after, changes)
    documents = [
        PolicyDocument(owner.kind, owner.name, None if rules is None else document_of(rules))
        for owner, rules in changes.items()
    ]
    revision = before.revision
    if documents:
        revision = store.put_policy(documents, operator=os_user(), at_us=at_us)
    return Changed(before=before, after=msgspec.structs.replace(after, revision=revision))


def _require_sense(before: Policy, after: Policy, changes: RuleChanges) -> None:
    problems = [
        (f"{owner} ", problem)
        for owner, rules in changes.items()
        if rules is not None
        for problem in rules_problems(owner, rules)
    ]
    # What was wrong before is not this change's fault, and must not stop it.
    known = {(problem.path, problem.text) for problem in policy_problems(before)}
    problems += [
        ("", problem)
        for problem in policy_problems(after)
        if (problem.path, problem.text) not in known
    ]
    if problems:
        lines = [_sentence(whose, problem) for whose, problem in problems]
        raise ConfigError("bad-policy", lines[0], details=lines[1:], hint=problems[0][1].hint)


def _sentence(whose: str, problem: ShapeProblem) -> str:
    place = dotted(problem.path)
    return f"{whose}{place}{' ' if place else ''}{problem.text}"
