"""One exchange while it lasts: what is known of it, and the one record it leaves.

The invariant: `finish` runs to its end without awaiting and only its first call counts, so an
exchange that ends in any way, also in two ways at once, leaves exactly one record.
"""

import asyncio
from typing import Any, Protocol

import msgspec

from opencode_gate.core.clock import Clock
from opencode_gate.core.money import nano_usd
from opencode_gate.core.semconv import CostQuality, ExchangeStatus, Operation, UsageQuality
from opencode_gate.core.usage import TokenUsage
from opencode_gate.governance import sentences
from opencode_gate.governance.decisions import Denied
from opencode_gate.governance.grants import Grant
from opencode_gate.ledger.records import USAGE_CONTRADICTS, ExchangeRecord
from opencode_gate.wire.facts import RequestFacts
from opencode_gate.wire.meter import ExchangeMeter
from opencode_gate.wire.metering import Metering, estimated

PROGRESS_EVERY_S = 1.0


class Recorder(Protocol):
    """Where exchanges are written down; none of these may raise or wait."""

    def opened(self, record: ExchangeRecord, *, input_bytes: int | None) -> bool:
        """Before the first byte leaves for the provider; false if it could not be written."""
        ...

    def progressed(self, exchange_id: str, usage: TokenUsage, delivered_text_chars: int) -> None:
        """About once a second while an answer streams."""
        ...

    def finished(self, record: ExchangeRecord, body: bytes, meter: ExchangeMeter | None) -> None:
        """Once, at the end. Nothing may be kept of the request's body, or of what the meter saw
        delivered, but what tells no text.
        """
        ...


class Rules(Protocol):
    """What granted the exchange; it must neither raise nor wait."""

    def is_used_up(self, grant: Grant, meter: ExchangeMeter) -> bool:
        """True once the answer has used up what is reserved for it."""
        ...

    def ended(self, grant: Grant, record: ExchangeRecord) -> None:
        """The exchange is over."""
        ...


class Exchange(msgspec.Struct, eq=False):
    """The life of one exchange between `opened` and `finish`; made in C.

    Attributes:
        record: as it began.
        started_s: when the request was whole, on the monotonic clock; `sent_s`, when it had been
            handed to the network, `arrived_s`, when the answer's head was here, and `written_s`,
            when it had been given to the client.
        work: what serves it, to be given up when the client leaves.
        waited_s: how long rules have had it wait.
        dialled_s: how long a connection to its provider took to open.
    """

    record: ExchangeRecord
    body: bytes
    facts: RequestFacts | None
    recorder: Recorder
    clock: Clock
    rules: Rules
    started_s: float
    grant: Grant
    work: "asyncio.Task[Any] | None" = None
    attempts: int = 0
    http_status: int | None = None
    meter: ExchangeMeter | None = None
    ended: bool = False
    has_client_left: bool = False
    waited_s: float = 0.0
    dialled_s: float = 0.0
    sent_s: float | None = None
    arrived_s: float = 0.0
    written_s: float | None = None
    queued_us: int | None = None
    first_chunk_us: int | None = None
    progress: asyncio.TimerHandle | None = None
    told_chars: int = 0

    def opened(self) -> None:
        """Writes the first line of the journal: from here on a crash leaves a trace.

        Raises:
            Denied: that could not be written, and budgets would lose what a crash leaves.
        """
        self.queued_us = round((self.clock.monotonic_s() - self.started_s) * 1_000_000)
        facts, grant, record = self.facts, self.grant, self.record
        if grant.charges or grant.virtual_key is not None:
            # Whoever settles it after a crash charges it, and tells whose it was.
            record = msgspec.structs.replace(record, **_granted(grant, was_sent=True))
        input_bytes = None if facts is None else facts.input_bytes
        is_written = self.recorder.opened(record, input_bytes=input_bytes)
        if not is_written and grant.charges:
            reason = "its journal cannot be written"
            raise Denied(sentences.ledger_locked(reason), http_status=403)

    def client_left(self) -> None:
        """The client is gone; the work for it is abandoned, unless it is done."""
        self.has_client_left = True
        if not self.ended and self.work is not None:
            self.work.cancel()

    def content_came(self, at_s: float) -> None:
        """The client was given the first content then."""
        self.first_chunk_us = round((at_s - self.started_s) * 1_000_000)

    def follow(self) -> None:
        """Writes down about once a second how far a stream has come, for as long as it lasts."""
        self.told_chars = 0
        loop = asyncio.get_running_loop()
        self.progress = loop.call_later(PROGRESS_EVERY_S, self._tell_progress)

    def _tell_progress(self) -> None:
        meter = self.meter
        if self.ended or meter is None:
            return
        if meter.delivered_chars != self.told_chars:
            self.told_chars = meter.delivered_chars
            metering = meter.metering()
            self.recorder.progressed(self.record.id, metering.usage, metering.delivered_text_chars)
        loop = asyncio.get_running_loop()
        self.progress = loop.call_later(PROGRESS_EVERY_S, self._tell_progress)

    def is_used_up(self) -> bool:
        """True once the answer has used up what is reserved for it; then it must be cut."""
        grant, meter = self.grant, self.meter
        if meter is None or grant.allowance is None:
            return False
        running = grant.running
        if running is not None and meter.delivered_chars < running.next_chars:
            return False
        # One that is whole is paid for already, and worth nothing if it is not delivered.
        return not meter.has_ended and self.rules.is_used_up(grant, meter)

    def finish(
        self,
        status: ExchangeStatus,
        *,
        error_type: str | None = None,
        denial: str | None = None,
        is_billed: bool = True,
    ) -> None:
        """Closes the exchange. `is_billed=False`: the provider refused it or never had it."""
        if self.ended:
            return
        self.ended = True
        if self.progress is not None:
            self.progress.cancel()
        meter, grant = self.meter, self.grant
        seen = _NOT_BILLED
        if is_billed:
            seen = _NOTHING
            if self.record.operation is Operation.GENERATE:
                metering = Metering() if meter is None else meter.metering()
                if self.facts is not None and metering.usage_quality is not UsageQuality.REPORTED:
                    metering = estimated(metering, self.facts)
                seen = _measured(metering)
                if error_type is None and metering.contradicts:
                    error_type = USAGE_CONTRADICTS
        record = msgspec.structs.replace(
            self.record,
            status=status,
            http_status=self.http_status,
            error_type=error_type,
            denial=denial,
            attempts=self.attempts,
            queued_us=self.queued_us,
            time_to_first_chunk_us=self.first_chunk_us,
            duration_us=round((self.clock.monotonic_s() - self.started_s) * 1_000_000),
            gateway_us=self._own_us(),
            **_granted(grant, was_sent=self.attempts > 0),
            **seen,
        )
        # First written down: a rule that fails then loses nothing that was spent.
        self.recorder.finished(record, self.body, meter if is_billed else None)
        self.rules.ended(grant, record)

    def _own_us(self) -> int | None:
        """What of the time was the gateway's own; `None` where the provider has not answered."""
        sent_s, written_s = self.sent_s, self.written_s
        if sent_s is None or written_s is None:
            return None
        asking_s = sent_s - self.started_s - self.waited_s - self.dialled_s
        return round((asking_s + written_s - self.arrived_s) * 1_000_000)


_NOTHING: dict[str, Any] = {}
_NOT_BILLED: dict[str, Any] = {
    "cost_nano_usd": 0,
    "cost_quality": CostQuality.PRICED,
    "price_source": "not billed",
}


def _granted(grant: Grant, *, was_sent: bool) -> dict[str, Any]:
    """The fields of a record that the rules know, the model that was sent instead among them."""
    if (
        grant.virtual_key is grant.model is None
        and grant.output_limit_tokens is None
        and not grant.charges
        and not grant.decisions
    ):
        return _NOTHING
    known: dict[str, Any] = {} if grant.model is None else {"request_model": grant.model}
    return known | {
        "virtual_key": grant.virtual_key,
        "team": grant.team,
        "customer": grant.customer,
        "charges": grant.charges if was_sent else (),
        "reserved_cost_nano_usd": grant.reserved_cost_nano_usd if was_sent else None,
        "output_limit_tokens": grant.output_limit_tokens,
        "downgraded_from": grant.downgraded_from,
        "decisions": grant.decisions_text,
    }


def _measured(metering: Metering) -> dict[str, Any]:
    """The fields of a record that the meter knows."""
    reported = metering.reported_cost_usd
    return {
        "usage": metering.usage,
        "usage_quality": metering.usage_quality,
        "raw_usage": metering.raw_usage,
        "response_model": metering.response_model,
        "finish_reason": metering.finish_reason,
        "repaired": metering.repaired,
        "tools_called": metering.tools_called,
        "reported_cost_nano_usd": None if reported is None else nano_usd(reported),
    }
