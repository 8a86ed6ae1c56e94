"""Opencode's own screen through `ogate run`, in a real terminal."""

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from opencode_gate.config.paths import paths
from opencode_gate.core.semconv import ConversationKind, ExchangeStatus
from tests.support.launcher import gateway_of, ledger
from tests.support.mock_providers import aimock
from tests.support.real_session import (
    Person,
    generations,
    launcher_in,
    opencode_of,
    process_ids_of,
    until,
)
from tests.support.recording_relay import RecordingRelay
from tests.support.terminal_screen import TerminalScreen

pytestmark = pytest.mark.e2e

FIXTURES = [
    {
        "match": {"toolName": "read", "model": "alpha-one"},
        "response": {
            "content": "The answer of alpha.",
            "usage": {"prompt_tokens": 1009, "completion_tokens": 7},
        },
    },
    {
        "match": {"toolName": "read", "model": "beta-two"},
        "response": {
            "content": "The answer of beta.",
            "usage": {"prompt_tokens": 2003, "completion_tokens": 11},
        },
    },
    {
        "match": {},
        "response": {
            "content": "A title",
            "usage": {"prompt_tokens": 3, "completion_tokens": 1},
        },
    },
]
AT_REST = {
    "alternate_on": False,
    "mouse_any_flag": False,
    "keypad_cursor_flag": False,
    "cursor_hidden": False,
}


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RecordingRelay]:
    with aimock(tmp_path_factory.mktemp("aimock"), FIXTURES) as relay:
        yield relay


@pytest.fixture
def person(tmp_path: Path, provider: RecordingRelay) -> Person:
    provider.seen.clear()
    provider.flows.set()
    person = Person(tmp_path)
    person.add_server("alpha", "openai-chat", f"{provider.url}/v1", "alpha-one")
    person.add_server("beta", "anthropic", f"{provider.url}/v1", "beta-two")
    return person


@pytest.fixture
def screen(person: Person, tmp_path: Path) -> Iterator[TerminalScreen]:
    """Opencode's screen, drawn and waiting for a prompt."""
    environ = person.shell_environ()
    with TerminalScreen(tmp_path, columns=110, rows=36, environ=environ) as terminal:
        terminal.run(["cd", str(person.project)])
        terminal.type('ogate run --provider alpha; echo "status $?"')
        terminal.press("Enter")
        terminal.wait_for("Ask anything")
        yield terminal


def ask(screen: TerminalScreen, text: str) -> None:
    screen.type(text)
    screen.wait_for(text)
    screen.press("Enter")


def command(screen: TerminalScreen, name: str) -> None:
    """Types a slash command and takes it from the list that opens."""
    screen.type(f"/{name}")
    screen.wait_for(lambda text: re.search(rf"/{name} +\w", text) is not None)
    screen.press("Enter")


def is_usable(screen: TerminalScreen) -> bool:
    """A shell that shows what is typed, runs it, and gets Ctrl-C as a signal."""
    screen.run(["printf", "%s-%s\\n", "still", "usable"])
    screen.wait_for(lambda text: "\nstill-usable" in text)
    screen.run(["sh", "-c", "printf '%s-%s\\n' has begun; exec sleep 1000"])
    screen.wait_for(lambda text: "\nhas-begun" in text)  # before, the signal would be the shell's
    screen.press("C-c")
    screen.wait_for("^C")
    return screen.modes() == AT_REST


def test_a_session_of_two_providers_from_the_first_prompt_to_the_summary(
    screen: TerminalScreen, provider: RecordingRelay
):
    """Answered, switched to another provider's model, suspended, taken up again, ended."""
    ask(screen, "first question")
    screen.wait_for("The answer of alpha.")
    command(screen, "models")
    screen.wait_for("● alpha-one")
    screen.type("beta-two")
    screen.wait_for(lambda text: "beta-two" in text and "● alpha-one" not in text)
    screen.press("Enter")
    screen.wait_for(lambda text: "Select model" not in text and "beta-two" in text)
    ask(screen, "second question")
    screen.wait_for("The answer of beta.")

    screen.press("C-z")
    screen.wait_for("Stopped")
    assert is_usable(screen)
    screen.run(["fg"])
    screen.wait_for(lambda text: "The answer of beta." in text and "Stopped" not in text)

    command(screen, "exit")
    text = screen.wait_for("resume   ogate run -- -s ses_")
    assert "ogate · session" in text
    assert re.search(r"alpha/alpha-one +2 ", text), text
    assert re.search(r"beta/beta-two +1 ", text), text
    screen.type('echo "status $?"')
    screen.press("Enter")
    screen.wait_for("\nstatus 0\n")
    assert is_usable(screen)

    rows = generations()
    assert [(row.provider_name, row.kind, row.usage.input_tokens, row.usage.output) for row in rows
            if row.kind is ConversationKind.MAIN] == [
        ("alpha", ConversationKind.MAIN, 1009, 7),
        ("beta", ConversationKind.MAIN, 2003, 11),
    ]  # fmt: skip
    assert len(provider.seen) == len(rows) == 3
    assert len({row.conversation_id for row in rows}) == 1


def test_ctrl_c_on_an_empty_prompt_ends_it(screen: TerminalScreen):
    screen.press("C-c")
    screen.wait_for("status 0")
    assert "no model call went through the gateway" in screen.text()
    assert is_usable(screen)
    assert ledger().session.exit_status == 0


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGSEGV])
def test_opencode_killed_leaves_a_usable_terminal_and_an_account(
    screen: TerminalScreen, sent: signal.Signals
):
    """Also where its runtime crashes: that says so, on a screen that nobody could leave."""
    ask(screen, "first question")
    screen.wait_for("The answer of alpha.")
    assert screen.modes() != AT_REST, "the screen is Opencode's"
    os.kill(opencode_of(launcher_in(screen.shell_pid())), sent)
    text = screen.wait_for("status 1")
    assert "ogate · session" in text
    assert is_usable(screen)
    status = ledger().session.exit_status
    assert f"status {status}" in text
    assert status is not None and status > 128


def test_ogate_killed_takes_everything_with_it_and_the_next_one_settles_the_account(
    screen: TerminalScreen, person: Person
):
    """The gateway notices, and ends Opencode in a way that lets it put the screen back."""
    ask(screen, "first question")
    screen.wait_for("The answer of alpha.")
    os.kill(launcher_in(screen.shell_pid()), signal.SIGKILL)
    # The shell's own words may still go to Opencode's screen, which is gone with it.
    ours = {screen.shell_pid(), screen.server_pid()}
    until(lambda: set(process_ids_of(person)) <= ours, "the end of every process")
    screen.wait_for(lambda _: screen.modes() == AT_REST)
    assert is_usable(screen)
    left = ledger()
    assert left.session.ended_at_us is not None
    assert [row.status for row in left.exchanges] == [ExchangeStatus.COMPLETED] * 2
    assert list(paths().journals.glob("*.jsonl")) == []


def test_a_gateway_killed_in_mid_answer_is_replaced_and_opencode_asks_again(
    screen: TerminalScreen, provider: RecordingRelay
):
    provider.flows.clear()
    ask(screen, "first question")
    provider.wait_for(lambda relay: len(relay.seen) == 2)
    os.kill(gateway_of(launcher_in(screen.shell_pid())), signal.SIGKILL)
    provider.flows.set()
    screen.wait_for("The answer of alpha.")
    command(screen, "exit")
    text = screen.wait_for("status 0")
    assert "interrupted answer" in text
    rows = [row for row in ledger().exchanges if row.kind is ConversationKind.MAIN]
    assert [row.status for row in rows] == [ExchangeStatus.INTERRUPTED, ExchangeStatus.COMPLETED]


def test_a_terminal_that_is_closed_in_mid_answer_ends_everything_and_loses_nothing(
    screen: TerminalScreen, person: Person, provider: RecordingRelay
):
    provider.flows.clear()
    ask(screen, "first question")
    provider.wait_for(lambda relay: len(relay.seen) == 2)
    screen.hang_up()
    until(lambda: not process_ids_of(person), "the end of every process")
    provider.flows.set()

    left = ledger()
    assert left.session.ended_at_us is not None
    assert {row.provider_name for row in left.exchanges} == {"alpha"}
    assert len(left.exchanges) == 2, "a title and an answer, each of them once"
    ended = {ExchangeStatus.CLIENT_DISCONNECTED, ExchangeStatus.INTERRUPTED}
    assert {row.status for row in left.exchanges} <= ended
    assert list(paths().journals.glob("*.jsonl")) == []
    assert list(paths().runtime.iterdir()) == []
