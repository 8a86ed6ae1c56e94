"""A thousand streams at once, some of whose clients do not read: every byte, and bounded memory."""

import asyncio
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from opencode_gate.catalog.rows import ProviderRow
from opencode_gate.core.semconv import ExchangeStatus
from opencode_gate.server.processes import allow_many_connections
from tests.support.gateway import TOKEN, RunningGateway, running_gateway
from tests.support.scripted_upstream import Peer, scripted

STREAMS = 1000
SLOW = 5
SLOW_BYTES = 16 * 1024 * 1024
"""More than kernels keep for two sockets: what is not read has to stay with the provider."""
KEPT_BYTES = 1024 * 1024
"""So much a stream may take in the gateway: two buffers, and what was read at once."""

END = (
    b'data: {"model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    b'data: {"model":"m","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}\n\n'
    b"data: [DONE]\n\n"
)


def _event(text: str) -> bytes:
    return b'data: {"model":"m","choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % (
        text.encode()
    )


def _events(number: int) -> Iterator[bytes]:
    """What the provider streams to the client of that number."""
    if number < SLOW:
        # Nothing that is counted: of text, the gateway keeps a part until it has been.
        event = b'data: {"model":"m","choices":[],"number":%d,"padding":"%b"}\n\n' % (
            number,
            b"x" * 32_000,
        )
        for _ in range(SLOW_BYTES // len(event)):
            yield event
    else:
        for part in range(10):
            yield _event(f"{number} {part} ")
    yield END


class _Provider:
    def __init__(self) -> None:
        self.begun = 0
        self.slow_sent = [0] * SLOW
        self.all_begun = asyncio.Event()

    async def stream(self, peer: Peer) -> None:
        while (asked := await peer.request()) is not None:
            number = int(asked.body.partition(b'"number ')[2].partition(b'"')[0])
            await peer.send(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n"
            )
            self.begun += 1
            if self.begun == STREAMS:
                self.all_begun.set()
            await self.all_begun.wait()
            for event in _events(number):
                await peer.send(b"%x\r\n%b\r\n" % (len(event), event))
                if number < SLOW:
                    self.slow_sent[number] += len(event)
            await peer.send(b"0\r\n\r\n")


async def _ask(gateway: RunningGateway, number: int, may_read: asyncio.Event) -> bool:
    """Whether the whole answer came, byte for byte."""
    connected = socket.socket()
    if number < SLOW:
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    connected.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(connected, ("127.0.0.1", gateway.port))
    reader, writer = await asyncio.open_connection(sock=connected, limit=65536)
    body = (
        b'{"model":"m","stream":true,"stream_options":{"include_usage":true},'
        b'"messages":[{"role":"user","content":"number %d"}]}' % number
    )
    writer.write(
        b"POST /p/acme/v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        b"Authorization: Bearer %b\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (TOKEN.encode(), len(body), body)
    )
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), head
    if number < SLOW:
        writer.transport.pause_reading()
        await may_read.wait()
        writer.transport.resume_reading()
    expected = b"".join(_events(number))
    received = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        received += (await reader.readexactly(size + 2))[:-2]
    writer.close()
    return received == expected


def _resident_bytes(gateway: RunningGateway) -> int:
    pages = Path(f"/proc/{gateway.process.pid}/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize()


@pytest.fixture
def _few_files() -> Iterator[None]:
    """What a process begins with on most systems: the gateway has to ask for more itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("_few_files")
async def test_a_thousand_streams_with_slow_clients() -> None:
    """Bytes right, buffers bounded, the provider held back, every exchange in the ledger."""
    provider, may_read = _Provider(), asyncio.Event()
    async with scripted(provider.stream) as upstream:
        row = ProviderRow(id="acme", name="Acme", base_url=f"http://127.0.0.1:{upstream.port}/v1")
        with running_gateway([row]) as gateway:
            allow_many_connections()  # this process has the other ends
            asking = [
                asyncio.ensure_future(_ask(gateway, number, may_read))  # noqa: TID251
                for number in range(STREAMS)
            ]
            await provider.all_begun.wait()
            begun_bytes = _resident_bytes(gateway)
            assert all(await asyncio.gather(*asking[SLOW:]))
            sent = -1
            while sent != sum(provider.slow_sent):  # until nothing moves any more
                sent = sum(provider.slow_sent)
                await asyncio.sleep(0.2)
            assert max(provider.slow_sent) < SLOW_BYTES
            assert _resident_bytes(gateway) - begun_bytes < SLOW * KEPT_BYTES
            may_read.set()
            assert all(await asyncio.gather(*asking[:SLOW]))
            settled = await asyncio.to_thread(gateway.finish)
            rows = gateway.exchanges()
    assert settled["exchanges"] == STREAMS
    assert len(rows) == STREAMS
    assert {row.status for row in rows} == {ExchangeStatus.COMPLETED}
    assert {row.usage.output for row in rows} == {4}
