"""An answer of a provider while it comes in: pushed into a sink, or kept until it is read.

The invariants: at most one part waits for a sink that has enough, and a bounded number of bytes for
a reader; whoever waits for the answer is always told how it ended, also by an error of the sink.
"""

import asyncio
from typing import Final, Protocol

import msgspec

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


class HttpResponse(msgspec.Struct, eq=False):
    """An answer on its way in, made in C. Implements `UpstreamResponse`.

    Attributes:
        source: the connection, as long as there is more to come from it.
        head: resolved once its head is here, or, where a sink takes the body, once that has taken
            all of it; with nothing, as what knows itself is left to the garbage collector.
        sink: what takes the body, where somebody does.
        is_held: the sink has enough for now.
        parts: what waits for the sink, or to be read.
    """

    source: Source | None
    head: "asyncio.Future[None]"
    status: int = 0
    headers: RawHeaders = []
    sent_s: float = 0.0
    arrived_s: float = 0.0
    sink: Sink | None = None
    is_held: bool = False
    is_whole: bool = False
    parts: list[bytes] = []
    buffered_bytes: int = 0
    failure: Exception | None = None
    part_waiter: "asyncio.Future[bytes] | None" = None

    async def read(self) -> bytes:
        """See `UpstreamResponse.read`."""
        if self.parts:
            part = self._buffered()
            if self.source is not None:
                self.source.resume()
            return part
        if self.is_whole:
            return b""
        if self.failure is not None or self.source is None:
            raise self.failure or UpstreamFailure(
                "reset", "the answer was given up", bytes_sent=True
            )
        waiter = self.part_waiter = self.source.part_waiter()
        return await waiter

    def abort(self) -> None:
        """See `UpstreamResponse.abort`."""
        if self.source is not None:
            self.source.abort("the answer was given up")

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for the next bytes."""
        if self.sink is not None:
            return not self.is_held
        return self.part_waiter is not None and not self.part_waiter.done()

    @property
    def ends_with_connection(self) -> bool:
        """Whether the body has no other end than the connection's (RFC 9112 §6.3)."""
        ends_so = True  # the last coding decides, for the parser too
        for name, value in self.headers:
            field = name.lower()
            if field == b"content-length":
                return False
            if field == b"transfer-encoding":
                ends_so = not value.lower().rstrip().endswith(b"chunked")
        return ends_so

    def begin(self, on_head: OnHead | None) -> None:
        """The head is here: `on_head` may give a sink; else whoever waits goes on.

        Raises:
            Exception: what `on_head` does.
        """
        if on_head is not None:
            self.sink = on_head(self)
        if self.sink is None and not self.head.done():
            self.head.set_result(None)

    def deliver(self, part: bytes, is_last: bool) -> bool:
        """Takes bytes from the connection; false when it should bring no more for now.

        Raises:
            Exception: what the sink does.
        """
        sink = self.sink
        if sink is not None and not self.is_held:
            when_ready = sink(part, is_last)
            return when_ready is None or is_last or self.hold(when_ready)
        waiter = self.part_waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(part)
            return True
        self.parts.append(part)
        self.buffered_bytes += len(part)
        return sink is None and self.buffered_bytes < BUFFER_LIMIT_BYTES

    def end(self) -> None:
        """The body is whole; the connection is no longer ours."""
        self.is_whole = True
        self.source = None
        if self.sink is None:
            if self.part_waiter is not None and not self.part_waiter.done():
                self.part_waiter.set_result(b"")
        elif not self.parts and not self.head.done():
            self.head.set_result(None)

    def fail(self, failure: Exception, *, is_given_up: bool) -> None:
        """The body was cut; bytes that did arrive still come out, unless it was given up."""
        self.failure = failure
        self.source = None
        if is_given_up:
            self.parts.clear()
        elif self.is_held:
            return
        for waiter in (self.head, self.part_waiter):
            if waiter is not None and not waiter.done():
                waiter.set_exception(failure)

    def _buffered(self) -> bytes:
        parts = self.parts
        part = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        self.buffered_bytes = 0
        return part

    def hold(self, when_ready: WhenReady) -> bool:
        """Waits for room in the sink; true where there was some at once."""
        self.is_held = True
        when_ready(self._go_on)
        return not self.is_held

    def _go_on(self) -> None:
        """There is room in the sink again."""
        self.is_held = False
        if self.head.done():
            return  # it was given up meanwhile
        if self.parts and self.sink is not None:
            is_last = self.is_whole
            try:
                when_ready = self.sink(self._buffered(), is_last)
            except Exception as error:  # noqa: BLE001 - raised to whoever waits for the answer
                self._break(error)
                return
            if when_ready is not None and not is_last and not self.hold(when_ready):
                return
        if self.failure is not None:
            self.head.set_exception(self.failure)
        elif self.is_whole:
            self.head.set_result(None)
        elif self.source is not None:
            self.source.resume()

    def _break(self, error: Exception) -> None:
        if self.source is None:
            self.head.set_exception(error)
        else:
            self.source.break_off(error)
