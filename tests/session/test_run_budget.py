"""`ogate run` under rules: what is asked for is in force before the agent's first request."""

import json
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from opencode_gate.config.paths import paths
from opencode_gate.core.clock import SystemClock
from opencode_gate.governance.policy import Budget, Owner, Rules, VirtualKey, document_of
from opencode_gate.governance.standing import read_policy
from opencode_gate.ledger.governance_store import PolicyDocument
from opencode_gate.ledger.sqlite.governance import open_governance
from opencode_gate.session.operator import os_user
from tests.support.launcher import ledger, run
from tests.support.scripted_upstream_thread import threaded_upstream

PRACTICE = ("run", "--provider", "practice")
SIGNED_IN = {"openai": {"type": "oauth", "refresh": "r", "access": "a", "expires": 1}}


def _policy():
    store = open_governance(paths().ledger_file, read_only=True)
    try:
        return read_policy(store)
    finally:
        store.close()


def _give(owner: Owner, rules: Rules) -> None:
    paths().data.mkdir(parents=True, exist_ok=True, mode=0o700)
    store = open_governance(paths().ledger_file)
    change = PolicyDocument(owner.kind, owner.name, document_of(rules))
    store.put_policy([change], operator="test", at_us=SystemClock().now_us())
    store.close()


def _sign_in() -> None:
    file = Path(os.environ["HOME"]) / ".local/share/opencode/auth.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(SIGNED_IN))


def test_a_budget_on_the_command_line_is_the_sessions_own(tmp_path: Path) -> None:
    done = run(tmp_path, *PRACTICE, "--budget", "$1,503.50", "--", "run", "ask")
    assert done.returncode == 0, done.stderr
    assert _policy().sessions == {
        ledger().session.id: Rules(budgets=(Budget(window="session", usd=Decimal("1503.5")),))
    }


def test_the_settings_have_a_budget_for_every_session(tmp_path: Path) -> None:
    run(tmp_path, *PRACTICE, "--", "run", "exit", "0", OGATE_RUN_BUDGET="2.5")
    run(tmp_path, *PRACTICE, "--budget", "7", "--", "run", "exit", "0", OGATE_RUN_BUDGET="2.5")
    budgets = [rules.budgets[0].usd for _, rules in sorted(_policy().sessions.items())]
    assert budgets == [Decimal("2.5"), Decimal(7)]


def test_without_one_no_rule_is_written(tmp_path: Path) -> None:
    run(tmp_path, *PRACTICE, "--", "run", "exit", "0")
    assert _policy().revision == 0


@pytest.mark.parametrize("amount", ["0", "-1", "five", "1.5.0", "1503,50", "inf", "nan", "1e9"])
def test_what_is_no_amount_starts_nothing(tmp_path: Path, amount: str) -> None:
    done = run(tmp_path, *PRACTICE, f"--budget={amount}", "--", "run", "ask")
    assert (done.returncode, done.stdout) == (2, "")


def test_a_virtual_key_nobody_made_starts_nothing(tmp_path: Path) -> None:
    done = run(tmp_path, *PRACTICE, "--vkey", "ci", "--", "run", "ask")
    assert (done.returncode, done.stdout) == (2, "")
    assert "[no-such-owner]" in done.stderr


def test_a_subscription_left_direct_stands_against_a_hard_rule(tmp_path: Path) -> None:
    """Without one it is the user's choice, and the summary names what it did."""
    _sign_in()
    assert run(tmp_path, *PRACTICE, "--", "run", "exit", "0").returncode == 0
    _give(Owner("user", os_user()), Rules(budgets=(Budget(window="day", usd=Decimal(20)),)))
    done = run(tmp_path, *PRACTICE, "--", "run", "exit", "0")
    assert done.returncode == 125
    assert "[way-round]" in done.stderr
    assert "hint: ogate providers edit openai --subscription key" in done.stderr
    mended = run(tmp_path, "providers", "edit", "openai", "--subscription", "key")
    assert mended.returncode == 0, mended.stderr
    assert run(tmp_path, *PRACTICE, "--", "run", "exit", "0").returncode == 0


def test_another_opencode_stands_against_a_hard_rule(tmp_path: Path) -> None:
    attach = ("--", "attach", "http://127.0.0.1:9")
    assert "another process" in run(tmp_path, "run", "--budget", "5", *attach).stderr
    assert "untouched" in run(tmp_path, "run", *attach).stdout


def test_a_dry_run_shows_the_budgets_and_writes_nothing(tmp_path: Path) -> None:
    _give(Owner("user", os_user()), Rules(budgets=(Budget(window="day", usd=Decimal(20)),)))
    shown = run(tmp_path, *PRACTICE, "--budget", "5", "--dry-run")
    assert "session $0 of $5.00 · today $0 of $20.00" in shown.stdout
    assert _policy().sessions == {}


def test_opencode_of_another_major_version_stands_against_a_hard_rule(tmp_path: Path) -> None:
    """It may not send its requests here."""
    folder = tmp_path / "two"
    folder.mkdir()
    program = folder / "opencode"
    program.write_text("#!/bin/sh\necho 2.0.1\n")
    program.chmod(0o755)
    (folder / "package.json").write_text('{"name": "opencode-ai", "version": "2.0.1"}')
    options = {"OGATE_RUN_AGENT_PATH": str(program)}
    assert run(tmp_path, *PRACTICE, "--", "run", "x", **options).returncode == 0
    done = run(tmp_path, *PRACTICE, "--budget", "5", "--", "run", "x", **options)
    assert done.returncode == 126
    assert "not supported under a hard rule" in done.stderr


def test_a_session_under_a_virtual_key_is_recorded_under_it(tmp_path: Path) -> None:
    key = VirtualKey(public_id="p" * 12, secret_hash="s$h")
    _give(Owner("vkey", "ci"), key)
    done = run(tmp_path, *PRACTICE, "--vkey", "ci", "--", "run", "ask")
    assert done.returncode == 0, done.stderr
    assert [one.virtual_key for one in ledger().exchanges] == ["ci"]


@pytest.fixture
def dear(tmp_path: Path):
    """A provider whose answers cost $0.008: 5 tokens in, 3 out, a tenth of a cent each."""
    with threaded_upstream() as upstream:
        upstream.release.set()
        file = paths().config_file
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(
            f'[providers.acme]\nbase_url = "http://127.0.0.1:{upstream.port}/v1"\n'
            'wire = "openai-chat"\nkeyless = true\n'
            "[providers.acme.models.m]\ncontext = 2000\noutput = 100\n"
            '[prices."acme/m"]\ninput = 1000\noutput = 1000\n',
            encoding="utf-8",
        )
        yield upstream


ACME = ("run", "--provider", "acme", "--summary-file", "account.json")


def _account(tmp_path: Path) -> dict[str, Any]:
    return json.loads((tmp_path / "project" / "account.json").read_text())


@pytest.mark.usefixtures("dear")
def test_the_summary_says_how_the_budgets_stand(tmp_path: Path) -> None:
    _give(Owner("user", os_user()), Rules(budgets=(Budget(window="day", usd=Decimal(20)),)))
    done = run(tmp_path, *ACME, "--budget", "5", "--", "run", "ask", "acme")
    assert "[DONE]" in done.stdout
    assert " budget   session $0.01 of $5.00 · today $0.01 of $20.00\n" in done.stderr
    document = _account(tmp_path)
    assert [(one["window"], one["spent"], one["held"]) for one in document["budgets"]] == [
        ("session", "0.008", "0"),
        ("day", "0.008", "0"),
    ]
    assert document["rules"]["refused"] == []
    again = run(tmp_path, "sessions", "show", "last")
    assert "session $0.01 of $5.00 · today $0.01 of $20.00" in again.stdout


def test_a_refused_request_reaches_nobody_and_is_in_the_summary(tmp_path: Path, dear) -> None:
    done = run(tmp_path, *ACME, "--budget", "0.05", "--", "run", "ask", "acme")
    assert done.stdout.startswith("402 ")
    assert "ogate budgets raise session" in done.stdout
    assert dear.requests == []
    lines = [" ".join(line.split()) for line in done.stderr.splitlines()]
    [refused] = [line for line in lines if line.startswith("refused ")]
    assert refused.startswith("refused 1 request: the session budget of $0.05 ")
    [entry] = _account(tmp_path)["rules"]["refused"]
    assert (entry["code"], entry["last"]["limit"]) == ("budget-exceeded", "0.05")
    assert "rule: deny" in run(tmp_path, "logs", "show", "last").stdout


@pytest.mark.usefixtures("dear")
def test_a_budget_above_all_sessions_counts_what_they_spent_together(tmp_path: Path) -> None:
    budget = Budget(window="day", usd=Decimal("0.02"), at_end="warn")
    _give(Owner("user", os_user()), Rules(budgets=(budget,)))
    for spent in ("0.008", "0.016"):
        done = run(tmp_path, *ACME, "--", "run", "ask", "acme")
        assert _account(tmp_path)["budgets"][0]["spent"] == spent
    assert "80 % of your daily budget of $0.02 is used: $0.016 spent" in done.stderr
    short = run(tmp_path, "usage", "--short").stdout
    assert short.endswith(" · today 80 % of $0.02\n")


def test_a_cheaper_model_in_the_place_of_the_one_asked_for_is_said(tmp_path: Path, dear) -> None:
    with paths().config_file.open("a", encoding="utf-8") as file:
        file.write('[prices."acme/small"]\ninput = 0.001\noutput = 0.001\n')
    text = paths().config_file.read_text(encoding="utf-8")
    models = "[providers.acme.models.small]\ncontext = 2000\noutput = 100\n[prices"
    paths().config_file.write_text(text.replace("[prices", models, 1), encoding="utf-8")
    budget = Budget(window="day", usd=Decimal("0.05"), at_end="downgrade:small")
    _give(Owner("user", os_user()), Rules(budgets=(budget,)))
    done = run(tmp_path, *ACME, "--model", "m", "--", "run", "ask", "acme")
    assert b'"model":"small"' in dear.requests[0].replace(b" ", b"")
    lines = [" ".join(line.split()) for line in done.stderr.splitlines()]
    [said] = [line for line in lines if line.startswith("downgraded ")]
    assert said.startswith("downgraded 1 request: acme/small answers instead of acme/m: your daily")
    [entry] = _account(tmp_path)["rules"]["downgraded"]
    assert (entry["asked"], entry["requests"]) == ("acme/m", 1)
    assert "m was asked for" in run(tmp_path, "logs", "show", "last").stdout
