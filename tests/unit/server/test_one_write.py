"""A head waits for its body for one turn of the loop and not a byte is lost or moved."""

import asyncio
import gc
import weakref
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from opencode_gate.gateway.asgi import CLIENT_LEFT
from opencode_gate.server.one_write import HeadJoiningTransport, OneWriteProtocol
from tests.support.watched_transport import WatchedTransport

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n"


class _Closing(WatchedTransport):
    def close(self) -> None:
        self.is_aborted = True


def joining() -> tuple[HeadJoiningTransport, _Closing]:
    transport = _Closing()
    return HeadJoiningTransport(transport, asyncio.get_running_loop()), transport


async def test_head_and_first_part_leave_in_one_write() -> None:
    """What follows is written at once: nobody waits for the end of the turn."""
    joined, transport = joining()
    joined.write(HEAD)
    joined.write(b"bo")
    joined.write(b"dy")
    assert transport.written == [HEAD + b"bo", b"dy"]
    await asyncio.sleep(0)
    assert len(transport.written) == 2


async def test_a_head_alone_leaves_at_the_end_of_the_turn() -> None:
    """A provider that sends its head long before its first token: the client sees it too."""
    joined, transport = joining()
    joined.write(HEAD)
    assert transport.written == []
    await asyncio.sleep(0)
    assert transport.written == [HEAD]
    joined.write(b"body")
    assert transport.written == [HEAD, b"body"]


async def test_a_part_that_looks_like_a_head_keeps_its_place() -> None:
    """The rule looks at bytes a provider chose; order must not depend on them."""
    joined, transport = joining()
    joined.write(HEAD)
    joined.write(HEAD)
    joined.write(HEAD)
    joined.write(b"end")
    await asyncio.sleep(0)
    assert b"".join(transport.written) == HEAD * 3 + b"end"


async def test_closing_writes_what_waits() -> None:
    """An answer without a body on a connection that ends with it."""
    joined, transport = joining()
    joined.write(HEAD)
    joined.close()
    await asyncio.sleep(0)
    assert transport.written == [HEAD]
    assert transport.is_aborted


async def test_nothing_is_written_to_a_connection_that_is_gone() -> None:
    """The client left within the same turn."""
    joined, transport = joining()
    joined.write(HEAD)
    transport.abort()
    await asyncio.sleep(0)
    assert transport.written == []


async def test_everything_else_is_the_transports_own() -> None:
    """uvicorn pauses and resumes through it."""
    joined, transport = joining()
    joined.pause_reading()
    assert not transport.is_reading
    joined.resume_reading()
    assert transport.is_reading


class _Left:
    """Notes that it was told that the client left."""

    told = 0

    def __call__(self) -> None:
        type(self).told += 1


async def test_a_kept_connection_does_not_keep_what_it_has_answered() -> None:
    """A request's body may be megabytes, and connections wait more than a minute for the next."""
    deeds: list[weakref.ref[_Left]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        deed = _Left()
        deeds.append(weakref.ref(deed))
        scope["extensions"][CLIENT_LEFT](deed)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    config = uvicorn.Config(app, lifespan="off", log_config=None)
    config.load()
    server = await asyncio.get_running_loop().create_server(
        lambda: OneWriteProtocol(config=config, server_state=ServerState(), app_state={}),
        "127.0.0.1",
        0,
    )
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    for _ in range(2):
        writer.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
    gc.collect()
    assert [deed() for deed in deeds] == [None, None]
    writer.close()
    server.close()
    await server.wait_closed()
    assert _Left.told == 0
