"""What a client gets, and what is written down of it, whatever the two ends do meanwhile."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from opencode_gate.catalog.rows import ProviderRow
from opencode_gate.core.clock import SystemClock
from opencode_gate.core.secrets import Secret
from opencode_gate.core.semconv import ExchangeStatus
from opencode_gate.core.tasks import spawn
from opencode_gate.core.usage import TokenUsage
from opencode_gate.gateway.app import App
from opencode_gate.gateway.client_connection import ClientConnection
from opencode_gate.gateway.downstream import ClientRequest
from opencode_gate.gateway.http_server import HttpServer
from opencode_gate.gateway.pipeline import Pipeline
from opencode_gate.gateway.upstream import (
    OnHead,
    RawHeaders,
    Sink,
    UpstreamFailure,
    UpstreamRequest,
)
from opencode_gate.governance.admission import LaunchDoor
from opencode_gate.governance.governor import Governor
from opencode_gate.governance.grants import Ask, Grant
from opencode_gate.ledger.records import ExchangeRecord
from opencode_gate.routing.targets import RouteTable
from opencode_gate.wire.meter import ExchangeMeter
from tests.support.heard_client import HeardClient
from tests.support.rules import a_governor
from tests.support.watched_transport import WatchedTransport

PATH = "/p/acme/v1/chat/completions"
TOKEN = b"ogs-token"
STREAM: RawHeaders = [(b"Content-Type", b"text/event-stream")]
PLAIN = (
    b'{"model":"m","choices":[{"index":0,"finish_reason":"stop","message":{"content":"twelve '
    b'chars"}}],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}'
)
EVENT = b'data: {"model":"m","choices":[{"index":0,"delta":{"content":"twelve chars"}}]}\n\n'
LAST = (
    b'data: {"model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}\n\n'
)
DONE = b"data: [DONE]\n\n"


class Clock(SystemClock):
    """A clock that only moves when told to."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.monotonic_s: Callable[[], float] = lambda: self.now_s  # type: ignore[misc]


class Head:
    """The head of a scripted answer. Implements `UpstreamResponse`."""

    def __init__(self, headers: RawHeaders, sent_s: float, arrived_s: float) -> None:
        self.status = 200
        self.headers = headers
        self.sent_s = sent_s
        self.arrived_s = arrived_s

    async def read(self) -> bytes:
        raise AssertionError("it is pushed")

    def abort(self) -> None: ...


class Pusher:
    """An upstream whose answers are pushed by the test."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.think_s = self.dial_s = 0.0
        self.is_reached = True
        self.on_head: OnHead | None = None
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.asked = asyncio.Event()
        self.ready: Callable[[], object] | None = None

    async def send(
        self, request: UpstreamRequest, *, header_timeout_s: float, on_head: OnHead | None = None
    ) -> Any:
        self.clock.now_s += self.dial_s
        request.dialled_s = self.dial_s
        request.is_waiting = not self.is_reached
        self.sent_s = self.clock.now_s
        self.clock.now_s += self.think_s
        self.on_head = on_head
        self.asked.set()
        await self.ended

    async def close(self) -> None: ...

    def begin(self, headers: RawHeaders) -> Sink:
        assert self.on_head is not None
        sink = self.on_head(Head(headers, self.sent_s, self.clock.now_s))
        assert sink is not None
        return sink


class Recorder:
    """Remembers records, and whether the client had its answer when they were written."""

    def __init__(self) -> None:
        self.records: list[ExchangeRecord] = []
        self.had_answer: list[bool] = []
        self.client: HeardClient

    def opened(self, record: ExchangeRecord, *, input_bytes: int | None) -> bool:
        return True

    def progressed(self, exchange_id: str, usage: TokenUsage, delivered_text_chars: int) -> None:
        pass

    def finished(self, record: ExchangeRecord, body: bytes, meter: ExchangeMeter | None) -> None:
        self.records.append(record)
        self.had_answer.append(self.client.is_whole)


class Scene:
    """One request in flight."""

    def __init__(
        self, folder: Path, *, stream: bool, make_wait: Callable[[Governor], Governor] | None = None
    ) -> None:
        self.clock = Clock()
        self.upstream = Pusher(self.clock)
        self.recorder = Recorder()
        governor = a_governor(folder / "ledger.db")
        row = ProviderRow(id="acme", name="A", base_url="http://127.0.0.1:1/v1", source="config")
        self.app = App(
            Pipeline(
                door=LaunchDoor(TOKEN, session_id="s", user="u"),
                governor=governor if make_wait is None else make_wait(governor),
                routes=RouteTable((row,)),
                keys={"acme": Secret("sk-acme")},
                key_names={},
                upstream=self.upstream,
                builtin_upstreams={},
                recorder=self.recorder,
                clock=self.clock,
            )
        )
        body = b'{"model":"m","messages":[],"stream":%b}' % (b"true" if stream else b"false")
        headers = [(b"host", b"127.0.0.1:1"), (b"authorization", b"Bearer " + TOKEN)]
        self.client = self.recorder.client = HeardClient(PATH, body, headers=headers)
        self.client.received_s = self.clock.now_s
        self.work: asyncio.Task[None]

    async def begin(self) -> None:
        self.work = spawn(self.app(self.client), name="request")
        await self.upstream.asked.wait()

    async def end(self) -> ExchangeRecord:
        if not self.upstream.ended.done():
            self.upstream.ended.set_result(None)
        await self.work
        (record,) = self.recorder.records
        return record


async def test_a_plain_answer_of_one_read_is_one_write_before_it_is_accounted_for(
    tmp_path: Path,
) -> None:
    """Nobody waits for the counting."""
    scene = Scene(tmp_path, stream=False)
    await scene.begin()
    scene.upstream.begin([(b"Content-Length", b"%d" % len(PLAIN))])(PLAIN, True)
    assert (scene.client.answers, scene.client.is_whole) == ([PLAIN], True)
    assert scene.recorder.records == []
    record = await scene.end()
    assert (record.status, record.usage.output) == (ExchangeStatus.COMPLETED, 2)
    assert scene.recorder.had_answer == [True]


async def test_an_event_is_with_the_client_within_the_call_that_brought_it(tmp_path: Path) -> None:
    scene = Scene(tmp_path, stream=True)
    await scene.begin()
    take = scene.upstream.begin(STREAM)
    take(EVENT, False)
    assert scene.client.answers == [EVENT]
    take(LAST + DONE, True)
    assert (scene.client.answer, scene.client.is_whole) == (EVENT + LAST + DONE, True)
    record = await scene.end()
    assert (record.status, record.usage.output) == (ExchangeStatus.COMPLETED, 2)


async def test_an_event_stream_is_one_however_its_type_is_spelt(tmp_path: Path) -> None:
    """Media types have no case (RFC 9110, section 8.3.1)."""
    scene = Scene(tmp_path, stream=True)
    await scene.begin()
    scene.upstream.begin([(b"Content-Type", b"Text/Event-Stream")])(EVENT + LAST + DONE, True)
    record = await scene.end()
    assert (record.status, record.usage.output) == (ExchangeStatus.COMPLETED, 2)


async def test_a_full_client_holds_the_provider_back(tmp_path: Path) -> None:
    scene = Scene(tmp_path, stream=True)
    await scene.begin()
    take = scene.upstream.begin(STREAM)
    scene.client.is_full = True
    when_ready = take(EVENT, False)
    assert when_ready is not None
    told: list[bool] = []
    when_ready(lambda: told.append(True))
    scene.client.drain()
    assert told == [True]
    scene.client.is_full = False
    assert take(EVENT, False) is None
    scene.client.leave()
    await scene.end()


async def test_a_bug_while_an_answer_passes_ends_the_exchange_and_cuts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even a mistake of ours may leave a record out, or look like the end of an answer."""
    scene = Scene(tmp_path, stream=True)
    await scene.begin()
    monkeypatch.setattr(HeardClient, "write", lambda self, part: 1 // 0)
    take = scene.upstream.begin(STREAM)
    with pytest.raises(ZeroDivisionError) as bug:
        take(EVENT, False)
    scene.upstream.ended.set_exception(bug.value)
    with pytest.raises(ZeroDivisionError):
        await scene.end()
    (record,) = scene.recorder.records
    assert (record.status, record.error_type) == (ExchangeStatus.INTERRUPTED, "gateway_bug")
    assert not scene.client.is_whole


async def test_a_stream_that_is_cut_cuts_the_client(tmp_path: Path) -> None:
    scene = Scene(tmp_path, stream=True)
    await scene.begin()
    scene.upstream.begin(STREAM)(EVENT, False)
    scene.upstream.ended.set_exception(UpstreamFailure("reset", "cut", bytes_sent=True))
    record = await scene.end()
    assert (record.status, record.error_type) == (ExchangeStatus.UPSTREAM_ERROR, "reset")
    assert (scene.client.answer, scene.client.is_whole) == (EVENT, False)


async def test_a_stream_without_its_terminal_is_no_whole_answer(tmp_path: Path) -> None:
    scene = Scene(tmp_path, stream=True)
    await scene.begin()
    scene.upstream.begin(STREAM)(EVENT, True)
    record = await scene.end()
    assert (record.status, record.error_type) == (ExchangeStatus.UPSTREAM_ERROR, "no_terminal")
    assert (scene.client.answer, scene.client.is_whole) == (EVENT, False)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_stop_behind_the_last_byte_loses_nothing(tmp_path: Path, stream: bool) -> None:
    """The client has the whole answer, so it is accounted for as that."""
    scene = Scene(tmp_path, stream=stream)
    await scene.begin()
    if stream:
        scene.upstream.begin(STREAM)(EVENT + LAST + DONE, True)
    else:
        scene.upstream.begin([])(PLAIN, True)
    scene.work.cancel()
    record = await scene.end()
    assert (record.status, record.usage.output) == (ExchangeStatus.COMPLETED, 2)


async def test_a_client_that_leaves_gives_the_answer_up(tmp_path: Path) -> None:
    scene = Scene(tmp_path, stream=True)
    await scene.begin()
    scene.upstream.begin(STREAM)(EVENT, False)
    scene.client.leave()
    await asyncio.wait((scene.work,))
    (record,) = scene.recorder.records
    assert record.status is ExchangeStatus.CLIENT_DISCONNECTED


@pytest.mark.parametrize("is_reached", [True, False])
async def test_who_leaves_before_the_provider_is_reached_owes_it_nothing(
    tmp_path: Path, is_reached: bool
) -> None:
    """A name that does not resolve, a handshake that hangs: no provider has seen the request."""
    scene = Scene(tmp_path, stream=True)
    scene.upstream.is_reached = is_reached
    await scene.begin()
    scene.client.leave()
    await asyncio.wait((scene.work,))
    (record,) = scene.recorder.records
    assert record.status is ExchangeStatus.CLIENT_DISCONNECTED
    assert (record.usage.input_tokens is not None) is is_reached
    assert record.cost_nano_usd == (None if is_reached else 0)


class _Waiting:
    """A governor that has every request wait for 50 s."""

    def __init__(self, governor: Governor, pass_s: Callable[[float], None]) -> None:
        self._governor = governor
        self._pass_s = pass_s

    def decide(self, ask: Ask, grant: Grant) -> Any:
        return self._wait()

    async def _wait(self) -> None:
        await asyncio.sleep(0)
        self._pass_s(50.0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._governor, name)


@pytest.mark.parametrize("stream", [True, False])
async def test_the_gateways_own_time_is_not_that_of_others(tmp_path: Path, stream: bool) -> None:
    """Not what rules had it wait, not the dialling, not what the provider took."""

    def pass_s(passed_s: float) -> None:
        scene.clock.now_s += passed_s

    scene = Scene(
        tmp_path,
        stream=stream,
        make_wait=lambda governor: _Waiting(governor, pass_s),  # type: ignore[arg-type, return-value]
    )
    scene.client.received_s -= 0.25  # ours: until it was looked at
    scene.upstream.dial_s = 7.0
    scene.upstream.think_s = 300.0
    await scene.begin()
    take = scene.upstream.begin(STREAM if stream else [])
    scene.clock.now_s += 0.5  # ours: from the answer's first bytes to the client
    take(EVENT if stream else PLAIN, not stream)
    scene.clock.now_s += 60.0  # the provider again, or the client
    if stream:
        take(LAST + DONE, True)
    record = await scene.end()
    assert record.gateway_us == 750_000
    assert record.duration_us == 417_750_000
    assert record.queued_us == 50_250_000


async def test_dialling_is_no_time_of_the_gateways_own_however_the_answer_ends(
    tmp_path: Path,
) -> None:
    scene = Scene(tmp_path, stream=True)
    scene.upstream.dial_s = 7.0
    await scene.begin()
    scene.upstream.begin(STREAM)(EVENT, False)
    scene.client.leave()
    await asyncio.wait((scene.work,))
    (record,) = scene.recorder.records
    assert (record.status, record.gateway_us) == (ExchangeStatus.CLIENT_DISCONNECTED, 0)


@pytest.mark.parametrize("stream", [True, False])
async def test_what_a_provider_thinks_behind_its_head_is_no_time_of_the_gateways(
    tmp_path: Path, stream: bool
) -> None:
    """Many send the head at once and the first token much later."""
    scene = Scene(tmp_path, stream=stream)
    await scene.begin()
    take = scene.upstream.begin(STREAM if stream else [])
    scene.clock.now_s += 0.5  # ours: until the head left
    scene.client.head_left_s = scene.clock.now_s
    scene.clock.now_s += 20.0
    take(EVENT + LAST + DONE if stream else PLAIN, True)
    record = await scene.end()
    assert record.gateway_us == 500_000
    assert record.time_to_first_chunk_us == 20_500_000


async def test_without_an_answer_there_is_no_time_of_the_gateways_own(tmp_path: Path) -> None:
    scene = Scene(tmp_path, stream=False)
    await scene.begin()
    scene.upstream.ended.set_exception(UpstreamFailure("timeout", "silent", bytes_sent=True))
    record = await scene.end()
    assert (record.gateway_us, scene.client.status) == (None, 504)


async def test_a_request_counts_from_its_last_byte() -> None:
    """However long a client takes to send its body: that is no time of ours."""
    received_s: list[float] = []

    async def handler(client: ClientRequest) -> None:
        await client.body()
        received_s.append(client.received_s)
        client.begin(204, [])
        client.end()

    server = HttpServer(handler)
    connection = ClientConnection(server)
    connection.connection_made(WatchedTransport())
    connection.data_received(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab")
    await asyncio.sleep(0)
    noted_s = time.monotonic()
    connection.data_received(b"cd")
    await asyncio.gather(*server.tasks)
    connection.connection_lost(None)
    assert received_s[0] >= noted_s
