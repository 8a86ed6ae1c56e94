"""What a gateway has answered does not stay in its memory, nor in its folding process's."""

import asyncio
import itertools
import json
from pathlib import Path

from opencode_gate.catalog.rows import ProviderRow
from tests.support.gateway import TOKEN, RunningGateway, running_gateway
from tests.support.scripted_upstream import Peer, scripted

REQUESTS, STREAMS, CONNECTIONS = 750, 75, 5
"""In each of four slices; the connections share them."""
SLACK_KIB = 4096
"""Far below what the slices would leave behind if each exchange kept as much as its body."""
RESIDENT_MAX_KIB = 70 * 1000 * 1000 // 1024
PROMPT = "All work and no play makes a dull agent. " * 200
USAGE = {"prompt_tokens": 2000, "completion_tokens": 50, "total_tokens": 2050}
PLAIN = json.dumps(
    {
        "model": "m",
        "choices": [{"index": 0, "message": {"content": "word " * 50}, "finish_reason": "stop"}],
        "usage": USAGE,
    }
).encode()


def _event(choices: list[object], **more: object) -> bytes:
    return b"data: " + json.dumps({"model": "m", "choices": choices, **more}).encode() + b"\n\n"


STREAM = b"".join(
    [
        *(_event([{"index": 0, "delta": {"content": f"word {n} "}}]) for n in range(50)),
        _event([{"index": 0, "delta": {}, "finish_reason": "stop"}]),
        _event([], usage=USAGE),
        b"data: [DONE]\n\n",
    ]
)


async def _answers(peer: Peer) -> None:
    while (request := await peer.request()) is not None:
        if b'"stream": true' in request.body:
            await peer.answer(STREAM, b"Content-Type: text/event-stream")
        else:
            await peer.answer(PLAIN, b"Content-Type: application/json")


def _request(number: int, *, stream: bool) -> bytes:
    body = json.dumps(
        {
            "model": "m",
            "stream": stream,
            "stream_options": {"include_usage": True},
            "messages": [{"role": "user", "content": f"{number}: {PROMPT}"}],
        }
    ).encode()
    head = (
        f"POST /p/acme/v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Authorization: Bearer {TOKEN}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _client(port: int, numbers: list[int]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for number in numbers:
        is_streamed = number % (REQUESTS // STREAMS + 1) == 0
        writer.write(_request(number, stream=is_streamed))
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        assert head.startswith(b"http/1.1 200")
        if b"chunked" in head:
            await reader.readuntil(b"\r\n0\r\n\r\n")
        else:
            length = int(head.partition(b"content-length: ")[2].split()[0])
            await reader.readexactly(length)
    writer.close()


def _resident_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def _processes(running: RunningGateway) -> list[int]:
    pid = running.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


async def _folded(running: RunningGateway, rows: int) -> None:
    for _ in range(3000):
        if len(running.exchanges()) == rows:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{len(running.exchanges())} rows and not {rows}")


async def test_memory_is_flat_after_thousands_of_requests_and_hundreds_of_streams() -> None:
    numbers = itertools.count(1)
    sizes: list[list[int]] = []
    async with scripted(_answers) as provider:
        row = ProviderRow(id="acme", name="Acme", base_url=f"http://127.0.0.1:{provider.port}/v1")
        with running_gateway([row], keys={"acme": "sk-test"}) as running:
            each = (REQUESTS + STREAMS) // CONNECTIONS
            for done in range(1, 5):
                shares = [list(itertools.islice(numbers, each)) for _ in range(CONNECTIONS)]
                await asyncio.gather(*(_client(running.port, share) for share in shares))
                await _folded(running, done * each * CONNECTIONS)
                sizes.append([_resident_kib(pid) for pid in _processes(running)])
            assert running.finish()["is_whole"]
    serving, folding = zip(*sizes, strict=True)
    assert serving[-1] <= RESIDENT_MAX_KIB, sizes
    assert serving[3] - serving[1] < SLACK_KIB, sizes
    assert folding[3] - folding[1] < SLACK_KIB, sizes
