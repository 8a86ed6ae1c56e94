"""The same answer, however the network cuts it: fed into a connection without a network."""

import asyncio
from collections.abc import Iterator

import pytest

from opencode_gate.core.tasks import spawn
from opencode_gate.gateway.http_connection import HEAD_LIMIT_BYTES, HttpConnection
from opencode_gate.gateway.http_response import BUFFER_LIMIT_BYTES, HttpResponse
from opencode_gate.gateway.upstream import OnHead, UpstreamFailure
from tests.support.watched_transport import WatchedTransport

CHUNKED = (
    b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\ntransfer-encoding: Chunked\r\n\r\n"
    b"6;ext=1\r\ndata: \r\n3\r\nabc\r\n2\r\n\n\n\r\n0\r\nX-Trailer: t\r\n\r\n"
)
SIZED = b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\nX-Empty:\r\n\r\ndata: abc\n\n"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\nX: y\r\n\r\ndata: abc\n\n"
BODY = b"data: abc\n\n"


class Line:
    """A connection whose network end is in the test's hands."""

    def __init__(self) -> None:
        self.released = 0
        self.lost = 0
        self.transport = WatchedTransport()
        self.connection = HttpConnection(
            peer="provider:443", read_timeout_s=60, released=self._release, lost=self._lose
        )
        self.connection.connection_made(self.transport)

    def _release(self, connection: HttpConnection) -> None:
        self.released += 1

    def _lose(self, connection: HttpConnection) -> None:
        self.lost += 1

    async def asked(self, on_head: OnHead | None = None) -> "asyncio.Task[HttpResponse]":
        """One request whose answer is to come."""
        sending = spawn(
            self.connection.exchange(
                b"GET", b"", is_head_request=False, header_timeout_s=60, on_head=on_head
            ),
            name="exchange",
        )
        await asyncio.sleep(0)
        return sending

    async def response(self, *reads: bytes) -> HttpResponse:
        """The answer to one request whose bytes come as `reads`."""
        sending = await self.asked()
        for read in reads:
            self.connection.data_received(read)
        return await sending

    def close(self) -> None:
        if not self.lost:
            self.connection.connection_lost(None)


@pytest.fixture
async def line() -> Iterator[Line]:
    line = Line()
    yield line
    line.close()


async def drain(response: HttpResponse) -> bytes:
    body = b""
    while part := await response.read():
        body += part
    return body


@pytest.mark.parametrize("answer", [CHUNKED, SIZED], ids=["chunked", "sized"])
async def test_every_cut_gives_the_same_answer(answer: bytes) -> None:
    """Two reads cut anywhere, and every fixed read size, tell the same."""
    ways = [[answer[:cut], answer[cut:]] for cut in range(1, len(answer))]
    for size in range(1, 40):
        ways.append([answer[at : at + size] for at in range(0, len(answer), size)])
    for reads in ways:
        line = Line()
        response = await line.response(*reads)
        assert response.status == 200
        assert len(response.headers) == 2
        assert await drain(response) == BODY
        assert line.released == 1
        assert not line.transport.is_aborted
        line.close()


@pytest.mark.parametrize("answer", [CHUNKED, SIZED], ids=["chunked", "sized"])
async def test_an_end_anywhere_before_the_end_is_a_failure(answer: bytes) -> None:
    """The other side closes after any number of bytes: never a clean end."""
    for cut in range(len(answer)):
        line = Line()
        sending = spawn(
            line.connection.exchange(b"GET", b"", is_head_request=False, header_timeout_s=60),
            name="exchange",
        )
        await asyncio.sleep(0)
        if cut:
            line.connection.data_received(answer[:cut])
        line.connection.connection_lost(None)
        body = b""
        with pytest.raises(UpstreamFailure) as caught:
            response = await sending
            while part := await response.read():
                body += part
        assert caught.value.kind == "reset"
        assert BODY.startswith(body)
        assert (line.lost, line.released) == (1, 0)


async def test_a_body_until_close_ends_only_with_a_clean_close(line: Line) -> None:
    """The same bytes, the same connection end, but an error: cut, not ended."""
    response = await line.response(UNTIL_CLOSE)
    line.connection.connection_lost(ConnectionResetError())
    assert await response.read() == BODY
    with pytest.raises(UpstreamFailure):
        await response.read()

    other = Line()
    response = await other.response(UNTIL_CLOSE)
    other.close()
    assert await drain(response) == BODY


async def test_parts_of_one_network_read_come_as_one(line: Line) -> None:
    """A provider that writes a chunk per token costs one hand-over per read, not per token."""
    response = await line.response(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"1\r\na\r\n1\r\nb\r\n1\r\nc\r\n",
    )
    assert await response.read() == b"abc"
    reading = spawn(response.read(), name="reader")
    await asyncio.sleep(0)
    line.connection.data_received(b"1\r\nd\r\n1\r\ne\r\n0\r\n\r\n")
    assert await reading == b"de"
    assert await response.read() == b""


async def test_head_and_small_body_leave_in_one_write(line: Line) -> None:
    """Two writes would be two packets, and with Nagle's algorithm a 40 ms wait between them."""
    sending = spawn(
        line.connection.exchange(b"HEAD|", b"body", is_head_request=False, header_timeout_s=60),
        name="exchange",
    )
    await asyncio.sleep(0)
    assert line.transport.written == [b"HEAD|body"]
    line.connection.data_received(SIZED)
    await sending


async def test_an_unread_body_stops_the_network_and_reading_starts_it(line: Line) -> None:
    """A slow client holds the provider back; the gateway's memory stays bounded."""
    response = await line.response(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n")
    part = b"x" * 65536
    taken = 0
    while line.transport.is_reading:
        line.connection.data_received(part)
        taken += len(part)
    assert taken == BUFFER_LIMIT_BYTES
    assert await response.read() == b"x" * taken
    assert line.transport.is_reading


async def test_a_whole_unread_body_does_not_stop_the_next_exchange(line: Line) -> None:
    """The connection goes back reading, else it could not see its own end."""
    size = BUFFER_LIMIT_BYTES * 2
    response = await line.response(
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * (size - 1)
    )
    assert not line.transport.is_reading
    line.connection.data_received(b"x")  # was already on its way when reading stopped
    assert line.transport.is_reading
    assert line.released == 1
    assert len(await drain(response)) == size


async def test_bytes_on_a_resting_connection_close_it(line: Line) -> None:
    """Nobody asked for them: sender and client disagree about where an answer ended."""
    await line.response(SIZED)
    assert not line.transport.is_aborted
    line.connection.data_received(SIZED)
    assert line.transport.is_aborted
    assert line.released == 1


BEGUN = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"


@pytest.mark.parametrize("is_pushed", [False, True])
@pytest.mark.parametrize("field", [b"y", b"x-y: z\r\n"], ids=["one field", "many fields"])
async def test_trailers_without_end_are_given_up(line: Line, is_pushed: bool, field: bytes) -> None:
    """The parser keeps a field until it is whole."""
    sending = await line.asked((lambda _: lambda part, is_last: None) if is_pushed else None)
    line.connection.data_received(BEGUN + b"0\r\nx-first: ")
    reads = 0
    while not line.transport.is_aborted and reads < 100:
        line.connection.data_received(field * 10_000)
        reads += 1
    assert reads * len(field) * 10_000 < HEAD_LIMIT_BYTES + len(field) * 20_000
    with pytest.raises(UpstreamFailure) as caught:
        await drain(await sending)
    assert caught.value.kind == "protocol"


@pytest.mark.parametrize("is_pushed", [False, True])
async def test_what_stands_between_parts_does_not_add_up_to_trailers(
    line: Line, is_pushed: bool
) -> None:
    """A stream of many chunks may come with the size of each in a read of its own."""
    taken: list[bytes] = []
    sending = await line.asked(
        (lambda _: lambda part, is_last: taken.append(part)) if is_pushed else None
    )
    line.connection.data_received(BEGUN)
    for _ in range(10):
        line.connection.data_received(b"1;" + b"e" * 60_000 + b"\r\n")
        line.connection.data_received(b"x\r\n")
    line.connection.data_received(b"0\r\n\r\n")
    response = await sending
    assert await drain(response) + b"".join(taken) == b"x" * 11


async def test_nothing_secret_is_in_a_failure(line: Line) -> None:
    """Failures are logged and shown: they name the host, not what was sent."""
    sending = spawn(
        line.connection.exchange(
            b"POST /v1?key=sk-hidden HTTP/1.1\r\nAuthorization: Bearer sk-hidden\r\n\r\n",
            b"sk-hidden",
            is_head_request=False,
            header_timeout_s=60,
        ),
        name="exchange",
    )
    await asyncio.sleep(0)
    line.connection.data_received(b"sk-hidden is not HTTP\r\n\r\n")
    with pytest.raises(UpstreamFailure, match="provider:443") as caught:
        await sending
    assert "sk-hidden" not in str(caught.value) + repr(caught.value)
    assert line.transport.is_aborted
