"""However a gateway process ends, every exchange is in the ledger exactly once."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from opencode_gate.catalog.rows import ProviderRow
from opencode_gate.core.semconv import ExchangeStatus, UsageQuality
from opencode_gate.ledger.sqlite import open_store
from opencode_gate.server.processes import start_time
from opencode_gate.server.protocol import Agent, Finish
from tests.support.gateway import TOKEN, RunningGateway, running_gateway
from tests.support.scripted_upstream import Peer, scripted

FIRST_EVENTS = b'data: {"model":"m","choices":[{"index":0,"delta":{"content":"twelve chars"}}]}\n\n'
BODY = b'{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[]}'


async def _never_ends(peer: Peer) -> None:
    while await peer.request() is not None:
        await peer.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(FIRST_EVENTS), FIRST_EVENTS)
        )
        await peer.closed()


def _row(port: int) -> ProviderRow:
    return ProviderRow(id="acme", name="Acme", base_url=f"http://127.0.0.1:{port}/v1")


class _Streaming:
    """An answer whose first chunk has come; the connection stays open until `close`."""

    def __init__(self, answer: httpx.Response, chunks: AsyncIterator[bytes]) -> None:
        self.answer = answer
        self.chunks = chunks

    async def close(self) -> None:
        await self.answer.aclose()


async def _first_chunk(client: httpx.AsyncClient, gateway: RunningGateway) -> _Streaming:
    request = client.build_request(
        "POST",
        gateway.url("acme", "/v1/chat/completions"),
        content=BODY,
        headers={"authorization": f"Bearer {TOKEN}"},
    )
    answer = await client.send(request, stream=True)
    chunks = answer.aiter_raw()
    assert await anext(chunks) == FIRST_EVENTS
    return _Streaming(answer, chunks)


async def _wait_for(process: subprocess.Popen[bytes]) -> int:
    return await asyncio.to_thread(process.wait, 30)


async def test_finish_in_the_middle_of_a_stream_closes_it_as_interrupted() -> None:
    async with scripted(_never_ends) as upstream, httpx.AsyncClient(timeout=30) as client:
        with running_gateway([_row(upstream.port)]) as gateway:
            answer = await _first_chunk(client, gateway)
            settled = await asyncio.to_thread(gateway.finish)
            assert settled["exchanges"] == 1
            await answer.close()
            (row,) = gateway.exchanges()
    assert row.status is ExchangeStatus.INTERRUPTED
    assert row.usage_quality is UsageQuality.ESTIMATED
    assert row.usage.output is not None
    assert row.usage.output > 0


async def test_sigterm_settles_like_finish() -> None:
    async with scripted(_never_ends) as upstream, httpx.AsyncClient(timeout=30) as client:
        with running_gateway([_row(upstream.port)]) as gateway:
            answer = await _first_chunk(client, gateway)
            gateway.process.send_signal(signal.SIGTERM)
            assert await _wait_for(gateway.process) == 0
            await answer.close()
            (row,) = gateway.exchanges()
    assert row.status is ExchangeStatus.INTERRUPTED


async def test_after_sigkill_the_next_start_settles_the_journal() -> None:
    async with scripted(_never_ends) as upstream, httpx.AsyncClient(timeout=30) as client:
        with running_gateway([_row(upstream.port)]) as gateway:
            answer = await _first_chunk(client, gateway)
            gateway.process.kill()
            assert await _wait_for(gateway.process) == -signal.SIGKILL
            with pytest.raises(httpx.RemoteProtocolError):
                await anext(answer.chunks)
            assert gateway.exchanges() == []
            for _ in range(2):
                done = await asyncio.to_thread(
                    subprocess.run, [sys.executable, "-m", "opencode_gate.server", "settle"]
                )
                assert done.returncode == 0
                (row,) = gateway.exchanges()
                assert (row.status, row.error_type) == (
                    ExchangeStatus.INTERRUPTED,
                    "gateway_died",
                )


async def test_when_the_launcher_dies_the_agent_is_ended_and_everything_settled() -> None:
    async with scripted(_never_ends) as upstream, httpx.AsyncClient(timeout=30) as client:
        with running_gateway([_row(upstream.port)]) as gateway:
            answer = await _first_chunk(client, gateway)
            agent = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
            gateway.tell(Agent(pid=agent.pid, started=start_time(agent.pid)))
            assert gateway.process.stdin is not None
            gateway.process.stdin.close()
            assert await _wait_for(agent) == -signal.SIGTERM
            assert await _wait_for(gateway.process) == 0
            await answer.close()
            (row,) = gateway.exchanges()
            assert not Path(gateway.home.runtime / "test-run").exists()
    assert row.status is ExchangeStatus.INTERRUPTED


async def test_when_the_launcher_dies_before_the_secrets_the_agent_and_the_session_end() -> None:
    with running_gateway([_row(9)], is_told_secrets=False) as gateway:
        agent = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
        gateway.tell(Agent(pid=agent.pid, started=start_time(agent.pid)))
        assert gateway.process.stdin is not None
        gateway.process.stdin.close()
        assert await _wait_for(agent) == -signal.SIGTERM
        assert await _wait_for(gateway.process) == 0
        assert not Path(gateway.home.runtime / "test-run").exists()
        store = open_store(gateway.home.ledger_file)
        assert store.session(gateway.session.id).ended_at_us is not None
        store.close()


async def test_when_the_launcher_dies_while_it_waits_for_the_end_the_session_ends() -> None:
    """It can no longer write that down, nor clear its folder."""
    async with scripted(_never_ends) as upstream, httpx.AsyncClient(timeout=30) as client:
        with running_gateway([_row(upstream.port)]) as gateway:
            answer = await _first_chunk(client, gateway)
            gateway.tell(Finish(grace_s=60))
            assert gateway.process.stdin is not None
            gateway.process.stdin.close()
            await answer.close()
            assert await _wait_for(gateway.process) == 0
            assert len(gateway.exchanges()) == 1
            assert not Path(gateway.home.runtime / "test-run").exists()
            store = open_store(gateway.home.ledger_file)
            assert store.session(gateway.session.id).ended_at_us is not None
            store.close()


async def test_a_stranger_with_the_agents_number_is_left_alone() -> None:
    with running_gateway([_row(9)]) as gateway:
        stranger = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
        gateway.tell(Agent(pid=stranger.pid, started="0"))
        assert gateway.process.stdin is not None
        gateway.process.stdin.close()
        assert await _wait_for(gateway.process) == 0
        assert stranger.poll() is None
        stranger.kill()
        stranger.wait()


async def test_secrets_are_in_no_environment_argument_or_file_of_the_gateway() -> None:
    key = "sk-secret-4f9a8b7c6d5e4f3a2b1c"
    with running_gateway([_row(9)], keys={"acme": key}) as gateway:
        async with httpx.AsyncClient() as client:
            await client.post(
                gateway.url("acme", "/v1/chat/completions"),
                content=BODY,
                headers={"authorization": f"Bearer {TOKEN}"},
            )
        proc = Path(f"/proc/{gateway.process.pid}")
        for name in ("cmdline", "environ"):
            assert key.encode() not in (proc / name).read_bytes()
            assert TOKEN.encode() not in (proc / name).read_bytes()
        gateway.finish()
    for folder, _, files in os.walk(os.environ["HOME"]):
        for name in files:
            content = (Path(folder) / name).read_bytes()
            assert key.encode() not in content
            assert TOKEN.encode() not in content
