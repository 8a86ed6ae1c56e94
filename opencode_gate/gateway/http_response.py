"""An answer of a provider while it comes in: pushed into a sink, or kept until it is read.

The invariants: at most one part waits for a sink that has enough, and a bounded number of bytes for
a reader; whoever waits for the answer is always told how it ended, also by an error of the sink.
"""

import asyncio
from typing import Final, Protocol

from opencode_gate.gateway.upstream import OnHead, RawHeaders, Sink, UpstreamFailure, WhenReady

BUFFER_LIMIT_BYTES: Final = 256 * 1024


class Source(Protocol):
    """The connection that an answer comes from."""

    def part_waiter(self) -> asyncio.Future[bytes]:
        """A future for the next bytes."""
        ...

    def resume(self) -> None:
        """Reads from the network again."""
        ...

    def abort(self, reason: str) -> None:
        """Closes at once; the answer fails with `reason`."""
        ...

    def break_off(self, error: Exception) -> None:
        """Closes at once; the answer fails with `error`."""
        ...


class HttpResponse:
    """An answer on its way in. Implements `UpstreamResponse`.

    Attributes:
        head: resolved with the answer itself once its head is here, or, where a sink takes the
            body, once that has taken all of it.
    """

    __slots__ = (
        "_buffered_bytes",
        "_connection",
        "_failure",
        "_is_held",
        "_is_whole",
        "_parts",
        "_sink",
        "_waiter",
        "arrived_s",
        "head",
        "headers",
        "sent_s",
        "status",
    )

    def __init__(self, connection: "Source", head: "asyncio.Future[HttpResponse]") -> None:
        self.status = 0
        self.headers: RawHeaders = []
        self.sent_s = self.arrived_s = 0.0
        self.head = head
        self._connection: Source | None = connection
        self._parts: list[bytes] = []
        self._buffered_bytes = 0
        self._is_whole = False
        self._is_held = False
        self._failure: Exception | None = None
        self._waiter: asyncio.Future[bytes] | None = None
        self._sink: Sink | None = None

    async def read(self) -> bytes:
        """See `UpstreamResponse.read`."""
        if self._parts:
            part = self._buffered()
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
        if self._sink is not None:
            return not self._is_held
        return self._waiter is not None and not self._waiter.done()

    @property
    def is_pushed(self) -> bool:
        """Whether a sink takes the body."""
        return self._sink is not None

    def begin(self, on_head: OnHead | None) -> None:
        """The head is here: `on_head` may give a sink; else whoever waits goes on.

        Raises:
            Exception: what `on_head` does.
        """
        if on_head is not None:
            self._sink = on_head(self)
        if self._sink is None and not self.head.done():
            self.head.set_result(self)

    def deliver(self, part: bytes, is_last: bool) -> bool:
        """Takes bytes from the connection; false when it should bring no more for now.

        Raises:
            Exception: what the sink does.
        """
        sink = self._sink
        if sink is not None and not self._is_held:
            when_ready = sink(part, is_last)
            return when_ready is None or is_last or self._hold(when_ready)
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(part)
            return True
        self._parts.append(part)
        self._buffered_bytes += len(part)
        return sink is None and self._buffered_bytes < BUFFER_LIMIT_BYTES

    def end(self) -> None:
        """The body is whole; the connection is no longer ours."""
        self._is_whole = True
        self._connection = None
        if self._sink is None:
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_result(b"")
        elif not self._parts and not self.head.done():
            self.head.set_result(self)

    def fail(self, failure: Exception, *, is_given_up: bool) -> None:
        """The body was cut; bytes that did arrive still come out, unless it was given up."""
        self._failure = failure
        self._connection = None
        if is_given_up:
            self._parts.clear()
        elif self._is_held:
            return
        for waiter in (self.head, self._waiter):
            if waiter is not None and not waiter.done():
                waiter.set_exception(failure)

    def _buffered(self) -> bytes:
        parts = self._parts
        part = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        self._buffered_bytes = 0
        return part

    def _hold(self, when_ready: WhenReady) -> bool:
        """Waits for room in the sink; true where there was some at once."""
        self._is_held = True
        when_ready(self._go_on)
        return not self._is_held

    def _go_on(self) -> None:
        """There is room in the sink again."""
        self._is_held = False
        if self.head.done():
            return  # it was given up meanwhile
        if self._parts and self._sink is not None:
            is_last = self._is_whole
            try:
                when_ready = self._sink(self._buffered(), is_last)
            except Exception as error:  # noqa: BLE001 - raised to whoever waits for the answer
                self._break(error)
                return
            if when_ready is not None and not is_last and not self._hold(when_ready):
                return
        if self._failure is not None:
            self.head.set_exception(self._failure)
        elif self._is_whole:
            self.head.set_result(self)
        elif self._connection is not None:
            self._connection.resume()

    def _break(self, error: Exception) -> None:
        if self._connection is None:
            self.head.set_exception(error)
        else:
            self._connection.break_off(error)
