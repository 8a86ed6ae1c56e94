"""What the real Opencode sends: its honest work is never taken for a runaway, a circle always is.

In the first half its requests go straight to a provider of our own and are judged afterwards, at
the times at which they came: so each is judged as if the ones before it had been let pass. In
the second half a whole gateway stands between them.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from opencode_gate.agents.opencode.answers import conversation_of
from opencode_gate.catalog.rows import ProviderRow
from opencode_gate.config.settings import RunawaySettings
from opencode_gate.core.semconv import ExchangeStatus, Operation
from opencode_gate.governance.admission import Caller
from opencode_gate.governance.decisions import Decision
from opencode_gate.governance.grants import Ask, Grant
from opencode_gate.governance.runaway import Runaway
from opencode_gate.wire.facts import read_facts
from opencode_gate.wire.routes import identify
from opencode_gate.wire.tool_calls import repeated_tool_call
from tests.support.launcher import ledger
from tests.support.ledger_records import an_exchange
from tests.support.real_opencode import MODEL, OpencodeHome
from tests.support.real_session import Person
from tests.support.tool_calling_provider import (
    Calls,
    Seen,
    ToolCallingProvider,
    tool_calling_provider,
)

pytestmark = pytest.mark.e2e

PROVIDERS = {
    "chat": ProviderRow(
        id="chat", name="chat", base_url="https://c.example/v1", wire="openai-chat", source="config"
    ),
    "openai": ProviderRow(id="openai", name="OpenAI", base_url="https://api.openai.com/v1"),
    "anthropic": ProviderRow(
        id="anthropic", name="Anthropic", base_url="https://api.anthropic.com/v1"
    ),
    "google": ProviderRow(
        id="google", name="Google", base_url="https://generativelanguage.googleapis.com/v1beta"
    ),
}
MODELS = {
    "chat": "m1",
    "openai": "gpt-5",
    "anthropic": "claude-sonnet-4-5",
    "google": "gemini-2.5-pro",
}


@pytest.fixture
def provider() -> Iterator[ToolCallingProvider]:
    with tool_calling_provider() as running:
        yield running


@pytest.fixture
def user(tmp_path: Path) -> OpencodeHome:
    user = OpencodeHome(tmp_path)
    # Opencode itself asks after three of the same calls; here nobody is there to say no.
    user.write(user.home / ".config/opencode/opencode.json", {"permission": {"doom_loop": "allow"}})
    return user


class SeenClock:
    """The time at which the provider saw something."""

    now_s = 0.0

    def monotonic_s(self) -> float:
        return self.now_s

    def now_us(self) -> int:
        return 0


def asks(user: OpencodeHome, provider: ToolCallingProvider, name: str) -> list[Seen]:
    row = PROVIDERS[name]
    done = user.run(
        ["run", "-m", f"{name}/{MODELS[name]}", "go"],
        [row],
        port=provider.port,
        models={"chat": {"m1": MODEL}} if name == "chat" else None,
        timeout_s=110,
    )
    assert done.returncode == 0, done.stderr
    return provider.seen


def judged(seen: Sequence[Seen]) -> list[Decision | None]:
    """What is said of each request, at the time it came."""
    clock = SeenClock()
    runaway = Runaway(RunawaySettings(), clock, lambda: None)
    happenings = [(one.came_s, 1, number) for number, one in enumerate(seen)]
    happenings += [(one.answered_s, 0, number) for number, one in enumerate(seen)]
    decisions = []
    grants: dict[int, Grant] = {}
    for at_s, is_ask, number in sorted(happenings):
        one = seen[number]
        clock.now_s = at_s
        conversation, _ = conversation_of(one.headers)
        assert conversation is not None
        if is_ask:
            route = identify("POST", one.path)
            ask = Ask(
                exchange_id="01",
                caller=Caller("01SESSION", "ada", None, b""),
                provider_id="acme",
                route=route,
                facts=read_facts(route, one.body),
                body=one.body,
                conversation_id=conversation,
            )
            grant = grants[number] = Grant("01")
            decisions.append(runaway.check(ask, grant, at_s))
        elif (watched := grants[number].watched) is not None:
            status = (
                ExchangeStatus.COMPLETED if one.status == 200 else ExchangeStatus.UPSTREAM_ERROR
            )
            runaway.ended(
                watched,
                an_exchange(
                    conversation_id=conversation,
                    attempts=1,
                    http_status=one.status,
                    status=status,
                ),
            )
    return decisions


def glob(pattern: str) -> Calls:
    return (("glob", {"pattern": pattern}),)


@pytest.mark.parametrize("name", PROVIDERS)
def test_long_work_says_nothing_and_a_circle_is_stopped(user, provider, name):
    """Twenty searches for different things, then twelve for the same."""
    provider.script = [glob(f"*{number}*") for number in range(20)] + [glob("*.never")] * 12
    seen = asks(user, provider, name)
    turns = [one for one in seen if b'"tools"' in one.body]
    assert len(turns) == 33
    ends = [repeated_tool_call(one.body) for one in turns]
    assert [end.times for end in ends[1:21]] == [1] * 20
    assert [tuple(end) for end in ends[21:]] == [("glob", n, n) for n in range(1, 13)]
    decisions = [
        decision for one, decision in zip(seen, judged(seen), strict=True) if b'"tools"' in one.body
    ]
    assert decisions[:25] == [None] * 25
    outcomes = [decision.outcome for decision in decisions[25:] if decision is not None]
    assert outcomes == ["warn"] * 5 + ["deny"] * 3


def test_sub_agents_side_by_side_and_tries_after_refusals_say_nothing(user, provider):
    """Three sub-agents at once, each on the same search as the others; five refusals before."""
    task = {"description": "look", "prompt": "look around", "subagent_type": "general"}
    provider.script = [(("task", task),) * 3]
    provider.sub_script = [glob(f"*{number}*") for number in range(4)]
    provider.refusals = 5
    seen = asks(user, provider, "chat")
    assert sum(one.status == 503 for one in seen) == 5
    assert len({conversation_of(one.headers)[0] for one in seen}) == 4
    assert len(seen) >= 5 + 2 + 3 * 5
    assert [decision for decision in judged(seen) if decision is not None] == []


BASES = {
    "openai-chat": "/v1",
    "openai-responses": "/v1",
    "anthropic": "/v1",
    "gemini": "/v1beta",
}


@pytest.mark.parametrize("wire", BASES)
def test_opencode_shows_why_it_was_stopped_and_does_not_ask_again(tmp_path, provider, wire):
    person = Person(tmp_path)
    person.add_server(f"own-{wire}", wire, f"http://127.0.0.1:{provider.port}{BASES[wire]}", "m-1")
    person.write(person.opencode_config, {"permission": {"doom_loop": "allow"}})
    provider.script = [glob("*.never")] * 14
    done = person.prompt("go", "--title", "t", model=f"own-{wire}/m-1")
    assert done.returncode == 1
    sentence = "the agent called glob 10 times in a row with the same arguments"
    assert sentence in " ".join(done.stderr.replace("\u2060", "").split())
    assert len(provider.seen) == 10
    records = [one for one in ledger().exchanges if one.operation is Operation.GENERATE]
    denied = [one for one in records if one.status is ExchangeStatus.DENIED]
    assert [(one.denial, one.http_status, one.attempts) for one in denied] == [("runaway", 402, 0)]
    warned = [one for one in records if one.decisions is not None and one not in denied]
    assert len(warned) == 5
    decisions = msgspec.json.decode(denied[0].decisions or "[]", type=list[Decision])
    assert [(one.rule, one.outcome, one.spent, one.limit) for one in decisions] == [
        ("runaway", "deny", 10, 10)
    ]


def test_with_the_mode_warn_the_same_agent_comes_to_its_end(tmp_path, provider):
    person = Person(tmp_path, {"OGATE_RUNAWAY_MODE": "warn"})
    person.add_server("own", "openai-chat", f"http://127.0.0.1:{provider.port}/v1", "m-1")
    person.write(person.opencode_config, {"permission": {"doom_loop": "allow"}})
    provider.script = [glob("*.never")] * 12
    done = person.prompt("go", "--title", "t", model="own/m-1")
    assert done.returncode == 0, done.stderr
    assert len(provider.seen) == 13
    assert sum(one.decisions is not None for one in ledger().exchanges) == 8
