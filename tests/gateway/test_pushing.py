"""A pushed body goes into its sink within the call that brought it, or waits while that is full."""

import asyncio
import time
from collections.abc import Callable, Iterator

import pytest

from opencode_gate.core.tasks import spawn
from opencode_gate.gateway.http_connection import HttpConnection
from opencode_gate.gateway.http_response import HttpResponse
from opencode_gate.gateway.upstream import Sink, UpstreamFailure, UpstreamResponse, WhenReady
from tests.support.upstream_client import ask, running
from tests.support.watched_transport import WatchedTransport

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


class Bug(Exception):
    """A mistake in what takes an answer."""


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Taker:
    """A sink that remembers, and may be full or broken."""

    def __init__(self) -> None:
        self.taken: list[tuple[bytes, bool]] = []
        self.is_full = False
        self.is_broken = False
        self.ready: Callable[[], object] | None = None

    def __call__(self, part: bytes, is_last: bool) -> WhenReady | None:
        if self.is_broken:
            raise Bug
        self.taken.append((part, is_last))
        return self._when_ready if self.is_full else None

    def _when_ready(self, deed: Callable[[], object]) -> None:
        assert self.ready is None
        self.ready = deed

    def drain(self, *, is_full: bool = False) -> None:
        ready, self.ready, self.is_full = self.ready, None, is_full
        assert ready is not None
        ready()


class Pushed:
    """One request on a connection whose network end is in the test's hands."""

    def __init__(self) -> None:
        self.taker = Taker()
        self.transport = WatchedTransport()
        self.released = 0
        self.connection = HttpConnection(
            peer="provider:443", read_timeout_s=60, released=self._release, lost=lambda _: None
        )
        self.connection.connection_made(self.transport)
        self.sending: asyncio.Task[HttpResponse]

    def _release(self, connection: HttpConnection) -> None:
        self.released += 1

    async def begin(self, on_head: Callable[[UpstreamResponse], Sink | None] | None = None) -> None:
        self.sending = spawn(
            self.connection.exchange(
                b"GET",
                b"",
                is_head_request=False,
                header_timeout_s=60,
                on_head=on_head or (lambda _: self.taker),
            ),
            name="exchange",
        )
        await asyncio.sleep(0)

    def receive(self, data: bytes) -> None:
        self.connection.data_received(data)


@pytest.fixture
async def line() -> Iterator[Pushed]:
    line = Pushed()
    yield line
    line.connection.connection_lost(None)


async def test_what_comes_is_taken_within_the_same_call(line: Pushed) -> None:
    """Nothing is waited for in between, and the last part says that it is the last."""
    await line.begin()
    line.receive(HEAD + chunk(b"a"))
    assert line.taker.taken == [(b"a", False)]
    line.receive(chunk(b"b") + chunk(b"c"))
    line.receive(chunk(b"d"))
    line.receive(chunk(b"e") + END)
    assert line.taker.taken[1:] == [(b"bc", False), (b"d", False), (b"e", True)]
    response = await line.sending
    assert (response.status, line.released) == (200, 1)


async def test_an_answer_of_one_read_is_one_part(line: Pushed) -> None:
    await line.begin()
    line.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc")
    assert line.taker.taken == [(b"abc", True)]
    await line.sending


async def test_an_end_that_comes_alone_is_told(line: Pushed) -> None:
    await line.begin()
    line.receive(HEAD)
    assert line.taker.taken == []
    line.receive(chunk(b"a"))
    line.receive(END)
    assert line.taker.taken == [(b"a", False), (b"", True)]
    await line.sending


async def test_a_body_without_an_end_of_its_own_ends_with_the_connection(line: Pushed) -> None:
    await line.begin()
    line.receive(b"HTTP/1.1 200 OK\r\n\r\nabc")
    line.connection.connection_lost(None)
    assert line.taker.taken == [(b"abc", False), (b"", True)]
    await line.sending


async def test_an_answer_arrives_with_its_head_not_with_what_comes_before(line: Pushed) -> None:
    """What passes between an interim answer and the answer is the provider's time."""
    heads: list[UpstreamResponse] = []

    def on_head(head: UpstreamResponse) -> Sink:
        heads.append(head)
        return line.taker

    await line.begin(on_head)
    line.receive(b"HTTP/1.1 102 Processing\r\n\r\n" + HEAD[:9])
    noted_s = time.monotonic()
    line.receive(HEAD[9:])
    assert heads[0].arrived_s >= noted_s


async def test_a_full_sink_holds_the_provider_back(line: Pushed) -> None:
    """Bytes that come nevertheless wait their turn, and so does the end."""
    await line.begin()
    line.taker.is_full = True
    line.receive(HEAD + chunk(b"a"))
    assert not line.transport.is_reading
    line.receive(chunk(b"b"))
    line.receive(chunk(b"c") + END)
    assert line.taker.taken == [(b"a", False)]
    assert not line.sending.done()
    line.taker.drain()
    assert line.taker.taken == [(b"a", False), (b"bc", True)]
    await line.sending


async def test_a_sink_that_fills_up_in_the_middle_is_asked_again(line: Pushed) -> None:
    await line.begin()
    line.receive(HEAD + chunk(b"a"))
    line.taker.is_full = True
    line.receive(chunk(b"b"))
    assert not line.transport.is_reading
    line.receive(chunk(b"c"))
    line.taker.drain(is_full=True)
    assert line.taker.taken[-1] == (b"c", False)
    assert not line.transport.is_reading
    line.taker.drain()
    assert line.transport.is_reading
    line.receive(chunk(b"d") + END)
    assert line.taker.taken[-1] == (b"d", True)
    await line.sending


async def test_a_cut_while_the_sink_is_full_is_told_behind_what_came(line: Pushed) -> None:
    await line.begin()
    line.taker.is_full = True
    line.receive(HEAD + chunk(b"a"))
    line.receive(chunk(b"b"))
    line.connection.connection_lost(ConnectionResetError())
    line.taker.drain()
    assert line.taker.taken[-1] == (b"b", False)
    with pytest.raises(UpstreamFailure) as failure:
        await line.sending
    assert failure.value.kind == "reset"


async def test_an_answer_given_up_while_the_sink_is_full_is_not_taken_up_again(
    line: Pushed,
) -> None:
    await line.begin()
    line.taker.is_full = True
    line.receive(HEAD + chunk(b"a"))
    line.receive(chunk(b"b"))
    line.sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await line.sending
    line.taker.drain()
    assert line.taker.taken == [(b"a", False)]
    assert line.transport.is_aborted


@pytest.mark.parametrize("first", [HEAD + chunk(b"a"), HEAD])
async def test_a_bug_in_the_sink_is_raised_to_who_waits(line: Pushed, first: bytes) -> None:
    """Whoever sent the request must not wait for ever, and nobody believes the connection."""
    await line.begin()
    line.receive(first)
    line.taker.is_broken = True
    line.receive(chunk(b"b"))
    with pytest.raises(Bug):
        await line.sending
    assert (line.transport.is_aborted, line.released) == (True, 0)


async def test_a_bug_in_the_sink_that_had_been_full_is_raised_too(line: Pushed) -> None:
    await line.begin()
    line.taker.is_full = True
    line.receive(HEAD + chunk(b"a"))
    line.receive(chunk(b"b"))
    line.taker.is_broken = True
    line.taker.drain()
    with pytest.raises(Bug):
        await line.sending
    assert line.transport.is_aborted


async def test_a_bug_at_the_head_is_raised_to_who_waits(line: Pushed) -> None:
    def broken(response: UpstreamResponse) -> Sink | None:
        raise Bug

    await line.begin(broken)
    line.receive(HEAD + chunk(b"a"))
    with pytest.raises(Bug):
        await line.sending
    assert line.transport.is_aborted


async def test_who_looks_at_a_head_may_leave_the_body_to_be_read(line: Pushed) -> None:
    await line.begin(lambda _: None)
    line.receive(HEAD + chunk(b"a"))
    response = await line.sending
    line.receive(chunk(b"b") + END)
    assert [await response.read(), await response.read()] == [b"ab", b""]


async def test_nonsense_behind_a_part_is_a_failure_behind_it(line: Pushed) -> None:
    await line.begin()
    line.receive(HEAD + chunk(b"a"))
    line.receive(chunk(b"b") + b"zz\r\n")
    assert line.taker.taken == [(b"a", False), (b"b", False)]
    with pytest.raises(UpstreamFailure) as failure:
        await line.sending
    assert failure.value.kind == "protocol"


async def test_trailers_are_no_headers_of_the_next_answer(line: Pushed) -> None:
    for _ in range(2):
        await line.begin()
        line.receive(HEAD + chunk(b"a") + b"0\r\nX-Trailer: t\r\n\r\n")
        response = await line.sending
        assert response.headers == [(b"Transfer-Encoding", b"chunked")]


async def test_silence_inside_a_pushed_body_is_a_timeout() -> None:
    async def script(peer: object) -> None:
        await peer.request()  # type: ignore[attr-defined]
        await peer.send(HEAD + chunk(b"a"))  # type: ignore[attr-defined]
        await peer.closed()  # type: ignore[attr-defined]

    taker = Taker()
    async with running(script, read_timeout_s=0.02) as (client, provider):
        with pytest.raises(UpstreamFailure) as failure:
            await client.send(ask(provider.port), header_timeout_s=5, on_head=lambda _: taker)
    assert failure.value.kind == "timeout"
    assert taker.taken == [(b"a", False)]


async def test_a_provider_that_is_held_back_is_not_silent() -> None:
    """However long a client takes: the limit is for providers."""

    async def script(peer: object) -> None:
        await peer.request()  # type: ignore[attr-defined]
        await peer.send(HEAD + chunk(b"a"))  # type: ignore[attr-defined]
        await peer.closed()  # type: ignore[attr-defined]

    taker = Taker()
    taker.is_full = True
    async with running(script, read_timeout_s=0.02) as (client, provider):
        sending = spawn(
            client.send(ask(provider.port), header_timeout_s=5, on_head=lambda _: taker),
            name="send",
        )
        done, _ = await asyncio.wait((sending,), timeout=0.2)
        assert not done
        taker.drain()
        with pytest.raises(UpstreamFailure) as failure:
            await sending
    assert failure.value.kind == "timeout"
