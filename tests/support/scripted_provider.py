"""A provider whose model delegates, compacts, stalls, refuses and dies when the prompt says so.

It speaks the chat format on 127.0.0.1 and looks for one of the words in `WORDS` in the last
thing the user typed. Every answer gets token counts of its own, so that a sum tells which
answers are in it; `given` keeps what was answered, oldest first.
"""

import contextlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

WORDS = ("delegate", "stall", "overflow", "busy", "cut", "silent")
PATIENCE_S = 60.0

Call = Literal["title", "compaction", "subagent", "main"]


@dataclass(slots=True)
class Given:
    """One answer: to which call, with which usage (`None` if none was stated)."""

    call: Call
    conversation_id: str | None
    parent_id: str | None
    status: int = 200
    input_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    is_whole: bool = False


@dataclass(slots=True)
class ScriptedProvider:
    """A running provider. Stalled answers go on once `release` is set."""

    port: int
    given: list[Given] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)
    stalled: threading.Event = field(default_factory=threading.Event)
    done_once: set[str] = field(default_factory=set)
    sub_agent: str = "general"
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def of(self, call: Call) -> list[Given]:
        """The answers to one kind of call."""
        return [given for given in self.given if given.call == call]

    def first_time(self, word: str) -> bool:
        """Whether this trouble has not been made yet."""
        with self.lock:
            is_first = word not in self.done_once
            self.done_once.add(word)
            return is_first


@contextmanager
def scripted_provider() -> Iterator[ScriptedProvider]:
    """Serves until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    state = ScriptedProvider(server.server_address[1])
    server.state = state  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        state.release.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))))
        state: ScriptedProvider = self.server.state  # type: ignore[attr-defined]
        given = Given(
            _call_of(body, self.headers.get("x-parent-session-id")),
            self.headers.get("x-session-id"),
            self.headers.get("x-parent-session-id"),
        )
        with state.lock:
            state.given.append(given)
            number = len(state.given)
        word = _word(body) if given.call == "main" else None
        with contextlib.suppress(OSError):
            self._answer(state, given, number, body, word)

    def _answer(
        self,
        state: ScriptedProvider,
        given: Given,
        number: int,
        body: dict[str, Any],
        word: str | None,
    ) -> None:
        if word == "overflow" and state.first_time(word):
            self._refuse(given, 413, "the request is too large")
        elif word == "busy" and state.first_time(word):
            self._refuse(given, 503, "overloaded", retry_after_ms="100")
        else:
            self._stream(state, given, number, body, word)

    def _refuse(self, given: Given, status: int, message: str, **extra: str) -> None:
        given.status = status
        payload = json.dumps({"error": {"message": message, "type": "refused"}}).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(payload)))
        for name, value in extra.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(payload)

    def _stream(
        self,
        state: ScriptedProvider,
        given: Given,
        number: int,
        body: dict[str, Any],
        word: str | None,
    ) -> None:
        head = {"id": f"c{number}", "object": "chat.completion.chunk", "created": 1}
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True

        def send(delta: dict[str, Any], finish: str | None = None, **more: Any) -> None:
            choices = [{"index": 0, "delta": delta, "finish_reason": finish}] if delta else []
            self._event({**head, "model": body["model"], "choices": choices, **more})

        call = _tool_call(given, body, word, state.sub_agent)
        send({"role": "assistant", "content": _text(given)})
        if word == "cut" and state.first_time(word):
            self.connection.shutdown(2)
            return
        if word == "stall":
            state.stalled.set()
            state.release.wait(PATIENCE_S)
        if call is not None:
            send({"tool_calls": [{"index": 0, "id": f"call_{number}", "type": "function",
                                  "function": call}]})  # fmt: skip
        self._event(
            {
                **head,
                "model": body["model"],
                "choices": [
                    {"index": 0, "delta": {}, "finish_reason": "stop" if call is None
                     else "tool_calls"}
                ],
            }
        )  # fmt: skip
        if word != "silent":
            given.input_tokens = 1000 + 7 * number
            given.cached_tokens = 100 + number
            given.output_tokens = 50 + 3 * number
            usage = {
                "prompt_tokens": given.input_tokens,
                "completion_tokens": given.output_tokens,
                "total_tokens": given.input_tokens + given.output_tokens,
                "prompt_tokens_details": {"cached_tokens": given.cached_tokens},
            }
            self._event({**head, "model": body["model"], "choices": [], "usage": usage})
        self.wfile.write(b"data: [DONE]\n\n")
        given.is_whole = True

    def _event(self, event: dict[str, Any]) -> None:
        self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")
        self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:
        """Silence."""


def _call_of(body: dict[str, Any], parent_id: str | None) -> Call:
    head = _content(body["messages"][0])
    if head.startswith("You are a title generator"):
        return "title"
    if "summariz" in head[:120]:
        return "compaction"
    return "main" if parent_id is None else "subagent"


def _content(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "\n".join(part.get("text", "") for part in content)


def _word(body: dict[str, Any]) -> str | None:
    typed = [_content(message) for message in body["messages"] if message["role"] == "user"]
    return next((word for word in WORDS if word in typed[-1]), None) if typed else None


def _text(given: Given) -> str:
    return {
        "title": "A scripted title",
        "compaction": "What was said so far, in short.",
        "subagent": "The sub-agent answers.",
        "main": "The model answers.",
    }[given.call]


def _tool_call(
    given: Given, body: dict[str, Any], word: str | None, sub_agent: str
) -> dict[str, str] | None:
    """A task for the first answer to a prompt that delegates, one look at a file in a sub-agent."""
    if body["messages"][-1]["role"] != "user":
        return None
    offered = {tool["function"]["name"] for tool in body.get("tools", ())}
    if word == "delegate" and "task" in offered:
        task = {"description": "Look", "prompt": "Look at it.", "subagent_type": sub_agent}
        return {"name": "task", "arguments": json.dumps(task)}
    if given.call == "subagent" and "read" in offered:
        return {"name": "read", "arguments": json.dumps({"filePath": "notes.txt"})}
    return None
