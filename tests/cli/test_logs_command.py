"""`ogate logs`: calls found, one explained, and new ones as they come."""

import json
import sys
from pathlib import Path

import msgspec
import pytest

from opencode_gate.cli.call_view import running_line
from opencode_gate.cli.main import main
from opencode_gate.config.paths import paths
from opencode_gate.core.semconv import (
    ConversationKind,
    CostQuality,
    ExchangeStatus,
    UsageQuality,
)
from opencode_gate.core.usage import TokenUsage
from opencode_gate.governance.decisions import Decision
from opencode_gate.ledger.sqlite import SqliteStore, open_store
from tests.support.ledger_records import NOON_US, a_session, an_exchange
from tests.support.terminal_screen import TerminalScreen

SESSION = "01JDAAAAAAAAAAAAAAAAAAAAAA"
OTHER = "01JEBBBBBBBBBBBBBBBBBBBBBB"
OGATE = [sys.executable, "-m", "opencode_gate.cli.main"]


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TZ", "UTC")
    store = open_store(paths().ledger_file)
    yield store
    store.close()


@pytest.fixture
def ledger(store: SqliteStore) -> SqliteStore:
    """Three calls: a good one, a refused one, one that cost more than its provider said."""
    store.add_session(a_session(id=SESSION))
    store.add_session(a_session(id=OTHER, user="bob"))
    store.fold(
        [
            an_exchange(id="01A", session_id=SESSION, credential_name="work"),
            an_exchange(
                id="01B",
                session_id=SESSION,
                started_at_us=NOON_US + 1_000_000,
                provider_name="openai",
                request_model="gpt-6",
                status=ExchangeStatus.UPSTREAM_ERROR,
                http_status=429,
                error_type="http_429",
                attempts=3,
                usage=TokenUsage(),
                usage_quality=UsageQuality.UNKNOWN,
                cost_nano_usd=None,
                cost_quality=CostQuality.UNKNOWN,
                price_source=None,
            ),
            an_exchange(
                id="01C",
                session_id=OTHER,
                started_at_us=NOON_US + 2_000_000,
                kind=ConversationKind.SUBAGENT,
                cost_nano_usd=2_000_000_000,
                reported_cost_nano_usd=2_000_000_000,
                priced_cost_nano_usd=1_000_000_000,
                cost_quality=CostQuality.REPORTED,
                price_source="provider",
                tools_called=("glob", "read"),
                raw_usage='{"prompt_tokens": 1}',
            ),
        ]
    )
    return store


def _calls(capsys: pytest.CaptureFixture[str], *options: str) -> list[str]:
    assert main(["logs", "list", "--json", *options]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return [call["id"] for call in json.loads(out)["calls"]]


@pytest.mark.usefixtures("ledger")
@pytest.mark.parametrize(
    ("options", "found"),
    [
        ([], ["01A", "01B", "01C"]),
        (["--limit", "2"], ["01B", "01C"]),
        (["--provider", "openai"], ["01B"]),
        (["--model", "gpt-6"], ["01B"]),
        (["--model", "openai/gpt-6"], ["01B"]),
        (["--key", "work"], ["01A"]),
        (["--session", "01JE…BBBB"], ["01C"]),
        (["--status", "upstream_error"], ["01B"]),
        (["--status", "upstream_error", "--status", "completed"], ["01A", "01B", "01C"]),
        (["--error", "429"], ["01B"]),
        (["--error", "http_429"], ["01B"]),
        (["--min-cost", "1.5"], ["01C"]),
        (["--max-cost", "$1.5"], ["01A"]),
        (["--since", "2026-11-21T12:00:01", "--until", "2026-11-21T12:00:02"], ["01B"]),
        (["--since", "2026-11-22"], []),
    ],
)
def test_the_list_holds_what_was_asked_for_the_latest_at_the_bottom(capsys, options, found) -> None:
    assert _calls(capsys, *options) == found


@pytest.mark.usefixtures("ledger")
@pytest.mark.parametrize("amount", ["much", "nan", "1e99", "-1e99", "-1", ""])
def test_an_amount_that_is_none_is_refused(capsys, amount) -> None:
    assert main(["logs", "list", "--min-cost", amount]) == 2
    assert "is not an amount" in capsys.readouterr().err


@pytest.mark.usefixtures("ledger")
def test_more_calls_than_any_ledger_has_are_all_of_them(capsys) -> None:
    """A number too large for the database is no bug of ours, and no other number."""
    assert _calls(capsys, "--limit", str(10**20)) == _calls(capsys)


@pytest.mark.usefixtures("ledger")
def test_a_document_says_whose_call_it_was_and_what_it_counted(capsys) -> None:
    assert main(["logs", "list", "--json", "--key", "work"]) == 0
    [call] = json.loads(capsys.readouterr().out)["calls"]
    assert call["user"] == "ada"
    assert call["project"] == "engine"
    assert (call["input_tokens"], call["output_tokens"]) == (114, 17)
    assert call["cost_usd"] == "0.001234567"
    assert call["attempts"] == 1
    assert call["conversation_id"] == "ses_1"


@pytest.mark.usefixtures("ledger")
def test_people_get_a_table_with_the_reason_of_a_failure(capsys, monkeypatch) -> None:
    """Tokens in and out apart, unknown is `?`, what nobody bills is no amount."""
    monkeypatch.setenv("COLUMNS", "160")
    assert main(["logs", "list"]) == 0
    head, good, bad, dear = capsys.readouterr().out.splitlines()
    assert head.split() == [
        *("call", "time", "user", "session", "conversation", "model", "ended"),
        *("in", "out", "cost", "tries", "took"),
    ]
    assert good.split()[-6:] == ["17", "$", "0.001", "1", "1.5", "s"]
    assert "openai/gpt-6" in bad
    assert bad.split()[-8:] == ["error", "http_429", "?", "?", "–", "3", "1.5", "s"]
    assert "bob" in dear


@pytest.mark.usefixtures("ledger")
@pytest.mark.parametrize("columns", [60, 80, 100, 119, 120, 200])
def test_the_table_fits_the_terminal_with_every_figure_whole(capsys, monkeypatch, columns) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["logs", "list"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= columns
    assert "$ 2.000" in out
    assert "12:00:02" in out or columns < 80


@pytest.mark.usefixtures("ledger")
@pytest.mark.parametrize("name", ["01C", "01c", "last"])
def test_show_says_everything_of_one_call(capsys, name) -> None:
    assert main(["logs", "show", name]) == 0
    out = capsys.readouterr().out
    for said in (
        "engine (main)",
        "subagent",
        "uncached 101 · from the cache 13",
        "reasoning 3",
        "glob, read",
        "$ 2.000 reported by provider · the price book says $ 1.000",
        '{"prompt_tokens": 1}',
        "2026-11-21T12:00:02.000000Z",
    ):
        assert said in out
    assert main(["logs", "show", name, "--json"]) == 0
    call = json.loads(capsys.readouterr().out)["call"]
    assert call["priced_cost_usd"] == "1"
    assert call["tools_called"] == ["glob", "read"]


@pytest.mark.usefixtures("ledger")
def test_an_unknown_call_is_an_error_with_the_way_to_find_one(capsys) -> None:
    assert main(["logs", "show", "01Z"]) == 2
    assert "ogate logs list" in capsys.readouterr().err


def test_an_empty_ledger_has_no_calls(capsys) -> None:
    assert main(["logs", "list"]) == 0
    assert capsys.readouterr().out == "no such calls\n"
    assert not paths().ledger_file.exists()


def test_a_name_out_of_a_providers_answer_cannot_drive_the_terminal(capsys, store) -> None:
    store.fold([an_exchange(id="01X", request_model="m\x1b[2J\nx", finish_reason="\x07")])
    for verb in (["list"], ["show", "01X"]):
        assert main(["logs", *verb]) == 0
        out = capsys.readouterr().out
        assert not {"\x1b", "\x07"} & set(out)
    assert running_line(store.exchange("01X")).isprintable(), "a call of `tail` is one line"


@pytest.fixture
def terminal(tmp_path: Path):
    with TerminalScreen(tmp_path, columns=140) as screen:
        yield screen


def test_tail_shows_calls_as_they_are_recorded_and_leaves_at_ctrl_c(store, terminal) -> None:
    """Beside another process that writes; first the latest, then each new one once."""
    now_us = NOON_US
    store.fold([an_exchange(request_model=f"old-{n}", started_at_us=now_us + n) for n in range(3)])
    terminal.run([*OGATE, "logs", "tail", "-n", "2", "--provider", "practice"])
    screen = terminal.wait_for("practice/old-2")
    assert "practice/old-1" in screen
    assert "practice/old-0" not in screen
    store.fold(
        [
            # It began before those that were shown, and ended just now.
            an_exchange(request_model="new-1", started_at_us=now_us - 5),
            an_exchange(request_model="new-2", provider_name="other"),
            an_exchange(request_model="new-3", status=ExchangeStatus.DENIED, denial="no-route"),
        ]
    )
    screen = terminal.wait_for("practice/new-3")
    assert screen.count("practice/new-1") == 1
    assert "new-2" not in screen
    assert "denied no-route" in screen
    terminal.press("C-c")
    terminal.wait_for(lambda text: text.rstrip().endswith("$"))
    terminal.type("echo left with $?")
    terminal.press("Enter")
    assert "Traceback" not in terminal.wait_for("left with 0")


def test_tail_waits_for_the_first_session_of_all(terminal, monkeypatch) -> None:
    """Whoever opens the second pane first; lines of JSON for programs."""
    terminal.run([*OGATE, "logs", "tail", "--json"])
    terminal.wait_for(lambda text: "tail" in text)
    store = open_store(paths().ledger_file)
    store.add_session(a_session(id=SESSION))
    store.fold([an_exchange(session_id=SESSION, request_model="first")])
    terminal.wait_for('"request_model": "first"')
    terminal.press("C-c")
    terminal.wait_for(lambda text: text.rstrip().endswith("$"))
    store.close()


@pytest.fixture
def ruled(ledger: SqliteStore) -> SqliteStore:
    """Beside the others: a refused call, and one that rules changed."""
    spent = Decision(
        rule="budget",
        outcome="deny",
        code="budget-exceeded",
        owner="team core",
        message="ogate: the monthly budget of $500 of team core is spent.",
        unit="usd",
        spent=500 * 10**9,
        limit=500 * 10**9,
        command="ogate budgets raise month 50 --team core",
    )
    lowered = Decision(rule="budget", outcome="lower", message="ogate: the answer may have 1,024.")
    key = {"virtual_key": "ci", "team": "core", "customer": "acme", "session_id": SESSION}
    ledger.fold(
        [
            an_exchange(
                id="01D",
                started_at_us=NOON_US + 3_000_000,
                status=ExchangeStatus.DENIED,
                denial="budget-exceeded",
                decisions=msgspec.json.encode([spent]).decode(),
                **key,
            ),
            an_exchange(
                id="01E",
                started_at_us=NOON_US + 4_000_000,
                cost_nano_usd=30_000_000,
                reserved_cost_nano_usd=20_000_000,
                output_limit_tokens=1024,
                downgraded_from="big",
                decisions=msgspec.json.encode([lowered]).decode(),
                **{**key, "virtual_key": "ben"},
            ),
        ]
    )
    return ledger


@pytest.mark.usefixtures("ruled")
@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--vkey", "ci"], ["01D"]),
        (["--vkey", "nobody"], []),
        (["--team", "core"], ["01D", "01E"]),
        (["--team", "core", "--status", "denied"], ["01D"]),
    ],
)
def test_calls_are_found_by_the_key_and_team_they_came_under(capsys, options, found) -> None:
    assert _calls(capsys, *options) == found


@pytest.mark.usefixtures("ruled")
def test_the_list_has_columns_for_keys_and_teams_where_there_are_any(capsys) -> None:
    assert main(["logs", "list"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert "vkey" in head
    assert "team" in head
    places = head.index("vkey"), head.index("team")
    cells = [[row[place:].split()[0] for place in places] for row in rows[-3:]]
    assert cells == [["–", "–"], ["ci", "core"], ["ben", "core"]]
    assert main(["logs", "list", "--key", "work"]) == 0
    assert "vkey" not in capsys.readouterr().out


@pytest.mark.usefixtures("ruled")
def test_a_refused_call_says_which_rule_and_what_changes_it(capsys) -> None:
    assert main(["logs", "show", "01D"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "under virtual key ci · team core · customer acme" in out
    assert (
        "rule: deny the monthly budget of $500 of team core is spent."
        " → ogate budgets raise month 50 --team core" in out
    )


@pytest.mark.usefixtures("ruled")
def test_a_changed_call_says_what_was_reserved_lowered_and_replaced(capsys) -> None:
    assert main(["logs", "show", "01E"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "reserved $ 0.020 at most · $ 0.010 was billed beyond that" in out
    assert "downgraded big was asked for" in out
    assert "limited the output limit was lowered to 1,024 tokens" in out


@pytest.mark.usefixtures("ruled")
def test_decisions_are_in_the_document_with_exact_amounts(capsys) -> None:
    assert main(["logs", "show", "01D", "--json"]) == 0
    call = json.loads(capsys.readouterr().out)["call"]
    assert (call["virtual_key"], call["team"], call["customer"]) == ("ci", "core", "acme")
    [decision] = call["decisions"]
    assert (decision["outcome"], decision["spent"], decision["limit"]) == ("deny", "500", "500")
    assert main(["logs", "show", "01A", "--json"]) == 0
    call = json.loads(capsys.readouterr().out)["call"]
    assert (call["virtual_key"], call["decisions"]) == (None, [])
