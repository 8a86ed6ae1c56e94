"""One HTTP/1.1 connection to a provider: a protocol around the parser of Node (llhttp).

The idea: no streams, no queue, no task. The parser's callbacks fill the answer, and what arrived
in one network read goes on as one part: straight into the sink of whoever relays it, within the
same call of the event loop, or to the one future somebody waits on.

Invariants: at most one exchange at a time; a connection goes back to the pool only after a
whole answer that allows keep-alive, with nothing unsent and nothing unasked for received;
whatever else happens closes it. An `HttpResponse` lets go of its connection at its end, so a
late `abort()` cannot hit the next exchange.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final, cast

import httptools

from opencode_gate.gateway.http_response import HttpResponse
from opencode_gate.gateway.timed_protocol import TimedProtocol
from opencode_gate.gateway.upstream import FailureKind, OnHead, RawHeaders, Sink, UpstreamFailure

HEAD_LIMIT_BYTES: Final = 256 * 1024
_ONE_WRITE_BYTES: Final = 64 * 1024
_NOTHING: Final = memoryview(b"")
_SWITCHING_PROTOCOLS: Final = 101
_VERSIONS: Final = ("1.1", "1.0")
_NONSENSE: Final = (httptools.HttpParserError, httptools.HttpParserUpgrade)
_LOOKS: Final = 4
"""How often silence is looked for in the time it may take: no read costs a look at the clock."""


class _NotAnAnswer(Exception):
    """Ends the parser's work on a network read; the parser wraps it in its own error."""


class HttpConnection(TimedProtocol):
    """A connection that serves one exchange after the other.

    Args:
        peer: how the other end is named in messages (`api.example.com:443`).
        read_timeout_s: the longest silence inside an awaited body.
        released: called when the connection is free for another exchange.
        lost: called once when the connection is gone.
    """

    __slots__ = (
        "_can_stay",
        "_feed",
        "_fields_bytes",
        "_has_new_head",
        "_is_full",
        "_is_head_done",
        "_is_head_request",
        "_is_paused",
        "_is_whole",
        "_lost",
        "_new_fields",
        "_new_parts",
        "_on_head",
        "_parser",
        "_peer",
        "_quiet_looks",
        "_read_timeout_s",
        "_released",
        "_response",
        "_take",
        "_transport",
        "_unsent",
        "has_received",
        "is_usable",
        "on_body",
        "on_header",
    )

    def __init__(
        self,
        *,
        peer: str,
        read_timeout_s: float,
        released: Callable[["HttpConnection"], None],
        lost: Callable[["HttpConnection"], None],
    ) -> None:
        super().__init__()
        self._peer = peer
        self._read_timeout_s = read_timeout_s
        self._released = released
        self._lost = lost
        self._new_parts: list[bytes] = []
        self._new_fields: RawHeaders = []
        # The parser looks its callbacks up once: a body part costs one call in C.
        self.on_body = self._new_parts.append
        add_field = self._new_fields.append
        self.on_header = lambda name, value: add_field((name, value))
        self._parser = httptools.HttpResponseParser(self)
        self._feed = self._parser.feed_data
        self._transport: asyncio.Transport | None = None
        self._response: HttpResponse | None = None
        self._take: Sink | None = None
        self._on_head: OnHead | None = None
        self._fields_bytes = self._quiet_looks = 0
        self._is_head_done = self._has_new_head = self._is_head_request = False
        self._is_whole = self._can_stay = False
        self._is_paused = self._is_full = False
        self._unsent = _NOTHING
        self.has_received = False
        self.is_usable = False

    # Towards the client

    async def exchange(
        self,
        head: bytes,
        body: bytes,
        *,
        is_head_request: bool,
        header_timeout_s: float,
        on_head: OnHead | None = None,
    ) -> HttpResponse:
        """Sends one request and waits for its answer; see `Upstream.send`.

        Raises:
            UpstreamFailure: no head came, or a pushed body was cut; `has_received` tells whether
                any byte came.
        """
        transport = self._transport
        self.has_received = False
        if transport is None or not self.is_usable or transport.is_closing():
            message = f"{self._peer} closed the connection at once"
            raise UpstreamFailure("reset", message, bytes_sent=False)
        response = self._response = HttpResponse(self, self.loop.create_future())
        self._on_head, self._fields_bytes = on_head, 0
        self._is_head_done = self._is_whole = False
        self._is_head_request = is_head_request
        if len(body) <= _ONE_WRITE_BYTES:
            transport.write(head + body)
        elif transport.get_extra_info("ssl_object") is None:
            transport.writelines((head, body))
        else:
            transport.write(head)
            self._unsent = memoryview(body)
            self._send_on(transport)
        response.sent_s = time.monotonic()
        self._expect_within(header_timeout_s)
        try:
            await response.head
        except asyncio.CancelledError:
            response.abort()
            raise
        return response

    def part_waiter(self) -> asyncio.Future[bytes]:
        """A future for the next bytes of the current body, with the silence limit running."""
        self._quiet_looks = 0
        return self.loop.create_future()

    def resume(self) -> None:
        """Reads from the network again after the buffer has been emptied."""
        if self._is_paused and self._transport is not None:
            self._is_paused = False
            self._transport.resume_reading()
        if self._response is not None:
            self._take = self._response.sink

    def rest(self, idle_s: float) -> None:
        """Waits in the pool for the next exchange, `idle_s` at most."""
        self._expect_within(idle_s)

    def abort(self, reason: str) -> None:
        """Closes at once; an unfinished answer fails with `reason`."""
        self._fail("reset", f"{reason} ({self._peer})", is_given_up=True)

    def break_off(self, error: Exception, *, is_given_up: bool = True) -> None:
        """Closes at once; the answer fails with `error`, that of whoever took it."""
        response = self._response
        self._response = self._take = self._on_head = None
        if response is not None:
            response.fail(error, is_given_up=is_given_up)
        self._close()

    # Called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport (after TLS over a tunnel, the one above it)."""
        self._transport = cast("asyncio.Transport", transport)
        self.is_usable = True

    def pause_writing(self) -> None:
        """More waits to be sent than should."""
        self._is_full = True

    def resume_writing(self) -> None:
        """There is room again."""
        self._is_full = False
        if self._unsent and self._transport is not None:
            self._send_on(self._transport)

    def data_received(self, data: bytes) -> None:
        """One network read: parse all of it, then hand on what came as one piece."""
        take = self._take
        if take is None:
            self._received(data)
            return
        self._quiet_looks = 0
        try:
            self._feed(data)
        except _NONSENSE:
            self._parsed(is_nonsense=True)
            return
        if self._take is None or len(self._new_parts) != 1:
            self._parsed(len(data))
            return
        self._fields_bytes = 0
        try:
            when_ready = take(self._new_parts.pop(), False)
        except Exception as error:  # noqa: BLE001 - raised to whoever waits for the answer
            self.break_off(error)
            return
        if when_ready is not None and self._response is not None:
            self._take = None
            if self._response.hold(when_ready):
                self.resume()
            else:
                self._pause()

    def connection_lost(self, error: Exception | None) -> None:
        """The other end is gone: a clean end only for a body that ends with the connection."""
        self.is_usable = False
        self._expect_nothing()
        response = self._response
        if response is not None:
            if error is None and self._is_head_done and response.ends_with_connection:
                self._is_whole, self._can_stay = True, False
                self._parsed()
            else:
                when = "inside the answer" if self._is_head_done else "before the answer"
                self._fail("reset", f"{self._peer} closed the connection {when}")
        self._lost(self)

    # Called by the parser

    def on_message_begin(self) -> None:
        """A second final answer to one request is nobody's: stop before its body mixes in."""
        if self._is_whole:
            raise _NotAnAnswer
        self._new_fields.clear()

    def on_headers_complete(self) -> None:
        """The head of the answer, unless it is an interim one (RFC 9110 §15.2)."""
        response, status = self._response, self._parser.get_status_code()
        if response is None or self._parser.get_http_version() not in _VERSIONS:
            raise _NotAnAnswer  # the parser knows other versions, whose answers end otherwise
        if status < 200:
            if status == _SWITCHING_PROTOCOLS or status < 100:
                raise _NotAnAnswer  # a protocol that nobody has asked for, or no status at all
            self._new_fields.clear()
            return
        response.status = status
        response.headers = self._new_fields.copy()
        self._new_fields.clear()
        self._is_head_done = self._has_new_head = True
        if self._is_head_request:
            self._can_stay = False
            self._is_whole = True

    def on_message_complete(self) -> None:
        """The whole answer is here; `data_received` finishes after the last part is out."""
        if self._is_head_done and not self._is_whole:
            self._is_whole = True
            self._take = None
            self._can_stay = self._parser.should_keep_alive()

    # Inside

    def _received(self, data: bytes) -> None:
        """A read that is not one more part for a sink with room."""
        response = self._response
        if response is None:
            self._close()  # bytes nobody asked for: what they belong to is unknown
            return
        if self._is_head_done:
            self._quiet_looks = 0
        else:
            self.has_received = True
            response.arrived_s = time.monotonic()
        try:
            self._feed(data)
        except _NONSENSE:
            self._parsed(is_nonsense=True)
        else:
            self._parsed(len(data))

    def _parsed(self, size_bytes: int = 0, *, is_nonsense: bool = False) -> None:
        """Hands on what one network read brought; the end of a body with the last of it."""
        response = self._response
        if response is None:
            return
        parts = self._new_parts
        is_whole = self._is_whole
        try:
            if self._has_new_head:
                self._begin(response)
            if not parts or self._is_head_request:
                self._without_parts(response, size_bytes)
            else:
                self._fields_bytes = 0
                part = parts[0] if len(parts) == 1 else b"".join(parts)
                parts.clear()
                if not response.deliver(part, is_whole) and not is_whole:
                    self._take = None
                    self._pause()
        except Exception as error:  # noqa: BLE001 - raised to whoever waits for the answer
            self.break_off(error)
            return
        if is_whole:
            if is_nonsense:
                self._can_stay = False
            self._finish(response)
        elif is_nonsense:
            self._fail("protocol", f"{self._peer} sent something that is not HTTP/1.1")

    def _begin(self, response: HttpResponse) -> None:
        self._has_new_head = False
        on_head, self._on_head = self._on_head, None
        response.begin(on_head)
        if not self._is_whole:
            self._take = response.sink
            self._expect_within(self._read_timeout_s / _LOOKS)

    def _without_parts(self, response: HttpResponse, size_bytes: int) -> None:
        """No bytes of a body: the end of one, what comes behind it, or less than a head."""
        self._new_parts.clear()
        self._fields_bytes += size_bytes
        if self._is_head_done:
            # What comes behind a body are trailers, of which nothing is kept.
            self._new_fields.clear()
        if self._is_whole:
            if response.sink is not None:
                response.deliver(b"", True)
        elif self._fields_bytes > HEAD_LIMIT_BYTES:
            self._fail("protocol", f"{self._peer} sent fields of over {HEAD_LIMIT_BYTES} bytes")

    def _send_on(self, transport: asyncio.Transport) -> None:
        """Gives TLS no more than it sends: what it has taken it does not tell to be unsent."""
        while self._unsent and not self._is_full:
            part, self._unsent = self._unsent[:_ONE_WRITE_BYTES], self._unsent[_ONE_WRITE_BYTES:]
            transport.write(part)

    def _finish(self, response: HttpResponse) -> None:
        self._response = None
        response.end()
        transport = self._transport
        if (
            self._can_stay
            and transport is not None
            # A provider that answers before it has read all would take the rest for a request.
            and transport.get_write_buffer_size() == 0
            and not self._unsent
        ):
            self.resume()
            self._released(self)
        else:
            self._close()

    def _fail(self, kind: FailureKind, message: str, *, is_given_up: bool = False) -> None:
        failure = UpstreamFailure(kind, message, bytes_sent=True)
        self.break_off(failure, is_given_up=is_given_up)

    def _close(self) -> None:
        self.is_usable = False
        self._unsent = _NOTHING
        if self._transport is not None:
            self._transport.abort()

    def _pause(self) -> None:
        if not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()

    def _too_late(self) -> None:
        response = self._response
        if response is None:
            self._close()
        elif self._is_head_done:
            self._look_for_silence(response)
        else:
            self._fail("timeout", f"{self._peer} did not begin to answer in time")

    def _look_for_silence(self, response: HttpResponse) -> None:
        """Between one and one and a quarter of the limit pass until silence is noticed."""
        if not response.is_awaited:
            self._quiet_looks = 0
        elif self._quiet_looks == _LOOKS:
            self._fail("timeout", f"{self._peer} went silent inside the answer")
            return
        else:
            self._quiet_looks += 1
        self._expect_within(self._read_timeout_s / _LOOKS)
