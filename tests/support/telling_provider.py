"""A provider in four wire formats whose every answer uses what the prompt says: `in=700 out=30`.

It runs on 127.0.0.1 in threads, and prices are given to it as a configuration. With `hold` in the
prompt a streamed answer stops after its first part until `release` is set, and one that is not
streamed before its first byte; with `most` an answer uses all that its request can cost.
"""

import contextlib
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from opencode_gate.config.editing import set_values
from opencode_gate.config.paths import paths
from opencode_gate.governance.worst_case import HIDDEN_INPUT_TOKENS

INPUT_NANO_USD, OUTPUT_NANO_USD = 10_000, 30_000
MODELS = {"openai": "gpt-5", "anthropic": "claude-sonnet-4-5", "google": "gemini-2.5-pro"}
ANSWER = ("It was said ", "and it was done.")
_SECRET = "sk-live-0123456789abcdef0123456789abcdef"
KEYS = {"OPENAI_API_KEY": _SECRET, "ANTHROPIC_API_KEY": _SECRET, "GEMINI_API_KEY": _SECRET}
_BASES = {"openai": "/v1", "anthropic": "/v1", "google": "/v1beta"}
_TOLD = re.compile(rb"in=(\d+) out=(\d+)(?: who=(\w+))?(?: (hold|most))?")
_PATIENCE_S = 30.0


class Tokens(NamedTuple):
    """What an answer used, as client and ledger have to see it."""

    input: int
    output: int

    @property
    def nano_usd(self) -> int:
        """By the prices in the configuration."""
        return self.input * INPUT_NANO_USD + self.output * OUTPUT_NANO_USD


@dataclass(slots=True)
class TellingProvider:
    """A running one.

    Attributes:
        held: how many answers stand still.
        most_at_once: of each `who=`, how many requests were there at the same time at most.
        seconds: how long an answer to a `who=` takes.
    """

    port: int
    seconds: dict[str, float] = field(default_factory=dict)
    release: threading.Event = field(default_factory=threading.Event)
    held: int = 0
    most_at_once: Counter[str] = field(default_factory=Counter)
    body_bytes: list[int] = field(default_factory=list)
    running: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextmanager
def telling_provider() -> Iterator[TellingProvider]:
    """Serves until the block ends, as OpenAI, Anthropic and Google of this configuration."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    provider = TellingProvider(server.server_address[1])
    server.provider = provider  # type: ignore[attr-defined]
    values: dict[tuple[str, ...], Any] = {}
    for provider_id, model in MODELS.items():
        base = f"http://127.0.0.1:{provider.port}{_BASES[provider_id]}"
        values["providers", provider_id, "base_url"] = base
        values["prices", f"{provider_id}/{model}", "input"] = INPUT_NANO_USD / 1000
        values["prices", f"{provider_id}/{model}", "output"] = OUTPUT_NANO_USD / 1000
    set_values(paths(), values)
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
        provider: TellingProvider = self.server.provider  # type: ignore[attr-defined]
        raw = self.rfile.read(int(self.headers["content-length"]))
        body = json.loads(raw)
        # Opencode's title call has the prompt in it too; what was typed last counts.
        found = _TOLD.findall(raw)
        counts, who, how = Tokens(20, 5), "", b""
        if found:
            told_in, told_out, name, how = found[-1]
            counts, who = Tokens(int(told_in), int(told_out)), name.decode()
        if how == b"most":
            limit = body.get("max_completion_tokens") or body["max_tokens"]
            counts = Tokens(len(raw) + HIDDEN_INPUT_TOKENS, limit)
        with provider.lock:
            provider.body_bytes.append(len(raw))
            provider.running[who] += 1
            provider.most_at_once[who] = max(provider.most_at_once[who], provider.running[who])
        try:
            time.sleep(provider.seconds.get(who, 0.0))
            with contextlib.suppress(OSError):
                self._answer(body, counts, holds=how == b"hold")
        finally:
            with provider.lock:
                provider.running[who] -= 1

    def _answer(self, body: dict[str, Any], counts: Tokens, *, holds: bool) -> None:
        path = self.path.partition("?")[0]
        events, plain = _format_of(path)(body.get("model", "m"), counts)
        if not (body.get("stream") or path.endswith(":streamGenerateContent")):
            if holds:
                self._hold()
            text = json.dumps(plain).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True
        for event in events:
            name = f"event: {event['type']}\n" if "type" in event else ""
            self.wfile.write(f"{name}data: {json.dumps(event)}\n\n".encode())
            if holds and ANSWER[0] in json.dumps(event):
                holds = False
                self._hold()
        if path.endswith("/chat/completions"):
            self.wfile.write(b"data: [DONE]\n\n")

    def _hold(self) -> None:
        provider: TellingProvider = self.server.provider  # type: ignore[attr-defined]
        with provider.lock:
            provider.held += 1
        provider.release.wait(_PATIENCE_S)

    def log_message(self, format: str, *args: object) -> None:
        """Silence."""


_Answer = tuple[list[dict[str, Any]], dict[str, Any]]


def _format_of(path: str) -> Any:
    if path.endswith("/chat/completions"):
        return _chat
    if path.endswith("/responses"):
        return _responses
    return _anthropic if path.endswith("/messages") else _gemini


def _chat(model: str, counts: Tokens) -> _Answer:
    head = {"id": "c1", "created": 1, "model": model}
    chunk = head | {"object": "chat.completion.chunk"}
    usage = {
        "prompt_tokens": counts.input,
        "completion_tokens": counts.output,
        "total_tokens": sum(counts),
    }
    deltas: list[tuple[dict[str, str], str | None]] = [
        *(({"role": "assistant", "content": part}, None) for part in ANSWER),
        ({}, "stop"),
    ]
    events = [
        chunk | {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
        for delta, finish in deltas
    ]
    message = {"role": "assistant", "content": "".join(ANSWER)}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    plain = head | {"object": "chat.completion", "choices": [choice], "usage": usage}
    return [*events, chunk | {"choices": [], "usage": usage}], plain


def _responses(model: str, counts: Tokens) -> _Answer:
    head = {"id": "resp_1", "object": "response", "created_at": 1, "model": model}
    text = {"type": "output_text", "text": "".join(ANSWER), "annotations": []}
    item = {"type": "message", "id": "msg_1", "role": "assistant", "content": []}
    done = item | {"status": "completed", "content": [text]}
    usage = {
        "input_tokens": counts.input,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": counts.output,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": sum(counts),
    }
    plain = head | {"status": "completed", "output": [done], "usage": usage}
    at = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": head | {"status": "in_progress", "output": []}},
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        *({"type": "response.output_text.delta", **at, "delta": part} for part in ANSWER),
        {"type": "response.output_item.done", "output_index": 0, "item": done},
        {"type": "response.completed", "response": plain},
    ]
    return [event | {"sequence_number": number} for number, event in enumerate(events)], plain


def _anthropic(model: str, counts: Tokens) -> _Answer:
    usage = {"input_tokens": counts.input, "output_tokens": counts.output}
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": model}
    end = {"stop_reason": "end_turn", "stop_sequence": None}
    plain = head | end | {"content": [{"type": "text", "text": "".join(ANSWER)}], "usage": usage}
    begun = plain | {"content": [], "stop_reason": None, "usage": usage | {"output_tokens": 1}}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": begun},
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "text", "text": ""},
        },
        *(
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "text_delta", "text": part},
            }
            for part in ANSWER
        ),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": end, "usage": {"output_tokens": counts.output}},
        {"type": "message_stop"},
    ]
    return events, plain


def _gemini(model: str, counts: Tokens) -> _Answer:
    usage = {
        "promptTokenCount": counts.input,
        "candidatesTokenCount": counts.output,
        "totalTokenCount": sum(counts),
    }

    def said(text: str) -> dict[str, Any]:
        content = {"role": "model", "parts": [{"text": text}]}
        return {"candidates": [{"content": content, "index": 0}], "modelVersion": "gemini-2.5-pro"}

    events = [said(part) for part in ANSWER]
    plain = said("".join(ANSWER))
    for last in (events[-1], plain):
        last["candidates"][0]["finishReason"] = "STOP"
        last["usageMetadata"] = usage
    return events, plain
