"""How much work one request is, in bytecode instructions: the same number on every machine.

A request goes through the whole application, pipeline, meter, journal and client; only the
sockets and the folding thread are left out. Instructions of the event loop itself are not
counted, those of the standard library called from our code are.
"""

import asyncio
import selectors
import sys
from collections.abc import Callable
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
from opencode_gate.gateway.http_client import HttpUpstream
from opencode_gate.gateway.http_connection import HttpConnection
from opencode_gate.gateway.pipeline import Pipeline
from opencode_gate.governance.admission import LaunchDoor
from opencode_gate.governance.policy import Owner
from opencode_gate.ledger.journal import Journal
from opencode_gate.ledger.records import ExchangeRecord, SessionRecord
from opencode_gate.routing.targets import RouteTable
from opencode_gate.wire.meter import ExchangeMeter
from opencode_gate.wire.routes import identify
from tests.support import heard_client
from tests.support.heard_client import HeardClient
from tests.support.rules import a_governor, give
from tests.support.watched_transport import WatchedTransport

_TOKEN = b"ogate-bench-token"
_NOT_OURS = (__file__, heard_client.__file__, selectors.__file__)
_PLAIN = [plain_answer()]
_STREAM = stream_parts()
_PATH = "/p/bench/v1/chat/completions"


class _AnsweringTransport(WatchedTransport):
    """Answers each request as the bench's origin does, a part a turn of the loop."""

    def __init__(self) -> None:
        super().__init__()
        self.data_received: Callable[[bytes], None] = lambda _: None

    def write(self, data: bytes) -> None:
        self._send(_STREAM if b'"stream":true' in data else _PLAIN, 0)

    def _send(self, parts: list[bytes], number: int) -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(self.data_received, parts[number])
        if number + 1 < len(parts):
            loop.call_soon(self._send, parts, number + 1)


class _Undialled(HttpUpstream):
    """The real client, its first connection a given one."""

    async def _connect(self, origin: Any, timeout_s: float) -> HttpConnection:
        transport = _AnsweringTransport()
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
    app, journal = await _application(folder, is_governed=is_governed)
    counts = []
    for number in range(4):
        client = _asked(number, stream=stream)
        with InstructionCount() as count:
            await app(client)
        assert client.status == 200
        assert client.is_whole
        counts.append(count.instructions)
    journal.close()
    return _counted(counts)


def instructions_of_an_event() -> int:
    """The instructions that metering takes for one event of a stream, a chunk of its own."""
    meter = ExchangeMeter(identify("POST", _PATH), streamed=True, asked_for_usage=False)
    event = stream_parts()[1].split(b"\r\n")[1]
    assert meter.relay(event) is event
    counts = []
    for _ in range(4):
        with InstructionCount() as count:
            meter.relay(event)
        counts.append(count.instructions)
    return _counted(counts)


def _counted(counts: list[int]) -> int:
    """The least of them; from 3.12 on Python may see nothing the first time it is asked to look."""
    return min(count for count in counts if count)


async def _application(folder: Path, *, is_governed: bool) -> tuple[App, Journal]:
    row = ProviderRow(id="bench", name="bench", base_url="http://127.0.0.1:1/v1", source="config")
    session = SessionRecord(
        id="01J00000000000000000000000",
        user="bench",
        agent="opencode",
        agent_version=None,
        directory="/",
        project="bench",
        started_at_us=0,
    )
    journal = Journal.create(folder / "journals", session=session)
    ledger = folder / "ledger.db"
    if is_governed:
        give(ledger, (Owner("user", "bench"), RULES))
    pipeline = Pipeline(
        door=LaunchDoor(_TOKEN, session_id=session.id, user=session.user),
        governor=a_governor(ledger),
        routes=RouteTable((row,)),
        keys={"bench": Secret("sk-bench")},
        key_names={},
        upstream=_Undialled(proxies=ProxyRules()),
        builtin_upstreams={},
        recorder=_Recorder(journal),
        clock=SystemClock(),
    )
    return App(pipeline), journal


def _asked(number: int, *, stream: bool) -> HeardClient:
    head, _, body = chat_request(_PATH, number, stream=stream).partition(b"\r\n\r\n")
    fields = (line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
    return HeardClient(_PATH, body, headers=[(name.lower(), value) for name, value in fields])
