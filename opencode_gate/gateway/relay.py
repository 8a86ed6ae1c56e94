"""The provider's own bytes on their way to the client, while the meter reads a copy.

The idea: an answer is taken from the network and given to the client within one call of the event
loop; what nobody waits for, such as reading a plain body for its counts, is done after that.

The invariant: once an answer has begun, an end that is not the provider's own clean end cuts the
client's connection; nothing else tells an agent that it has not got the whole answer. An answer
that has used up what was reserved for it is cut too.
"""

import asyncio
from typing import Final

import msgspec

from opencode_gate.core.errors import GateError
from opencode_gate.core.semconv import ExchangeStatus
from opencode_gate.gateway.asked import Asked, told_headers
from opencode_gate.gateway.downstream import ClientRequest
from opencode_gate.gateway.exchange import Exchange
from opencode_gate.gateway.headers import described, response_headers
from opencode_gate.gateway.upstream import (
    Sink,
    UpstreamFailure,
    UpstreamRequest,
    UpstreamResponse,
    WhenReady,
)
from opencode_gate.wire.meter import ExchangeMeter

MISUNDERSTOOD: Final = (400, 422)
"""What a provider answers that does not know a word of the request."""

_NOT_MODIFIED: Final = 304
_NO_TYPE: Final = (b"content-type", b"")
_BEGINNING_BYTES: Final = 64 * 1024


def is_refusal(status: int) -> bool:
    """Whether a provider has done nothing of what it was asked: it erred, or points elsewhere."""
    return status >= 300 and status != _NOT_MODIFIED


class UsedUp(Exception):
    """The answer has used up what was reserved for it."""


class NotAStream(GateError):
    """The client asked for a stream and must not be given anything else."""

    http_status = 400
    error_type = "upstream_error"


class Answer(msgspec.Struct, eq=False):
    """One answer, from its head to the end of its exchange; made in C.

    Attributes:
        asks_for_usage: the request was made to ask for usage in place of the client.
        request: what was asked last for it.
        has_begun: the client has been given its head.
        is_over: its end has been taken, and all of it given to the client.
        is_complete: of a stream, whether that end was one.
        is_young: no content of a stream has been given to the client yet.
        last_s: when something of a plain body was given to the client last.
    """

    client: ClientRequest
    exchange: Exchange
    asked: Asked
    asks_for_usage: bool
    request: UpstreamRequest | None = None
    has_begun: bool = False
    is_over: bool = False
    status: int = 0
    meter: ExchangeMeter | None = None
    is_stream: bool = False
    is_complete: bool = False
    is_young: bool = True
    last_s: float = 0.0

    def begin(self, response: UpstreamResponse) -> Sink | None:
        """Looks at the head of an answer; `None` if the request may have to be sent otherwise.

        Raises:
            NotAStream: it is none, and must be.
        """
        if self.asks_for_usage and response.status in MISUNDERSTOOD:
            self._note_sent(response)
            return None
        return self._accept(response)

    async def pull(self, response: UpstreamResponse) -> None:
        """Takes an answer that nobody pushes.

        Raises:
            UpstreamFailure: it was cut.
            UsedUp: it must be.
            NotAStream: see `begin`.
        """
        take = self._accept(response)
        while part := await response.read():
            when_ready = take(part, False)
            if when_ready is not None:
                ready = asyncio.Event()
                when_ready(ready.set)
                await ready.wait()
        take(b"", True)

    def settle(self) -> None:
        """Closes the exchange of an answer that is over."""
        exchange, meter = self.exchange, self.meter
        assert meter is not None
        if self.is_stream:
            error_type = meter.error_type
            if not self.is_complete and error_type is None:
                error_type = "no_terminal"
            # An error that stands in a stream is read there by the client: a cut could lose it.
            is_billed = True
        else:
            meter.end()
            if meter.content_delivered:
                exchange.content_came(self.last_s)
            is_billed = not is_refusal(self.status)
            error_type = None if is_billed else f"http_{self.status}"
        if error_type is None:
            exchange.finish(ExchangeStatus.COMPLETED)
        else:
            exchange.finish(
                ExchangeStatus.UPSTREAM_ERROR, error_type=error_type, is_billed=is_billed
            )

    def _accept(self, response: UpstreamResponse) -> Sink:
        """Gives the client the head of an answer; returns what takes its body."""
        exchange, asked, client = self.exchange, self.asked, self.client
        grant = exchange.grant
        status = self.status = response.status
        of_note, end_to_end = described(response.headers)
        # Some providers call an error an event stream too; it is a body like any other.
        content_type = of_note.get(b"content-type", _NO_TYPE)[1]
        is_events = content_type.lower().startswith(b"text/event-stream")
        is_stream = self.is_stream = is_events and status < 400
        if status == 200 and not is_stream and asked.expects_stream:
            # It may well have generated a whole answer, and bill it.
            exchange.record = msgspec.structs.replace(exchange.record, streamed=False)
            exchange.http_status = NotAStream.http_status
            exchange.finish(ExchangeStatus.UPSTREAM_ERROR, error_type="protocol")
            raise _not_a_stream(asked, content_type)
        encoding = of_note.get(b"content-encoding")
        self.meter = exchange.meter = ExchangeMeter(
            asked.route,
            streamed=is_stream,
            asked_for_usage=self.asks_for_usage,
            content_encoding=None if encoding is None else encoding[1].decode("latin-1"),
        )
        exchange.http_status = status
        exchange.arrived_s = response.arrived_s
        if exchange.sent_s is None:
            self._note_sent(response)
        self.has_begun = True
        passed = response_headers(of_note, end_to_end, keep_length=not is_stream)
        if grant.model is not None or grant.output_limit_tokens is not None:
            passed = passed + told_headers(grant)
        client.begin(status, passed)
        if not is_stream:
            return self._take_body
        return self._taking_events(self.meter, is_limited=grant.allowance is not None)

    def _note_sent(self, response: UpstreamResponse) -> None:
        self.exchange.sent_s = response.sent_s
        self.exchange.dialled_s = self.request.dialled_s  # type: ignore[union-attr]

    def _taking_events(self, meter: ExchangeMeter, *, is_limited: bool) -> Sink:
        """What takes a stream; all that each event needs is looked up once."""
        client, exchange = self.client, self.exchange
        relay, write = meter.relay, client.write

        def take(part: bytes, is_last: bool) -> WhenReady | None:
            passed = relay(part)
            if is_limited and exchange.is_used_up():
                raise UsedUp
            if is_last:
                self._end_events(meter, passed)
                return None
            if passed:
                write(passed)
                if self.is_young:
                    self._note_first(meter)
            return client.when_drained if client.is_full else None

        return take

    def _end_events(self, meter: ExchangeMeter, passed: bytes) -> None:
        end = meter.end()
        self.is_complete = end.is_complete
        if end.is_complete:
            self.client.end(passed + end.tail)
        else:
            # Returning without `end` makes the server cut the connection, which is what tells
            # the agent that this was not the whole answer.
            self.client.write(passed + end.tail)
        if self.is_young:
            self._note_first(meter)
        self.is_over = True

    def _note_first(self, meter: ExchangeMeter) -> None:
        """The first bytes, and the first content: until there is some, it is looked for."""
        exchange = self.exchange
        now_s = exchange.clock.monotonic_s()
        if exchange.written_s is None:
            self._note_written(now_s)
        if meter.content_delivered:
            self.is_young = False
            exchange.content_came(now_s)
            exchange.follow()

    def _note_written(self, now_s: float) -> None:
        """A head that had to leave alone waits for nothing of ours any more."""
        left_s = self.client.head_left_s
        self.exchange.written_s = now_s if left_s is None else left_s

    def _take_body(self, part: bytes, is_last: bool) -> WhenReady | None:
        client, exchange = self.client, self.exchange
        if is_last:
            client.end(part)
            self.is_over = True
        else:
            client.write(part)
        self.last_s = exchange.clock.monotonic_s()
        if exchange.written_s is None:
            self._note_written(self.last_s)
        if part:
            self.meter.observe_body(part)  # type: ignore[union-attr]
        return client.when_drained if client.is_full else None


def _not_a_stream(asked: Asked, content_type: bytes) -> NotAStream:
    kind = content_type.decode("latin-1") or "no content type"
    return NotAStream(
        "upstream-protocol",
        f"{asked.destination.target.row.id} did not stream: it answered with {kind}",
        hint="check the address with ogate providers show",
    )


async def begun_answer(response: UpstreamResponse) -> "BegunAnswer":
    """An answer whose first bytes are read ahead, for when they decide what is done next.

    One that is cut among them is cut for whoever reads on.
    """
    beginning = b""
    try:
        while len(beginning) < _BEGINNING_BYTES and (chunk := await response.read()):
            beginning += chunk
    except UpstreamFailure:
        pass
    except BaseException:
        response.abort()
        raise
    return BegunAnswer(response, beginning)


class BegunAnswer:
    """A response whose first bytes have been read already. Implements `UpstreamResponse`."""

    __slots__ = (
        "_response",
        "_unread",
        "arrived_s",
        "beginning",
        "headers",
        "sent_s",
        "status",
    )

    def __init__(self, response: UpstreamResponse, beginning: bytes) -> None:
        self.status = response.status
        self.headers = response.headers
        self.sent_s = response.sent_s
        self.arrived_s = response.arrived_s
        self.beginning = beginning
        self._response = response
        self._unread = beginning

    async def read(self) -> bytes:
        """See `UpstreamResponse.read`."""
        if self._unread:
            unread, self._unread = self._unread, b""
            return unread
        return await self._response.read()

    def abort(self) -> None:
        """See `UpstreamResponse.abort`."""
        self._response.abort()
