"""A sequential client: it asks, waits for the whole answer, and asks again.

It blocks in the kernel and allocates little, so that its own part in a time is small and the
same for everything it asks.
"""

import gc
import itertools
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bench.programs import TOKEN, Running

BODY_BYTES = 8192
_BESIDE_PROMPT_BYTES = 1100
_PLACE = 987_654_321
"""Stands in a template where each request has a number of its own."""
_READ_BYTES = 262_144
FIRST_CONTENT = b"word0"
CHUNKED = -1
LAST_CHUNK = b"\r\n0\r\n\r\n"

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds from the first byte sent to the first content and to the end of the answer."""

    first: float
    whole: float


def chat_request(
    path: str,
    number: int,
    *,
    stream: bool,
    body_bytes: int = BODY_BYTES,
    mode: str | None = None,
    tag: str = "-",
    model: str = "bench",
    token: str = TOKEN,
    fields: str = "",
) -> bytes:
    """What Opencode sends, at about the given size; `bench.origin` says what mode and tag mean.

    The number makes each one the first of a conversation: an agent that asked as often in a
    single one would be stopped.
    """
    prompt_bytes = max(body_bytes - _BESIDE_PROMPT_BYTES, 0)
    sentence = "All work and no play makes a dull agent. "
    filler = sentence * (prompt_bytes // len(sentence) + 1)
    mode = mode or ("stream" if stream else "plain")
    messages = [
        {"role": "system", "content": filler[:prompt_bytes]},
        {"role": "user", "content": f"ogate-bench {mode} {tag} {number:09d}"},
    ]
    parameters = {"type": "object", "properties": {"pattern": {"type": "string"}}}
    tools = [
        {"type": "function", "function": {"name": name, "parameters": parameters}}
        for name in ("bash", "edit", "glob", "grep", "list", "read", "write")
    ]
    document: dict[str, object] = {"model": model, "max_tokens": 8000, "messages": messages}
    document |= {"tools": tools, "tool_choice": "auto", "stream": stream}
    if stream:
        document["stream_options"] = {"include_usage": True}
    body = json.dumps(document, separators=(",", ":")).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n"
        "Content-Type: application/json\r\nAccept: */*\r\nConnection: keep-alive\r\n"
        "User-Agent: opencode/1.18.33 ai-sdk/provider-utils/4.0.23 runtime/bun/1.3.14\r\n"
        f"Accept-Encoding: gzip, deflate, br, zstd\r\nx-session-id: ses_{number:09d}\r\n"
        f"x-session-affinity: ses_{number:09d}\r\n{fields}Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def template(
    way: Running, name: str, *, stream: bool, body_bytes: int, mode: str | None = None
) -> list[bytes]:
    """A request in pieces; joined with a number's nine digits they are the one of that number.

    The origin counts it under the program's name.
    """
    request = chat_request(
        way.path,
        _PLACE,
        stream=stream,
        body_bytes=body_bytes,
        mode=mode,
        tag=tag_of(name),
        model=way.model,
        token=way.token,
        fields=way.fields,
    )
    return request.split(b"%09d" % _PLACE)


def tag_of(name: str) -> str:
    """A program's name as one word."""
    return name.replace(",", "").replace(" ", "-")


def next_number() -> int:
    """A number that no request of this run has had."""
    return next(_numbers)


class UnexpectedAnswer(Exception):
    """Something other than the answer that the origin gave."""


class Client:
    """One connection, kept from request to request or, if `is_fresh`, new for each."""

    def __init__(self, way: Running, *, is_fresh: bool = False) -> None:
        self._address = ("127.0.0.1", way.port)
        self._is_fresh = is_fresh
        self._socket = self._connected()

    def _connected(self) -> socket.socket:
        connected = socket.create_connection(self._address, 60)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connected

    def ask(self, pieces: list[bytes], *, stream: bool) -> Times:
        """One request from a template and its whole answer."""
        return self.exchange(pieces, stream=stream)[0]

    def exchange(self, pieces: list[bytes], *, stream: bool) -> tuple[Times, bytes]:
        """As `ask`, with the answer."""
        request = (b"%09d" % next_number()).join(pieces)
        content = FIRST_CONTENT if stream else b"\r\n\r\n"
        if self._is_fresh:
            self._socket.close()
        received = b""
        first = 0.0
        length: int | None = None
        started = time.perf_counter()
        if self._is_fresh:
            self._socket = self._connected()
        self._socket.sendall(request)
        while True:
            data = self._socket.recv(_READ_BYTES)
            if not data:
                raise UnexpectedAnswer(f"connection closed after {received[:300]!r}")
            received += data
            if not first and content in received:
                first = time.perf_counter()
            if length is None:
                length = answer_bytes(received)
            if received.endswith(LAST_CHUNK) if length == CHUNKED else len(received) == length:
                break
        ended = time.perf_counter()
        if not received.startswith(b"HTTP/1.1 200") or not first:
            raise UnexpectedAnswer(f"answer {received[:300]!r}")
        return Times(first - started, ended - started), received

    def close(self) -> None:
        """Closes the connection."""
        self._socket.close()


def answer_bytes(received: bytes) -> int | None:
    """The length of the answer that begins so, `CHUNKED`, or `None` if that cannot be said yet."""
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return None
    _, told, length = received[:end].lower().partition(b"\r\ncontent-length:")
    return end + 4 + int(length.partition(b"\r\n")[0]) if told else CHUNKED


@contextmanager
def no_collector() -> Iterator[None]:
    """Nothing of this process's own comes between two readings of the clock."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
