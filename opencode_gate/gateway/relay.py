"""The provider's own bytes on their way to the client, while the meter reads a copy.

The invariant: once an answer has begun, an end that is not the provider's own clean end cuts the
client's connection; nothing else tells an agent that it has not got the whole answer. An answer
that has used up what was reserved for it is cut too.
"""

import asyncio

from opencode_gate.core.semconv import ExchangeStatus
from opencode_gate.gateway.downstream import ClientRequest
from opencode_gate.gateway.exchange import Exchange
from opencode_gate.gateway.upstream import UpstreamResponse
from opencode_gate.governance.stopping import BUDGET_STOP
from opencode_gate.wire.meter import ExchangeMeter


async def relay_stream(
    exchange: Exchange, meter: ExchangeMeter, response: UpstreamResponse, client: ClientRequest
) -> None:
    """Passes an event stream on, and closes its exchange.

    Raises:
        UpstreamFailure: it was cut; the exchange is still open.
    """
    while chunk := await response.read():
        passed = meter.relay(chunk)
        if exchange.is_used_up():
            exchange.finish(ExchangeStatus.INTERRUPTED, error_type=BUDGET_STOP)
            return
        if passed:
            client.write(passed)
        exchange.relayed()
        if client.is_full:
            await _drained(client)
    end = meter.end()
    error_type = meter.error_type
    if not end.is_complete:
        # Returning without `end` makes the server cut the connection, which is
        # what tells the agent that this was not the whole answer.
        if end.tail:
            client.write(end.tail)
        exchange.finish(
            ExchangeStatus.UPSTREAM_ERROR,
            error_type="no_terminal" if error_type is None else error_type,
        )
        return
    if error_type is None:
        exchange.finish(ExchangeStatus.COMPLETED)
    else:
        # The error stands in the stream, where the client reads it: a cut could lose it.
        exchange.finish(ExchangeStatus.UPSTREAM_ERROR, error_type=error_type)
    client.end(end.tail)


async def relay_body(
    exchange: Exchange, meter: ExchangeMeter, response: UpstreamResponse, client: ClientRequest
) -> None:
    """Passes any other body on, and closes its exchange.

    Raises:
        UpstreamFailure: it was cut; the exchange is still open.
    """
    while chunk := await response.read():
        meter.observe_body(chunk)
        client.write(chunk)
        if client.is_full:
            await _drained(client)
    meter.end()
    exchange.relayed()
    if response.status >= 400:
        exchange.finish(
            ExchangeStatus.UPSTREAM_ERROR, error_type=f"http_{response.status}", is_billed=False
        )
    else:
        exchange.finish(ExchangeStatus.COMPLETED)
    client.end()


async def _drained(client: ClientRequest) -> None:
    drained = asyncio.Event()
    client.when_drained(drained.set)
    await drained.wait()


_BEGINNING_BYTES = 64 * 1024


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

    __slots__ = ("_response", "_unread", "beginning", "headers", "status")

    def __init__(self, response: UpstreamResponse, beginning: bytes) -> None:
        self.status = response.status
        self.headers = response.headers
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
