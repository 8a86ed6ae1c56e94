"""A provider in a thread: its first stream stays open until it is released, later ones end."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

EVENT = b'data: {"model":"m","choices":[{"index":0,"delta":{"content":"twelve chars"}}]}\n\n'
REST = (
    b'data: {"model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    b'data: {"model":"m","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":3}}\n\n'
    b"data: [DONE]\n\n"
)


@dataclass
class ThreadedUpstream:
    """A running server; `release` lets streams end from now on."""

    port: int
    release: threading.Event = field(default_factory=threading.Event)
    requests: list[bytes] = field(default_factory=list)


@contextmanager
def threaded_upstream() -> Iterator[ThreadedUpstream]:
    """Runs it on a free loopback port."""
    listener = socket.create_server(("127.0.0.1", 0))
    upstream = ThreadedUpstream(listener.getsockname()[1])

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=_serve, args=(connection, upstream), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield upstream
    finally:
        upstream.release.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _serve(connection: socket.socket, upstream: ThreadedUpstream) -> None:
    with connection:
        try:
            upstream.requests.append(connection.recv(65536))
            connection.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                b"Connection: close\r\n\r\n" + EVENT
            )
            upstream.release.wait(60)
            connection.sendall(REST)
        except OSError:
            pass
