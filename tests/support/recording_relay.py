"""A wire between a client and a server that keeps what passes, byte for byte, in both directions.

It stands between the gateway and a provider that somebody else wrote, so that a test knows what
that provider was really asked and what it really sent.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httptools

PATIENCE_S = 60.0


@dataclass(slots=True)
class Relayed:
    """One request and its answer; bodies are decoded from chunks and from nothing else."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""
    status: int | None = None
    answer_headers: dict[str, str] = field(default_factory=dict)
    answer: bytes = b""
    is_complete: bool = False


class RecordingRelay:
    """A running relay. Clearing `flows` keeps answers back until it is set again."""

    def __init__(self, listener: socket.socket, target_port: int) -> None:
        self.port: int = listener.getsockname()[1]
        self.seen: list[Relayed] = []
        self.flows = threading.Event()
        self.flows.set()
        self._listener = listener
        self._target_port = target_port
        self._changed = threading.Condition()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def paths(self) -> list[str]:
        return [relayed.path for relayed in self.seen]

    def wait_for(self, condition: Callable[["RecordingRelay"], bool]) -> None:
        """Waits until what passed fulfils a condition."""
        deadline = time.monotonic() + PATIENCE_S
        with self._changed:
            while not condition(self):
                left_s = deadline - time.monotonic()
                assert left_s > 0, f"it did not happen; passed so far: {self.paths}"
                self._changed.wait(left_s)

    def accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._target_port))
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            conversation = _Conversation(self, self._changed)
            threading.Thread(
                target=_pump, args=(client, server, conversation.asked), daemon=True
            ).start()
            threading.Thread(
                target=_pump, args=(server, client, conversation.answered), daemon=True
            ).start()


@contextmanager
def recording_relay(target_port: int) -> Iterator[RecordingRelay]:
    """A relay on a free loopback port to another one."""
    listener = socket.create_server(("127.0.0.1", 0))
    relay = RecordingRelay(listener, target_port)
    threading.Thread(target=relay.accept, daemon=True).start()
    try:
        yield relay
    finally:
        relay.flows.set()
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _pump(source: socket.socket, sink: socket.socket, note: Callable[[bytes], None]) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            note(data)
            sink.sendall(data)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


class _Conversation:
    """The requests and answers of one connection, in turn."""

    def __init__(self, relay: RecordingRelay, changed: threading.Condition) -> None:
        self._relay = relay
        self._changed = changed
        self._requests = httptools.HttpRequestParser(_RequestSide(self))
        self._responses: Any = None
        self.waiting: list[Relayed] = []

    def asked(self, data: bytes) -> None:
        with self._changed:
            self._requests.feed_data(data)
            self._changed.notify_all()

    def answered(self, data: bytes) -> None:
        self._relay.flows.wait(PATIENCE_S)
        with self._changed:
            if self._responses is None:
                self._responses = httptools.HttpResponseParser(_ResponseSide(self))
            self._responses.feed_data(data)
            self._changed.notify_all()

    @property
    def requests(self) -> Any:
        return self._requests

    @property
    def responses(self) -> Any:
        return self._responses

    def begin(self, relayed: Relayed) -> None:
        self._relay.seen.append(relayed)
        self.waiting.append(relayed)


class _RequestSide:
    def __init__(self, conversation: _Conversation) -> None:
        self._conversation = conversation
        self._path = b""
        self._headers: dict[str, str] = {}
        self._body = b""

    def on_message_begin(self) -> None:
        self._path, self._headers, self._body = b"", {}, b""

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, data: bytes) -> None:
        self._body += data

    def on_message_complete(self) -> None:
        method = self._conversation.requests.get_method().decode()
        self._conversation.begin(
            Relayed(method, self._path.decode("latin-1"), self._headers, self._body)
        )


class _ResponseSide:
    def __init__(self, conversation: _Conversation) -> None:
        self._conversation = conversation

    def on_header(self, name: bytes, value: bytes) -> None:
        self._current.answer_headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._current.status = self._conversation.responses.get_status_code()

    def on_body(self, data: bytes) -> None:
        self._current.answer += data

    def on_message_complete(self) -> None:
        self._conversation.waiting.pop(0).is_complete = True

    @property
    def _current(self) -> Relayed:
        return self._conversation.waiting[0]
