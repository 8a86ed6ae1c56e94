"""`ogate policy`: one file for all rules, shown before it holds, and what rules say to requests."""

import io
import json
import shlex
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings

from opencode_gate.cli import prompts
from opencode_gate.cli.commands import policy as policy_command
from opencode_gate.cli.main import main
from opencode_gate.config.paths import paths
from opencode_gate.core.semconv import ExchangeStatus
from opencode_gate.governance.decisions import Decision
from opencode_gate.governance.policy import Policy, Rules
from opencode_gate.ledger.governance_store import PolicyDocument
from opencode_gate.ledger.sqlite import open_store
from opencode_gate.ledger.sqlite.governance import open_governance
from opencode_gate.session.policy_changes import current_policy, differences, replace_all
from opencode_gate.session.policy_file import is_same
from tests.support.ledger_records import an_exchange
from tests.support.policies import policies, some_policy


@pytest.fixture(autouse=True)
def utc(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")


@pytest.fixture
def run(capsys):
    def run_line(line):
        status = main(shlex.split(line))
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run_line


@pytest.fixture
def document(run):
    def read(line):
        status, out, err = run(f"{line} --json")
        assert err == ""
        return status, json.loads(out)

    return read


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "rules.toml"


@pytest.fixture
def person(monkeypatch):
    """Answers questions from a list, as at a terminal."""
    answers: list[str] = []
    questions: list[str] = []

    def answer(question):
        questions.append(question)
        return answers.pop(0)

    monkeypatch.setattr(policy_command, "may_ask", lambda no_input=False: not no_input)
    monkeypatch.setattr(prompts, "ask_text", answer)
    return answers, questions


def policy() -> Policy:
    return current_policy(paths())


def put(wanted: Policy) -> None:
    replace_all(paths(), wanted, revision=policy().revision, at_us=1)


def break_rules(kind, name) -> None:
    store = open_governance(paths().ledger_file)
    store.put_policy([PolicyDocument(kind, name, '{"budgets": 5}')], operator="test", at_us=1)
    store.close()


@given(policies())
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
def test_export_and_apply_is_the_identity(tmp_path_factory, wanted) -> None:
    here, there = (tmp_path_factory.mktemp(name) for name in ("here", "there"))
    file = here / "rules.toml"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OGATE_HOME", str(here))
        put(wanted)
        assert is_same(policy(), wanted)
        assert main(["policy", "export", str(file)]) == 0
        assert main(["policy", "apply", str(file), "--yes"]) == 0
        assert policy().revision <= 1
        patch.setenv("OGATE_HOME", str(there))
        assert main(["policy", "apply", str(file), "--yes"]) == 0
        assert is_same(policy(), wanted)
        assert differences(policy(), wanted) == {}
        text = file.read_text()
        assert main(["policy", "export", str(file)]) == 0
        assert file.read_text() == text


def test_stdout_and_stdin_do_as_well_as_files(run, monkeypatch, tmp_path) -> None:
    put(some_policy())
    status, text, err = run("policy export")
    assert (status, err) == (0, "")
    monkeypatch.setenv("OGATE_HOME", str(tmp_path / "elsewhere"))
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    assert run("policy apply - --yes")[0] == 0
    assert is_same(policy(), some_policy())


def test_the_difference_is_shown_and_nothing_holds_before_yes(run, file, person) -> None:
    put(some_policy())
    run(f"policy export {file}")
    file.write_text(
        file.read_text().replace("usd = 500", "usd = 600").replace("users.root", "users.ada")
    )
    answers, questions = person
    answers.append("n")
    status, out, err = run(f"policy apply {file}")
    assert (status, out) == (130, "")
    lines = err.splitlines()
    assert lines[0] == "~ team core"
    assert "    - usd = 500" in lines
    assert "    + usd = 600" in lines
    assert "- user root" in lines
    assert "+ user ada" in lines
    assert "anna" not in err
    assert "Put these rules in force (1 added, 1 changed, 1 removed)?" in questions[0]
    assert is_same(policy(), some_policy())
    answers.append("y")
    status, out, _ = run(f"policy apply {file}")
    assert (status, out) == (
        0,
        "1 added, 1 changed, 1 removed; in force from the next request on\n",
    )
    assert policy().teams["core"].budgets[0].usd == 600
    assert list(policy().users) == ["ada"]


def test_applying_the_same_again_changes_nothing(run, file, document) -> None:
    put(some_policy())
    run(f"policy export {file}")
    assert run(f"policy apply {file}") == (
        0,
        "",
        "nothing to change: these rules are in force\n",
    )
    assert document(f"policy apply {file} --yes") == (
        0,
        {"version": 1, "changes": [], "revision": 1, "applied": False},
    )


def test_without_a_terminal_it_wants_yes(run, file) -> None:
    file.write_text("[teams.core]\n")
    status, _, err = run(f"policy apply {file}")
    assert status == 2
    assert f"hint: ogate policy apply {file} --yes" in err
    assert policy() == Policy()


@pytest.mark.parametrize("verb", ["check", "apply"])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[teams.core]\nbudgts = []\n", "line 2: teams.core.budgts is not a key of a policy"),
        ("[teams.core\n", "is not TOML"),
        ("[vkeys.anna]\nteam = 'x'\n", "line 1: vkeys.anna needs the key public_id"),
        (
            "[teams.good]\n[teams.core]\ncustomer = 'x'\n",
            "line 3: teams.core.customer is 'x', and there",
        ),
    ],
)
def test_a_mistake_writes_nothing_at_all(run, file, verb, text, words) -> None:
    file.write_text(text)
    options = " --yes" if verb == "apply" else ""
    status, out, err = run(f"policy {verb} {file}{options}")
    assert (status, out) == (3, "")
    assert f"error: {file}" in err
    assert words in err
    assert "[bad-policy]" in err
    assert policy() == Policy()


def test_a_file_that_cannot_be_read_is_said_to_be_so(run, file, tmp_path) -> None:
    assert "there is no file" in run(f"policy apply {file}")[2]
    file.write_bytes(b"\xff")
    assert "is not UTF-8 text (byte 0)" in run(f"policy apply {file}")[2]
    assert "cannot read" in run(f"policy check {tmp_path}")[2]


def test_check_says_what_a_file_would_change_and_changes_nothing(run, file, document) -> None:
    put(some_policy())
    file.write_text("[teams.core]\n")
    status, out, err = run(f"policy check {file}")
    assert status == 0
    assert err == f"{file} makes sense; applied, it changes: 1 changed, 3 removed\n"
    assert out.startswith("- customer acme\n")
    _, found = document(f"policy check {file}")
    assert [(one["owner"], one["change"]) for one in found["changes"]] == [
        ("acme", "removed"),
        ("core", "changed"),
        ("anna", "removed"),
        ("root", "removed"),
    ]
    assert is_same(policy(), some_policy())


def test_rules_of_sessions_stay_whatever_a_file_says(run, file) -> None:
    store = open_governance(paths().ledger_file)
    store.put_policy([PolicyDocument("session", "01S", "{}")], operator="test", at_us=1)
    store.close()
    file.write_text("[teams.core]\n")
    assert run(f"policy apply {file} --yes")[0] == 0
    assert policy().sessions == {"01S": Rules()}
    run(f"policy export {file}")
    assert "01S" not in file.read_text()


def test_somebody_else_who_changes_rules_meanwhile_is_not_overruled(
    run, file, person, monkeypatch
) -> None:
    def answer(question):
        assert main(["teams", "create", "other"]) == 0
        return "y"

    monkeypatch.setattr(prompts, "ask_text", answer)
    file.write_text("[teams.core]\n")
    status, _, err = run(f"policy apply {file}")
    assert status == 3
    assert "were changed while you looked" in err
    assert list(policy().teams) == ["other"]


def test_export_into_a_file_keeps_comments(run, file) -> None:
    file.write_text("# Agreed with finance.\n[teams.core] # ours\n")
    run(f"policy apply {file} --yes")
    run("budgets set month 5 --team core")
    status, out, err = run(f"policy export {file}")
    assert (status, out, err) == (0, "", f"{file} written\n")
    assert file.read_text() == (
        "# Agreed with finance.\n[teams.core] # ours\n"
        '\n[[teams.core.budgets]]\nwindow = "month"\nusd = 5\n'
    )
    assert run(f"policy export {file}")[2] == f"{file} says this already\n"


def test_export_into_a_file_with_a_mistake_leaves_it_alone(run, file) -> None:
    file.write_text("[teams.core\n")
    assert run(f"policy export {file}")[0] == 3
    assert file.read_text() == "[teams.core\n"


def test_show_has_everybody(run, document) -> None:
    put(some_policy())
    _, out, _ = run("policy show")
    assert [line for line in out.splitlines() if line and " " not in line] == [
        *("customers", "teams", "vkeys", "users")
    ]
    status, found = document("policy show")
    assert (status, found["revision"], found["unreadable"]) == (0, 1, [])
    assert [found[group][0]["name"] for group in ("customers", "teams", "vkeys", "users")] == [
        *("acme", "core", "anna", "root")
    ]
    assert found["sessions"] == []


def test_rules_that_cannot_be_read_are_named_and_a_file_mends_them(run, file, document) -> None:
    put(some_policy())
    break_rules("team", "core")
    status, found = document("policy show")
    assert (status, found["unreadable"]) == (1, ["team core"])
    status, _, err = run("vkeys disable anna")
    assert (status, "[policy-unreadable]" in err) == (7, True)
    _, _, err = run(f"policy export {file}")
    assert "the rules of team core cannot be read" in err
    mended = file.read_text().replace("[vkeys.anna]", "[teams.core]\n[vkeys.anna]", 1)
    file.write_text(mended)
    assert run(f"policy apply {file} --yes")[0] == 0
    assert run("vkeys disable anna")[0] == 0


def test_unreadable_rules_alone_are_a_difference(run, file) -> None:
    break_rules("session", "01S")
    file.write_text("")
    _, _, err = run(f"policy apply {file} --yes")
    assert "- session 01S" in err
    assert policy() == Policy(revision=2)


def test_check_asks_about_a_request(run, document) -> None:
    run("teams create core --allow 'anthropic/*' --deny '*opus*'")
    run("vkeys create anna --team core")
    model = "--vkey anna --model anthropic/claude-"
    status, found = document(f"policy check {model}sonnet-4-5 --tokens 40k")
    assert (status, found["allowed"], found["input_tokens"]) == (0, True, 40_000)
    assert found["answered_by"] == "anthropic/claude-sonnet-4-5"
    status, found = document(f"policy check {model}opus-4-1")
    assert (status, found["allowed"], found["code"]) == (7, False, "model-denied")
    assert found["decisions"][0]["owner"] == "team core"
    status, out, _ = run(f"policy check {model}opus-4-1")
    assert status == 7
    assert "refused: model-denied (HTTP 403)" in out
    assert "to change it   ogate teams set core --clear deny" in out


def test_check_of_a_request_can_try_a_file(run, file) -> None:
    run("vkeys create anna")
    run(f"policy export {file}")
    file.write_text(f"{file.read_text()}\n[vkeys.anna.models]\ndeny = ['*opus*']\n")
    line = "policy check --vkey anna --model anthropic/claude-opus-4-1"
    assert run(line)[0] == 0
    assert run(line.replace("check", f"check {file}"))[0] == 7
    assert run(line)[0] == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("", "there is nothing to check"),
        ("--vkey anna", "there is nothing to check"),
        ("--model sonnet", "does not say whose model it is"),
        ("--model opnai/gpt-5", "nearest: openai"),
        ("--model openai/gpt-5 --tokens many", "is not a number of tokens"),
        ("--model openai/gpt-5 --tokens 1000M", "no prompt has"),
        ("--model openai/gpt-5 --vkey ana", "did you mean anna?"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(run, options, words) -> None:
    run("vkeys create anna")
    status, out, err = run(f"policy check {options}")
    assert (status, out) == (2, "")
    assert words in err


def denied(**changes) -> None:
    decision = Decision(
        rule="budget",
        outcome="deny",
        code="budget-exceeded",
        owner="team core",
        message="ogate: the monthly budget of $5 of team core is spent.",
        window="month",
        unit="usd",
        spent=4_980_000_000,
        reserved=0,
        limit=5_000_000_000,
        needed=310_000_000,
        resets_at_us=1_796_083_200_000_000,
        command="ogate budgets raise month 5 --team core",
    )
    fields = {
        "id": "01DENIED",
        "status": ExchangeStatus.DENIED,
        "denial": "budget-exceeded",
        "cost_nano_usd": None,
        "decisions": msgspec.json.encode([decision]).decode(),
    }
    store = open_store(paths().ledger_file)
    store.fold([an_exchange(**{**fields, **changes})])
    store.close()


def test_why_puts_a_decision_into_words_with_all_its_numbers(run, document) -> None:
    denied()
    assert run("policy why 01DE…NIED")[0] == 0
    status, out, err = run("policy why 01DEN")
    assert (status, err) == (0, "")
    facts = dict(line.split("   ", 1) for line in out.splitlines() if "   " in line)
    facts = {label.strip(): text.strip() for label, text in facts.items()}
    assert facts["ended"] == "denied (budget-exceeded)"
    assert facts["rule"] == "month budget of team core"
    assert facts["because"] == "the monthly budget of $5 of team core is spent."
    assert (facts["limit"], facts["spent"], facts["needed at most"]) == ("$5", "$4.98", "$0.31")
    assert facts["begins anew"] == "2026-12-01 00:00"
    assert facts["to change it"] == "ogate budgets raise month 5 --team core"
    _, found = document("policy why last")
    assert (found["exchange_id"], found["denial"]) == ("01DENIED", "budget-exceeded")
    assert found["decisions"][0]["spent"] == "4.98"


def test_why_tells_what_was_changed_on_the_way(run) -> None:
    denied(
        id="01CHANGED",
        status=ExchangeStatus.COMPLETED,
        denial=None,
        output_limit_tokens=4096,
        downgraded_from="claude-opus-4-1",
        reserved_cost_nano_usd=1_000_000_000,
        cost_nano_usd=1_200_000_000,
    )
    _, out, _ = run("policy why 01CHANGED")
    assert "lowered to 4,096 tokens" in out
    assert "claude-opus-4-1" in out
    assert "more than was reserved" in out


def test_why_of_what_no_rule_had_a_say_in(run) -> None:
    denied(id="01FREE", status=ExchangeStatus.COMPLETED, denial=None, decisions=None)
    assert run("policy why 01FREE")[1].endswith("no rule had a say in it\n")
    denied(id="01ROUTE", denial="no-route", decisions=None)
    assert "The path belongs to no routed provider." in run("policy why 01ROUTE")[1]
    status, _, err = run("policy why 01NOBODY")
    assert (status, "[no-such-call]" in err) == (2, True)
