"""Bytes that can be understood in two ways: refused, and nothing behind them is believed."""

import contextlib

import pytest

from opencode_gate.gateway.downstream import ClientRequest
from tests.support.raw_client import HOST, request, serving

POST = b"POST / HTTP/1.1\r\n" + HOST
GET = b"GET / HTTP/1.1\r\n" + HOST
CHUNKED = b"Transfer-Encoding: chunked\r\n"

VECTORS = {
    "length and chunks": POST + b"Content-Length: 5\r\n" + CHUNKED + b"\r\n0\r\n\r\n",
    "chunks and length": POST + CHUNKED + b"Content-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "the same length twice": POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "lengths in a list": POST + b"Content-Length: 5, 5\r\n\r\nhello",
    "a length with a sign": POST + b"Content-Length: +5\r\n\r\nhello",
    "a length below nothing": POST + b"Content-Length: -5\r\n\r\nhello",
    "a length that is hexadecimal": POST + b"Content-Length: 0x5\r\n\r\nhello",
    "no length in the field": POST + b"Content-Length:\r\n\r\nhello",
    "a length beyond 64 bits": POST + b"Content-Length: 99999999999999999999999\r\n\r\nhello",
    "space before the colon": POST + b"Content-Length : 5\r\n\r\nhello",
    "tab before the colon": POST + b"Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n",
    "a folded line": GET + b"X: a\r\n b\r\n\r\n",
    "a folded coding": POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "bare LF everywhere": b"GET / HTTP/1.1\nHost: h\n\n",
    "bare LF after a field": b"GET / HTTP/1.1\r\nHost: h\nX: y\r\n\r\n",
    "bare LF at the end": GET + b"\n",
    "bare CR in a value": GET + b"X: a\rContent-Length: 5\r\n\r\n",
    "bare CR after a field": b"GET / HTTP/1.1\r\nHost: h\rX: b\r\n\r\n",
    "another coding": POST + b"Transfer-Encoding: gzip\r\n\r\n0\r\n\r\n",
    "almost chunked": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked after another": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked before another": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "chunked twice": POST + CHUNKED + CHUNKED + b"\r\n0\r\n\r\n",
    "nonsense, then chunked": POST + b"Transfer-Encoding: x\r\n" + CHUNKED + b"\r\n0\r\n\r\n",
    "chunks of HTTP/1.0": b"POST / HTTP/1.0\r\n" + CHUNKED + b"\r\n0\r\n\r\n",
    "LF after a chunk's size": POST + CHUNKED + b"\r\n5\nhello\r\n0\r\n\r\n",
    "LF after a chunk": POST + CHUNKED + b"\r\n5\r\nhello\n0\r\n\r\n",
    "LF in a chunk's extension": POST + CHUNKED + b"\r\n5;a\nhello\r\n0\r\n\r\n",
    "a chunk's size with 0x": POST + CHUNKED + b"\r\n0x5\r\nhello\r\n0\r\n\r\n",
    "a chunk below nothing": POST + CHUNKED + b"\r\n-5\r\nhello\r\n0\r\n\r\n",
    "a chunk beyond 64 bits": POST + CHUNKED + b"\r\nfffffffffffffffff5\r\nhello\r\n0\r\n\r\n",
    "a chunk longer than its size": POST + CHUNKED + b"\r\n3\r\nhello\r\n0\r\n\r\n",
    "a length among the trailers": POST + CHUNKED + b"\r\n0\r\nContent-Length: 5\r\n\r\n",
    "NUL in a value": GET + b"X: a\0b\r\n\r\n",
    "a control character in a name": GET + b"X\x0bY: b\r\n\r\n",
    "a space in a name": GET + b"X Y: b\r\n\r\n",
    "no name": GET + b": b\r\n\r\n",
    "no colon": GET + b"nothing\r\n\r\n",
    "a space before the first field": b"GET / HTTP/1.1\r\n Host: h\r\n\r\n",
    "two hosts": GET + HOST + b"\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "HTTP/2.0": b"GET / HTTP/2.0\r\n" + HOST + b"\r\n",
    "HTTP/1.2": b"GET / HTTP/1.2\r\n" + HOST + b"\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "another protocol": b"DESCRIBE / RTSP/1.0\r\n\r\n",
    "a target for a proxy": b"GET http://other/ HTTP/1.1\r\n" + HOST + b"\r\n",
    "CONNECT": b"CONNECT other:443 HTTP/1.1\r\n" + HOST + b"\r\n",
    "a fragment": b"GET /a#b HTTP/1.1\r\n" + HOST + b"\r\n",
    "bytes in the target": b"GET /\xc3\xa9 HTTP/1.1\r\n" + HOST + b"\r\n",
    "an unknown method": b"SMUGGLE / HTTP/1.1\r\n" + HOST + b"\r\n",
    "a method in lower case": b"get / HTTP/1.1\r\n" + HOST + b"\r\n",
    "TLS to a port that has none": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x07" * 64,
    "garbage": bytes(range(128, 256)) * 4,
}
BEHIND = request(b"smuggled", target=b"/behind")
REFUSED = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


@pytest.mark.parametrize("vector", VECTORS)
@pytest.mark.parametrize("size", [1, 1 << 16])
async def test_it_is_refused_and_so_is_what_stands_behind_it(vector: str, size: int) -> None:
    """After an honest request, which is answered first."""
    answered: list[str] = []

    async def handler(client: ClientRequest) -> None:
        await client.body()
        answered.append(client.path)
        client.begin(204, [])
        client.end()

    asked = request(b"honest", target=b"/honest") + VECTORS[vector] + BEHIND
    async with serving(handler) as served:
        client = await served.client()
        with contextlib.suppress(ConnectionError):  # it need not hear us out
            await client.send(*[asked[at : at + size] for at in range(0, len(asked), size)])
        said = await client.rest()
    assert answered == ["/honest"]
    assert said == b"HTTP/1.1 204 No Content\r\n\r\n" + REFUSED


async def test_nothing_is_served_behind_a_request_for_another_protocol() -> None:
    """A WebSocket's frames could look like requests."""

    async def handler(client: ClientRequest) -> None:
        client.begin(426, [(b"content-length", b"0")])
        client.end()

    asked = GET + b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n" + BEHIND
    async with serving(handler) as served:
        assert await served.told(asked) == (
            b"HTTP/1.1 426 Upgrade Required\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        )


@pytest.mark.parametrize("size", [1, 50, 1 << 16])
@pytest.mark.parametrize("before", [b"", request(b"first")])
@pytest.mark.parametrize("body", [b"", b"x" * 300_000])
async def test_a_request_that_offers_another_protocol_keeps_its_body(
    body: bytes, before: bytes, size: int
) -> None:
    """Java's client offers HTTP/2 with the first request of a connection, whatever that is."""
    offer = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAEAAEAA")
    asked = before + request(body, *offer)
    pieces = [asked[at : at + size] for at in range(0, min(len(asked), 400), size)]
    async with serving() as served:
        client = await served.client()
        with contextlib.suppress(ConnectionError):  # it need not hear us out
            await client.send(*pieces, asked[size * len(pieces) :] + BEHIND)
        if before:
            assert (await client.answer())[2] == b"first"
        status, headers, answer = await client.answer()
        assert (status, headers[b"connection"], answer) == (200, b"close", body)
        assert await client.is_closed()
