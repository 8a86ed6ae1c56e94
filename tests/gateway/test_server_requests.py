"""What a client may send and how it comes, over real sockets and on both event loops."""

import asyncio
import gc
import weakref

import pytest

from opencode_gate.core.tasks import spawn
from opencode_gate.gateway import client_connection, client_line
from opencode_gate.gateway.client_connection import ClientConnection
from opencode_gate.gateway.downstream import ClientGone, ClientRequest
from opencode_gate.gateway.http_server import HttpServer
from opencode_gate.wire.facts import BadBody
from tests.support.raw_client import HOST, Served, echo, request, serving
from tests.support.watched_transport import WatchedTransport


class ClosingTransport(WatchedTransport):
    """Takes the end of what is written too."""

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        pass

    def writelines(self, parts: list[bytes]) -> None:
        self.write(b"".join(parts))


async def test_a_request_is_told_as_it_came() -> None:
    """Fields in their order, names in lower case; a path decoded and as it came."""
    told: list[ClientRequest] = []

    async def handler(client: ClientRequest) -> None:
        told.append(client)
        await echo(client)

    async with serving(handler) as served:
        client = await served.client()
        await client.send(
            request(b"body", b"X-A: 1", b"x-a: 2", b"X-Empty:", target=b"/p%C3%A9%2Fq?a=%3A&b")
        )
        assert await client.answer() == (200, {b"content-length": b"4"}, b"body")
    (asked,) = told
    assert (asked.method, asked.path, asked.raw_path, asked.query) == (
        "POST",
        "/pé/q",
        b"/p%C3%A9%2Fq",
        b"a=%3A&b",
    )
    assert asked.headers == [
        (b"host", b"gateway.example"),
        (b"content-length", b"4"),
        (b"x-a", b"1"),
        (b"x-a", b"2"),
        (b"x-empty", b""),
    ]


SIZED = request(b"hello, gateway", b"X-One: two")
CHUNKED = (
    b"POST /echo HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    b"5;name=value\r\nhello\r\n9\r\n, gateway\r\n0\r\nX-Trailer: t\r\n\r\n"
)


@pytest.mark.parametrize("asked", [SIZED, CHUNKED], ids=["sized", "chunked"])
async def test_every_cut_and_every_read_size_give_the_same(asked: bytes) -> None:
    """On one kept connection, so that nothing of one request may leak into the next."""
    ways = [[asked[:cut], asked[cut:]] for cut in range(1, len(asked))]
    for size in (1, 2, 3, 5, 7, 16, 31, 64):
        ways.append([asked[at : at + size] for at in range(0, len(asked), size)])
    async with serving() as served:
        client = await served.client()
        for pieces in ways:
            for piece in pieces:
                await client.send(piece)
                await asyncio.sleep(0)
            assert (await client.answer())[2] == b"hello, gateway"


async def test_a_body_of_megabytes_comes_whole_and_the_next_request_behind_it() -> None:
    body = bytes(range(256)) * 20_000
    async with serving() as served:
        client = await served.client()
        await client.send(request(body) + request(b"next"))
        assert (await client.answer())[2] == body
        assert (await client.answer())[2] == b"next"


async def test_pipelined_requests_are_answered_in_order_one_at_a_time() -> None:
    running = 0

    async def handler(client: ClientRequest) -> None:
        nonlocal running
        running += 1
        assert running == 1
        await client.body()
        await asyncio.sleep(0)
        running -= 1
        await echo(client)

    async def echo(client: ClientRequest) -> None:
        client.begin(200, [])
        client.end(client.path.encode())

    async with serving(handler) as served:
        client = await served.client()
        await client.send(b"".join(request(target=b"/%d" % number) for number in range(50)))
        for number in range(50):
            assert (await client.answer())[2] == b"/%d" % number


async def test_who_sends_on_and_on_is_not_read_while_one_is_answered() -> None:
    """Requests that wait cost memory; what the kernel keeps of them is bounded."""
    go_on = asyncio.Event()
    seen = 0

    async def handler(client: ClientRequest) -> None:
        nonlocal seen
        seen += 1
        await client.body()
        await go_on.wait()
        client.begin(204, [])
        client.end()

    async with serving(handler) as served:
        client = await served.client()
        flood = request(b"x" * 1000) * 1000
        sending = spawn(client.send(*[flood] * 40), name="flood")
        while not served.server.tasks:
            await asyncio.sleep(0)
        (connection,) = served.server.connections
        while connection._transport.is_reading() or not seen:
            await asyncio.sleep(0)
        assert len(connection._waiting) < 1000
        assert seen == 1
        assert not sending.done()
        go_on.set()
        for _ in range(40_000):
            await client.reader.readuntil(b"\r\n\r\n")
        await sending
        assert seen == 40_000


async def test_a_client_is_told_to_go_on_only_when_its_body_is_wanted() -> None:
    async with serving() as served:
        client = await served.client()
        await client.send(request(b"ok", b"Expect: 100-continue")[:-2])
        assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(b"ok")
        assert (await client.answer())[2] == b"ok"
        await client.send(request(b"at once", b"Expect: 100-continue"))
        assert (await client.answer())[2] == b"at once"


async def _refuse(client: ClientRequest) -> None:
    client.begin(401, [(b"content-length", b"2")])
    client.end(b"no")


async def test_a_refusal_before_the_body_reaches_a_client_that_still_sends() -> None:
    """And what it still sends is no request."""
    async with serving(_refuse) as served:
        client = await served.client()
        asked = request(b"GET /smuggled HTTP/1.1\r\n\r\n" * 40_000)
        await client.send(asked[:100_000])
        assert (await client.answer())[0] == 401
        await client.send(asked[100_000:])
        await client.send(request(b"next"))
        assert (await client.answer())[0] == 401
        client.writer.write_eof()
        assert await client.is_closed()


async def test_a_body_that_was_held_back_and_is_not_wanted_ends_the_connection() -> None:
    """Whether it comes after all cannot be known: what follows could be taken for it."""
    async with serving(_refuse) as served:
        status, headers, body = await _one(served, request(b"held", b"Expect: 100-continue")[:-4])
    assert (status, headers[b"connection"], body) == (401, b"close", b"no")


async def _one(served: Served, *pieces: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
    client = await served.client()
    await client.send(*pieces)
    answer = await client.answer()
    assert await client.is_closed()
    return answer


@pytest.mark.parametrize("is_sized", [True, False])
async def test_a_body_beyond_the_limit_is_refused(
    monkeypatch: pytest.MonkeyPatch, is_sized: bool
) -> None:
    monkeypatch.setattr(client_connection, "BODY_LIMIT_BYTES", 100_000)
    monkeypatch.setattr("opencode_gate.gateway.client_request.BODY_LIMIT_BYTES", 100_000)

    async def handler(client: ClientRequest) -> None:
        with pytest.raises(BadBody):
            await client.body()
        client.begin(400, [(b"content-length", b"0")])
        client.end()

    sized = request(b"x" * 200_000)
    chunk = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
    chunked = b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 20
    async with serving(handler) as served:
        client = await served.client()
        sending = spawn(client.send(sized if is_sized else chunked), name="sending")
        assert (await client.answer())[0] == 400
        await sending


async def test_a_client_that_leaves_inside_its_body_is_gone() -> None:
    told = asyncio.get_running_loop().create_future()

    async def handler(client: ClientRequest) -> None:
        client.on_left(lambda: told.set_result("left"))
        with pytest.raises(ClientGone):
            await client.body()

    async with serving(handler) as served:
        client = await served.client()
        await client.send(request(b"hello")[:-1])
        while not served.server.tasks:
            await asyncio.sleep(0)
        client.close()
        assert await told == "left"


async def test_http_1_0_is_answered_and_closed() -> None:
    async def stream(client: ClientRequest) -> None:
        client.begin(200, [])
        client.write(b"a")
        client.end(b"b")

    async with serving(stream) as served:
        for field in (b"", b"Connection: keep-alive\r\n"):
            answer = await served.told(b"GET / HTTP/1.0\r\n" + field + b"\r\n")
            assert answer == b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nab"


async def test_connection_close_is_kept_to() -> None:
    async with serving() as served:
        status, headers, body = await _one(served, request(b"x", b"Connection: close"))
    assert (status, headers[b"connection"], body) == (200, b"close", b"x")


@pytest.mark.parametrize("pieces", [1, 7])
async def test_a_head_of_more_than_64_kib_is_refused(pieces: int) -> None:
    fields = [b"X-%d: %b" % (number, b"v" * 990) for number in range(70)]
    asked = request(b"", *fields, method=b"GET")
    assert len(asked) > client_connection.HEAD_LIMIT_BYTES
    size = len(asked) // pieces + 1
    async with serving() as served:
        client = await served.client()
        for at in range(0, len(asked), size):
            await client.send(asked[at : at + size])
            await asyncio.sleep(0)
        assert (await client.answer())[0] == 431
        assert await client.is_closed()
        client = await served.client()
        await client.send(request(b"", *fields[:60], method=b"GET"))
        assert (await client.answer())[0] == 200


async def test_empty_lines_for_ever_are_a_head_too_large() -> None:
    async with serving() as served:
        client = await served.client()
        await client.send(b"\r\n" * 40_000)
        assert (await client.answer())[0] == 431


@pytest.mark.parametrize(
    ("begun", "limit"), [(b"", "IDLE_S"), (b"GET / HT", "HEAD_S"), (SIZED[:-3], "BODY_SILENCE_S")]
)
async def test_a_client_has_only_so_much_time(
    monkeypatch: pytest.MonkeyPatch, begun: bytes, limit: str
) -> None:
    """To begin, to say what it wants, and between the parts of it."""
    for module in (client_connection, client_line):
        if hasattr(module, limit):
            monkeypatch.setattr(module, limit, 0.01)
    async with serving() as served:
        client = await served.client()
        await client.send(begun)
        assert await client.is_closed()


async def test_a_slow_head_gets_no_more_time_for_each_byte(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client_connection, "HEAD_S", 0.05)
    async with serving() as served:
        client = await served.client()
        closed = spawn(client.is_closed(), name="closed")
        sent = 0
        while not closed.done():
            client.writer.write(b"GET / HTTP/1.1\r\nX: y"[sent : sent + 1] or b"y")
            sent += 1
            await asyncio.sleep(0.001)
        assert await closed


async def test_who_waits_for_an_answer_may_wait_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time limits are for clients that have to say something, not for models that think."""
    for limit in ("IDLE_S", "HEAD_S", "BODY_SILENCE_S"):
        for module in (client_connection, client_line):
            if hasattr(module, limit):
                monkeypatch.setattr(module, limit, 0.01)
    rung = asyncio.Event()

    async def handler(client: ClientRequest) -> None:
        asyncio.get_running_loop().call_later(0.05, rung.set)
        await rung.wait()
        await echo(client)

    async with serving(handler) as served:
        client = await served.client()
        await client.send(request(b"x"))
        assert (await client.answer())[0] == 200


async def test_a_kept_connection_keeps_nothing_of_what_it_has_answered() -> None:
    """A body may be megabytes, and connections wait more than a minute for the next request."""
    kept: list[weakref.ref[object]] = []

    class Deed:
        def __call__(self) -> None:
            raise AssertionError("nobody left")

    async def handler(client: ClientRequest) -> None:
        deed = Deed()
        kept.append(weakref.ref(deed))
        client.on_left(deed)
        await echo(client)

    async with serving(handler) as served:
        client = await served.client()
        for _ in range(2):
            await client.send(request(b"x" * 300_000))
            await client.answer()
        gc.collect()
        assert [ref() for ref in kept] == [None, None]


async def test_a_lost_connection_leaves_nothing() -> None:
    """Not to the garbage collector either: it looks at nothing that is old."""
    async with serving() as served:
        gc.disable()
        try:
            for _ in range(3):
                client = await served.client()
                await client.send(request(b"x"))
                await client.answer()
                client.close()
                while served.server.connections:
                    await asyncio.sleep(0)
                await asyncio.sleep(0)
            assert [left for left in gc.get_objects() if type(left) is ClientConnection] == []
        finally:
            gc.enable()


async def test_trailers_that_come_by_themselves_cost_the_next_head_nothing() -> None:
    """What was read for them was no part of it."""
    server, transport = HttpServer(echo), WatchedTransport()
    connection = ClientConnection(server)
    connection.connection_made(transport)
    head = b"POST /echo HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    chunk = b"%x\r\n%b\r\n" % (60_000, b"x" * 60_000)
    long = request(b"y", b"x-long: " + b"z" * 20_000)
    first = head, chunk + b"0\r\nx-sum: 1\r\nx-b", b": 1\r\n\r\n"
    for parts in (first, (long[:8000], long[8000:])):
        for part in parts:
            connection.data_received(part)
        await asyncio.gather(*server.tasks)
    assert b"".join(transport.written).count(b"HTTP/1.1 200 OK") == 2
    connection.connection_lost(None)


@pytest.mark.parametrize("endless", [b"", b"x-y: z\r\n", b"zzzzzzzz"])
async def test_trailers_are_limited_for_themselves_whatever_came_before_them(
    endless: bytes,
) -> None:
    """A large part of the body may come in one read with the first of them."""
    head = b"POST /echo HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    size = 2 * client_connection.HEAD_LIMIT_BYTES
    read = b"%x\r\n%b\r\n0\r\nx-sum: 1\r\nx-b" % (size, b"x" * size)
    rest = [endless * 1000] * 20 if endless else []
    server, transport = HttpServer(echo), ClosingTransport()
    connection = ClientConnection(server)
    connection.connection_made(transport)
    for part in (head, read, b": 2\r\n", *rest, b"\r\n"):
        connection.data_received(part)
    await asyncio.gather(*server.tasks)
    answer = b"".join(transport.written)
    if endless:
        assert answer.startswith(b"HTTP/1.1 431 ")
    else:
        assert answer.endswith(b"\r\n\r\n" + b"x" * size)
    connection.connection_lost(None)


async def test_what_stands_between_the_parts_of_a_body_does_not_add_up_to_trailers() -> None:
    """Each size may come in a read of its own; nor is the next head charged with them."""
    server, transport = HttpServer(echo), WatchedTransport()
    connection = ClientConnection(server)
    connection.connection_made(transport)
    head = b"POST /echo HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    chunks = (b"1;" + b"e" * 30_000 + b"\r\n", b"x\r\n") * 5
    last = b"0;" + b"e" * 50_000 + b"\r\n", b"\r\n"
    long = request(b"y", b"x-long: " + b"z" * 40_000)
    for parts in ((head, *chunks, *last), (long[:30_000], long[30_000:])):
        for part in parts:
            connection.data_received(part)
        await asyncio.gather(*server.tasks)
    answer = b"".join(transport.written)
    bodies = [part.partition(b"\r\n\r\n")[2] for part in answer.split(b"HTTP/1.1 200 OK")[1:]]
    assert bodies == [b"x" * 5, b"y"]
    connection.connection_lost(None)
