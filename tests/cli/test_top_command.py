"""`ogate top`: one look as a document, and a screen that is redrawn in place until one leaves."""

import io
import json
import re
import sys
from decimal import Decimal
from pathlib import Path

import pexpect
import pytest
from msgspec.structs import replace
from rich.console import Console

from opencode_gate.cli.main import main
from opencode_gate.cli.render import Table
from opencode_gate.cli.top_view import screen, screen_blocks
from opencode_gate.config.paths import paths
from opencode_gate.core.clock import SystemClock
from opencode_gate.core.semconv import ExchangeStatus
from opencode_gate.core.usage import TokenUsage
from opencode_gate.governance.policy import Budget, Owner
from opencode_gate.governance.standing import BudgetStanding
from opencode_gate.ledger.journal import Journal
from opencode_gate.ledger.sqlite import open_store
from opencode_gate.ledger.totals import Totals
from opencode_gate.session.activity import Activity, Flight, RunningSession
from tests.support.ledger_records import NOON_US, a_session, an_exchange, an_open_exchange
from tests.support.terminal_screen import TerminalScreen

HOUR_US = 3_600_000_000
OGATE = [sys.executable, "-m", "opencode_gate.cli.main"]


@pytest.fixture
def journal():
    """A session that runs, with a request in flight and one that failed."""
    now_us = SystemClock().now_us()
    session = a_session(started_at_us=now_us - 60_000_000)
    store = open_store(paths().ledger_file)
    store.add_session(session)
    failed = ExchangeStatus.UPSTREAM_ERROR
    store.fold(
        [
            an_exchange(session_id=session.id, started_at_us=now_us, cost_nano_usd=1_500_000_000),
            an_exchange(
                session_id=session.id, started_at_us=now_us, status=failed, error_type="connect"
            ),
        ]
    )
    store.close()
    journal = Journal.create(paths().journals, session=session)
    flying = an_open_exchange(session_id=session.id, started_at_us=now_us, request_model="flying")
    journal.opened(flying, input_bytes=400)
    journal.progressed(flying.id, TokenUsage(), 4000)
    yield journal
    journal.close()


@pytest.mark.usefixtures("journal")
def test_one_look_as_a_document(capsys) -> None:
    assert main(["top", "--json"]) == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert err == ""
    [running] = document["running"]
    assert running["session"]["project"] == "engine"
    assert running["totals"]["requests"] == document["today"]["requests"] == 3
    [flight] = running["in_flight"]
    assert (flight["request_model"], flight["output_tokens"]) == ("flying", 1000)
    assert flight["elapsed_s"] > 0
    assert [error["error_type"] for error in document["errors"]] == ["connect"]


def test_nothing_running_is_a_look_too(capsys) -> None:
    assert main(["top", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["running"] == []
    assert not paths().ledger_file.exists()


def test_without_a_terminal_the_other_ways_are_named(capsys) -> None:
    assert main(["top"]) == 2
    assert "ogate top --json" in capsys.readouterr().err


@pytest.fixture
def terminal(tmp_path: Path):
    with TerminalScreen(tmp_path, columns=110) as screen:
        yield screen


@pytest.mark.parametrize("key", ["q", "C-c", "Escape"])
@pytest.mark.usefixtures("journal")
def test_the_screen_shows_what_runs_and_leaves_the_terminal_as_it_was(terminal, key) -> None:
    terminal.type("echo before")
    terminal.press("Enter")
    terminal.run([*OGATE, "top"])
    screen = terminal.wait_for("practice/flying")
    assert "1 session · 1 in flight" in screen
    assert "engine (main)" in screen
    assert "error connect" in screen
    assert terminal.modes()["alternate_on"]
    terminal.press(key)
    screen = terminal.wait_for(lambda text: text.rstrip().endswith("$"))
    assert "before" in screen
    assert "in flight" not in screen
    assert not any(terminal.modes().values())
    terminal.type("echo left with $?")
    terminal.press("Enter")
    assert "Traceback" not in terminal.wait_for("left with 0")


def test_the_screen_follows_what_happens(terminal, journal: Journal) -> None:
    """A new request appears, an ended one goes, the spend grows: all without a key pressed."""
    terminal.run([*OGATE, "top"])
    terminal.wait_for("practice/flying")
    [contents] = [json.loads(line) for line in journal.path.read_text().splitlines()[:1]]
    session_id = contents["session"]["id"]
    now_us = SystemClock().now_us()
    second = an_open_exchange(session_id=session_id, request_model="second", started_at_us=now_us)
    journal.opened(second)
    terminal.wait_for("practice/second")
    journal.finished(
        an_exchange(
            id=second.id, session_id=session_id, started_at_us=now_us, cost_nano_usd=7 * 10**9
        )
    )
    screen = terminal.wait_for(lambda text: "practice/second" not in text)
    assert "$8.5" in screen
    terminal.resize(60, 12)
    terminal.wait_for(lambda text: "q leaves" in text and len(text.rstrip().splitlines()) <= 12)
    terminal.press("q")
    terminal.wait_for(lambda text: text.rstrip().endswith("$"))


@pytest.mark.usefixtures("journal")
def test_a_redrawn_screen_erases_nothing() -> None:
    """What is erased before it is written again is what flickers."""
    child = pexpect.spawn(OGATE[0], [*OGATE[1:], "top"], encoding="utf-8", dimensions=(24, 100))
    child.expect("in flight")
    for _ in range(3):
        child.expect("q leaves")
    drawn = child.before
    child.send("q")
    child.expect(pexpect.EOF)
    assert "\x1b[H" in drawn
    assert not re.findall(r"\x1b\[[0-3]?[JK]", drawn)
    child.close()
    assert child.exitstatus == 0


@pytest.mark.usefixtures("journal")
def test_a_polite_kill_leaves_the_terminal_usable() -> None:
    """SIGTERM: the other screen is left before the end."""
    child = pexpect.spawn(OGATE[0], [*OGATE[1:], "top"], encoding="utf-8", dimensions=(24, 100))
    child.expect("q leaves")
    child.kill(15)
    child.expect(pexpect.EOF)
    assert "\x1b[?1049l" in child.before
    assert "\x1b[?25h" in child.before
    child.close()
    assert child.exitstatus == 143


def _budget(percent: int) -> BudgetStanding:
    return BudgetStanding(
        owner=Owner("user", "ada"),
        budget=Budget(window="day", usd=Decimal(20)),
        start_us=NOON_US - 12 * HOUR_US,
        resets_at_us=NOON_US + 12 * HOUR_US,
        time_zone="UTC",
        spent=percent * 200_000_000,
        held=400_000_000,
    )


def _activity(sessions: int, flights: int, errors: int, budgets: int = 0) -> Activity:
    running = [
        RunningSession(
            session=a_session(),
            up_us=5,
            totals=Totals(),
            flights=tuple(
                Flight(exchange=an_open_exchange(started_at_us=NOON_US), elapsed_us=number)
                for number in range(flights)
            ),
        )
        for _ in range(sessions)
    ]
    return Activity(
        at_us=NOON_US,
        running=tuple(running),
        today=Totals(),
        errors=tuple(an_exchange(status=ExchangeStatus.DENIED) for _ in range(errors)),
        budgets=tuple(_budget(0) for _ in range(budgets)),
    )


@pytest.mark.parametrize("size", [(40, 9), (60, 12), (80, 14), (80, 24), (200, 50)])
@pytest.mark.parametrize(
    "counts", [(0, 0, 0), (0, 0, 5, 1), (1, 1, 1, 1), (3, 9, 5, 4), (40, 2, 5)]
)
def test_the_screen_is_never_larger_than_the_terminal(size, counts) -> None:
    """What does not fit is counted."""
    width, height = size
    activity = _activity(*counts)
    console = Console(width=width, height=height, file=io.StringIO())
    console.print(screen(activity, "", width=width, height=height))
    lines = console.file.getvalue().rstrip("\n").split("\n")
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    blocks = screen_blocks(activity, "", width=width, height=height)
    shown = sum(len(block.rows) for block in blocks if isinstance(block, Table))
    parts = (activity.running, activity.flights, activity.errors, activity.budgets)
    hidden = sum(map(len, parts)) - shown
    assert blocks[-1].text == "q leaves" + (f" · {hidden} more do not fit" if hidden else "")


def test_what_cannot_be_read_is_said_on_the_screen() -> None:
    """And the last look stays."""
    blocks = screen_blocks(_activity(1, 1, 0), "the ledger is held", width=80, height=24)
    assert blocks[-1].text == "q leaves · the ledger is held"


def test_budgets_are_shown_with_what_they_have_reached() -> None:
    """In words, since a screen may have no colours."""
    activity = replace(_activity(1, 1, 0), budgets=tuple(map(_budget, (100, 82, 12))))
    tables = [
        block
        for block in screen_blocks(activity, "", width=120, height=40)
        if isinstance(block, Table)
    ]
    assert tables[1].columns[0].title == "budget"
    assert [tuple(row[:6]) for row in tables[1].rows] == [
        ("today", "$20.00", "$0.40", "$20.00", "100 %", "spent"),
        ("today", "$16.40", "$0.40", "$20.00", "82 %", "past 80 %"),
        ("today", "$2.40", "$0.40", "$20.00", "12 %", ""),
    ]


def test_the_budget_of_a_session_names_it() -> None:
    """Several may run, each with one of its own."""
    own = replace(_budget(12), owner=Owner("session", "01M802W2T14SYRYZPHZYZZ5HAQ"))
    blocks = screen_blocks(replace(_activity(2, 0, 0), budgets=(own,)), "", width=120, height=40)
    cells = [row[0] for block in blocks if isinstance(block, Table) for row in block.rows]
    assert "session today 01M8…5HAQ" in cells


def test_rules_that_cannot_be_read_are_said_on_the_screen() -> None:
    """They refuse every request."""
    activity = replace(_activity(1, 1, 0), problem="the rules of user ada cannot be read")
    blocks = screen_blocks(activity, "", width=80, height=24)
    assert blocks[-1].text == "q leaves · the rules of user ada cannot be read"
