"""A provider that costs next to nothing, so that what is measured is what stands before it.

`python -m bench.origin` prints its port and answers OpenAI chat requests until its stdin ends.
It reads just enough HTTP to find the end of a request. A plain answer is one write. A stream
is 50 chunks: the first with the head; after a pause, in which whoever relays it has the machine
to itself as between real tokens, each other one in a turn of the event loop of its own.
"""

import asyncio
import json
import sys
import threading
from typing import cast

CHUNKS = 50
_PAUSE_S = 0.002
_HEAD = b"HTTP/1.1 200 OK\r\nDate: Mon, 28 Sep 2026 12:00:00 GMT\r\nServer: origin\r\n"


def _event(delta: dict[str, object], finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    event = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "bench",
        "choices": [choice],
    }
    return b"data: " + json.dumps(event, separators=(",", ":")).encode() + b"\n\n"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


_USAGE = {
    "prompt_tokens": 2011,
    "completion_tokens": 53,
    "total_tokens": 2064,
    "prompt_tokens_details": {"cached_tokens": 1920},
    "completion_tokens_details": {"reasoning_tokens": 3},
}


def plain_answer() -> bytes:
    """A whole answer with usage, about 700 bytes."""
    message = {"role": "assistant", "content": "word " * 50}
    body = json.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "bench",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": _USAGE,
        }
    ).encode()
    fields = b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    return _HEAD + fields + body


def stream_parts() -> list[bytes]:
    """The writes of a streamed answer; the first holds the head and the first content."""
    fields = b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    parts = [_chunk(_event({"content": f"word{number} "})) for number in range(CHUNKS - 3)]
    parts[0] = _HEAD + fields + parts[0]
    usage = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "bench",
        "choices": [],
        "usage": _USAGE,
    }
    parts.append(_chunk(_event({}, "stop")))
    parts.append(_chunk(b"data: " + json.dumps(usage, separators=(",", ":")).encode() + b"\n\n"))
    parts.append(_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
    return parts


_PLAIN = plain_answer()
_STREAM = stream_parts()


class _Origin(asyncio.Protocol):
    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        received = self._received = self._received + data if self._received else data
        end = received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = received[:end].lower()
        _, _, length = head.partition(b"content-length:")
        if len(received) - end - 4 < int(length.partition(b"\r\n")[0] or 0):
            return
        self._received = b""
        if self._transport is None:
            return
        if received.find(b'"stream":true', end) < 0:
            self._transport.write(_PLAIN)
        else:
            self._write_part(0)

    def _write_part(self, number: int) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        self._transport.write(_STREAM[number])
        loop = asyncio.get_running_loop()
        if number == 0:
            loop.call_later(_PAUSE_S, self._write_part, 1)
        elif number + 1 < len(_STREAM):
            loop.call_soon(self._write_part, number + 1)


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Origin, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    done = asyncio.Event()

    def wait_for_parent() -> None:
        sys.stdin.read()
        loop.call_soon_threadsafe(done.set)

    threading.Thread(target=wait_for_parent, daemon=True).start()
    await done.wait()


if __name__ == "__main__":
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve())
