"""A client's request, and how its answer is written.

The idea: one object a request, made in C, that writes straight to the transport. The head of an
answer waits for its first part, for a turn of the loop at the longest: both leave in one write.

Invariants: an answer has the length it announced, or its connection is cut; what is written after
the client was lost goes nowhere, without a word; a header cannot end its line.
"""

import asyncio
import re
from collections.abc import Callable
from http import HTTPStatus
from time import monotonic
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from opencode_gate.gateway.downstream import BODY_LIMIT_BYTES, ClientGone, ClientHeaders
from opencode_gate.wire.facts import BadBody

if TYPE_CHECKING:
    from opencode_gate.gateway.client_connection import ClientConnection

Deed: TypeAlias = Callable[[], object]

CHUNKED: Final = -1
UNTIL_CLOSE: Final = -2
NO_BODY: Final = -3

_ONE_WRITE_BYTES: Final = 64 * 1024
_BODYLESS: Final = frozenset((204, 304))
_LENGTH: Final = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
STATUS_LINES: Final = {
    status.value: b"HTTP/1.1 %d %b" % (status.value, status.phrase.encode())
    for status in HTTPStatus
}


class HttpRequest(msgspec.Struct, eq=False):
    """A client's request. Implements `ClientRequest`.

    Attributes:
        can_stay: whether the connection serves another request after this one.
        is_old: HTTP/1.0, which knows no chunks.
        connection: what it came on; `None` once it is answered, or nobody is there to answer.
        content: its body, once that is whole.
        parts: of the body until then; `None` where all came in one read.
        size_bytes: as far as known, of the body.
        left_bytes: what the answer's body still lacks, or how it is framed; `None` before it
            has begun.
    """

    method: str
    path: str
    raw_path: bytes
    query: bytes
    headers: ClientHeaders
    fields: dict[bytes, bytes]
    received_s: float
    can_stay: bool
    is_old: bool
    connection: "ClientConnection | None"
    transport: asyncio.Transport | None
    is_full: bool = False
    content: bytes | None = None
    parts: list[bytes] | None = None
    size_bytes: int = 0
    waiter: "asyncio.Future[bytes] | None" = None
    task: "asyncio.Task[None] | None" = None
    head: bytes = b""
    head_left_s: float | None = None
    left_bytes: int | None = None
    left: tuple[Deed, ...] = ()
    drained: tuple[Deed, ...] = ()

    async def body(self) -> bytes:
        """See `ClientRequest.body`."""
        content = self.content
        if content is not None:
            self.content = b""  # asked for once: whoever has it may let go of it
            return content
        if self.connection is None:
            raise ClientGone
        if self.size_bytes > BODY_LIMIT_BYTES:
            raise too_large()
        waiter: asyncio.Future[bytes] = self.connection.loop.create_future()
        self.waiter = waiter
        if self.transport is not None and self.is_held_back() and not self.is_old:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        content = await waiter
        self.content = b""
        return content

    def on_left(self, deed: Deed) -> None:
        """See `ClientRequest.on_left`."""
        if self.connection is None:
            deed()
        else:
            self.left += (deed,)

    def begin(self, status: int, headers: ClientHeaders) -> None:
        """See `ClientRequest.begin`."""
        connection = self.connection
        if connection is None:
            return
        fields = b"\r\n".join((b"", *map(b": ".join, headers)))
        if self.left_bytes is not None or fields.count(b"\n") != len(headers):
            raise RuntimeError("an answer begins once, with one line to a header")
        length = _LENGTH.search(fields)
        if status in _BODYLESS or self.method == "HEAD":
            self.left_bytes = NO_BODY
        elif length is not None:
            self.left_bytes = int(length[1])
        elif self.is_old:
            self.left_bytes = UNTIL_CLOSE
            self.can_stay = False
        else:
            self.left_bytes = CHUNKED
            fields += b"\r\ntransfer-encoding: chunked"
        if self.content is None and (self.is_held_back() or self.size_bytes > BODY_LIMIT_BYTES):
            self.can_stay = False  # else the rest of the body is read past: its end is sure
        if not self.can_stay:
            fields += b"\r\nconnection: close"
        line = STATUS_LINES.get(status) or b"HTTP/1.1 %d " % status
        self.head = line + fields + b"\r\n\r\n"
        connection.loop.call_soon(self.flush)

    def flush(self) -> None:
        """Sends a head that waits."""
        if self.head and self.transport is not None:
            self.transport.write(self.head)
            self.head = b""
            self.head_left_s = monotonic()

    def write(self, part: bytes) -> None:
        """See `ClientRequest.write`."""
        transport = self.transport
        if transport is None or not part:
            return
        size = len(part)
        if size > _ONE_WRITE_BYTES:
            self._write_large(transport, part)
            return
        part = b"%x\r\n%b\r\n" % (size, part) if self.left_bytes == CHUNKED else self._counted(part)
        if self.head:
            part = self.head + part
            self.head = b""
        transport.write(part)

    def end(self, part: bytes = b"") -> None:
        """See `ClientRequest.end`."""
        connection, transport = self.connection, self.transport
        if connection is None or transport is None:
            return
        size = len(part)
        if size > _ONE_WRITE_BYTES:
            self._write_large(transport, part)
            part, size = b"", 0
        left = self.left_bytes
        if left == CHUNKED:
            part = b"%x\r\n%b\r\n0\r\n\r\n" % (size, part) if part else b"0\r\n\r\n"
        elif size != left:
            part = self._counted(part)
            if self.left_bytes > 0:  # type: ignore[operator]
                return  # it promised more: returning without an end cuts
        if self.head:
            part = self.head + part
            self.head = b""
        if part:
            transport.write(part)
        connection.ended(self)

    def when_drained(self, deed: Deed) -> None:
        """See `ClientRequest.when_drained`."""
        if self.is_full:
            self.drained += (deed,)
        else:
            deed()

    def is_held_back(self) -> bool:
        """The client sends the body only when told to go on (RFC 9110, section 10.1.1)."""
        return not self.parts and b"100-continue" in self.fields.get(b"expect", b"").lower()

    def lose(self) -> None:
        """Nobody is there any more to answer to."""
        self.connection = self.transport = None
        self.is_full = False
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_exception(ClientGone())
        deeds = self.left + self.drained
        self.left = self.drained = ()
        for deed in deeds:
            deed()

    def drain(self) -> None:
        """There is room again for what is written."""
        self.is_full = False
        deeds, self.drained = self.drained, ()
        for deed in deeds:
            deed()

    def _counted(self, part: bytes) -> bytes:
        """What may be sent of a part of an answer that is not in chunks."""
        left = self.left_bytes
        if left is None:
            raise RuntimeError("an answer has to begin first")
        if left == NO_BODY:
            return b""
        if left >= 0:
            if len(part) > left:
                raise RuntimeError("an answer is longer than it said")
            self.left_bytes = left - len(part)
        return part

    def _write_large(self, transport: asyncio.Transport, part: bytes) -> None:
        """As it is: to put something before it would copy it."""
        if self.left_bytes == CHUNKED:
            pieces = [self.head + b"%x\r\n" % len(part), part, b"\r\n"]
        else:
            pieces = [self.head, self._counted(part)]
        self.head = b""
        transport.writelines(pieces)


def too_large() -> BadBody:
    """What becomes of a body without end."""
    return BadBody("the request is larger than 256 MiB")
