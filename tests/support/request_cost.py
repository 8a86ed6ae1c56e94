"""How much work one request is, in bytecode instructions: the same number on every machine.

A request goes the whole way: from the client's bytes through the server, the rules, the client
towards providers and back, to its finished record in the journal. Only the sockets and the folding
are left out. Instructions of the event loop itself are not counted, those of the standard library
called from our code are.
"""

import asyncio
import selectors
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from bench.latency import chat_request
from bench.origin import plain_answer, stream_parts
from bench.rules import RULES
from opencode_gate.catalog.rows import ProviderRow
from opencode_gate.config.proxies import ProxyRules
from opencode_gate.core.clock import SystemClock
from opencode_gate.core.secrets import Secret
from opencode_gate.gateway.app import App
from opencode_gate.gateway.client_connection import ClientConnection
from opencode_gate.gateway.http_client import HttpUpstream
from opencode_gate.gateway.http_connection import HttpConnection
from opencode_gate.gateway.http_server import HttpServer
from opencode_gate.gateway.pipeline import Pipeline
from opencode_gate.governance.admission import Caller, LaunchDoor
from opencode_gate.governance.grants import Ask, Grant
from opencode_gate.governance.policy import Owner
from opencode_gate.ledger.journal import Journal
from opencode_gate.ledger.records import ExchangeRecord, SessionRecord
from opencode_gate.routing.targets import RouteTable
from opencode_gate.wire.facts import read_facts
from opencode_gate.wire.meter import ExchangeMeter
from opencode_gate.wire.routes import identify
from tests.support import watched_transport
from tests.support.rules import a_governor, give
from tests.support.watched_transport import WatchedTransport

_TOKEN = b"ogate-bench-token"
_NOT_OURS = (__file__, watched_transport.__file__, selectors.__file__)
_PLAIN = [plain_answer()]
_STREAM = stream_parts()
_PATH = "/p/bench/v1/chat/completions"
_SESSION = SessionRecord(
    id="01J00000000000000000000000",
    user="bench",
    agent="opencode",
    agent_version=None,
    directory="/",
    project="bench",
    started_at_us=0,
)


class _AnsweringTransport(WatchedTransport):
    """Answers each request as the bench's origin does, a part a turn of the loop."""

    def __init__(self, answer: list[bytes]) -> None:
        super().__init__()
        self.answer = answer
        self.data_received: Callable[[bytes], None] = lambda _: None

    def write(self, data: bytes) -> None:
        self._send(self.answer, 0)

    def _send(self, parts: list[bytes], number: int) -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(self.data_received, parts[number])
        if number + 1 < len(parts):
            loop.call_soon(self._send, parts, number + 1)


class _Undialled(HttpUpstream):
    """The real client, its first connection a given one."""

    def __init__(self, answer: list[bytes]) -> None:
        super().__init__(proxies=ProxyRules())
        self._answer = answer

    async def _connect(self, origin: Any, timeout_s: float) -> HttpConnection:
        transport = _AnsweringTransport(self._answer)
        connection = HttpConnection(
            peer="origin", read_timeout_s=60, released=origin.idle.append, lost=lambda _: None
        )
        connection.connection_made(transport)
        transport.data_received = connection.data_received
        return connection


class _Recorder:
    def __init__(self, journal: Journal) -> None:
        self.opened = journal.opened
        self.progressed = journal.progressed
        self._finished = journal.finished

    def finished(self, record: ExchangeRecord, body: bytes, meter: ExchangeMeter | None) -> None:
        self._finished(record)


class InstructionCount:
    """Counts what is executed in this thread inside its `with` block."""

    def __init__(self) -> None:
        self.instructions = 0

    def __enter__(self) -> "InstructionCount":
        sys.settrace(self._called)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _called(self, frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename in _NOT_OURS or "/asyncio/" in frame.f_code.co_filename:
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return self._executed

    def _executed(self, frame: FrameType, event: str, _: Any) -> Any:
        if event == "opcode":
            self.instructions += 1
        return self._executed


async def instructions_of_a_request(
    folder: Path, *, stream: bool, is_governed: bool = False
) -> int:
    """The instructions of one 8 kB chat request and its answer, once everything is warm.

    Governed, three budgets, two rate limits and a list of models have a say in it.
    """
    return await _instructions(folder, _STREAM if stream else _PLAIN, stream, is_governed)


async def instructions_of_a_streamed_event(folder: Path) -> int:
    """The instructions of one event more in a stream, from the provider's socket to the client's.

    What the longer of two streams takes more than the shorter one, by event.
    """
    shorter = [_STREAM[0], *_STREAM[-3:]]
    whole = await _instructions(folder / "whole", _STREAM, True, False)
    less = await _instructions(folder / "shorter", shorter, True, False)
    return (whole - less) // (len(_STREAM) - len(shorter))


async def instructions_of_an_admission(folder: Path, *, is_governed: bool) -> int:
    """The instructions it takes to ask the rules about a request."""
    if is_governed:
        give(folder / "ledger.db", (Owner("user", "bench"), RULES))
    governor = a_governor(folder / "ledger.db")
    route = identify("POST", _PATH)
    caller = Caller(_SESSION.id, _SESSION.user, None, _TOKEN)
    counts = []
    for number in range(4):
        body = chat_request(_PATH, number, stream=False).partition(b"\r\n\r\n")[2]
        ask = Ask(
            exchange_id=f"exchange {number}",
            caller=caller,
            provider_id="bench",
            route=route,
            facts=read_facts(route, body),
            body=body,
        )
        grant = Grant(ask.exchange_id)
        with InstructionCount() as count:
            await governor.admit(ask, grant)
        counts.append(count.instructions)
    return _counted(counts)


def instructions_of_an_event() -> int:
    """The instructions that metering takes for one event of a stream, a chunk of its own."""
    meter = ExchangeMeter(identify("POST", _PATH), streamed=True, asked_for_usage=False)
    event = _STREAM[1].split(b"\r\n")[1]
    assert meter.relay(event) is event
    counts = []
    for _ in range(4):
        with InstructionCount() as count:
            meter.relay(event)
        counts.append(count.instructions)
    return _counted(counts)


def instructions_of_metering_a_plain_answer() -> int:
    """The instructions that metering takes for an answer that is not streamed."""
    route = identify("POST", _PATH)
    body = _PLAIN[0].partition(b"\r\n\r\n")[2]
    counts = []
    for _ in range(4):
        with InstructionCount() as count:
            meter = ExchangeMeter(route, streamed=False, asked_for_usage=False)
            meter.observe_body(body)
            meter.end()
            metering = meter.metering()
        assert metering.usage.output
        counts.append(count.instructions)
    return _counted(counts)


async def _instructions(folder: Path, answer: list[bytes], stream: bool, is_governed: bool) -> int:
    counts = []
    async with _served(folder, answer, stream=stream, is_governed=is_governed) as serve:
        for number in range(6):
            asked = chat_request(_PATH, number, stream=stream)
            with InstructionCount() as count:
                await serve(asked)
            counts.append(count.instructions)
    return _counted(counts)


@asynccontextmanager
async def serve_requests(
    folder: Path, *, stream: bool
) -> AsyncIterator[Callable[[int], Awaitable[None]]]:
    """What serves so many requests, one after the other."""
    answer = _STREAM if stream else _PLAIN
    async with _served(folder, answer, stream=stream, is_governed=False) as serve_one:

        async def serve(times: int) -> None:
            for number in range(times):
                await serve_one(chat_request(_PATH, number, stream=stream))

        yield serve


@asynccontextmanager
async def _served(
    folder: Path, answer: list[bytes], *, stream: bool, is_governed: bool
) -> AsyncIterator[Callable[[bytes], Awaitable[None]]]:
    app, journal = await _application(folder, answer, is_governed=is_governed)
    server = HttpServer(app)
    client, transport = ClientConnection(server), WatchedTransport()
    client.connection_made(transport)

    async def serve(asked: bytes) -> None:
        transport.written.clear()
        client.data_received(asked)
        while server.tasks:
            await asyncio.sleep(0)
        written = b"".join(transport.written)
        assert written.startswith(b"HTTP/1.1 200 OK\r\n"), written
        assert written.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n" if stream else b"}")

    yield serve
    client.connection_lost(None)
    journal.close()


def _counted(counts: list[int]) -> int:
    """The least of them; from 3.12 on Python may see nothing the first time it is asked to look."""
    return min(count for count in counts if count)


async def _application(
    folder: Path, answer: list[bytes], *, is_governed: bool
) -> tuple[App, Journal]:
    row = ProviderRow(id="bench", name="bench", base_url="http://127.0.0.1:1/v1", source="config")
    journal = Journal.create(folder / "journals", session=_SESSION)
    ledger = folder / "ledger.db"
    if is_governed:
        give(ledger, (Owner("user", "bench"), RULES))
    pipeline = Pipeline(
        door=LaunchDoor(_TOKEN, session_id=_SESSION.id, user=_SESSION.user),
        governor=a_governor(ledger),
        routes=RouteTable((row,)),
        keys={"bench": Secret("sk-bench")},
        key_names={},
        upstream=_Undialled(answer),
        builtin_upstreams={},
        recorder=_Recorder(journal),
        clock=SystemClock(),
    )
    return App(pipeline), journal
