"""The cache doctor and the account of tools over requests that the real Opencode makes."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import notes_mcp
from tests.support.caching_provider import CachingProvider, caching_provider
from tests.support.launcher import ledger
from tests.support.real_session import Person
from tests.support.served_opencode import served_opencode

pytestmark = pytest.mark.e2e


@pytest.fixture
def provider() -> Iterator[CachingProvider]:
    with caching_provider() as running:
        yield running


@pytest.fixture
def person(tmp_path: Path, provider: CachingProvider) -> Person:
    person = Person(tmp_path)
    for wire in ("openai-chat", "anthropic"):
        person.add_server(f"own-{wire}", wire, f"{provider.url}/v1", "m-1", "m-2")
    return person


def seen(person: Person, *command: str) -> Any:
    done = person.ogate(*command, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("wire", ["openai-chat", "anthropic"])
def test_what_opencode_changes_between_two_requests_is_the_cause_of_the_fall(
    person: Person, provider: CachingProvider, wire: str
) -> None:
    """Turns that only go on are read from the cache and are no falls, though Anthropic's cache
    marks move on with each; a tool less, other instructions, another model and a provider that
    forgets are named, and the tokens lost are those the provider did not find."""
    first, second = f"own-{wire}/m-1", f"own-{wire}/m-2"
    price = {"input": 3, "output": 15, "cache_read": 0.3, "cache_write": 3.75}
    for name, amount in price.items():
        person.configure("config", "set", f'prices."{first}".{name}', str(amount))
    with served_opencode(person) as opencode:
        conversation = opencode.conversation()
        for text in ("one", "two", "three"):
            opencode.ask(conversation, text, model=first)
        opencode.ask(conversation, "four", model=first, tools={"webfetch": False})
        opencode.ask(conversation, "five", model=first)
        (person.project / "AGENTS.md").write_text("Answer briefly.\n")
        opencode.ask(conversation, "six", model=first)
        opencode.ask(conversation, "seven", model=second)
        provider.forgets = True
        opencode.ask(conversation, "eight", model=second)
    assert " saved $0.0" in opencode.summary
    found = seen(person, "sessions", "show", "last", "--cache")
    [thread] = found["conversations"]
    read = [request["cache_read_input_tokens"] for request in thread["requests"]]
    assert read == [cached for cached, _ in provider.reads]
    falls = {fall["cause"]: fall for fall in thread["falls"]}
    assert list(falls) == ["tools", "system", "model", "unknown"]
    assert falls["tools"]["tools_removed"] == ["webfetch"]
    assert falls["tools"]["tools_added"] == falls["tools"]["tools_resized"] == []
    ids = [request["id"] for request in thread["requests"]]
    assert [ids.index(fall["request_id"]) for fall in thread["falls"]] == [3, 5, 6, 7]
    lost = falls["tools"]["lost_tokens"]
    assert 7000 < lost <= provider.reads[3][1] + 10
    dear = 3.75 if wire == "anthropic" else 3
    extra = float(falls["tools"]["extra_cost_usd"])
    assert extra == pytest.approx(lost * (dear - 0.3) / 1e6, rel=0.01)
    assert falls["model"]["extra_cost_usd"] is None


def test_the_tools_of_an_mcp_server_are_its_own_and_never_called(person: Person) -> None:
    """As the user's configuration of Opencode names it."""
    config = {"mcp": {"notes": {"type": "local", "command": [sys.executable, notes_mcp.__file__]}}}
    person.write(person.opencode_config, config)
    done = person.prompt("hello", model="own-openai-chat/m-1")
    assert done.returncode == 0, done.stderr
    found = seen(person, "usage", "tools")
    servers = {server["owner"]: server for server in found["servers"]}
    assert set(servers) == {"mcp", "opencode"}
    assert servers["mcp"]["server"] == "notes"
    assert [tool["name"] for tool in servers["mcp"]["tools"]] == ["notes_lookup"]
    assert {"bash", "read", "task"} <= {tool["name"] for tool in servers["opencode"]["tools"]}
    assert "notes_lookup" in found["never_called"]["tools"]
    assert found["sessions"] == 1
    assert 0.3 < found["share_of_input"] < 1
    [row] = [row for row in ledger().exchanges if row.tool_set is not None]
    assert row.usage.input_tokens is not None
    assert 0 < servers["mcp"]["tokens"] < servers["opencode"]["tokens"] < row.usage.input_tokens
