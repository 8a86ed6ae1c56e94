"""The conversation tree, prompts and modes of sessions with the real Opencode.

A scripted model delegates to sub-agents, and the session compacts and changes its mode.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from opencode_gate.agents.opencode.run_record import prompt_texts
from opencode_gate.config.paths import paths
from opencode_gate.core.semconv import ConversationKind
from opencode_gate.session.prompts import mode_costs, prompt_costs
from opencode_gate.session.tree import ConversationNode, conversation_tree
from tests.support.real_session import Person
from tests.support.scripted_provider import Call, ScriptedProvider, scripted_provider
from tests.support.scripted_session import MODEL, Recorded, configure, figures
from tests.support.terminal_screen import TerminalScreen

pytestmark = pytest.mark.e2e


@pytest.fixture
def provider() -> Iterator[ScriptedProvider]:
    with scripted_provider() as running:
        yield running


@pytest.fixture
def person(tmp_path: Path, provider: ScriptedProvider) -> Person:
    person = Person(tmp_path)
    configure(person, provider)
    return person


def tree_of(recorded: Recorded) -> tuple[ConversationNode, ...]:
    return conversation_tree(recorded.session.id, recorded.exchanges, recorded.conversations)


def shape(nodes: tuple[ConversationNode, ...]) -> list[tuple]:
    return [(str(one.record.kind), one.own.requests, shape(one.children)) for one in nodes]


def test_a_sub_agents_work_hangs_under_its_conversation_and_is_paid_by_its_prompt(
    person: Person, provider: ScriptedProvider
):
    provider.sub_agent = "explore"
    done = person.prompt("Please delegate this.", model=MODEL)
    assert done.returncode == 0, done.stderr
    recorded = Recorded()

    (main,) = tree_of(recorded)
    assert shape((main,)) == [("main", 2, [("title", 1, []), ("subagent", 2, [])])]
    sub = main.children[1]
    assert (main.record.title, main.record.agent_name) == ("A scripted title", "build")
    assert sub.record.agent_name == "explore"
    assert sub.record.parent_id == main.record.id
    assert {main.record.directory, sub.record.directory} == {str(person.project)}
    assert sub.own.cost_nano_usd == figures(provider.of("subagent")).cost_nano_usd
    assert main.own.cost_nano_usd == figures(provider.of("main")).cost_nano_usd
    everything = figures(provider.given)
    assert main.rolled_up.cost_nano_usd == everything.cost_nano_usd
    assert main.rolled_up.input_tokens == everything.input_tokens
    assert main.rolled_up.output_tokens == everything.output_tokens
    assert main.duration_us is not None and sub.duration_us is not None
    assert main.duration_us > sub.duration_us > 0

    (cost,) = prompt_costs(recorded.exchanges, recorded.conversations)
    assert (cost.conversation_id, cost.mode) == (main.record.id, "build")
    assert cost.totals.cost_nano_usd == everything.cost_nano_usd
    database = person.home / ".local/share/opencode/opencode.db"
    assert cost.prompt_id is not None
    texts = prompt_texts(database, [cost.prompt_id])
    assert texts is not None and "Please delegate this." in texts[cost.prompt_id]
    assert b"delegate this" not in paths().ledger_file.read_bytes()


def ask(screen: TerminalScreen, text: str) -> None:
    screen.type(text)
    screen.wait_for(text)
    screen.press("Enter")


def answered(screen: TerminalScreen, provider: ScriptedProvider, call: Call, times: int) -> None:
    """Waits until so many calls of a kind were answered, and Opencode has nothing left to do."""
    screen.wait_for(lambda text: sum(given.is_whole for given in provider.of(call)) == times)
    screen.wait_for(lambda text: "interrupt" not in text)


def command(screen: TerminalScreen, name: str) -> None:
    screen.type(f"/{name}")
    screen.wait_for(lambda text: re.search(rf"/{name} +\w", text) is not None)
    screen.press("Enter")


def test_plan_and_build_and_a_compaction_are_told_apart_in_one_session(
    person: Person, provider: ScriptedProvider, tmp_path: Path
):
    """Planned with a sub-agent, built, compacted: one conversation on Opencode's own screen."""
    provider.sub_agent = "explore"
    environ = person.shell_environ()
    with TerminalScreen(tmp_path, columns=110, rows=36, environ=environ) as screen:
        screen.run(["cd", str(person.project)])
        screen.run(["ogate", "run", "--model", MODEL])
        screen.wait_for("Ask anything")
        screen.press("Tab")
        screen.wait_for("Plan ")
        ask(screen, "First delegate the look.")
        answered(screen, provider, "main", 2)
        screen.press("Tab")
        screen.wait_for("Build ")
        ask(screen, "Now build it.")
        answered(screen, provider, "main", 3)
        command(screen, "compact")
        answered(screen, provider, "compaction", 1)
        command(screen, "exit")
        text = screen.wait_for("resume ")
    assert "1 sub-agent" in text
    recorded = Recorded()

    (main,) = tree_of(recorded)
    assert shape((main,)) == [
        ("main", 3, [("title", 1, []), ("subagent", 2, []), ("compaction", 1, [])])
    ]
    assert main.rolled_up.cost_nano_usd == figures(provider.given).cost_nano_usd
    compaction = main.children[2]
    assert compaction.own.cost_nano_usd == figures(provider.of("compaction")).cost_nano_usd

    planned = [*provider.of("title"), *provider.of("main")[:2], *provider.of("subagent")]
    built, compacted = provider.of("main")[2:], provider.of("compaction")
    prompts = prompt_costs(recorded.exchanges, recorded.conversations)
    assert [(cost.mode, cost.totals.cost_nano_usd) for cost in prompts] == [
        ("plan", figures(planned).cost_nano_usd),
        ("build", figures(built).cost_nano_usd),
        ("build", figures(compacted).cost_nano_usd),
    ]
    modes = {cost.mode: (cost.prompts, cost.totals.requests) for cost in
             mode_costs(recorded.exchanges)}  # fmt: skip
    assert modes == {"plan": (1, 5), "build": (2, 2)}


def test_a_prompt_too_long_is_one_prompt_also_after_opencode_made_room(
    person: Person, provider: ScriptedProvider
):
    """Refused, compacted, gone on with by Opencode itself: what was typed once is one prompt."""
    first = person.prompt("Begin.", model=MODEL)
    assert first.returncode == 0, first.stderr
    before = len(provider.given)
    person.prompt("Now an overflow.", "-c", model=MODEL)
    recorded = Recorded()

    assert [given.call for given in provider.given[before:]] == ["main", "compaction", "main"]
    (main,) = tree_of(recorded)
    assert main.record.kind is ConversationKind.MAIN
    assert [child.record.kind for child in main.children] == [ConversationKind.COMPACTION]
    (cost,) = prompt_costs(recorded.exchanges, recorded.conversations)
    assert cost.totals.requests == 3
    assert cost.totals.cost_nano_usd == figures(provider.given[before + 1 :]).cost_nano_usd
