"""`ogate budgets`: what each verb changes, whose budget it means, and what it says."""

import json
import shlex
import sqlite3
import time
from decimal import Decimal

import pytest

from opencode_gate.cli import prompts
from opencode_gate.cli.commands import budgets
from opencode_gate.cli.main import main
from opencode_gate.config.paths import paths
from opencode_gate.governance.policy import Budget, Owner, Policy, Rules
from opencode_gate.ledger.governance_store import LeaseWish, WindowKey
from opencode_gate.ledger.journal import Journal
from opencode_gate.ledger.sqlite import open_store
from opencode_gate.ledger.sqlite.governance import open_governance
from opencode_gate.session.operator import os_user
from opencode_gate.session.policy_changes import change_rules, current_policy
from tests.support.ledger_records import a_charge, a_session, an_exchange

SESSION = "01JDAAAAAAAAAAAAAAAAAAAAAA"
OTHER = "01JEBBBBBBBBBBBBBBBBBBBBBB"
CENT = 10_000_000


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
    """The JSON document of a line."""

    def read(line):
        status, out, err = run(f"{line} --json")
        assert (status, err) == (0, "")
        return json.loads(out)

    return read


@pytest.fixture
def starts(request):
    """Starts sessions, whose gateways live until the end of the test."""

    def start(session_id, budget=None, agent="opencode"):
        session = a_session(id=session_id, user=os_user(), agent=agent)
        store = open_store(paths().ledger_file)
        store.add_session(session)
        store.close()
        journal = Journal.create(paths().journals, session=session)
        request.addfinalizer(journal.close)
        if budget is not None:
            rules = Rules(budgets=(Budget(window="session", usd=Decimal(budget)),))
            owner = Owner("session", session_id)
            change_rules(paths(), lambda _: {owner: rules}, at_us=1)
        return journal

    return start


def policy() -> Policy:
    return current_policy(paths())


def own() -> tuple[Budget, ...]:
    return policy().users.get(os_user(), Rules()).budgets


def spend(budget_id, nano_usd, *, window_start_us=0) -> None:
    store = open_store(paths().ledger_file)
    charges = a_charge(budget_id=budget_id, window_start_us=window_start_us, reserved=0)
    store.fold([an_exchange(cost_nano_usd=nano_usd, charges=charges)])
    store.close()


def test_a_budget_without_an_owner_is_ones_own(run) -> None:
    status, out, err = run("budgets set day 20")
    assert (status, err) == (0, "")
    assert out.startswith(
        "your daily budget of $20 (new): $0.00 spent, $0.00 held, $20 left; begin"
    )
    assert own() == (Budget(window="day", usd=Decimal(20)),)


def test_nothing_yet_says_how_to_begin(run, document) -> None:
    assert run("budgets list") == (
        0,
        "",
        "no budgets yet; `ogate budgets set day 20` makes one\n",
    )
    assert document("budgets list") == {"version": 1, "budgets": []}
    assert not paths().ledger_file.exists()
    run("teams create core")
    assert run("budgets list --team core") == (0, "", "team core has no budget\n")


@pytest.mark.parametrize(
    ("text", "usd"),
    [("5", "5"), ("5.50", "5.50"), ("$5", "5"), ("1,503", "1503"), ("$1,503.25", "1503.25")],
)
def test_amounts_are_read_as_people_write_them(run, text, usd) -> None:
    assert run(f"budgets set month '{text}'")[0] == 0
    assert own()[0].usd == Decimal(usd)


@pytest.mark.parametrize(
    "text",
    [
        *("five", "5,50", "1,5", "15,03", "--5", "5 EUR", "5€", "1e3", "nan", "inf", "0x10", "٥"),
        *("1_000", "5.", ".5", "2000000000", "5.1234567891", "1;DROP TABLE charges", "''"),
    ],
)
def test_what_is_no_amount_is_refused_and_nothing_changes(run, text) -> None:
    status, _, err = run(f"budgets set day {shlex.quote(text)}")
    assert status == 2
    assert "[usage]" in err
    assert own() == ()


@pytest.mark.parametrize(
    ("text", "tokens"), [("500000", 500_000), ("500,000", 500_000), ("500k", 500_000), ("2M", 2**7)]
)
def test_tokens_are_counted_in_thousands_and_millions_too(run, text, tokens) -> None:
    assert run(f"budgets set hour {text} --tokens")[0] == 0
    assert own()[0].tokens == (2_000_000 if text == "2M" else tokens)


@pytest.mark.parametrize("text", ["$5", "1.5", "2G", "0.0001k", "k", "10000000000000000"])
def test_what_is_no_number_of_tokens_is_refused(run, text) -> None:
    assert run(f"budgets set hour '{text}' --tokens")[0] == 2


def test_what_is_not_said_again_stays(run) -> None:
    run("budgets set day 20 --at-end downgrade:claude-haiku-4-5 --warn-at 60,90 --shadow")
    status, out, _ = run("budgets set day 40")
    assert status == 0
    assert "(was $20)" in out
    assert own() == (
        Budget(
            window="day",
            usd=Decimal(40),
            at_end="downgrade:claude-haiku-4-5",
            warn_at_percent=(60, 90),
            mode="shadow",
        ),
    )
    run("budgets set day 40 --enforce --warn-at none --at-end block")
    assert own() == (Budget(window="day", usd=Decimal(40), warn_at_percent=()),)


def test_several_budgets_of_one_owner_stand_beside_each_other(run, document) -> None:
    for line in ("day 20", "month 300", "day 500k --tokens", "day 15 --rolling"):
        assert run(f"budgets set {line}")[0] == 0
    found = document("budgets list")["budgets"]
    assert [(one["window"], one["unit"], one["rolling"], one["limit"]) for one in found] == [
        ("day", "usd", False, "20"),
        ("month", "usd", False, "300"),
        ("day", "tokens", False, 500_000),
        ("day", "usd", True, "15"),
    ]


def test_a_rolling_budget_goes_on_when_its_amount_changes(run) -> None:
    before_us = time.time_ns() // 1000
    run("budgets set day 20 --rolling")
    since_us = own()[0].since_us
    assert before_us <= since_us <= time.time_ns() // 1000
    run("budgets set day 30 --rolling")
    run("budgets raise day 5 --rolling")
    assert own() == (Budget(window="day", usd=Decimal(35), rolling=True, since_us=since_us),)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("set total 5 --rolling", "never begins anew"),
        ("set day 5 --at-end stop", "at_end is block, warn or downgrade"),
        ("set day 5 --at-end downgrade:", "names no model"),
        ("set day 5 --warn-at 0", "not a list of percentages"),
        ("set day 5 --warn-at 50;80", "not a list of percentages"),
        ("set day 5 --time-zone Berlin", "'Berlin' is no time zone"),
        ("set daily 5", "'daily' is not one of"),
        ("set session 5 --user ada", "a session budget is one session's"),
        ("set day 5 --team a --vkey b", "--vkey and --team exclude each other"),
        ("set day 5 --team core", "there is no team 'core'"),
        ('set day 5 --team "x\'; DROP TABLE charges;--"', "cannot be the name of a team"),
        ("raise day 5", "has no day budget"),
        ("raise day 0", "more than nothing"),
        ("raise session 5", "no session runs on this machine"),
        ("remove day --yes", "has no day budget"),
        ("list --session 01NO", "01NO"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_written(run, line, words) -> None:
    status, out, err = run(f"budgets {line}")
    assert (status in (2, 3), out) == (True, "")
    assert words in err
    assert policy() == Policy()


def test_a_near_name_is_told(run) -> None:
    run("teams create core")
    _, _, err = run("budgets set day 5 --team cor")
    assert "did you mean core?" in err
    assert "hint: ogate teams list" in err


def test_raising_adds_and_says_how_it_stands(run, document) -> None:
    run("budgets set total 5")
    spend(f"user:{os_user()}/total/usd", 498 * CENT)
    status, out, _ = run("budgets raise total 2.50")
    assert status == 0
    assert out == (
        "your total budget of $7.50 (was $5): $4.98 spent, $0.00 held, $2.52 left; "
        "never begins anew\n"
    )
    found = document("budgets raise total $1")
    assert (found["former_limit"], found["budget"]["limit"]) == ("7.5", "8.5")
    assert (found["budget"]["spent"], found["budget"]["left"]) == ("4.98", "3.52")


def test_what_is_held_by_running_requests_is_told_apart(run, document) -> None:
    run("budgets set total 5")
    store = open_governance(paths().ledger_file)
    key = WindowKey(f"user:{os_user()}/total/usd", 0)
    store.lease("01PROCESS", [LeaseWish(key, 500 * CENT, 31 * CENT, 31 * CENT)])
    store.close()
    [found] = document("budgets list")["budgets"]
    assert (found["spent"], found["held"], found["left"]) == ("0", "0.31", "4.69")
    _, out, _ = run("budgets list")
    assert out.split("\n")[1].split()[2:6] == ["total", "$5.00", "$0", "$0.31"]


def test_raise_session_means_the_one_that_runs(run, starts) -> None:
    starts(SESSION, "5")
    status, out, _ = run("budgets raise session 5")
    assert (status, out.startswith("the session budget of $10 (was $5)")) == (0, True)
    assert policy().sessions[SESSION].budgets[0].usd == 10


def test_raise_session_means_the_one_with_a_budget_among_several(run, starts) -> None:
    starts(SESSION, "5")
    starts(OTHER)
    assert run("budgets raise session 5")[0] == 0
    assert policy().sessions[SESSION].budgets[0].usd == 10


def test_raise_session_with_several_names_them_and_takes_one(run, starts) -> None:
    starts(SESSION, "5")
    starts(OTHER, "7")
    status, out, err = run("budgets raise session 5")
    assert (status, out) == (2, "")
    assert SESSION in err
    assert f"--session {OTHER}" in err
    assert run("budgets raise session 5 --session 01JE…BBBB")[0] == 0
    assert [policy().sessions[id].budgets[0].usd for id in (SESSION, OTHER)] == [5, 12]


def test_a_session_that_was_started_without_a_budget_can_be_given_one(run, starts) -> None:
    starts(SESSION)
    _, _, err = run("budgets raise session 5")
    assert f"hint: ogate budgets set session USD --session {SESSION}" in err
    assert run("budgets set session 5")[0] == 0
    assert policy().sessions[SESSION].budgets == (Budget(window="session", usd=Decimal(5)),)


def test_a_session_that_has_ended_is_not_meant(run, starts, document) -> None:
    starts(SESSION, "5").close()
    assert "no session runs" in run("budgets raise session 5")[2]
    assert document("budgets list")["budgets"] == []
    [found] = document("budgets list --all")["budgets"]
    assert (found["owner_kind"], found["owner"]) == ("session", SESSION)


def test_a_session_that_a_served_gateway_opened_for_somebody_is_found(run, starts) -> None:
    """Its requests are in the journal of the gateway, under no session of their own."""
    starts(SESSION, agent="serve")
    assert "no session runs" in run("budgets raise session 5")[2]
    starts(OTHER, "7").close()
    assert run("budgets raise session 5")[0] == 0
    assert policy().sessions[OTHER].budgets[0].usd == 12
    store = open_store(paths().ledger_file)
    store.end_session(OTHER, ended_at_us=2, exit_status=0)
    store.close()
    assert "no session runs" in run("budgets raise session 5")[2]


def test_removing_asks_and_says_what_is_gone(run, monkeypatch) -> None:
    run("budgets set day 20")
    status, _, err = run("budgets remove day")
    assert status == 2
    assert "hint: ogate budgets remove day --yes" in err
    monkeypatch.setattr(budgets, "may_ask", lambda no_input=False: not no_input)
    monkeypatch.setattr(prompts, "ask_text", lambda question: "n")
    assert run("budgets remove day")[0] == 130
    monkeypatch.setattr(prompts, "ask_text", lambda question: "y")
    assert run("budgets remove day") == (0, "your daily budget of $20 is removed\n", "")
    assert policy().users == {}


def test_the_hints_name_the_owner_in_words_a_shell_reads(run) -> None:
    run("teams create core")
    run("budgets set month 5 --tokens --team core")
    _, _, err = run("budgets remove month --tokens --team core")
    assert "hint: ogate budgets remove month --tokens --team core --yes" in err
    _, _, err = run("budgets raise month 5 --team core")
    assert "it has: month budget in tokens" in err
    assert "hint: ogate budgets set month USD --team core" in err


def test_the_list_names_owner_window_and_end(run) -> None:
    run("teams create zoë-1")
    run("budgets set month 500 --team zoë-1 --time-zone Europe/Berlin --shadow")
    run("budgets set hour 2M --tokens")
    _, out, _ = run("budgets list")
    first, second, third = out.splitlines()
    titles = "owner window limit spent held left used begins anew at its end"
    assert " ".join(first.split()) == titles
    assert second.split()[:3] == ["user", os_user(), "hour"]
    assert third.startswith("team zoë-1")
    assert "(Europe/Berlin)" in third
    assert third.endswith("block (shadow)")
    assert len(run("budgets list --team zoë-1")[1].splitlines()) == 2


def test_a_change_names_who_made_it(run) -> None:
    run("budgets set day 20")
    ledger = sqlite3.connect(paths().ledger_file)
    [(kind, document)] = ledger.execute("SELECT kind, document FROM audit_events")
    ledger.close()
    assert kind == "policy"
    assert os_user() in json.loads(document).values()


def test_the_answer_tells_what_became_other_also_where_the_amount_stays(run) -> None:
    run("budgets set day 20")
    assert "(as before)" in run("budgets set day 20")[1]
    assert "(as before)" in run("budgets set day 20 --at-end warn")[1]
    assert "at its end: warn (shadow)" in run("budgets set day 25 --shadow")[1]
    assert "at its end: warn;" not in run("budgets set day 25 --enforce --at-end block")[1]
    assert "at its end: block" not in run("budgets set day 25")[1]


def test_a_cheaper_model_that_nobody_knows_is_pointed_out(run) -> None:
    """It may be one that a server has and the catalogue has not."""
    status, _, err = run("budgets set day 20 --at-end downgrade:claude-haku-4-5")
    assert (status, err.count("no known model is called claude-haku-4-5")) == (0, 1)
    for known in ("claude-haiku-4-5", "anthropic/claude-haiku-4-5"):
        assert run(f"budgets set day 20 --at-end downgrade:{known}")[2] == ""


def test_the_trail_says_what_a_budget_was_and_is_and_is_silent_where_nothing_changed(run) -> None:
    run("budgets set day 20")
    run("budgets set day 20")
    run("budgets raise day 5.50")
    run("budgets set month 300 --at-end warn")
    run("budgets remove day --yes")
    _, out, _ = run("audit list")
    told = [line.partition("rules of ")[2].rstrip() for line in out.splitlines()[1:]]
    assert [line.partition(os_user())[2] for line in told] == [
        " made",
        " changed: budgets day $20 → day $25.50",
        " changed: budgets none → month $300 warn",
        " changed: budgets day $25.50 → none",
    ]


def test_on_a_narrow_screen_a_budget_stays_on_one_line(run, monkeypatch) -> None:
    run("teams create core")
    run("budgets set month 500 --team core --time-zone Europe/Berlin --at-end warn")
    monkeypatch.setenv("COLUMNS", "72")
    _, out, _ = run("budgets list")
    first, second = out.splitlines()
    assert first.split() == ["owner", "window", "limit", "spent", "held", "left"]
    assert second.split() == ["team", "core", "month", "$500.00", "$0", "$0", "$500.00"]
