"""A provider that speaks all four wire formats, counts what reaches it, and keeps to no limit.

It runs on 127.0.0.1 in a thread. What an answer is stands in the last message: `saga` gets
`SAGA_PARTS` parts of a story, whatever output limit the request has, with a pause before the end
in which whoever has had enough can leave; `look` gets a call of the tool `read` (chat format
only); `hold` waits for `release`. Everything else gets `ANSWER`, and a title call a title.
"""

import contextlib
import json
import select
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opencode_gate.core.semconv import WireFormat

WORDS = ("saga", "look", "hold")
PATIENCE_S = 60.0
ANSWER = "The model has answered."
END_OF_SAGA = "And that was the whole story."
SAGA_PARTS = 240
_PAUSE_BEFORE_PART = 220
_PAUSE_S = 3.0
INPUT_TOKENS, OUTPUT_TOKENS, PART_TOKENS = 1_000, 10, 12

BASES = {
    WireFormat.OPENAI_CHAT: "/v1",
    WireFormat.OPENAI_RESPONSES: "/v1",
    WireFormat.ANTHROPIC_MESSAGES: "/v1",
    WireFormat.GEMINI_GENERATE: "/v1beta",
}
"""The path of its base address, by wire format."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """One request: what for, with which model, and its body."""

    is_title: bool
    wire: WireFormat
    model: str
    body: dict[str, Any]


@dataclass(slots=True)
class FourFormats:
    """A running provider; `arrived` is what reached it, oldest first.

    Attributes:
        thinks_s: how long it takes before it answers.
        holds: every answer waits for `release`.
    """

    port: int
    thinks_s: float = 0.0
    holds: bool = False
    arrived: list[Arrived] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)

    def base_url(self, wire: WireFormat) -> str:
        return f"http://127.0.0.1:{self.port}{BASES[wire]}"

    @property
    def turns(self) -> list[Arrived]:
        """What arrived that is no title call."""
        return [one for one in self.arrived if not one.is_title]


@contextmanager
def four_formats() -> Iterator[FourFormats]:
    """Serves until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    provider = FourFormats(server.server_address[1])
    server.provider = provider  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        provider.release.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("content-length", 0)))
        body = json.loads(raw)
        wire, model = _wire_and_model(self.path, body)
        provider: FourFormats = self.server.provider  # type: ignore[attr-defined]
        is_title = b"title generator" in raw
        provider.arrived.append(Arrived(is_title, wire, model, body))
        last = json.dumps((body.get("messages") or body.get("input") or body["contents"])[-1])
        words = set() if is_title else {word for word in WORDS if word in last}
        time.sleep(provider.thinks_s)
        if provider.holds or "hold" in words:
            provider.release.wait(PATIENCE_S)
        parts, tokens = ["A title" if is_title else ANSWER], OUTPUT_TOKENS
        if "saga" in words:
            parts = [f"and the story goes on with part {n} of many. " for n in range(SAGA_PARTS)]
            parts.append(END_OF_SAGA)
            tokens = PART_TOKENS * SAGA_PARTS
        events = _EVENTS[wire](model, parts, tokens)
        if "look" in words:
            events = _look(model)
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True
        with contextlib.suppress(OSError):
            for number, event in enumerate(events):
                if number == _PAUSE_BEFORE_PART and select.select(
                    [self.connection], [], [], _PAUSE_S
                ) != ([], [], []):
                    return
                self.wfile.write(event)

    def log_message(self, format: str, *args: object) -> None:
        """Silence."""


def _wire_and_model(path: str, body: dict[str, Any]) -> tuple[WireFormat, str]:
    path = urllib.parse.unquote(path.partition("?")[0])
    if path.endswith("/chat/completions"):
        return WireFormat.OPENAI_CHAT, body["model"]
    if path.endswith("/responses"):
        return WireFormat.OPENAI_RESPONSES, body["model"]
    if path.endswith("/messages"):
        return WireFormat.ANTHROPIC_MESSAGES, body["model"]
    return WireFormat.GEMINI_GENERATE, path.rpartition("/models/")[2].partition(":")[0]


def _data(event: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(event).encode() + b"\n\n"


def _named(event: dict[str, Any]) -> bytes:
    return f"event: {event['type']}\n".encode() + _data(event)


def _chat(model: str, parts: list[str], tokens: int) -> Iterator[bytes]:
    head = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": model}
    for part in parts:
        delta = {"role": "assistant", "content": part}
        yield _data(head | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
    yield _data(head | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    usage = {"prompt_tokens": INPUT_TOKENS, "completion_tokens": tokens}
    yield _data(head | {"choices": [], "usage": usage | {"total_tokens": INPUT_TOKENS + tokens}})
    yield b"data: [DONE]\n\n"


def _look(model: str) -> Iterator[bytes]:
    head = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": model}
    function = {"name": "read", "arguments": json.dumps({"filePath": "notes.txt"})}
    call = {"index": 0, "id": "call_1", "type": "function", "function": function}
    for delta, finish in (({"tool_calls": [call]}, None), ({}, "tool_calls")):
        yield _data(head | {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})
    usage = {"prompt_tokens": INPUT_TOKENS, "completion_tokens": OUTPUT_TOKENS}
    yield _data(head | {"choices": [], "usage": usage})
    yield b"data: [DONE]\n\n"


def _responses(model: str, parts: list[str], tokens: int) -> Iterator[bytes]:
    response = {"id": "resp_1", "object": "response", "created_at": 1, "model": model}
    item = {"id": "msg_1", "type": "message", "role": "assistant", "content": []}
    at = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    usage = {
        "input_tokens": INPUT_TOKENS,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": INPUT_TOKENS + tokens,
    }
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": response | {"status": "in_progress"}},
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        *({"type": "response.output_text.delta", **at, "delta": part} for part in parts),
        {"type": "response.output_item.done", "output_index": 0, "item": item | {
            "status": "completed",
            "content": [{"type": "output_text", "text": "".join(parts), "annotations": []}],
        }},
        {"type": "response.completed", "response": response | {
            "status": "completed", "output": [], "usage": usage, "incomplete_details": None,
        }},
    ]  # fmt: skip
    for number, event in enumerate(events):
        yield _named(event | {"sequence_number": number})


def _anthropic(model: str, parts: list[str], tokens: int) -> Iterator[bytes]:
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": model,
               "content": [], "stop_reason": None, "stop_sequence": None,
               "usage": {"input_tokens": INPUT_TOKENS, "output_tokens": 1}}  # fmt: skip
    yield _named({"type": "message_start", "message": message})
    block = {"type": "text", "text": ""}
    yield _named({"type": "content_block_start", "index": 0, "content_block": block})
    for part in parts:
        delta = {"type": "text_delta", "text": part}
        yield _named({"type": "content_block_delta", "index": 0, "delta": delta})
    yield _named({"type": "content_block_stop", "index": 0})
    end = {"stop_reason": "end_turn", "stop_sequence": None}
    yield _named({"type": "message_delta", "delta": end, "usage": {"output_tokens": tokens}})
    yield _named({"type": "message_stop"})


def _gemini(model: str, parts: list[str], tokens: int) -> Iterator[bytes]:
    usage = {
        "promptTokenCount": INPUT_TOKENS,
        "candidatesTokenCount": tokens,
        "totalTokenCount": INPUT_TOKENS + tokens,
    }
    for number, part in enumerate(parts, start=1):
        candidate: dict[str, Any] = {
            "content": {"role": "model", "parts": [{"text": part}]},
            "index": 0,
        }
        event: dict[str, Any] = {"candidates": [candidate], "modelVersion": model}
        if number == len(parts):
            candidate["finishReason"] = "STOP"
            event["usageMetadata"] = usage
        yield _data(event)


_EVENTS = {
    WireFormat.OPENAI_CHAT: _chat,
    WireFormat.OPENAI_RESPONSES: _responses,
    WireFormat.ANTHROPIC_MESSAGES: _anthropic,
    WireFormat.GEMINI_GENERATE: _gemini,
}
