"""What providers send: an answer is whole or it fails, the same however it is cut."""

import asyncio
from collections.abc import Hashable
from random import Random

from opencode_gate.core.tasks import spawn
from opencode_gate.gateway.http_connection import HttpConnection
from opencode_gate.gateway.http_response import BUFFER_LIMIT_BYTES
from opencode_gate.gateway.upstream import Sink, UpstreamFailure, UpstreamResponse
from tests.fuzz.http_reference import Incomplete, Malformed, read_response
from tests.fuzz.runner import pieces
from tests.support.watched_transport import WatchedTransport

_STILL_TURNS = 4

Answer = tuple[int, tuple[tuple[bytes, bytes], ...], bytes, str]
"""Status, fields, body, and how it ended."""


class HttpClientEdge:
    """The connection to a provider, read from and pushed from."""

    name = "http-client"
    seeds = (
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"7\r\ndata: x\r\n2\r\n\n\n\r\n0\r\nX: y\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: y\r\n\r\nuntil the end",
        b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\nxyz",
        b"HTTP/2.0 200 OK\r\n\r\nuntil the end",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\naHTTP/1.1 200 OK\r\n\r\n",
        # Cut inside a chunk, with another coding before the last.
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n\n",
    )
    words = (
        b"\r\n", b"\r\n\r\n", b"\n", b" ", b"\t", b"\0", b": ", b"HTTP/1.0 ", b"HTTP/1.1 ",
        b"HTTP/2.0 ", b"HTTP/1.1 100 Continue\r\n\r\n", b"200", b"204", b"304", b"101", b"999",
        b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Content-Length: ",
        b"Content-Length: 99999999999999999999\r\n", b"Content-Length: 5, 5\r\n",
        b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip, chunked\r\n",
        b"Transfer-Encoding: gzip\r\n", b"Transfer-Encoding:\r\n chunked\r\n",
        b"Connection: close\r\n", b"Connection: upgrade\r\n", b"Upgrade: h2c\r\n",
        b"0\r\n\r\n", b"5\r\nhello\r\n", b"ffffffffffffffff\r\n", b"1;a=b\r\nx\r\n", b"-1\r\n",
        b"0x1\r\n", b"\xff", b"HTTP/1.1 200 OK\r\n\r\n",
    )  # fmt: skip

    async def take(self, data: bytes, random: Random) -> Hashable:
        answer = await self._read([data], is_pushed=False)
        cut = pieces(data, random)
        assert answer == await self._read(cut, is_pushed=False)
        assert answer == await self._read(cut, is_pushed=True)
        status, headers, body, end = answer
        if end == "clean":
            self._compare(data, status, headers, body)
        return status, len(headers), len(body), end

    async def _read(self, cut: list[bytes], *, is_pushed: bool) -> Answer:
        held: list[HttpConnection] = []
        line = WatchedTransport()
        connection = HttpConnection(
            peer="p", read_timeout_s=60, released=held.append, lost=lambda _: None
        )
        connection.connection_made(line)
        responses: list[UpstreamResponse] = []
        parts: list[bytes] = []

        def sink(part: bytes, is_last: bool) -> None:
            parts.append(part)

        def on_head(response: UpstreamResponse) -> Sink | None:
            responses.append(response)
            return sink if is_pushed else None

        async def exchange() -> str:
            try:
                response = await connection.exchange(
                    b"GET", b"", is_head_request=False, header_timeout_s=60, on_head=on_head
                )
                while not is_pushed and (part := await response.read()):
                    parts.append(part)
            except UpstreamFailure as failure:
                return failure.kind
            return "clean"

        exchanging = spawn(exchange(), name="exchange")
        await asyncio.sleep(0)
        for piece in cut:
            assert len(piece) > BUFFER_LIMIT_BYTES or line.is_reading
            if line.is_aborted:
                break
            connection.data_received(piece)
            await asyncio.sleep(0)
        connection.connection_lost(None)
        for _ in range(_STILL_TURNS):
            if exchanging.done():
                break
            await asyncio.sleep(0)
        assert exchanging.done(), "somebody waits for ever"
        end = exchanging.result()
        assert len(held) <= (end == "clean"), "kept for another exchange, and must not be"
        if not responses:
            return 0, (), b"", end
        (response,) = responses
        return response.status, tuple(response.headers), b"".join(parts), end

    def _compare(
        self, data: bytes, status: int, headers: tuple[tuple[bytes, bytes], ...], body: bytes
    ) -> None:
        try:
            expected = read_response(data)
        except (Incomplete, Malformed) as error:
            raise AssertionError("no whole answer stands there") from error
        assert int(expected.start[2]) == status
        assert tuple(expected.headers) == tuple(
            (name.lower(), value.rstrip(b" \t")) for name, value in headers
        )
        assert expected.body == body
