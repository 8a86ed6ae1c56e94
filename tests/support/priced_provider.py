"""A provider whose answers cost exactly what is wanted, that can fail, hang or ignore limits.

Chat format, on 127.0.0.1, in the event loop of the test. What an answer does stands in the prompt:
`fail` is a 500, `reset` a cut before any byte, `hang` waits for `release`, `endless` streams far
beyond the limit it was given, `at once` goes beyond it in one piece.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from opencode_gate.catalog.rows import ProviderRow
from opencode_gate.config.editing import set_values
from opencode_gate.config.paths import paths
from opencode_gate.governance.worst_case import HIDDEN_INPUT_TOKENS

AT_ONCE_TOKENS = 5_000
INPUT_USD, OUTPUT_USD = Decimal(10), Decimal(30)


def nano_usd_of(body_bytes: int, max_tokens: int) -> int:
    """The worst case of a plain request to it."""
    return (body_bytes + HIDDEN_INPUT_TOKENS) * 10_000 + max_tokens * 30_000


@dataclass
class PricedProvider:
    """A running provider; `bodies` is what arrived.

    Attributes:
        share: how much of the worst case an answer really costs, in percent.
    """

    port: int
    share: int = 100
    bodies: list[dict[str, Any]] = field(default_factory=list)
    release: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def row(self) -> ProviderRow:
        return ProviderRow(
            id="stub",
            name="Stub",
            base_url=f"http://127.0.0.1:{self.port}/v1",
            source="config",
            stream_usage="always",
        )


@asynccontextmanager
async def priced_provider(*, share: int = 100) -> AsyncIterator[PricedProvider]:
    """Serves until the block ends; its prices stand in the configuration."""
    set_values(
        paths(),
        {
            ("prices", "stub/m", "input"): float(INPUT_USD),
            ("prices", "stub/m", "output"): float(OUTPUT_USD),
            ("prices", "stub/cheap", "input"): 0.1,
            ("prices", "stub/cheap", "output"): 0.3,
        },
    )
    provider = PricedProvider(0, share)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
                body = await reader.readexactly(length)
                provider.bodies.append(json.loads(body))
                if not await _answer(provider, json.loads(body), len(body), writer):
                    break
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=2048)
    provider.port = server.sockets[0].getsockname()[1]
    try:
        yield provider
    finally:
        provider.release.set()
        server.close()


async def _answer(
    provider: PricedProvider, body: dict[str, Any], body_bytes: int, writer: asyncio.StreamWriter
) -> bool:
    prompt = body["messages"][-1]["content"]
    if "reset" in prompt:
        writer.transport.abort()
        return False
    if "hang" in prompt:
        await provider.release.wait()
    usage = {
        "prompt_tokens": (body_bytes + HIDDEN_INPUT_TOKENS) * provider.share // 100,
        "completion_tokens": body.get("max_tokens", 0) * provider.share // 100,
    }
    if body.get("stream"):
        if "at once" in prompt:
            usage["completion_tokens"] = AT_ONCE_TOKENS
            await _stream(body, usage, writer, parts=AT_ONCE_TOKENS // 5, is_at_once=True)
        else:
            await _stream(body, usage, writer, parts=20_000 if "endless" in prompt else 3)
        return False
    status, answer = (500, {"error": {"message": "down"}}) if "fail" in prompt else (200, {})
    if status == 200:
        message = {"role": "assistant", "content": "done"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        answer = {"id": "c", "model": body["model"], "choices": [choice], "usage": usage}
    text = json.dumps(answer).encode()
    writer.write(
        b"HTTP/1.1 %d OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
        % (status, len(text), text)
    )
    await writer.drain()
    return True


async def _stream(
    body: dict[str, Any],
    usage: dict[str, int],
    writer: asyncio.StreamWriter,
    *,
    parts: int,
    is_at_once: bool = False,
) -> None:
    def event(**members: Any) -> bytes:
        data = {"id": "c", "object": "chat.completion.chunk", "model": body["model"], **members}
        return b"data: " + json.dumps(data).encode() + b"\n\n"

    def said(text: str) -> bytes:
        return event(choices=[{"index": 0, "delta": {"content": text}, "finish_reason": None}])

    end = event(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
    end += event(choices=[], usage=usage) + b"data: [DONE]\n\n"
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
    if is_at_once:
        writer.write(said("and the story goes on. " * parts) + end)
    else:
        for number in range(parts):
            writer.write(said(f"and the story goes on with part {number} of very many. "))
            await writer.drain()
        writer.write(end)
    await writer.drain()
