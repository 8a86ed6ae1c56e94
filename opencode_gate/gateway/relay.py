"""The provider's own bytes on their way to the client, while the meter reads a copy.

The idea: an answer is taken from the network and given to the client within one call of the event
loop; what nobody waits for, such as reading a plain body for its counts, is done after that.

The invariant: once an answer has begun, an end that is not the provider's own clean end cuts the
client's connection; nothing else tells an agent that it has not got the whole answer. An answer
that has used up what was reserved for it is cut too.
"""

import asyncio
from time import monotonic
from typing import Final

from opencode_gate.core.errors import GateError
from opencode_gate.core.semconv import ExchangeStatus
from opencode_gate.gateway.asked import Asked, told_headers
from opencode_gate.gateway.downstream import ClientRequest
from opencode_gate.gateway.exchange import Exchange
from opencode_gate.gateway.headers import AnswerHead
from opencode_gate.gateway.upstream import Sink, UpstreamResponse, WhenReady
from opencode_gate.wire.meter import ExchangeMeter

MISUNDERSTOOD: Final = (400, 422)
"""What a provider answers that does not know a word of the request."""

_BEGINNING_BYTES: Final = 64 * 1024


class UsedUp(Exception):
    """The answer has used up what was reserved for it."""


class NotAStream(GateError):
    """The client asked for a stream and must not be given anything else."""

    http_status = 400
    error_type = "upstream_error"


class Answer:
    """One answer, from its head to the end of its exchange.

    Attributes:
        asks_for_usage: the request was made to ask for usage in place of the client.
        has_begun: the client has been given its head.
        is_over: its end has been taken, and all of it given to the client.
    """

    __slots__ = (
        "_asked",
        "_client",
        "_exchange",
        "_is_complete",
        "_is_limited",
        "_is_stream",
        "_is_young",
        "_last_s",
        "_meter",
        "_relay",
        "_status",
        "_write",
        "asks_for_usage",
        "has_begun",
        "is_over",
    )

    def __init__(
        self, client: ClientRequest, exchange: Exchange, asked: Asked, *, asks_for_usage: bool
    ) -> None:
        self._client = client
        self._exchange = exchange
        self._asked = asked
        self.asks_for_usage = asks_for_usage
        self.has_begun = self.is_over = False
        self._is_young = True
        self._last_s = 0.0

    def begin(self, response: UpstreamResponse) -> Sink | None:
        """Looks at the head of an answer; `None` if the request may have to be sent otherwise.

        Raises:
            NotAStream: it is none, and must be.
        """
        self._exchange.handed_over(response.sent_s)
        if self.asks_for_usage and response.status in MISUNDERSTOOD:
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
        exchange = self._exchange
        if self._is_stream:
            error_type = self._meter.error_type
            if not self._is_complete and error_type is None:
                error_type = "no_terminal"
            # An error that stands in a stream is read there by the client: a cut could lose it.
            is_billed = True
        else:
            self._meter.end()
            if self._meter.content_delivered:
                exchange.content_came(self._last_s)
            is_billed = self._status < 400
            error_type = None if is_billed else f"http_{self._status}"
        if error_type is None:
            exchange.finish(ExchangeStatus.COMPLETED)
        else:
            exchange.finish(
                ExchangeStatus.UPSTREAM_ERROR, error_type=error_type, is_billed=is_billed
            )

    def _accept(self, response: UpstreamResponse) -> Sink:
        """Gives the client the head of an answer; returns what takes its body."""
        exchange, asked, client = self._exchange, self._asked, self._client
        status = self._status = response.status
        head = AnswerHead(response.headers)
        # Some providers call an error an event stream too; it is a body like any other.
        content_type = head.content_type
        is_stream = self._is_stream = (
            status < 400
            and content_type is not None
            and content_type.startswith(b"text/event-stream")
        )
        if status == 200 and not is_stream and asked.expects_stream:
            # It may well have generated a whole answer, and bill it.
            exchange.http_status = NotAStream.http_status
            exchange.finish(ExchangeStatus.UPSTREAM_ERROR, error_type="protocol")
            raise _not_a_stream(asked, content_type)
        meter = self._meter = exchange.meter = ExchangeMeter(
            asked.route,
            streamed=is_stream,
            asked_for_usage=self.asks_for_usage,
            content_encoding=head.content_encoding,
        )
        exchange.http_status = status
        exchange.arrived_s = response.arrived_s
        self.has_begun = True
        client.begin(status, head.passed(keep_length=not is_stream) + told_headers(exchange.grant))
        if not is_stream:
            return self._take_body
        self._relay = meter.relay
        self._write = client.write
        self._is_limited = exchange.grant.allowance is not None
        return self._take_events

    def _take_events(self, part: bytes, is_last: bool) -> WhenReady | None:
        passed = self._relay(part) if part else b""
        if self._is_limited and self._exchange.is_used_up():
            raise UsedUp
        if is_last:
            self._end_events(passed)
            return None
        if passed:
            self._write(passed)
            if self._is_young:
                self._note_first()
        client = self._client
        return client.when_drained if client.is_full else None

    def _end_events(self, passed: bytes) -> None:
        end = self._meter.end()
        self._is_complete = end.is_complete
        if end.is_complete:
            self._client.end(passed + end.tail)
        else:
            # Returning without `end` makes the server cut the connection, which is what tells
            # the agent that this was not the whole answer.
            self._client.write(passed + end.tail)
        if self._is_young:
            self._note_first()
        self.is_over = True

    def _note_first(self) -> None:
        """The first bytes, and the first content: until there is some, it is looked for."""
        exchange = self._exchange
        exchange.written()
        if self._meter.content_delivered:
            self._is_young = False
            exchange.content_came(monotonic())
            exchange.follow()

    def _take_body(self, part: bytes, is_last: bool) -> WhenReady | None:
        client = self._client
        if part:
            self._meter.observe_body(part)
        if is_last:
            client.end(part)
            self.is_over = True
        else:
            client.write(part)
        self._last_s = self._exchange.written()
        return client.when_drained if client.is_full else None


def _not_a_stream(asked: Asked, content_type: bytes | None) -> NotAStream:
    kind = "no content type" if content_type is None else content_type.decode("latin-1")
    return NotAStream(
        "upstream-protocol",
        f"{asked.destination.target.row.id} did not stream: it answered with {kind}",
        hint="check the address with ogate providers show",
    )


async def begun_answer(response: UpstreamResponse) -> "BegunAnswer":
    """An answer whose first bytes are read ahead, for when they decide what is done next.

    Raises:
        UpstreamFailure: it was cut among them.
    """
    beginning = b""
    try:
        while len(beginning) < _BEGINNING_BYTES and (chunk := await response.read()):
            beginning += chunk
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
