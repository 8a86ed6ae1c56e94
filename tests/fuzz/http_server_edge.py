"""What clients send: only whole, well-formed requests reach the handler, however they are cut."""

import asyncio
from collections.abc import Hashable
from random import Random

from opencode_gate.gateway.client_connection import ClientConnection
from opencode_gate.gateway.downstream import ClientRequest
from opencode_gate.gateway.http_server import HttpServer
from opencode_gate.wire.facts import BadBody
from tests.fuzz.http_reference import Incomplete, Malformed, read_head, read_request
from tests.fuzz.runner import pieces
from tests.support.watched_transport import WatchedTransport

Asked = tuple[str, tuple[bytes, bytes], tuple[tuple[bytes, bytes], ...], bytes]

_GO_ON = b"HTTP/1.1 100 Continue\r\n\r\n"
_STILL_TURNS = 4
"""A request takes fewer turns of the loop than this, if its body is there."""


class Line(WatchedTransport):
    """One client's end of a connection."""

    def __init__(self, server: HttpServer) -> None:
        super().__init__()
        self.is_closed = False
        self.protocol = ClientConnection(server)
        self.protocol.connection_made(self)

    def is_closing(self) -> bool:
        return self.is_closed or self.is_aborted

    def close(self) -> None:
        self.is_closed = True

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.is_closed = True

    def write(self, data: bytes) -> None:
        assert not self.is_closing(), "written after the end"
        super().write(data)

    def writelines(self, parts: list[bytes]) -> None:
        self.write(b"".join(parts))


class HttpServerEdge:
    """The server with a handler that answers with what it was asked."""

    name = "http-server"
    seeds = (
        b"GET /a?b=c HTTP/1.1\r\nHost: h\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello",
        b"POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3\r\nabc\r\n0\r\nX: y\r\n\r\n",
        b"PUT /x HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nok",
        b"HEAD / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x05",
        b"POST /x HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: h2c\r\n"
        b"Content-Length: 5\r\n\r\nhello",
        b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n",
    )
    words = (
        b"\r\n", b"\r\n\r\n", b"\n", b" ", b"\t", b"\0", b": ", b"GET ", b"POST ", b"CONNECT ",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"HTTP/1.0", b"HTTP/1.1", b"HTTP/2.0", b"HTTP/0.9",
        b"Host: h\r\n", b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Content-Length: ",
        b"Content-Length: 99999999999999999999\r\n", b"Content-Length: 300000000\r\n",
        b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip, chunked\r\n",
        b"Transfer-Encoding: xchunked\r\n", b"Transfer-Encoding:\r\n chunked\r\n",
        b"Transfer-Encoding : chunked\r\n", b"Connection: close\r\n", b"Connection: upgrade\r\n",
        b"Upgrade: h2c\r\n", b"Expect: 100-continue\r\n", b"0\r\n\r\n", b"5\r\nhello\r\n",
        b"ffffffffffffffff\r\n", b"1;a=b\r\nx\r\n", b"-1\r\n", b"0x1\r\n", b"http://h/x", b"*",
        b"%2e%2e/%00", b"#", b"?", b"\xff", b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
    )  # fmt: skip

    def __init__(self) -> None:
        self._server = HttpServer(self._answer)
        self._asked: list[Asked] = []

    async def _answer(self, request: ClientRequest) -> None:
        try:
            body = await request.body()
        except BadBody:
            request.begin(400, [(b"content-length", b"0")])
            request.end()
            return
        target = request.raw_path, request.query
        self._asked.append((request.method, target, tuple(request.headers), body))
        if len(body) % 2:
            request.begin(200, [(b"content-length", b"%d" % len(body))])
        else:
            request.begin(200, [])
        request.end(body)

    async def take(self, data: bytes, random: Random) -> Hashable:
        asked, sent = await self._tell([data])
        assert (asked, sent) == await self._tell(pieces(data, random))
        self._compare(data, asked)
        answers = tuple(line[:12] for line in sent.split(b"\r\n") if line.startswith(b"HTTP/1.1 "))
        return tuple(
            (method, len(body), len(headers)) for method, _, headers, body in asked
        ), answers

    async def _tell(self, data: list[bytes]) -> tuple[list[Asked], bytes]:
        self._asked = []
        server = self._server
        line = Line(server)
        for piece in data:
            if not line.is_reading:
                await self._settled()
            if line.is_closing():
                break
            assert line.is_reading, "reading was never taken up again"
            line.protocol.data_received(piece)
            await asyncio.sleep(0)
        await self._settled()
        line.protocol.connection_lost(None)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not server.tasks, "a request was left behind"
        assert not server.connections, "a connection was left behind"
        return self._asked, b"".join(line.written).replace(_GO_ON, b"")

    async def _settled(self) -> None:
        """Until nothing is in flight, or only what waits for more."""
        still, asked = 0, len(self._asked)
        while self._server.tasks and still < _STILL_TURNS:
            await asyncio.sleep(0)
            still, asked = 0 if len(self._asked) > asked else still + 1, len(self._asked)

    def _compare(self, data: bytes, asked: list[Asked]) -> None:
        at = 0
        for number, (method, target, headers, body) in enumerate(asked, 1):
            try:
                expected = read_request(data, at)
            except (Incomplete, Malformed) as error:
                # One for another protocol has no body in chunks, and nothing behind it is served.
                if number < len(asked) or not _has_no_chunks(headers):
                    raise AssertionError("no whole request stands there") from error
                expected = read_head(data, at)
            assert expected.start[1].decode() == method
            assert expected.start[2].partition(b"?")[::2] == target
            # The parser leaves what may stand behind a value.
            assert tuple(expected.headers) == tuple((n, v.rstrip(b" \t")) for n, v in headers)
            assert body == expected.body or (not body and _has_no_chunks(headers))
            at = expected.end


def _has_no_chunks(headers: tuple[tuple[bytes, bytes], ...]) -> bool:
    return {b"upgrade", b"connection", b"transfer-encoding"} <= dict(headers).keys()
