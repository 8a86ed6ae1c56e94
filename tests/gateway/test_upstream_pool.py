"""When a connection is used again, and what happens when it died meanwhile."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from opencode_gate.core.tasks import spawn
from opencode_gate.gateway import dialling, http_client
from opencode_gate.gateway.upstream import UpstreamFailure
from tests.support.scripted_upstream import Peer, scripted
from tests.support.upstream_client import HEAD, ask, running, whole


async def test_requests_follow_each_other_on_one_connection() -> None:
    """A whole answer gives its connection back."""
    async with running() as (client, provider):
        for number in range(5):
            response = await client.send(ask(provider.port, b"%d" % number), header_timeout_s=5)
            assert await whole(response) == b"%d" % number
        assert len(provider.peers) == 1


async def test_a_connection_is_free_once_its_answer_has_arrived() -> None:
    """Unread but whole: the bytes wait in the answer, the connection serves another one."""
    async with running() as (client, provider):
        first = await client.send(ask(provider.port, b"first"), header_timeout_s=5)
        second = await client.send(ask(provider.port, b"second"), header_timeout_s=5)
        assert (await whole(second), await whole(first)) == (b"second", b"first")
        assert len(provider.peers) == 1


async def test_concurrent_requests_do_not_share_a_connection() -> None:
    """HTTP/1.1 has one exchange at a time; answers reach their own askers."""
    all_asked = asyncio.Event()

    async def script(peer: Peer) -> None:
        received = await peer.request()
        assert received is not None
        if len(provider.requests) == 5:
            all_asked.set()
        await all_asked.wait()
        await peer.answer(received.body)
        await peer.closed()

    async with running(script) as (client, provider):

        async def exchange(body: bytes) -> bytes:
            return await whole(await client.send(ask(provider.port, body), header_timeout_s=5))

        bodies = [b"%d" % number for number in range(5)]
        assert await asyncio.gather(*map(exchange, bodies)) == bodies
        assert len(provider.peers) == 5


@pytest.mark.parametrize(
    "answer",
    [
        HEAD + b"Connection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        HEAD + b"Content-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        HEAD + b"Content-Length: 2\r\n\r\nokgarbage",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    ],
    ids=["close", "1.0", "second answer", "garbage", "second answer after chunks"],
)
async def test_a_connection_that_cannot_be_trusted_is_closed(answer: bytes) -> None:
    """What follows an answer must never become part of it, nor of the next one."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer)
        await peer.closed()

    async with running(script) as (client, provider):
        for _ in range(2):
            response = await client.send(ask(provider.port), header_timeout_s=5)
            assert await whole(response) == b"ok"
        assert len(provider.peers) == 2


async def test_bytes_on_an_idle_connection_close_it() -> None:
    """Their sender and we disagree about where an answer ended."""
    was_closed = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.answer(b"ok")
        if len(provider.peers) == 1:
            await asyncio.sleep(0)
            await peer.send(HEAD + b"Content-Length: 4\r\n\r\nevil")
        await peer.closed()
        was_closed.set()

    async with running(script) as (client, provider):
        assert await whole(await client.send(ask(provider.port), header_timeout_s=5)) == b"ok"
        await was_closed.wait()
        assert await whole(await client.send(ask(provider.port), header_timeout_s=5)) == b"ok"
        assert len(provider.peers) == 2


@pytest.mark.parametrize("cut", [Peer.fin, Peer.rst])
async def test_the_idle_race_is_retried_once_on_a_fresh_connection(
    cut: Callable[[Peer], None],
) -> None:
    """The provider closed the kept connection just as the request was on its way."""

    async def script(peer: Peer) -> None:
        received = await peer.request()
        assert received is not None
        await peer.answer(received.body)
        if len(provider.peers) == 1:
            await peer.request()
            await cut(peer)
        await peer.closed()

    async with running(script) as (client, provider):
        for body in (b"first", b"second"):
            response = await client.send(ask(provider.port, body), header_timeout_s=5)
            assert await whole(response) == body
        assert [len(peer.requests) for peer in provider.peers] == [2, 1]


async def test_the_retry_happens_once_and_on_a_fresh_connection() -> None:
    """Other kept connections may be just as dead: they are not tried in turn."""
    all_asked = asyncio.Event()

    async def script(peer: Peer) -> None:
        if len(provider.peers) > 3:
            await peer.request()
            await peer.rst()
            return
        await peer.request()
        if len(provider.peers) == 3:
            all_asked.set()
        await all_asked.wait()
        await peer.answer(b"ok")
        if await peer.request():
            await peer.rst()

    async with running(script) as (client, provider):
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(client.send(ask(provider.port), header_timeout_s=5))
        with pytest.raises(UpstreamFailure) as caught:
            await client.send(ask(provider.port, b"once more"), header_timeout_s=5)
        assert (caught.value.kind, caught.value.bytes_sent) == ("reset", True)
        assert len(provider.peers) == 4
        assert [received.body for received in provider.requests].count(b"once more") == 2


@pytest.mark.parametrize("is_reachable", [True, False])
async def test_what_left_on_a_dead_connection_counts_as_sent_whatever_the_retry_comes_to(
    monkeypatch: pytest.MonkeyPatch, is_reachable: bool
) -> None:
    """It is taken for the idle race, which is likely, not certain: it may yet be billed."""
    noted: list[bool] = []

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.answer(b"ok")
        if await peer.request():
            await peer.rst()

    async def dial(*args: Any, **options: Any) -> None:
        noted.append(request.is_waiting)
        if not is_reachable:
            raise UpstreamFailure("connect", "nobody is there", bytes_sent=False)
        connection = args[1]
        connection.is_usable = False

    async with running(script) as (client, provider):
        await client.send(ask(provider.port), header_timeout_s=5)
        monkeypatch.setattr(http_client, "dial", dial)
        request = ask(provider.port)
        with pytest.raises(UpstreamFailure) as caught:
            await client.send(request, header_timeout_s=5)
        assert (caught.value.bytes_sent, noted) == (True, [False])

        unsent = ask(provider.port)
        with pytest.raises(UpstreamFailure) as caught:
            await client.send(unsent, header_timeout_s=5)
        assert caught.value.bytes_sent is False


@pytest.mark.parametrize("begun", [b"H", b"HTTP/1.1 100 Continue\r\n\r\n", HEAD])
async def test_a_kept_connection_that_began_to_answer_is_not_retried(begun: bytes) -> None:
    """The provider has taken the request: a second one could be billed twice."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.answer(b"ok")
        await peer.request()
        await peer.send(begun)
        await peer.fin()

    async with running(script) as (client, provider):
        await client.send(ask(provider.port), header_timeout_s=5)
        with pytest.raises(UpstreamFailure) as caught:
            await client.send(ask(provider.port), header_timeout_s=5)
        assert caught.value.kind == "reset"
        assert len(provider.requests) == 2


async def test_a_kept_connection_that_dies_late_is_not_retried() -> None:
    """It was not idle: the provider has worked on the answer, and may bill it."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.answer(b"ok")
        await peer.request()
        await peer.rst()

    async with running(script, idle_race_s=0.0) as (client, provider):
        await client.send(ask(provider.port), header_timeout_s=5)
        with pytest.raises(UpstreamFailure) as caught:
            await client.send(ask(provider.port), header_timeout_s=5)
        assert (caught.value.kind, caught.value.bytes_sent) == ("reset", True)
        assert len(provider.requests) == 2


async def test_a_kept_connection_that_is_silent_is_not_retried() -> None:
    """A timeout is not the idle race: the provider may be at work."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.answer(b"ok")
        await peer.closed()

    async with running(script) as (client, provider):
        await client.send(ask(provider.port), header_timeout_s=1000)
        with pytest.raises(UpstreamFailure) as caught:
            await client.send(ask(provider.port), header_timeout_s=0.05)
        assert caught.value.kind == "timeout"
        assert len(provider.peers) == 1


async def test_a_connection_the_provider_closed_while_idle_is_not_tried() -> None:
    """Seen in time, it leaves the pool, and no request is wasted on it."""
    go_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.answer(b"ok")
        if len(provider.peers) == 1:
            await go_on.wait()
            await peer.fin()
            return
        await peer.closed()

    async with running(script) as (client, provider):
        await client.send(ask(provider.port), header_timeout_s=5)
        go_on.set()
        while client.open_connections:
            await asyncio.sleep(0.001)
        await client.send(ask(provider.port), header_timeout_s=5)
        assert [len(peer.requests) for peer in provider.peers] == [1, 1]


async def test_a_late_abort_spares_the_next_exchange() -> None:
    """Giving up an answer that had already ended touches nobody's connection."""
    async with running() as (client, provider):
        first = await client.send(ask(provider.port, b"first"), header_timeout_s=5)
        await whole(first)
        second = await client.send(ask(provider.port, b"second"), header_timeout_s=5)
        first.abort()
        assert await whole(second) == b"second"
        third = await client.send(ask(provider.port, b"third"), header_timeout_s=5)
        assert await whole(third) == b"third"
        assert len(provider.peers) == 1


async def test_idle_connections_are_kept_up_to_a_number() -> None:
    """A burst leaves no crowd behind."""
    all_asked = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        if len(provider.requests) == 4:
            all_asked.set()
        await all_asked.wait()
        await peer.answer(b"ok")
        await peer.closed()

    async with running(script, idle_connections=2) as (client, provider):
        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(client.send(ask(provider.port), header_timeout_s=5))
        while client.open_connections > 2:
            await asyncio.sleep(0.001)
        assert client.open_connections == 2


async def test_idle_connections_expire() -> None:
    """Long before the provider's own limit, so that the idle race stays rare."""
    was_closed = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.answer(b"ok")
        await peer.closed()
        was_closed.set()

    async with running(script, idle_s=0.02) as (client, provider):
        await client.send(ask(provider.port), header_timeout_s=5)
        await was_closed.wait()
        assert client.open_connections == 0


async def test_the_idle_limit_does_not_cut_an_exchange() -> None:
    """A connection taken from the pool shortly before its end lives on."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.answer(b"ok")
        await peer.request()
        await asyncio.sleep(0.1)  # well past the idle limit
        await peer.answer(b"slow")
        await peer.closed()

    async with running(script, idle_s=0.05) as (client, provider):
        await client.send(ask(provider.port), header_timeout_s=5)
        response = await client.send(ask(provider.port), header_timeout_s=5)
        assert await whole(response) == b"slow"


async def test_closing_ends_every_connection() -> None:
    """Idle ones and those in use; who still reads is told."""

    async def script(peer: Peer) -> None:
        if len(provider.peers) == 1:
            await peer.request()
            await peer.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        else:
            await peer.request()
            await peer.answer(b"ok")
        await peer.closed()

    async with running(script) as (client, provider):
        streaming = await client.send(ask(provider.port), header_timeout_s=5)
        await client.send(ask(provider.port), header_timeout_s=5)
        assert client.open_connections == 2
        reading = spawn(streaming.read(), name="reader")
        await asyncio.sleep(0)
        await client.close()
        assert client.open_connections == 0
        with pytest.raises(UpstreamFailure):
            await reading
        await client.close()


async def test_refused_connection() -> None:
    """Nothing listens there; nothing was sent."""
    async with scripted() as provider:
        port = provider.port
    async with running() as (client, _):
        with pytest.raises(UpstreamFailure, match="refused") as caught:
            await client.send(ask(port), header_timeout_s=5)
        assert (caught.value.kind, caught.value.bytes_sent) == ("connect", False)


async def test_unknown_name() -> None:
    """The resolver's no is its own kind of failure (.invalid never exists, RFC 6761)."""
    async with running() as (client, _):
        request = ask(80)
        request.host = "no-such-host.invalid"
        with pytest.raises(UpstreamFailure, match=r"no-such-host\.invalid") as caught:
            await client.send(request, header_timeout_s=60)
        assert (caught.value.kind, caught.value.bytes_sent) == ("dns", False)


@pytest.mark.parametrize("host", ["a" * 70 + ".example", "bad\x00name", "a..b"])
async def test_impossible_name(host: str) -> None:
    """A broken base URL is a failure like any other, never a crash."""
    async with running() as (client, _):
        request = ask(80)
        request.host = host
        with pytest.raises(UpstreamFailure) as caught:
            await client.send(request, header_timeout_s=5)
        assert (caught.value.kind, caught.value.bytes_sent) == ("dns", False)


async def test_a_dead_address_does_not_hide_a_living_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken IPv6 answers nothing: the next address is tried a moment later, not after minutes."""
    tried = []
    given_up = asyncio.Event()
    connect = dialling._connect

    async def half_dead(family, address):
        tried.append(address[0])
        if address[0] == "::1":
            try:
                await asyncio.Event().wait()
            finally:
                given_up.set()
        return await connect(family, address)

    async def both(host: str, port: int):
        return [
            (dialling.socket.AF_INET6, ("::1", port)),
            (dialling.socket.AF_INET, ("127.0.0.1", port)),
        ]

    monkeypatch.setattr(dialling, "_connect", half_dead)
    monkeypatch.setattr(dialling, "_addresses", both)
    monkeypatch.setattr(dialling, "ATTEMPT_DELAY_S", 0.01)
    async with running() as (client, provider):
        response = await client.send(ask(provider.port, b"ok"), header_timeout_s=5)
        assert await whole(response) == b"ok"
        assert tried == ["::1", "127.0.0.1"]
        await given_up.wait()


async def test_every_address_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """All are tried, then it is one failure."""
    async with scripted() as provider:
        port = provider.port

    async def both(host: str, port: int):
        return [
            (dialling.socket.AF_INET, ("127.0.0.1", port)),
            (dialling.socket.AF_INET, ("127.0.0.2", port)),
        ]

    monkeypatch.setattr(dialling, "_addresses", both)
    async with running() as (client, _):
        with pytest.raises(UpstreamFailure, match="refused") as caught:
            await client.send(ask(port), header_timeout_s=5)
        assert caught.value.kind == "connect"


async def test_a_request_tells_whether_it_still_waits_for_a_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever gives it up then knows that no provider has seen it."""
    go_on, connect, dialling_now = asyncio.Event(), dialling._connect, asyncio.Event()

    async def slow(family, address):
        dialling_now.set()
        await go_on.wait()
        return await connect(family, address)

    monkeypatch.setattr(dialling, "_connect", slow)
    async with running() as (client, provider):
        request = ask(provider.port)
        sending = spawn(client.send(request, header_timeout_s=5), name="request")
        await dialling_now.wait()
        assert request.is_waiting
        go_on.set()
        await whole(await sending)
        assert not request.is_waiting
        again = ask(provider.port)
        await client.send(again, header_timeout_s=5)
        assert not again.is_waiting


async def test_a_connection_that_never_stands_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connecting has a limit of its own, shorter than waiting for an answer."""

    async def dead(family, address):
        await asyncio.Event().wait()

    monkeypatch.setattr(dialling, "_connect", dead)
    async with running(connect_timeout_s=0.02) as (client, provider):
        with pytest.raises(UpstreamFailure) as caught:
            await client.send(ask(provider.port), header_timeout_s=5)
        assert (caught.value.kind, caught.value.bytes_sent) == ("connect", False)
