"""A provider whose streams end in the wrong ways, in four wire formats; the model's name says how.

Every model but `always-*` is defective once and whole from then on.
"""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.fake_chat import streamed_answer

HALF = "Half an answ"

_UNENDED = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":"half"}}]}\n\n'


@dataclass(slots=True)
class DefectiveProvider:
    """A running server, and how often each model was asked."""

    port: int
    asked: Counter[str] = field(default_factory=Counter)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def defective_provider() -> Iterator[DefectiveProvider]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    state = DefectiveProvider(server.server_address[1])
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
        path = self.path.partition("?")[0]
        model = body.get("model") or path.rpartition("/")[2].partition(":")[0]
        state: DefectiveProvider = self.server.state  # type: ignore[attr-defined]
        state.asked[model] += 1
        if state.asked[model] > 1 and "always" not in model:
            events = streamed_answer(path, body)
            assert events is not None
            self._send(events)
        elif model.endswith("always-packed"):
            self._send(_packed(_UNENDED), ("content-encoding", "zstd"))
        elif model.endswith("always-plain"):
            self._send(b'{"choices":[]}', media_type="application/json")
        elif model.endswith("cut"):
            self._send(_half(path), missing_bytes=10)
        elif model.endswith("error-inside"):
            self._send(_half(path) + b'data: {"error":{"code":503,"status":"UNAVAILABLE"}}\n\n')
        else:
            self._send(_half(path))

    def _send(
        self,
        body: bytes,
        *headers: tuple[str, str],
        media_type: str = "text/event-stream",
        missing_bytes: int = 0,
    ) -> None:
        self.send_response(200)
        self.send_header("content-type", media_type)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("content-length", str(len(body) + missing_bytes))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = missing_bytes > 0

    def log_message(self, format: str, *args: object) -> None:
        """Silence."""


def _half(path: str) -> bytes:
    """The beginning of a good stream, whose clean end is no end in its format."""
    if path.endswith("/chat/completions"):
        delta = {"role": "assistant", "content": HALF}
        events: list[dict[str, Any]] = [{"choices": [{"index": 0, "delta": delta}]}]
    elif path.endswith("/responses"):
        response = {"id": "r", "object": "response", "model": "m", "output": []}
        item = {"type": "message", "id": "i", "role": "assistant", "content": []}
        events = [
            {"type": "response.created", "response": {**response, "status": "in_progress"}},
            {"type": "response.output_item.added", "output_index": 0, "item": item},
            {
                "type": "response.output_text.delta",
                "item_id": "i",
                "output_index": 0,
                "content_index": 0,
                "delta": HALF,
            },
        ]
    elif path.endswith("/messages"):
        message = {
            "id": "m",
            "type": "message",
            "role": "assistant",
            "model": "m",
            "content": [],
            "usage": {"input_tokens": 11, "output_tokens": 1},
        }
        events = [
            {"type": "message_start", "message": message},
            {
                "type": "content_block_start",
                "index": 0,
                "content_block": {"type": "text", "text": ""},
            },
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "text_delta", "text": HALF},
            },
        ]
    else:
        content = {"role": "model", "parts": [{"text": HALF}]}
        events = [{"candidates": [{"content": content, "index": 0}]}]
    return b"".join(
        (f"event: {event['type']}\n" if "type" in event else "").encode()
        + b"data: "
        + json.dumps(event).encode()
        + b"\n\n"
        for event in events
    )


def _packed(data: bytes) -> bytes:
    """A Zstandard frame (RFC 8878) of one raw block: what the gateway does not read along."""
    assert len(data) < 256
    single_segment = b"\x20"
    last_raw_block = (len(data) << 3 | 1).to_bytes(3, "little")
    return b"\x28\xb5\x2f\xfd" + single_segment + bytes([len(data)]) + last_raw_block + data
