"""What is the user's own stays: conversations, agents, MCP servers, permissions, and Opencode's
other commands through the alias.
"""

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from opencode_gate.config.paths import paths
from opencode_gate.core.semconv import ConversationKind
from tests.support import notes_mcp
from tests.support.launcher import ledger
from tests.support.mock_providers import aimock
from tests.support.real_session import Person, generations
from tests.support.recording_relay import RecordingRelay, Relayed

pytestmark = pytest.mark.e2e

FIXTURES = [
    {
        "match": {"model": name},
        "response": {
            "content": f"The answer of {name}.",
            "usage": {"prompt_tokens": 101, "completion_tokens": 7},
        },
    }
    for name in ("alpha-one", "beta-two")
]


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RecordingRelay]:
    with aimock(tmp_path_factory.mktemp("aimock"), FIXTURES) as relay:
        yield relay


@pytest.fixture
def person(tmp_path: Path, provider: RecordingRelay) -> Person:
    provider.seen.clear()
    person = Person(tmp_path)
    person.add_server("alpha", "openai-chat", f"{provider.url}/v1", "alpha-one")
    person.add_server("beta", "anthropic", f"{provider.url}/v1", "beta-two")
    return person


def main_requests(provider: RecordingRelay) -> list[Relayed]:
    """The requests that work on the prompt; a title's have no tools."""
    return [relayed for relayed in provider.seen if json.loads(relayed.body).get("tools")]


def tool_names(relayed: Relayed) -> set[str]:
    return {tool["function"]["name"] for tool in json.loads(relayed.body)["tools"]}


def test_a_conversation_is_taken_up_where_it_was_left(person: Person, provider: RecordingRelay):
    """`-s` goes on with the provider of that conversation, whatever was used since."""
    first = person.prompt("first question", model="alpha/alpha-one")
    assert "The answer of alpha-one." in first.stdout, first.stderr
    (conversation_id,) = {row.conversation_id for row in generations()}
    assert conversation_id is not None
    assert f"ogate run -- -s {conversation_id}" in first.stderr
    other = person.prompt("something else", model="beta/beta-two")
    assert "The answer of beta-two." in other.stdout, other.stderr

    provider.seen.clear()
    again = person.prompt("second question", "-s", conversation_id, "--agent", "plan")
    assert again.returncode == 0, again.stderr
    assert "The answer of alpha-one." in again.stdout
    (row,) = generations()
    assert (row.provider_name, row.conversation_id) == ("alpha", conversation_id)
    assert row.kind is ConversationKind.MAIN
    (relayed,) = provider.seen
    assert b"first question" in relayed.body
    assert b"Plan mode" in relayed.body or b"plan mode" in relayed.body


def test_agents_tools_permissions_and_instructions_of_the_user_are_in_force(
    person: Person, provider: RecordingRelay
):
    person.write(
        person.opencode_config,
        {
            "agent": {"reviewer": {"mode": "primary", "prompt": "You review, marker-one."}},
            "mcp": {"notes": {"type": "local", "command": [sys.executable, notes_mcp.__file__]}},
            "permission": {"bash": "deny"},
            "instructions": ["house-rules.md"],
        },
    )
    person.write(person.opencode_config.parent / "AGENTS.md", "Be brief, marker-two.\n")
    person.write(person.project / "house-rules.md", "Be kind, marker-three.\n")
    person.write(person.project / "AGENTS.md", "Use tabs, marker-four.\n")
    done = person.prompt("hi", "--agent", "reviewer", model="alpha/alpha-one")
    assert done.returncode == 0, done.stderr
    (relayed,) = main_requests(provider)
    for marker in (b"marker-one", b"marker-two", b"marker-three", b"marker-four"):
        assert marker in relayed.body
    assert "notes_lookup" in tool_names(relayed)
    assert "read" in tool_names(relayed)
    assert "bash" not in tool_names(relayed)


def test_through_the_alias_other_commands_are_opencodes_own(person: Person):
    """A week's worth of them: the same output and status, and no session of ours."""
    person.prompt("a question", model="alpha/alpha-one")
    before = ledger().session.id
    (conversation_id,) = {row.conversation_id for row in generations()}
    person.configure("alias", "install", "bash")
    commands = [
        "--version",
        "models opencode",
        "auth list",
        "session list",
        "stats",
        f"export {conversation_id}",
        "export ses_that_is_not_there",
        "run --help",
    ]
    aliases = f"shopt -s expand_aliases\n. {person.home}/.bashrc\n"
    with ThreadPoolExecutor(max_workers=2) as both:
        pairs = [
            (line, both.submit(person.call, "bash", "-c", f"{before_it}opencode {line}\n"))
            for line in commands
            for before_it in ("", aliases)
        ]
    for (line, bare_call), (_, through_call) in zip(pairs[::2], pairs[1::2], strict=True):
        bare, through = bare_call.result(), through_call.result()
        assert through.stdout == bare.stdout, line
        assert through.returncode == bare.returncode, line
        assert "ogate" not in through.stderr, line
    assert ledger().session.id == before
    assert list(paths().runtime.iterdir()) == []


def test_through_the_alias_a_prompt_is_a_session_of_ours(person: Person):
    person.configure("alias", "install", "bash")
    script = (
        f"shopt -s expand_aliases\n. {person.home}/.bashrc\n"
        "opencode run -m beta/beta-two 'a question'\n"
    )
    done = person.call("bash", "-c", script)
    assert done.returncode == 0, done.stderr
    assert "The answer of beta-two." in done.stdout
    assert "ogate · session" in done.stderr
    assert {row.provider_name for row in generations()} == {"beta"}
