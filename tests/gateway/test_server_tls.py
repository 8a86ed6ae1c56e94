"""The server behind TLS: what holds without holds with it, on both event loops."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from opencode_gate.core.tasks import spawn
from opencode_gate.gateway.downstream import ClientRequest, Handler
from tests.support.raw_client import Served, begun_until, echo, request, serving
from tests.support.scripted_upstream import certificates

ASKED = request(method=b"GET")

Serving = Callable[[Handler], AbstractAsyncContextManager[Served]]


@pytest.fixture
async def safely(tmp_path: Path) -> AsyncIterator[Serving]:
    made = certificates(tmp_path, "localhost")
    trusting = ssl.create_default_context(cafile=str(made.authority_file))
    yield lambda handler: serving(handler, tls=made.server_context, client_tls=trusting)


async def test_bodies_of_any_size_pass_one_behind_the_other(safely: Serving) -> None:
    bodies = [b"a", bytes(range(256)) * 20_000, b"", b"b" * 70_000]
    async with safely(echo) as served:
        client = await served.client()
        sending = spawn(client.send(*map(request, bodies)), name="sending")
        for body in bodies:
            assert (await client.answer())[2] == body
        await sending


async def test_a_cut_answer_to_http_1_0_has_no_clean_end(safely: Serving) -> None:
    async def handler(client: ClientRequest) -> None:
        client.begin(200, [])
        client.write(b"begun")

    async with safely(handler) as served:
        client = await served.client()
        await client.send(b"GET / HTTP/1.0\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            await client.rest()


async def test_a_client_that_does_not_read_holds_the_writer_back(safely: Serving) -> None:
    part, largest = b"x" * 20_000, 0

    async def handler(client: ClientRequest) -> None:
        nonlocal largest
        client.begin(200, [])
        for _ in range(400):
            client.write(part)
            (connection,) = served.server.connections
            largest = max(largest, connection._transport.get_write_buffer_size())
            if client.is_full:
                room = asyncio.Event()
                client.when_drained(room.set)
                await room.wait()
        client.end()

    async with safely(handler) as served:
        client = await served.client(receive_bytes=4096)
        await client.send(ASKED)
        assert (await client.answer())[2] == part * 400
    assert largest < 1_000_000


async def test_a_client_that_leaves_is_noticed(safely: Serving) -> None:
    left = asyncio.Event()

    async with safely(begun_until(left)) as served:
        client = await served.client()
        await client.send(ASKED)
        await client.reader.readuntil(b"begun")
        client.close()
        await left.wait()


async def test_a_refusal_and_a_large_last_answer_arrive_before_the_end(safely: Serving) -> None:
    async def handler(client: ClientRequest) -> None:
        client.begin(200, [(b"content-length", b"9000000")])
        client.end(b"x" * 9_000_000)

    async with safely(handler) as served:
        client = await served.client()
        await client.send(request(b"", b"Connection: close", method=b"GET"))
        assert (await client.answer())[2] == b"x" * 9_000_000
        assert await client.is_closed()
        client = await served.client()
        await client.send(b"nonsense\r\n\r\n")
        assert (await client.answer())[0] == 400
        assert await client.is_closed()
