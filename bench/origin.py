"""A provider that costs next to nothing, so that what is measured is what stands before it.

`python -m bench.origin` prints its ports (plain, and TLS if `--certificate` names one) and
answers OpenAI chat requests until its stdin ends. It reads just enough HTTP to find the end of a
request and, in the last message, which answer is wanted and on whose behalf it is asked:

    ogate-bench MODE TAG NUMBER

(of a request without it: `plain` or `stream`, as it says itself). `plain` is one write. `stream`
is 50 chunks: the first with the head; after a pause, in which whoever relays it has the machine
to itself as between real tokens, each other one in a turn of the event loop of its own.
`paced20` is the same with 20 ms before every chunk. `firehose` is 1,000 chunks, ten in each
write so that writing is not what takes the time, as fast as they are taken. `GET /counts` tells
how many requests came under each tag.
"""

import argparse
import asyncio
import json
import ssl
import sys
import threading
from collections import Counter
from typing import cast

CHUNKS = 50
FIREHOSE_CHUNKS = 1000
_CHUNKS_A_WRITE = 10
MARK = b"ogate-bench "
EVENT_MARK = b"~"
"""Once in every chunk with content, and nowhere else in a stream: counting it counts them."""
_PAUSE_S = 0.002
_TAIL_BYTES = 8192
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
    return _json_answer(body)


def _json_answer(body: bytes) -> bytes:
    fields = b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    return _HEAD + fields + body


def stream_parts(chunks: int = CHUNKS) -> list[bytes]:
    """The writes of a streamed answer; the first holds the head and the first content."""
    fields = b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    parts = [_chunk(_event({"content": f"word{number}~ "})) for number in range(chunks - 3)]
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


def _joined(parts: list[bytes], several: int) -> list[bytes]:
    return [b"".join(parts[at : at + several]) for at in range(0, len(parts), several)]


_PLAIN = plain_answer()
_MODELS = _json_answer(b'{"object":"list","data":[{"id":"bench","object":"model"}]}')
_STREAM = stream_parts()
_FIREHOSE = _joined(stream_parts(FIREHOSE_CHUNKS), _CHUNKS_A_WRITE)

_counts: Counter[bytes] = Counter()


def _asked_for(body: bytes) -> tuple[bytes, bytes]:
    """The mode and the tag that the end of a body names."""
    found = body.rfind(MARK)
    if found < 0:
        return (b"stream" if b'"stream":true' in body else b"plain"), b"-"
    mode, tag, _ = body[found + len(MARK) :].split(b" ", 2)
    return mode, tag


class _Origin(asyncio.Protocol):
    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._missing = 0
        self._is_full = False
        self._go_on: tuple[list[bytes], int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """Gathers a request; of a body in several reads only the end is kept."""
        received = self._received + data if self._received else data
        if self._missing:
            self._missing -= len(data)
            self._received = received[-_TAIL_BYTES:]
        else:
            end = received.find(b"\r\n\r\n")
            if end < 0:
                self._received = received
                return
            if received.startswith(b"GET "):
                self._received = b""
                self._tell(received)
                return
            _, _, length = received[:end].lower().partition(b"content-length:")
            self._missing = int(length.partition(b"\r\n")[0]) - (len(received) - end - 4)
            self._received = received if len(received) < _TAIL_BYTES else received[-_TAIL_BYTES:]
        if self._missing <= 0:
            body, self._received, self._missing = self._received, b"", 0
            self._answer(body)

    def _tell(self, head: bytes) -> None:
        answer = _MODELS
        if head.startswith(b"GET /counts "):
            told = {tag.decode("ascii", "replace"): count for tag, count in _counts.items()}
            answer = _json_answer(json.dumps(told).encode())
        if self._transport is not None:
            self._transport.write(answer)

    def _answer(self, body: bytes) -> None:
        mode, tag = _asked_for(body)
        _counts[tag] += 1
        if self._transport is None:
            return
        if mode == b"plain":
            self._transport.write(_PLAIN)
        elif mode == b"stream":
            self._transport.write(_STREAM[0])
            asyncio.get_running_loop().call_later(_PAUSE_S, self._write_on, _STREAM, 1)
        elif mode == b"firehose":
            self._write_on(_FIREHOSE, 0)
        else:
            self._write_paced(int(mode.removeprefix(b"paced")) / 1000, 0)

    def _write_on(self, parts: list[bytes], number: int) -> None:
        if self._transport is None:
            return
        if self._is_full:
            self._go_on = (parts, number)
            return
        self._transport.write(parts[number])
        if number + 1 < len(parts):
            asyncio.get_running_loop().call_soon(self._write_on, parts, number + 1)

    def _write_paced(self, pause_s: float, number: int) -> None:
        if self._transport is None:
            return
        self._transport.write(_STREAM[number])
        if number + 1 < CHUNKS:
            asyncio.get_running_loop().call_later(pause_s, self._write_paced, pause_s, number + 1)

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        if self._go_on is not None:
            parts, number = self._go_on
            self._go_on = None
            self._write_on(parts, number)


async def _serve(certificate: str | None) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Origin, "127.0.0.1", 0, backlog=1024)
    ports = [server.sockets[0].getsockname()[1]]
    if certificate is not None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate)
        secured = await loop.create_server(_Origin, "127.0.0.1", 0, ssl=tls, backlog=1024)
        ports.append(secured.sockets[0].getsockname()[1])
    print(*ports, flush=True)
    done = asyncio.Event()

    def wait_for_parent() -> None:
        sys.stdin.read()
        loop.call_soon_threadsafe(done.set)

    threading.Thread(target=wait_for_parent, daemon=True).start()
    await done.wait()


def main() -> None:
    """Serves until stdin ends."""
    import uvloop

    parser = argparse.ArgumentParser()
    parser.add_argument("--certificate", help="certificate and key (PEM) for a second, TLS port")
    certificate = parser.parse_args().certificate
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(certificate))


if __name__ == "__main__":
    main()
