"""`ogate doctor` on rules and budgets: readable, nothing stuck, no window of another time."""

import json
import os
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from opencode_gate.cli.checks import Finding, Surroundings, all_findings
from opencode_gate.config.paths import paths
from opencode_gate.core.clock import SystemClock
from opencode_gate.governance.policy import (
    Budget,
    Owner,
    Rules,
    Team,
    VirtualKey,
    document_of,
)
from opencode_gate.ledger.governance_store import LeaseWish, PolicyDocument, WindowKey
from opencode_gate.ledger.journal import Journal
from opencode_gate.ledger.records import Charge
from opencode_gate.ledger.sqlite import open_store
from opencode_gate.ledger.sqlite.governance import SqliteGovernance, open_governance
from opencode_gate.session.operator import os_user
from tests.support.ledger_records import a_session, an_exchange

TOTAL = Budget(window="total", usd=Decimal(20))
DAY = Budget(window="day", usd=Decimal(20))


@pytest.fixture
def governance():
    store = open_governance(paths().ledger_file)
    yield store
    store.close()


def _give(store: SqliteGovernance, owner: Owner, rules: Rules) -> None:
    change = PolicyDocument(owner.kind, owner.name, document_of(rules))
    store.put_policy([change], operator="test", at_us=0)


def _findings(check: str) -> list[Finding]:
    around = Surroundings(paths=paths(), environ=os.environ, today=date(2026, 11, 21))
    return [finding for finding in all_findings(around) if finding.check == check]


def test_no_rules_are_no_trouble() -> None:
    [finding] = _findings("policy")
    assert (finding.level, finding.summary) == ("ok", "no rules")
    assert not paths().ledger_file.exists()


def test_what_rules_there_are_is_counted(governance: SqliteGovernance) -> None:
    _give(governance, Owner("vkey", "ci"), VirtualKey(public_id="p" * 12, secret_hash="s$h"))
    _give(governance, Owner("team", "a"), Team())
    _give(governance, Owner("team", "b"), Team())
    _give(governance, Owner("user", "ada"), Rules(budgets=(DAY, TOTAL)))
    [finding] = _findings("policy")
    assert finding.level == "ok"
    assert finding.summary == "1 virtual key, 2 teams, 2 budgets of users"


def test_rules_that_cannot_be_read_are_bad(governance: SqliteGovernance) -> None:
    governance.put_policy([PolicyDocument("team", "core", "{")], operator="test", at_us=0)
    [finding] = _findings("policy")
    assert finding.level == "bad"
    assert "team core" in finding.summary
    assert "ogate policy apply FILE" in (finding.mend or "")


def test_money_held_by_the_dead_is_found_and_that_of_the_living_is_not(
    governance: SqliteGovernance,
) -> None:
    owner = Owner("user", "ada")
    _give(governance, owner, Rules(budgets=(TOTAL,)))
    wish = LeaseWish(WindowKey(TOTAL.id_for(owner), 0), TOTAL.limit, 10**9, 10**9)
    journal = Journal.create(paths().journals, session=a_session())
    governance.lease(journal.path.stem, [wish])
    assert [finding.level for finding in _findings("policy")] == ["ok"]
    governance.lease("01DEAD", [wish])
    note, _ = _findings("policy")
    journal.close()
    assert note.level == "note"
    assert "held by a process that has died" in note.summary
    assert (note.mend or "").endswith("-m opencode_gate.server settle")


def test_a_window_that_has_not_begun_yet_is_found(governance: SqliteGovernance) -> None:
    """A clock that was ahead for a moment keeps a budget from beginning anew for years."""
    owner = Owner("user", "ada")
    _give(governance, owner, Rules(budgets=(DAY,), time_zone="UTC"))
    start_us = SystemClock().now_us() + 400 * 86_400_000_000
    store = open_store(paths().ledger_file)
    store.fold([an_exchange(charges=(Charge(DAY.id_for(owner), start_us, "usd", 0),))])
    store.close()
    [finding] = _findings("policy")
    assert finding.level == "note"
    assert "your daily budget of $20 counts in a window that begins only at 202" in finding.summary
    assert "ogate budgets raise day" in (finding.mend or "")


def test_under_hard_rules_a_way_round_is_bad(governance: SqliteGovernance) -> None:
    """No session would start; doctor says it before."""
    file = Path(os.environ["HOME"]) / ".local/share/opencode/auth.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"openai": {"type": "oauth", "refresh": "r", "access": "a"}}))
    [finding] = _findings("sign-ins")
    assert finding.level == "note"
    _give(governance, Owner("user", os_user()), Rules(budgets=(DAY,)))
    [finding] = _findings("sign-ins")
    assert finding.level == "bad"
    assert finding.mend == "ogate providers edit openai --subscription key"
