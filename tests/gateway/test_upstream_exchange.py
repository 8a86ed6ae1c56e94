"""One request and its answer over a real socket, on both event loops."""

import asyncio

import pytest

from opencode_gate.core.tasks import spawn
from opencode_gate.gateway.upstream import UpstreamFailure
from tests.support.scripted_upstream import Peer
from tests.support.upstream_client import HEAD, ask, running, whole


async def test_request_reaches_the_provider_as_given() -> None:
    """Path, query, fields with order and case, and body are sent byte for byte."""
    async with running() as (client, provider):
        headers = [(b"X-Api-Key", b"k"), (b"accept", b"*/*"), (b"X-Empty", b""), (b"accept", b"a")]
        response = await client.send(
            ask(provider.port, b"\x00\xff", headers=headers), header_timeout_s=5
        )
        assert await whole(response) == b"\x00\xff"
        assert provider.requests[0].head.split(b"\r\n") == [
            b"POST /v1/messages?beta=true&x=%3A HTTP/1.1",
            b"Host: 127.0.0.1:%d" % provider.port,
            b"X-Api-Key: k",
            b"accept: */*",
            b"X-Empty: ",
            b"accept: a",
            b"Content-Length: 2",
        ]


async def test_framing_fields_are_the_clients_own() -> None:
    """A second Host, length or transfer coding would let two requests pass for one."""
    given = [
        (b"HOST", b"evil"),
        (b"content-length", b"99"),
        (b"Transfer-Encoding", b"chunked"),
        (b"connection", b"close"),
        (b"Proxy-Authorization", b"Basic x"),
    ]
    async with running() as (client, provider):
        await client.send(ask(provider.port, headers=given), header_timeout_s=5)
        received = provider.requests[0]
        assert received.values(b"host") == [b"127.0.0.1:%d" % provider.port]
        assert received.values(b"content-length") == [b"2"]
        for name in (b"transfer-encoding", b"connection", b"proxy-authorization"):
            assert received.values(name) == []


@pytest.mark.parametrize(("method", "lengths"), [("GET", []), ("POST", [b"0"]), ("PUT", [b"0"])])
async def test_length_of_an_empty_body(method: str, lengths: list[bytes]) -> None:
    """RFC 9110 §8.6: sent where a body is expected, left out where none is."""
    async with running() as (client, provider):
        await client.send(ask(provider.port, b"", method=method), header_timeout_s=5)
        assert provider.requests[0].values(b"content-length") == lengths


@pytest.mark.parametrize(
    "spoilt",
    [
        {"headers": [(b"X-Key", b"a\r\nX-Other: b")]},
        {"headers": [(b"X-Key", b"a\n")]},
        {"headers": [(b"X-Key", b"a\rb")]},
        {"target": b"/v1 HTTP/1.1\r\nHost: evil"},
        {"target": b"/a b"},
    ],
)
async def test_a_value_cannot_break_out_of_its_line(spoilt: dict) -> None:
    """A key pasted with a line break must not become a second header; nothing is sent."""
    async with running() as (client, provider):
        with pytest.raises(UpstreamFailure) as caught:
            await client.send(ask(provider.port, **spoilt), header_timeout_s=5)
        assert (caught.value.kind, caught.value.bytes_sent) == ("protocol", False)
        assert provider.requests == []


async def test_large_bodies_arrive_whole_both_ways() -> None:
    """Several megabytes, more than any socket buffer holds."""
    body = bytes(range(256)) * 20_000
    async with running() as (client, provider):
        response = await client.send(ask(provider.port, body), header_timeout_s=5)
        assert await whole(response) == body


async def test_answer_fields_keep_order_case_and_repetition() -> None:
    """What the provider sent is what the pipeline sees."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.answer(b"x", b"X-B: 1", b"x-a:", b"Set-Cookie: a=1", b"Set-Cookie: b=2")

    async with running(script) as (client, provider):
        response = await client.send(ask(provider.port), header_timeout_s=5)
        assert response.status == 200
        assert response.headers == [
            (b"X-B", b"1"),
            (b"x-a", b""),
            (b"Set-Cookie", b"a=1"),
            (b"Set-Cookie", b"b=2"),
            (b"Content-Length", b"1"),
        ]


async def test_chunks_arrive_while_the_stream_is_open() -> None:
    """The first token is read before the provider has sent the second."""
    go_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        await go_on.wait()
        await peer.send(b"6\r\nsecond\r\n0\r\nX-Trailer: t\r\n\r\n")
        await peer.closed()

    async with running(script) as (client, provider):
        response = await client.send(ask(provider.port), header_timeout_s=5)
        assert await response.read() == b"first"
        go_on.set()
        assert await response.read() == b"second"
        assert await response.read() == b""
        assert await response.read() == b""
        assert response.headers == [(b"Transfer-Encoding", b"chunked")]


async def test_compressed_bytes_are_left_alone() -> None:
    """Content coding is the client's business."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.answer(b"\x1f\x8bnot really", b"Content-Encoding: gzip")

    async with running(script) as (client, provider):
        response = await client.send(ask(provider.port), header_timeout_s=5)
        assert await whole(response) == b"\x1f\x8bnot really"


async def test_interim_answers_are_skipped() -> None:
    """100 and 103 are not the answer, and their fields do not leak into it."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await peer.send(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
        await peer.answer(b"ok")

    async with running(script) as (client, provider):
        response = await client.send(ask(provider.port), header_timeout_s=5)
        assert (response.status, await whole(response)) == (200, b"ok")
        assert response.headers == [(b"Content-Length", b"2")]


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
async def test_statuses_without_a_body_end_at_once(status: bytes) -> None:
    """RFC 9112 §6.3: no length is needed, and the connection stays."""

    async def script(peer: Peer) -> None:
        while await peer.request():
            await peer.send(b"HTTP/1.1 %b\r\nX: y\r\n\r\n" % status)

    async with running(script) as (client, provider):
        for _ in range(2):
            response = await client.send(ask(provider.port), header_timeout_s=5)
            assert await whole(response) == b""
        assert len(provider.peers) == 1


async def test_answer_to_head_has_no_body() -> None:
    """Its Content-Length speaks of the body a GET would have had."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD + b"Content-Length: 4096\r\n\r\n")
        await peer.closed()

    async with running(script) as (client, provider):
        request = ask(provider.port, b"", method="HEAD")
        response = await client.send(request, header_timeout_s=5)
        assert (response.status, await whole(response)) == (200, b"")


async def test_a_body_may_end_with_the_connection() -> None:
    """No length and no chunks: the clean close is the end (RFC 9112 §6.3)."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.0 200 OK\r\n\r\nall of ")
        await peer.send(b"it")
        await peer.fin()

    async with running(script) as (client, provider):
        response = await client.send(ask(provider.port), header_timeout_s=5)
        assert await whole(response) == b"all of it"


CUTS = {
    "length, FIN": (b"Content-Length: 10\r\n\r\nhalf!", Peer.fin),
    "length, RST": (b"Content-Length: 10\r\n\r\nhalf!", Peer.rst),
    "chunked, FIN between chunks": (b"Transfer-Encoding: chunked\r\n\r\n5\r\nhalf!\r\n", Peer.fin),
    "chunked, FIN inside a chunk": (b"Transfer-Encoding: chunked\r\n\r\n9\r\nhalf!", Peer.fin),
    "chunked, RST": (b"Transfer-Encoding: chunked\r\n\r\n5\r\nhalf!\r\n", Peer.rst),
    "until close, RST": (b"\r\nhalf!", Peer.rst),
}


@pytest.mark.parametrize("name", CUTS)
async def test_a_cut_body_is_a_failure_after_the_bytes_that_came(name: str) -> None:
    """Everything that arrived can be read; then it raises, it does not just stop."""
    rest, cut = CUTS[name]
    half_is_read = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD + rest)
        await half_is_read.wait()
        await cut(peer)

    async with running(script) as (client, provider):
        response = await client.send(ask(provider.port), header_timeout_s=5)
        assert await response.read() == b"half!"
        half_is_read.set()
        for _ in range(2):
            with pytest.raises(UpstreamFailure) as caught:
                await response.read()
            assert (caught.value.kind, caught.value.bytes_sent) == ("reset", True)


@pytest.mark.parametrize("cut", [Peer.fin, Peer.rst])
async def test_a_connection_that_dies_before_the_answer_is_a_reset(cut) -> None:
    """A fresh connection is not retried: the provider may have begun to work."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await cut(peer)

    async with running(script) as (client, provider):
        with pytest.raises(UpstreamFailure) as caught:
            await client.send(ask(provider.port), header_timeout_s=5)
        assert (caught.value.kind, caught.value.bytes_sent) == ("reset", True)
        assert len(provider.requests) == 1


@pytest.mark.parametrize(
    "nonsense",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 099 Low\r\n\r\n",
        b"HTTP/1.1 000 Nothing\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        HEAD + b"bad header\r\n\r\n",
        HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
        HEAD + b"X: " + b"y" * 1_000_000,
        HEAD + b"X: y\r\n" * 100_000,
    ],
    ids=[
        *(
            "other protocol",
            "other version",
            "no status",
            "low status",
            "zero",
            "switching",
            "bare switching",
        ),
        *("no colon",),
        *("two lengths", "long field", "many fields"),
    ],
)
async def test_what_is_no_answer_is_a_protocol_failure(nonsense: bytes) -> None:
    """Garbage and heads without end fail at once, and cost bounded memory."""

    async def script(peer: Peer) -> None:
        await peer.request()
        try:
            await peer.send(nonsense)
        except ConnectionError:
            return
        await peer.closed()

    async with running(script) as (client, provider):
        with pytest.raises(UpstreamFailure) as caught:
            await client.send(ask(provider.port), header_timeout_s=5)
        assert caught.value.kind == "protocol"


async def test_broken_chunks_are_a_protocol_failure() -> None:
    """The parts before the damage are delivered."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
        await peer.send(b"zz\r\n")
        await peer.closed()

    async with running(script) as (client, provider):
        response = await client.send(ask(provider.port), header_timeout_s=5)
        with pytest.raises(UpstreamFailure) as caught:
            assert await response.read() == b"ok"
            await response.read()
        assert caught.value.kind == "protocol"


async def test_no_head_in_time_is_a_timeout() -> None:
    """And the connection is closed: its answer would belong to nobody."""
    was_closed = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.closed()
        was_closed.set()

    async with running(script) as (client, provider):
        with pytest.raises(UpstreamFailure) as caught:
            await client.send(ask(provider.port), header_timeout_s=0.05)
        assert (caught.value.kind, caught.value.bytes_sent) == ("timeout", True)
        await was_closed.wait()


async def test_silence_inside_an_awaited_body_is_a_timeout() -> None:
    """Only while somebody waits for bytes."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD + b"Content-Length: 5\r\n\r\nab")
        await peer.closed()

    async with running(script, read_timeout_s=0.05) as (client, provider):
        response = await client.send(ask(provider.port), header_timeout_s=5)
        assert await response.read() == b"ab"
        with pytest.raises(UpstreamFailure) as caught:
            await response.read()
        assert caught.value.kind == "timeout"


async def test_a_slow_reader_is_no_silence() -> None:
    """The limit is on the provider: a client that takes its time loses nothing."""
    go_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD + b"Content-Length: 4\r\n\r\nab")
        await go_on.wait()
        await peer.send(b"cd")
        await peer.closed()

    async with running(script, read_timeout_s=0.02) as (client, provider):
        response = await client.send(ask(provider.port), header_timeout_s=0.02)
        assert await response.read() == b"ab"
        await asyncio.sleep(0.1)  # five times the limit, with nobody waiting
        go_on.set()
        assert await whole(response) == b"cd"


async def test_giving_an_answer_up_closes_the_connection() -> None:
    """The provider stops working (and billing) when the client has left."""
    was_closed = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
        await peer.closed()
        was_closed.set()

    async with running(script) as (client, provider):
        response = await client.send(ask(provider.port), header_timeout_s=5)
        assert await response.read() == b"ok"
        response.abort()
        await was_closed.wait()
        with pytest.raises(UpstreamFailure):
            await response.read()


async def test_giving_up_wakes_a_waiting_reader() -> None:
    """A relay that waits for bytes learns that there will be none."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        await peer.closed()

    async with running(script) as (client, provider):
        response = await client.send(ask(provider.port), header_timeout_s=5)
        reading = spawn(response.read(), name="reader")
        await asyncio.sleep(0)
        response.abort()
        with pytest.raises(UpstreamFailure):
            await reading


async def test_cancelling_the_wait_for_a_head_closes_the_connection() -> None:
    """Interrupt in the agent: the provider sees it at once."""
    was_asked, was_closed = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        was_asked.set()
        await peer.closed()
        was_closed.set()

    async with running(script) as (client, provider):
        sending = spawn(client.send(ask(provider.port), header_timeout_s=1000), name="sender")
        await was_asked.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await was_closed.wait()


async def test_a_cancelled_read_can_be_followed_by_another() -> None:
    """Nothing that arrives later is lost."""
    go_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD + b"Content-Length: 2\r\n\r\n")
        await go_on.wait()
        await peer.send(b"ok")
        await peer.closed()

    async with running(script) as (client, provider):
        response = await client.send(ask(provider.port), header_timeout_s=5)
        reading = spawn(response.read(), name="reader")
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        go_on.set()
        assert await whole(response) == b"ok"


async def test_an_early_refusal_of_an_unread_body_is_delivered() -> None:
    """The provider answers before it has read everything, and is not asked again on that line."""

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.answer(b"no")
        await peer.closed()

    async with running(script) as (client, provider):
        response = await client.send(ask(provider.port, b"x" * 50_000_000), header_timeout_s=5)
        assert await whole(response) == b"no"
        response = await client.send(ask(provider.port), header_timeout_s=5)
        assert await whole(response) == b"no"
        assert len(provider.peers) == 2
