"""A provider with a prompt cache of its own, in the chat format and in Anthropic's.

It keeps what it was sent, piece by piece (tools, system prompt, each message), without cache
marks; a request is read from the cache as far as an earlier one to the same model began with the
same pieces. A token is four bytes. Written without the code it is there to test.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ANSWER = "Done."
Pieces = tuple[str, ...]


@dataclass(slots=True)
class CachingProvider:
    """A running provider; `reads` are the cached and all input tokens of each answer in turn."""

    port: int
    reads: list[tuple[int, int]] = field(default_factory=list)
    forgets: bool = False
    kept: dict[str, list[Pieces]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def read(self, body: dict[str, Any]) -> tuple[int, int]:
        """How many input tokens are read from the cache, and how many there are."""
        pieces = _pieces(body)
        kept = self.kept.setdefault(body["model"], [])
        if self.forgets:
            kept.clear()
        shared = max((_shared(pieces, earlier) for earlier in kept), default=0)
        kept.append(pieces)
        cached, whole = (
            sum(len(piece) // 4 for piece in found) for found in (pieces[:shared], pieces)
        )
        self.reads.append((cached, whole))
        return cached, whole


def _shared(one: Pieces, other: Pieces) -> int:
    count = 0
    for mine, its in zip(one, other, strict=False):
        if mine != its:
            break
        count += 1
    return count


def _pieces(body: dict[str, Any]) -> Pieces:
    parts = [body.get("tools", []), body.get("system", ""), *body["messages"]]
    return tuple(json.dumps(_bare(part)) for part in parts)


def _bare(value: Any) -> Any:
    """Without cache marks, and a list of one text as that text."""
    if isinstance(value, dict):
        return {name: _bare(part) for name, part in value.items() if name != "cache_control"}
    if not isinstance(value, list):
        return value
    bare = [_bare(part) for part in value]
    is_text = len(bare) == 1 and isinstance(bare[0], dict) and bare[0].keys() == {"type", "text"}
    return bare[0]["text"] if is_text else bare


@contextmanager
def caching_provider() -> Iterator[CachingProvider]:
    """Serves until the block ends: `/v1/chat/completions` and `/v1/messages`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    state = CachingProvider(server.server_address[1])
    server.state = state  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        cached, whole = self.server.state.read(body)  # type: ignore[attr-defined]
        events = _anthropic if self.path.endswith("/messages") else _chat
        stream = b"".join(events(body["model"], cached, whole))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("content-length", str(len(stream)))
        self.end_headers()
        self.wfile.write(stream)

    def log_message(self, *_: object) -> None:
        """Nothing."""


def _chat(model: str, cached: int, whole: int) -> Iterator[bytes]:
    usage = {
        "prompt_tokens": whole,
        "completion_tokens": 3,
        "total_tokens": whole + 3,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
    for choice, more in (
        ({"index": 0, "delta": {"role": "assistant", "content": ANSWER}}, {}),
        ({"index": 0, "delta": {}, "finish_reason": "stop"}, {}),
        (None, {"usage": usage}),
    ):
        chunk = {
            "id": "c",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": model,
            "choices": [] if choice is None else [choice],
            **more,
        }
        yield b"data: " + json.dumps(chunk).encode() + b"\n\n"
    yield b"data: [DONE]\n\n"


def _anthropic(model: str, cached: int, whole: int) -> Iterator[bytes]:
    usage = {
        "input_tokens": 10,
        "cache_read_input_tokens": cached,
        "cache_creation_input_tokens": whole - cached,
        "output_tokens": 1,
    }
    message = {
        "id": "msg",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
    }
    text = {"type": "text", "text": ""}
    for event in (
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": text},
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "text_delta", "text": ANSWER},
        },
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": 3},
        },
        {"type": "message_stop"},
    ):
        yield b"event: %b\ndata: %b\n\n" % (event["type"].encode(), json.dumps(event).encode())
