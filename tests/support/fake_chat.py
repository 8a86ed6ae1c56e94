"""A provider in four wire formats on 127.0.0.1, on the standard library alone.

It answers every generation request with one short streamed text and fixed usage, and keeps
what it was asked, so that a test can see which requests reached it.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ANSWER = "Hello from the fake provider."


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as it arrived; header names are lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass(slots=True)
class FakeChat:
    """What the server saw, oldest first."""

    port: int
    seen: list[Seen] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def paths(self) -> list[str]:
        return [request.path for request in self.seen]


@contextmanager
def fake_chat() -> Iterator[FakeChat]:
    """A running server."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    state = FakeChat(server.server_address[1])
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
        raw = self.rfile.read(int(self.headers.get("content-length", 0)))
        try:
            body = json.loads(raw)
        except ValueError:
            body = {}
        self._note(body)
        events = streamed_answer(self.path, body)
        if events is None:
            self._send(404, "application/json", b'{"error":{"message":"no such path"}}')
        else:
            self._send(200, "text/event-stream", events)

    def do_GET(self) -> None:
        self._note({})
        self._send(200, "application/json", b'{"object":"list","data":[]}')

    def do_CONNECT(self) -> None:
        self._note({})
        self._send(502, "text/plain", b"")

    def _note(self, body: dict[str, Any]) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        state: FakeChat = self.server.state  # type: ignore[attr-defined]
        state.seen.append(Seen(self.command, self.path, headers, body))

    def _send(self, status: int, media_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", media_type)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Silence."""


def streamed_answer(path: str, body: dict[str, Any]) -> bytes | None:
    """The events that answer a request, `None` for a path that generates nothing."""
    path = path.partition("?")[0]
    if path.endswith("/chat/completions"):
        return _chat(body)
    if path.endswith("/responses"):
        return _responses(body)
    if path.endswith("/messages"):
        return _messages(body)
    if path.endswith(":streamGenerateContent"):
        return _gemini()
    return None


def _sse(*events: dict[str, Any], named: bool = False) -> bytes:
    lines = []
    for event in events:
        name = f"event: {event['type']}\n" if named else ""
        lines.append(f"{name}data: {json.dumps(event)}\n\n")
    return "".join(lines).encode()


def _chat(body: dict[str, Any]) -> bytes:
    head = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}

    def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        return {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

    usage = {
        **head,
        "choices": [],
        "usage": {
            "prompt_tokens": 101,
            "completion_tokens": 13,
            "total_tokens": 114,
            "prompt_tokens_details": {"cached_tokens": 7},
            "completion_tokens_details": {"reasoning_tokens": 3},
        },
    }
    events = _sse(chunk({"role": "assistant", "content": ANSWER}), chunk({}, "stop"), usage)
    return events + b"data: [DONE]\n\n"


def _responses(body: dict[str, Any]) -> bytes:
    item = {"type": "message", "id": "msg_1", "role": "assistant"}
    text = {"type": "output_text", "text": ANSWER, "annotations": []}
    done = {**item, "status": "completed", "content": [text]}
    head = {"id": "resp_1", "object": "response", "created_at": 1, "model": body["model"]}
    usage = {
        "input_tokens": 101,
        "input_tokens_details": {"cached_tokens": 7},
        "output_tokens": 13,
        "output_tokens_details": {"reasoning_tokens": 3},
        "total_tokens": 114,
    }
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": {**head, "status": "in_progress", "output": []}},
        {
            "type": "response.output_item.added",
            "output_index": 0,
            "item": {**item, "status": "in_progress", "content": []},
        },
        {
            "type": "response.output_text.delta",
            "item_id": "msg_1",
            "output_index": 0,
            "content_index": 0,
            "delta": ANSWER,
        },
        {"type": "response.output_item.done", "output_index": 0, "item": done},
        {
            "type": "response.completed",
            "response": {**head, "status": "completed", "output": [done], "usage": usage},
        },
    ]
    return _sse(*events, named=True)


def _messages(body: dict[str, Any]) -> bytes:
    usage = {
        "input_tokens": 94,
        "cache_read_input_tokens": 7,
        "cache_creation_input_tokens": 0,
        "output_tokens": 1,
    }
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
    }
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": message},
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "text", "text": ""},
        },
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "text_delta", "text": ANSWER},
        },
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": 13},
        },
        {"type": "message_stop"},
    ]
    return _sse(*events, named=True)


def _gemini() -> bytes:
    event = {
        "candidates": [
            {
                "content": {"role": "model", "parts": [{"text": ANSWER}]},
                "finishReason": "STOP",
                "index": 0,
            }
        ],
        "usageMetadata": {
            "promptTokenCount": 101,
            "cachedContentTokenCount": 7,
            "candidatesTokenCount": 10,
            "thoughtsTokenCount": 3,
            "totalTokenCount": 114,
        },
        "modelVersion": "gemini-fake",
    }
    return _sse(event)
