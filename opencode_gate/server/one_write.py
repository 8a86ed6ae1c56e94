"""The head of an answer leaves together with the first part of its body.

uvicorn writes the head at once and on its own, and each write wakes the client. Where the first
part of the body is known in the same turn of the event loop, as it is for every plain answer and
for most streams, one system call does for both.

The invariant: bytes leave in order; only a head waits, and never beyond the turn it was written
in nor beyond the end of its connection.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from opencode_gate.gateway.asgi import CLIENT_LEFT

_HEAD_BEGINS: Final = b"HTTP/1.1 "


class HeadJoiningTransport:
    """A transport that keeps a head back for a moment; all else is the given one's."""

    __slots__ = ("_head", "_loop", "_transport", "get_extra_info", "is_closing")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head = b""
        self.is_closing = transport.is_closing
        self.get_extra_info = transport.get_extra_info

    def write(self, data: bytes) -> None:
        """Writes `data` and what was kept; a head is kept until the next write."""
        if self._head:
            data, self._head = self._head + data, b""
            self._transport.write(data)
        elif data.startswith(_HEAD_BEGINS):
            self._head = data
            self._loop.call_soon(self._flush)
        else:
            self._transport.write(data)

    def close(self) -> None:
        """Writes what is kept, then closes."""
        self._flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def _flush(self) -> None:
        if self._head and not self.is_closing():
            self._transport.write(self._head)
        self._head = b""


class OneWriteProtocol(HttpToolsProtocol):
    """uvicorn's protocol on httptools, over such a transport; offers `CLIENT_LEFT`."""

    _deed: Callable[[], object] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begins a client's connection."""
        super().connection_made(HeadJoiningTransport(transport, self.loop))  # type: ignore[arg-type]

    def on_message_begin(self) -> None:
        """Begins a request."""
        super().on_message_begin()
        extensions: dict[str, Any] = {CLIENT_LEFT: self._remember}
        self.scope["extensions"] = extensions

    def on_response_complete(self) -> None:
        """Lets go of an answered request: an idle connection must not keep its body."""
        self._deed = None
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends a client's connection."""
        super().connection_lost(exc)
        if self._deed is not None:
            self._deed()
            self._deed = None

    def _remember(self, deed: Callable[[], object]) -> None:
        self._deed = deed
