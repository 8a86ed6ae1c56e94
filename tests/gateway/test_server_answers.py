"""How answers leave, over real sockets and on both event loops."""

import asyncio
import contextlib
import errno
import logging
import socket
from time import monotonic
from typing import Any

import pytest

from opencode_gate.core.tasks import spawn
from opencode_gate.gateway import client_line
from opencode_gate.gateway.client_connection import ClientConnection
from opencode_gate.gateway.downstream import ClientRequest
from opencode_gate.gateway.http_server import HttpServer
from tests.support.raw_client import Served, begun_until, echo, request, serving
from tests.support.watched_transport import WatchedTransport

ASKED = request(method=b"GET")


class Fake(WatchedTransport):
    """Notes how it was closed too."""

    is_closed = False

    def close(self) -> None:
        self.is_closed = True

    def writelines(self, parts: Any) -> None:
        self.write(b"".join(parts))


async def _line(handler: Any) -> tuple[ClientConnection, Fake]:
    connection, transport = ClientConnection(HttpServer(handler)), Fake()
    connection.connection_made(transport)
    connection.data_received(ASKED)
    return connection, transport


async def test_head_and_first_part_leave_in_one_write() -> None:
    """Each write wakes the client, and can be a packet of its own."""

    async def handler(client: ClientRequest) -> None:
        client.begin(200, [(b"content-length", b"4")])
        client.write(b"bo")
        assert client.head_left_s is None
        client.end(b"dy")

    connection, transport = await _line(handler)
    await asyncio.sleep(0)
    assert transport.written == [b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbo", b"dy"]
    connection.connection_lost(None)


async def test_a_head_alone_leaves_within_a_turn() -> None:
    """A provider that sends its head long before its first token: the client sees it too.

    And what comes between the two is known to be no time of ours.
    """
    go_on = asyncio.Event()

    async def handler(client: ClientRequest) -> None:
        client.begin(200, [])
        await go_on.wait()
        assert client.head_left_s is not None
        assert client.received_s <= client.head_left_s <= monotonic()
        client.end(b"x")

    connection, transport = await _line(handler)
    for _ in range(3):
        await asyncio.sleep(0)
    assert transport.written == [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"]
    go_on.set()
    for _ in range(3):
        await asyncio.sleep(0)
    assert transport.written[1:] == [b"1\r\nx\r\n0\r\n\r\n"]
    connection.connection_lost(None)


async def test_a_client_that_is_gone_at_the_goodbye_spoils_no_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A socket that its client has reset has no end left to close, and says so."""
    ended: list[bool] = []

    def gone(self: Fake) -> None:
        raise OSError(errno.ENOTCONN, "not connected")

    async def handler(client: ClientRequest) -> None:
        await client.body()
        client.begin(200, [(b"content-length", b"1")])
        client.end(b"x")
        ended.append(True)

    monkeypatch.setattr(Fake, "can_write_eof", lambda self: True)
    monkeypatch.setattr(Fake, "write_eof", gone)
    connection, transport = ClientConnection(HttpServer(handler)), Fake()
    connection.connection_made(transport)
    asked = request(b"abcd", b"Connection: close")
    connection.data_received(asked[:-2])
    connection.data_received(asked[-2:])
    for _ in range(3):
        await asyncio.sleep(0)
    assert (ended, transport.is_aborted) == ([True], True)
    connection.connection_lost(None)


async def test_parts_of_any_size_arrive_as_they_were_given() -> None:
    parts = [b"", b"a", b"b" * 70_000, b"c" * 300_000, b"", b"d" * 65_536]

    async def chunked(client: ClientRequest) -> None:
        client.begin(200, [(b"x-kind", client.path.encode())])
        for part in parts[:-1]:
            client.write(part)
        client.end(parts[-1])

    async def sized(client: ClientRequest) -> None:
        client.begin(200, [(b"Content-Length", b"%d" % len(b"".join(parts)))])
        for part in parts:
            client.write(part)
        client.end()

    for handler in (chunked, sized):
        async with serving(handler) as served:
            client = await served.client()
            for _ in range(2):
                await client.send(ASKED)
                if handler is chunked:
                    assert (await client.answer())[2] == b"".join(parts)
                else:
                    head = await client.reader.readuntil(b"\r\n\r\n")
                    assert b"transfer-encoding" not in head
                    whole = len(b"".join(parts))
                    assert await client.reader.readexactly(whole) == b"".join(parts)


@pytest.mark.parametrize(
    ("method", "status", "fields", "head"),
    [
        (b"HEAD", 200, [(b"content-length", b"9")], b"200 OK\r\ncontent-length: 9"),
        (b"HEAD", 200, [], b"200 OK"),
        (b"GET", 204, [], b"204 No Content"),
        (b"GET", 304, [(b"etag", b"x")], b"304 Not Modified\r\netag: x"),
        (b"GET", 799, [(b"content-length", b"0")], b"799 \r\ncontent-length: 0"),
    ],
)
async def test_an_answer_without_a_body_has_none(
    method: bytes, status: int, fields: list[tuple[bytes, bytes]], head: bytes
) -> None:
    """Whatever is written: a client would take it for the next answer."""

    async def handler(client: ClientRequest) -> None:
        client.begin(status, fields)
        if status != 799:
            client.write(b"not for you")
        client.end()

    async with serving(handler) as served:
        client = await served.client()
        for _ in range(2):
            await client.send(request(method=method))
            assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 " + head + b"\r\n\r\n"


async def _nothing(client: ClientRequest) -> None:
    pass


async def _head_only(client: ClientRequest) -> None:
    client.begin(200, [])


async def _no_end(client: ClientRequest) -> None:
    client.begin(200, [])
    client.write(b"begun")


async def _too_short(client: ClientRequest) -> None:
    client.begin(200, [(b"content-length", b"9")])
    client.end(b"begun")


async def _broken(client: ClientRequest) -> None:
    client.begin(200, [])
    client.write(b"begun")
    raise ZeroDivisionError


async def _too_long(client: ClientRequest) -> None:
    client.begin(200, [(b"content-length", b"3")])
    client.end(b"begun")


@pytest.mark.parametrize("handler", [_nothing, _head_only, _no_end, _too_short, _broken, _too_long])
async def test_an_answer_that_is_not_whole_never_looks_whole(handler: Any) -> None:
    """That is how an agent learns that it must not believe it."""
    async with serving(handler) as served:
        client = await served.client()
        await client.send(ASKED + ASKED)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await client.answer()
        assert await client.is_closed()


async def test_a_cut_answer_to_http_1_0_is_reset() -> None:
    """There the connection's end is the body's, and only a reset is no clean end."""
    async with serving(_no_end) as served:
        client = await served.client()
        await client.send(b"GET / HTTP/1.0\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            await client.rest()


async def test_an_answer_to_http_1_0_is_reset_when_the_client_says_no_more() -> None:
    """It counts as gone, and must not take what it has got by then for the whole."""
    left = asyncio.Event()

    async with serving(begun_until(left)) as served:
        client = await served.client()
        await client.send(b"GET / HTTP/1.0\r\n\r\n")
        await client.reader.readuntil(b"begun")
        client.writer.write_eof()
        with pytest.raises(ConnectionResetError):
            await client.rest()


@pytest.mark.parametrize("follows", [ASKED, b"nonsense\r\n\r\n"])
async def test_nothing_is_said_behind_an_answer_that_was_cut(follows: bytes) -> None:
    """The client would take it for the rest of the body, and the provider would be paid for it."""
    asked: list[str] = []

    async def handler(client: ClientRequest) -> None:
        asked.append(client.path)
        client.begin(200, [(b"content-length", b"19000000")])
        client.write(b"x" * 9_000_000)

    async with serving(handler) as served:
        client = await served.client(receive_bytes=4096)
        await client.send(request(target=b"/first", method=b"GET") + follows)
        await client.reader.readuntil(b"\r\n\r\n")
        assert (await client.rest()).strip(b"x") == b""
        assert asked == ["/first"]


async def test_an_error_before_the_answer_is_500_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handler(client: ClientRequest) -> None:
        if client.path == "/bad":
            raise ZeroDivisionError("by nothing")
        await echo(client)

    async with serving(handler) as served:
        client = await served.client()
        with caplog.at_level(logging.ERROR):
            await client.send(request(target=b"/bad", method=b"GET"))
            assert (await client.answer())[0] == 500
        assert "by nothing" in caplog.text
        await client.send(request(b"again"))
        assert (await client.answer())[2] == b"again"


@pytest.mark.parametrize("value", [b"a\r\nset-cookie: b", b"a\nb", b"a\r\n\r\nbody"])
async def test_a_header_cannot_end_its_line(value: bytes) -> None:
    """A provider's header, or a rule's name, must not become another header or the body."""

    async def handler(client: ClientRequest) -> None:
        client.begin(200, [(b"x-told", value), (b"content-length", b"0")])
        client.end()

    async with serving(handler) as served:
        client = await served.client()
        await client.send(ASKED)
        assert (await client.answer())[0] == 500


async def test_a_client_that_leaves_is_noticed_and_written_to_no_more() -> None:
    """Once, in the call that loses it, and not after its answer's end."""
    told: list[str] = []
    left = asyncio.Event()

    async def handler(client: ClientRequest) -> None:
        if client.path == "/whole":
            client.on_left(lambda: told.append("after its end"))
            await echo(client)
            return
        client.on_left(lambda: told.append("one"))
        client.on_left(lambda: told.append("two"))
        client.on_left(left.set)
        client.begin(200, [])
        client.write(b"begun")
        await left.wait()
        client.on_left(lambda: told.append("late"))
        client.when_drained(lambda: told.append("drained"))
        assert not client.is_full
        for _ in range(10):
            client.write(b"to nobody")
        client.end(b"at all")

    async with serving(handler) as served:
        client = await served.client()
        await client.send(request(target=b"/whole"))
        await client.answer()
        await client.send(request(target=b"/left"))
        await client.reader.readuntil(b"begun")
        client.close()
        await left.wait()
        while served.server.tasks:
            await asyncio.sleep(0)
    assert told == ["one", "two", "late", "drained"]


@pytest.mark.parametrize("asks_on", [request(), request(b"x" * 1000)[:-500]])
async def test_a_client_that_has_asked_on_and_leaves_is_noticed(asks_on: bytes) -> None:
    """The answer it no longer waits for must not go on being made, and paid for."""
    left = asyncio.Event()

    async with serving(begun_until(left)) as served:
        client = await served.client()
        await client.send(request() + asks_on)
        await client.reader.readuntil(b"begun")
        client.close()
        async with asyncio.timeout(10):
            await left.wait()


async def test_a_slow_client_holds_the_writer_back() -> None:
    """What waits for it here stays within the buffer and one part."""
    part, parts = b"x" * 20_000, 400
    largest = 0

    async def handler(client: ClientRequest) -> None:
        nonlocal largest
        client.begin(200, [])
        for _ in range(parts):
            client.write(part)
            (connection,) = served.server.connections
            largest = max(largest, connection._transport.get_write_buffer_size())
            if client.is_full:
                room = asyncio.Event()
                client.when_drained(room.set)
                await room.wait()
                assert not client.is_full
        client.end()

    async with serving(handler) as served:
        client = await served.client(receive_bytes=4096)
        await client.send(ASKED)
        assert (await client.answer())[2] == part * parts
    assert 64 * 1024 < largest <= 64 * 1024 + len(part) + 100


async def test_a_client_lost_while_it_is_full_lets_its_writer_go() -> None:
    went_on = asyncio.Event()

    async def handler(client: ClientRequest) -> None:
        client.begin(200, [])
        while not client.is_full:
            client.write(b"x" * 60_000)
        client.when_drained(went_on.set)
        await went_on.wait()

    async with serving(handler) as served:
        client = await served.client(receive_bytes=4096)
        await client.send(ASKED)
        while not served.server.tasks:
            await asyncio.sleep(0)
        await client.reader.read(1)
        client.writer.transport.abort()
        await went_on.wait()


async def test_who_asks_on_without_reading_gets_no_more_than_the_buffer() -> None:
    """Its next request waits until there is room for an answer."""
    answers = 0

    async def handler(client: ClientRequest) -> None:
        nonlocal answers
        answers += 1
        client.begin(200, [(b"content-length", b"100000")])
        client.end(b"x" * 100_000)

    async with serving(handler) as served:
        client = await served.client(receive_bytes=4096)
        await client.send(ASKED * 100)
        (connection,) = served.server.connections
        while not connection._is_full:
            await asyncio.sleep(0)
        begun = answers
        for _ in range(20):
            await asyncio.sleep(0)
        assert answers == begun < 90
        assert connection._transport.get_write_buffer_size() < 200_000
        for _ in range(100):
            assert (await client.answer())[2] == b"x" * 100_000


async def test_an_ended_answer_that_nobody_takes_is_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A connection that closes has so much time for the rest of what it has to send."""
    monkeypatch.setattr(client_line, "LINGER_S", 0.01)

    async def handler(client: ClientRequest) -> None:
        client.begin(200, [(b"content-length", b"9000000")])
        client.end(b"x" * 9_000_000)

    async with serving(handler) as served:
        client = await served.client(receive_bytes=4096)
        await client.send(request(b"", b"Connection: close", method=b"GET"))
        while not served.server.tasks:
            await asyncio.sleep(0)
        while served.server.connections:
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("is_stopped", [False, True])
async def test_what_http_1_0_does_not_take_of_an_answer_is_reset(
    monkeypatch: pytest.MonkeyPatch, is_stopped: bool
) -> None:
    """All is written, not all is taken: the connection's clean end would make it look whole."""
    monkeypatch.setattr(client_line, "LINGER_S", 60.0 if is_stopped else 0.01)

    async def handler(client: ClientRequest) -> None:
        client.begin(200, [])
        client.end(b"x" * 9_000_000)

    async with serving(handler) as served:
        client = await served.client(receive_bytes=4096)
        await client.send(b"GET / HTTP/1.0\r\n\r\n")
        await client.reader.readuntil(b"\r\n\r\n")
        if is_stopped:
            served.server.stop()
        while served.server.connections:
            if is_stopped:
                await served.server.wait_stopped()
            await asyncio.sleep(0.001)
        with pytest.raises(ConnectionResetError):
            await client.rest()


async def _slow(client: ClientRequest) -> None:
    client.begin(200, [])
    client.write(b"begun")
    for _ in range(3):
        await asyncio.sleep(0.01)
    client.end(b"ended")


async def test_a_stop_lets_nobody_in_and_what_is_in_flight_end() -> None:
    async with serving(_slow) as served:
        idle, busy = await served.client(), await served.client()
        await busy.send(ASKED + ASKED)
        await busy.reader.readuntil(b"begun")
        served.server.stop(30.0)
        stopped = spawn(served.server.wait_stopped(), name="stopping")
        assert await idle.is_closed()
        said = await busy.rest()
        assert said.endswith(b"5\r\nended\r\n0\r\n\r\n")
        assert said.count(b"HTTP/1.1 200") == 0  # the second one was not begun with
        await stopped


@pytest.mark.parametrize("asks_on", ["before the stop", "after its answer", "after the stop"])
async def test_a_stop_costs_nobody_an_answer_for_having_asked_on(asks_on: str) -> None:
    """Closing on what is unread of a client takes back what it has not read."""
    whole, go_on = 3_000_000, asyncio.Event()

    async def handler(client: ClientRequest) -> None:
        client.begin(200, [(b"content-length", b"%d" % whole)])
        if asks_on != "after its answer":
            await go_on.wait()
        client.end(b"x" * whole)

    async with serving(handler) as served:
        client = await served.client(receive_bytes=4096)
        await client.send(ASKED)
        while not served.server.tasks:
            await asyncio.sleep(0)
        (connection,) = served.server.connections
        if asks_on == "after the stop":
            stopped = await _stopping(served)
        while asks_on == "after its answer" and served.server.tasks:
            await asyncio.sleep(0)
        sending = spawn(client.send(ASKED * 100_000), name="asking on")
        while connection._transport.is_reading():
            await asyncio.sleep(0)
        if asks_on != "after the stop":
            stopped = await _stopping(served)
        go_on.set()
        assert (await client.answer())[2] == b"x" * whole
        sending.cancel()
        client.close()
        await stopped


async def _stopping(served: Served) -> asyncio.Task[None]:
    """Stops with grace; the connections that are there know of it."""
    served.server.stop(30.0)
    stopped = spawn(served.server.wait_stopped(), name="stopping")
    while any(connection._can_stay for connection in served.server.connections):
        await asyncio.sleep(0)
    return stopped


async def test_a_stop_costs_nobody_an_answer_for_still_sending_its_body() -> None:
    """It has been refused and may not have read that yet: its connection is not closed on it."""

    async def refuse(client: ClientRequest) -> None:
        client.begin(401, [(b"content-length", b"2")])
        client.end(b"no")

    body = b"x" * 8_000_000
    async with serving(refuse) as served:
        client = await served.client()
        asked = request(body)
        await client.send(asked[:100_000])
        assert (await client.answer())[0] == 401
        stopped = await _stopping(served)
        await client.send(asked[100_000:])
        assert await client.rest() == b""
        client.close()
        await stopped


async def test_a_stop_without_grace_cuts() -> None:
    cancelled: list[bool] = []

    async def handler(client: ClientRequest) -> None:
        client.begin(200, [])
        client.write(b"begun")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)

    async with serving(handler) as served:
        client = await served.client()
        await client.send(ASKED)
        await client.reader.readuntil(b"begun")
        served.server.stop(60.0)
        stopping = spawn(served.server.wait_stopped(), name="stopping")
        await asyncio.sleep(0)
        served.server.stop()
        await stopping
        assert cancelled == [True]
        with contextlib.suppress(ConnectionResetError):
            assert await client.rest() == b"\r\n"
        assert not served.server.connections


async def test_small_packets_leave_at_once() -> None:
    """Nagle's algorithm would keep a token back until the one before has been acknowledged."""
    async with serving(_slow) as served:
        client = await served.client()
        await client.send(ASKED)
        await client.reader.readuntil(b"begun")
        (connection,) = served.server.connections
        raw = connection._transport.get_extra_info("socket")
        assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_who_was_let_in_as_the_server_stopped_is_closed() -> None:
    """Its TLS may still have been begun with: nothing would ever tell it to go."""
    server = HttpServer(echo)
    server.stop(60.0)
    connection, transport = ClientConnection(server), WatchedTransport()
    connection.connection_made(transport)
    assert transport.is_aborted
    connection.connection_lost(None)
