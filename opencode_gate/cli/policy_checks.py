"""What `ogate doctor` looks at in the rules: whether they can be read, and whose money is stuck.

The invariant: like every check it only reads; what is held by processes that live is theirs.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from opencode_gate.core.errors import PolicyDenied

if TYPE_CHECKING:
    from opencode_gate.cli.checks import Finding
    from opencode_gate.governance.policy import Budget, Owner, Policy
    from opencode_gate.ledger.governance_store import GovernanceStore

_TOLERANCE_US = 60_000_000
"""Clocks are set by a second now and then; that is not worth a word."""


class _Ahead(NamedTuple):
    """A budget whose latest window has not begun yet."""

    owner: "Owner"
    budget: "Budget"
    start_us: int
    zone: str


def policy_findings(
    ledger_file: Path, journals_folder: Path, *, now_us: int
) -> "Iterator[Finding]":
    """What is found in the rules and budgets of a ledger.

    Raises:
        LedgerError: the ledger cannot be read.
    """
    from opencode_gate.cli.checks import Finding
    from opencode_gate.governance.standing import read_policy
    from opencode_gate.ledger.sqlite.governance import open_governance

    store = open_governance(ledger_file, read_only=True)
    try:
        yield from _leases(store, journals_folder)
        try:
            policy = read_policy(store)
        except PolicyDenied as error:
            yield Finding(
                check="policy",
                level="bad",
                summary=f"every request is refused: {error.message}",
                mend="ogate policy export FILE, mend it, ogate policy apply FILE",
            )
            return
        ahead = list(_ahead(store, policy, now_us))
        yield from map(_ahead_finding, ahead)
        if not ahead:
            yield Finding(check="policy", level="ok", summary=_rules_text(policy))
    finally:
        store.close()


def _leases(store: "GovernanceStore", journals_folder: Path) -> "Iterator[Finding]":
    """Money held by processes that are dead; the next session, or this command, returns it."""
    from opencode_gate.cli.checks import Finding
    from opencode_gate.ledger.journal import is_living, journals

    living = {path.stem for path in journals(journals_folder) if is_living(path)}
    dead = store.lease_holders() - living
    if dead:
        many = "a process that has" if len(dead) == 1 else f"{len(dead)} processes that have"
        yield Finding(
            check="policy",
            level="note",
            summary=f"money of budgets is held by {many} died",
            mend=f"'{sys.executable}' -m opencode_gate.server settle",
        )


def _ahead(store: "GovernanceStore", policy: "Policy", now_us: int) -> Iterator[_Ahead]:
    from opencode_gate.core.local_time import local_zone_name
    from opencode_gate.governance.policy import Owner
    from opencode_gate.session.policy_sense import owned

    zone = local_zone_name()
    budgets = [
        (Owner(kind, name), budget, rules.time_zone or zone)
        for kind in ("user", "vkey", "team", "customer", "session")
        for name, rules in owned(policy, kind).items()
        for budget in rules.budgets
    ]
    latest = store.latest_windows(budget.id_for(owner) for owner, budget, _ in budgets)
    for owner, budget, its_zone in budgets:
        start_us = latest.get(budget.id_for(owner), 0)
        if start_us > now_us + _TOLERANCE_US:
            yield _Ahead(owner, budget, start_us, its_zone)


def _ahead_finding(ahead: _Ahead) -> "Finding":
    from opencode_gate.cli.checks import Finding
    from opencode_gate.governance.wording import budget_text, instant_text, raise_command

    begins = instant_text(ahead.start_us, ahead.zone)
    return Finding(
        check="policy",
        level="note",
        summary=f"{budget_text(ahead.owner, ahead.budget)} counts in a window that begins only at "
        f"{begins}: a clock was ahead, or this one is behind. Until then it does not begin anew",
        mend=f"set the clock, or: {raise_command(ahead.owner, ahead.budget)}",
    )


def _rules_text(policy: "Policy") -> str:
    if not policy.revision:
        return "no rules"
    counts = (
        (len(policy.virtual_keys), "virtual key"),
        (len(policy.teams), "team"),
        (len(policy.customers), "customer"),
        (sum(len(rules.budgets) for rules in policy.users.values()), "budget of a user"),
    )
    texts = [f"{count} {word if count == 1 else _plural(word)}" for count, word in counts if count]
    return ", ".join(texts) or "no rules but those of sessions"


def _plural(word: str) -> str:
    return "budgets of users" if word.startswith("budget") else f"{word}s"
