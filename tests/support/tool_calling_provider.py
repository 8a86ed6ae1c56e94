"""A provider whose model calls tools as a script says, in each of the four formats.

It answers the request that follows on `n` results with the script's call `n`, and with a text
behind the last; a title call and a request without tools get a text at once. `seen` keeps every
request with the times at which it came and at which its answer was out.
"""

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.fake_chat import streamed_answer

Calls = Sequence[tuple[str, dict[str, Any]]]
"""The tools that one answer calls, with their arguments."""


@dataclass(slots=True)
class Seen:
    """One request, and when (monotonic seconds)."""

    path: str
    headers: list[tuple[bytes, bytes]]
    body: bytes
    came_s: float
    answered_s: float = 0.0
    status: int = 200


@dataclass(slots=True)
class ToolCallingProvider:
    """A running provider.

    Attributes:
        script: what the model calls, answer by answer; `sub_script` for conversations that have
            a parent.
        refusals: how many requests are refused with 503 before one is answered.
    """

    port: int
    script: Sequence[Calls] = ()
    sub_script: Sequence[Calls] = ()
    refusals: int = 0
    seen: list[Seen] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextmanager
def tool_calling_provider() -> Iterator[ToolCallingProvider]:
    """Serves until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    state = ToolCallingProvider(server.server_address[1])
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
        state: ToolCallingProvider = self.server.state  # type: ignore[attr-defined]
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = [(name.lower().encode(), value.encode()) for name, value in self.headers.items()]
        seen = Seen(self.path, headers, body, time.monotonic())
        with state.lock:
            state.seen.append(seen)
            if state.refusals and b'"tools"' in body:
                state.refusals -= 1
                seen.status = 503
        asked = json.loads(body)
        is_child = "x-parent-session-id" in self.headers
        script = state.sub_script if is_child else state.script
        place = _results_in(asked)
        answer = streamed_answer(self.path, asked) or b""
        if asked.get("tools") and place < len(script):
            answer = _calling(self.path, asked, place, script[place])
        if seen.status != 200:
            answer = b'{"error":{"message":"busy"}}'
        self.send_response(seen.status)
        kind = "text/event-stream" if seen.status == 200 else "application/json"
        self.send_header("content-type", kind)
        self.send_header("retry-after-ms", "300")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
        self.wfile.flush()
        seen.answered_s = time.monotonic()

    def log_message(self, *_: object) -> None:
        """Nothing."""


def _results_in(asked: dict[str, Any]) -> int:
    """How many of the model's turns with calls have been answered."""
    turns = asked.get("messages") or asked.get("input") or asked.get("contents") or []
    text = [json.dumps(turn) for turn in turns]
    if "input" in asked:
        # Calls of one answer stand side by side here.
        is_call = ['"type": "function_call"' in turn for turn in text]
        return sum(
            now and not before for before, now in zip([False, *is_call], is_call, strict=False)
        )
    marks = ('"tool_calls"', '"type": "tool_use"', '"functionCall"')
    return sum(any(mark in turn for mark in marks) for turn in text)


def _calling(path: str, asked: dict[str, Any], place: int, calls: Calls) -> bytes:
    path = path.partition("?")[0]
    if path.endswith("/chat/completions"):
        return _chat(asked, place, calls)
    if path.endswith("/responses"):
        return _responses(asked, place, calls)
    if path.endswith("/messages"):
        return _messages(asked, place, calls)
    return _gemini(calls)


def _sse(*events: dict[str, Any], named: bool = False) -> bytes:
    lines = (
        (f"event: {event['type']}\n" if named else "") + f"data: {json.dumps(event)}\n\n"
        for event in events
    )
    return "".join(lines).encode()


def _chat(asked: dict[str, Any], place: int, calls: Calls) -> bytes:
    head = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": asked["model"]}
    made = [
        {
            "index": number,
            "id": f"call_{place}_{number}",
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(arguments)},
        }
        for number, (name, arguments) in enumerate(calls)
    ]
    delta = {"role": "assistant", "content": None, "tool_calls": made}
    usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
    events = _sse(
        {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]},
        {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]},
        {**head, "choices": [], "usage": usage},
    )
    return events + b"data: [DONE]\n\n"


def _responses(asked: dict[str, Any], place: int, calls: Calls) -> bytes:
    head = {"id": "resp_1", "object": "response", "created_at": 1, "model": asked["model"]}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": {**head, "status": "in_progress", "output": []}}
    ]
    output = []
    for number, (name, arguments) in enumerate(calls):
        item = {
            "type": "function_call",
            "id": f"fc_{place}_{number}",
            "call_id": f"call_{place}_{number}",
            "name": name,
        }
        done = {**item, "arguments": json.dumps(arguments), "status": "completed"}
        added = {**item, "arguments": "", "status": "in_progress"}
        output.append(done)
        events += [
            {"type": "response.output_item.added", "output_index": number, "item": added},
            {
                "type": "response.function_call_arguments.delta",
                "item_id": item["id"],
                "output_index": number,
                "delta": done["arguments"],
            },
            {"type": "response.output_item.done", "output_index": number, "item": done},
        ]
    usage = {"input_tokens": 100, "output_tokens": 10, "total_tokens": 110}
    completed = {**head, "status": "completed", "output": output, "usage": usage}
    return _sse(*events, {"type": "response.completed", "response": completed}, named=True)


def _messages(asked: dict[str, Any], place: int, calls: Calls) -> bytes:
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": asked["model"],
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 100, "output_tokens": 1},
    }
    events: list[dict[str, Any]] = [{"type": "message_start", "message": message}]
    for number, (name, arguments) in enumerate(calls):
        block = {"type": "tool_use", "id": f"toolu_{place}_{number}", "name": name, "input": {}}
        delta = {"type": "input_json_delta", "partial_json": json.dumps(arguments)}
        events += [
            {"type": "content_block_start", "index": number, "content_block": block},
            {"type": "content_block_delta", "index": number, "delta": delta},
            {"type": "content_block_stop", "index": number},
        ]
    end = {"stop_reason": "tool_use", "stop_sequence": None}
    events += [
        {"type": "message_delta", "delta": end, "usage": {"output_tokens": 10}},
        {"type": "message_stop"},
    ]
    return _sse(*events, named=True)


def _gemini(calls: Calls) -> bytes:
    parts = [{"functionCall": {"name": name, "args": arguments}} for name, arguments in calls]
    candidate = {"content": {"role": "model", "parts": parts}, "finishReason": "STOP", "index": 0}
    usage = {"promptTokenCount": 100, "candidatesTokenCount": 10, "totalTokenCount": 110}
    return _sse({"candidates": [candidate], "usageMetadata": usage, "modelVersion": "m"})
