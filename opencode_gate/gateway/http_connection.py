"""One HTTP/1.1 connection to a provider: a protocol around the parser of Node (llhttp).

The idea: no streams, no queue, no task. The parser's callbacks fill the answer and resolve
the one future somebody waits on; what arrived in one network read becomes one `read()`.

Invariants: at most one exchange at a time; a connection goes back to the pool only after a
whole answer that allows keep-alive, with nothing unsent and nothing unasked for received;
whatever else happens closes it. An `HttpResponse` lets go of its connection at its end, so a
late `abort()` cannot hit the next exchange.
"""

import asyncio
from collections.abc import Callable
from typing import Final, cast

import httptools

from opencode_gate.gateway.upstream import FailureKind, RawHeaders, UpstreamFailure

HEAD_LIMIT_BYTES: Final = 256 * 1024
BUFFER_LIMIT_BYTES: Final = 256 * 1024
_ONE_WRITE_BYTES: Final = 64 * 1024
_SWITCHING_PROTOCOLS: Final = 101


class _UnaskedAnswer(Exception):
    """Ends the parser's work on a network read; the parser wraps it in its own error."""


class HttpResponse:
    """An answer on its way in. Implements `UpstreamResponse`."""

    __slots__ = (
        "_buffered_bytes",
        "_connection",
        "_failure",
        "_is_whole",
        "_parts",
        "_waiter",
        "headers",
        "status",
    )

    def __init__(self, connection: "HttpConnection") -> None:
        self.status = 0
        self.headers: RawHeaders = []
        self._connection: HttpConnection | None = connection
        self._parts: list[bytes] = []
        self._buffered_bytes = 0
        self._is_whole = False
        self._failure: UpstreamFailure | None = None
        self._waiter: asyncio.Future[bytes] | None = None

    async def read(self) -> bytes:
        """See `UpstreamResponse.read`."""
        parts = self._parts
        if parts:
            part = parts[0] if len(parts) == 1 else b"".join(parts)
            parts.clear()
            self._buffered_bytes = 0
            if self._connection is not None:
                self._connection.resume()
            return part
        if self._is_whole:
            return b""
        if self._failure is not None or self._connection is None:
            raise self._failure or UpstreamFailure(
                "reset", "the answer was given up", bytes_sent=True
            )
        waiter = self._waiter = self._connection.part_waiter()
        return await waiter

    def abort(self) -> None:
        """See `UpstreamResponse.abort`."""
        if self._connection is not None:
            self._connection.abort("the answer was given up")

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for the next bytes."""
        return self._waiter is not None and not self._waiter.done()

    def deliver(self, part: bytes) -> bool:
        """Takes bytes from the connection; false when the buffer is full."""
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(part)
            return True
        self._parts.append(part)
        self._buffered_bytes += len(part)
        return self._buffered_bytes < BUFFER_LIMIT_BYTES

    def end(self) -> None:
        """The body is whole; the connection is no longer ours."""
        self._is_whole = True
        self._connection = None
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(b"")

    def fail(self, failure: UpstreamFailure) -> None:
        """The body was cut; bytes that did arrive can still be read."""
        self._failure = failure
        self._connection = None
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_exception(failure)


class HttpConnection(asyncio.Protocol):
    """A connection that serves one exchange after the other.

    Args:
        peer: how the other end is named in messages (`api.example.com:443`).
        read_timeout_s: the longest silence inside an awaited body.
        released: called when the connection is free for another exchange.
        lost: called once when the connection is gone.
    """

    __slots__ = (
        "_can_stay",
        "_deadline_s",
        "_head_bytes",
        "_head_waiter",
        "_is_head_done",
        "_is_head_request",
        "_is_paused",
        "_is_whole",
        "_loop",
        "_lost",
        "_new_parts",
        "_parser",
        "_peer",
        "_read_timeout_s",
        "_released",
        "_response",
        "_timer",
        "_timer_at_s",
        "_transport",
        "has_received",
        "is_lost",
        "on_body",
    )

    def __init__(
        self,
        *,
        peer: str,
        read_timeout_s: float,
        released: Callable[["HttpConnection"], None],
        lost: Callable[["HttpConnection"], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._peer = peer
        self._read_timeout_s = read_timeout_s
        self._released = released
        self._lost = lost
        self._new_parts: list[bytes] = []
        # The parser looks its callbacks up once: a body part costs one call in C.
        self.on_body = self._new_parts.append
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._response: HttpResponse | None = None
        self._head_waiter: asyncio.Future[HttpResponse] | None = None
        self._head_bytes = 0
        self._is_head_done = False
        self._is_head_request = False
        self._is_whole = False
        self._can_stay = False
        self._is_paused = False
        self._deadline_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_s = 0.0
        self.has_received = False
        self.is_lost = False

    # Towards the client

    @property
    def is_usable(self) -> bool:
        """Whether another exchange can be tried on it."""
        transport = self._transport
        return not self.is_lost and transport is not None and not transport.is_closing()

    async def exchange(
        self, head: bytes, body: bytes, *, is_head_request: bool, header_timeout_s: float
    ) -> HttpResponse:
        """Sends one request and waits for the head of its answer.

        Raises:
            UpstreamFailure: no head came; `has_received` tells whether any byte did.
        """
        transport = self._transport
        if transport is None or not self.is_usable:
            message = f"{self._peer} closed the connection at once"
            raise UpstreamFailure("reset", message, bytes_sent=False)
        response = self._response = HttpResponse(self)
        waiter: asyncio.Future[HttpResponse] = self._loop.create_future()
        self._head_waiter = waiter
        self._head_bytes = 0
        self._is_head_done = self._is_whole = self.has_received = False
        self._is_head_request = is_head_request
        if len(body) <= _ONE_WRITE_BYTES:
            transport.write(head + body)
        else:
            transport.writelines((head, body))
        self._expect_within(header_timeout_s)
        try:
            return await waiter
        except asyncio.CancelledError:
            response.abort()
            raise

    def part_waiter(self) -> asyncio.Future[bytes]:
        """A future for the next bytes of the current body, with the silence limit running."""
        self._expect_within(self._read_timeout_s)
        return self._loop.create_future()

    def resume(self) -> None:
        """Reads from the network again after the buffer has been emptied."""
        if self._is_paused and self._transport is not None:
            self._is_paused = False
            self._transport.resume_reading()

    def rest(self, idle_s: float) -> None:
        """Waits in the pool for the next exchange, `idle_s` at most."""
        self._expect_within(idle_s)

    def abort(self, reason: str) -> None:
        """Closes at once; an unfinished answer fails with `reason`."""
        self._fail("reset", f"{reason} ({self._peer})")

    # Called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport (after TLS over a tunnel, the one above it)."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """One network read: parse all of it, then hand on what came as one piece."""
        response = self._response
        if response is None:
            self._close()  # bytes nobody asked for: what they belong to is unknown
            return
        self.has_received = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._can_stay = False
            if not self._is_whole:
                self._fail("protocol", f"{self._peer} sent something that is not HTTP/1.1")
                return
        parts = self._new_parts
        if self._is_head_request:
            parts.clear()
        if parts:
            part = parts[0] if len(parts) == 1 else b"".join(parts)
            parts.clear()
            if not response.deliver(part) and not self._is_whole:
                self._pause()
        if self._is_whole:
            self._finish(response)
        elif not self._is_head_done:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_LIMIT_BYTES:
                self._fail("protocol", f"{self._peer} sent a head of over {HEAD_LIMIT_BYTES} bytes")

    def connection_lost(self, error: Exception | None) -> None:
        """The other end is gone: a clean end only for a body that ends with the connection."""
        self.is_lost = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        response = self._response
        if response is not None:
            if error is None and self._is_head_done and _ends_with_connection(response):
                self._response = None
                response.end()
            else:
                when = "inside the answer" if self._is_head_done else "before the answer"
                self._fail("reset", f"{self._peer} closed the connection {when}")
        self._lost(self)

    # Called by the parser

    def on_message_begin(self) -> None:
        """A second final answer to one request is nobody's: stop before its body mixes in."""
        if self._is_whole:
            raise _UnaskedAnswer

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the head; trailers come here too and are dropped."""
        if not self._is_head_done and self._response is not None:
            self._response.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Resolves the exchange, unless this head is an interim one (RFC 9110 §15.2)."""
        response = self._response
        if response is None or self._is_head_done:
            return
        status = self._parser.get_status_code()
        if status < 200 and status != _SWITCHING_PROTOCOLS:
            response.headers.clear()
            return
        response.status = status
        self._is_head_done = True
        waiter = self._head_waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(response)
        if self._is_head_request:
            self._can_stay = False
            self._is_whole = True

    def on_message_complete(self) -> None:
        """The whole answer is here; `data_received` finishes after the last part is out."""
        if self._is_head_done and not self._is_whole:
            self._is_whole = True
            self._can_stay = self._parser.should_keep_alive()

    # Inside

    def _finish(self, response: HttpResponse) -> None:
        self._response = None
        response.end()
        transport = self._transport
        if (
            self._can_stay
            and transport is not None
            and not transport.is_closing()
            # A provider that answers before it has read all would take the rest for a request.
            and transport.get_write_buffer_size() == 0
        ):
            self.resume()
            self._released(self)
        else:
            self._close()

    def _fail(self, kind: FailureKind, message: str) -> None:
        response = self._response
        self._response = None
        if response is not None:
            failure = UpstreamFailure(kind, message, bytes_sent=True)
            response.fail(failure)
            waiter = self._head_waiter
            if waiter is not None and not waiter.done():
                waiter.set_exception(failure)
        self._close()

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _pause(self) -> None:
        if not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()

    # One timer a connection, moved only when it would ring too late: a request costs no timer.

    def _expect_within(self, timeout_s: float) -> None:
        self._deadline_s = self._loop.time() + timeout_s
        if self._timer is None:
            self._arm()
        elif self._timer_at_s > self._deadline_s:
            self._timer.cancel()
            self._arm()

    def _arm(self) -> None:
        self._timer_at_s = self._deadline_s
        self._timer = self._loop.call_at(self._deadline_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._loop.time() < self._deadline_s:
            self._arm()
        elif self._response is None:
            self._close()
        elif not self._is_head_done:
            self._fail("timeout", f"{self._peer} did not begin to answer in time")
        elif self._response.is_awaited:
            self._fail("timeout", f"{self._peer} went silent inside the answer")


def _ends_with_connection(response: HttpResponse) -> bool:
    """Whether the body has no other end than the connection's (RFC 9112 §6.3)."""
    for name, value in response.headers:
        field = name.lower()
        if field == b"content-length":
            return False
        if field == b"transfer-encoding":
            return not value.lower().rstrip().endswith(b"chunked")
    return True
