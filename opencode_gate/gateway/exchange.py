"""One exchange while it lasts: what is known of it, and the one record it leaves.

The invariant: `finish` runs to its end without awaiting and only its first call counts, so an
exchange that ends in any way, also in two ways at once, leaves exactly one record.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from opencode_gate.core.clock import Clock
from opencode_gate.core.money import nano_usd
from opencode_gate.core.semconv import CostQuality, ExchangeStatus, Operation, UsageQuality
from opencode_gate.core.usage import TokenUsage
from opencode_gate.governance import sentences
from opencode_gate.governance.decisions import Denied
from opencode_gate.governance.grants import Grant
from opencode_gate.ledger.records import ExchangeRecord
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


class Exchange:
    """The life of one exchange between `opened` and `finish`.

    Attributes:
        waited_s: how long rules have had it wait.
        dialled_s: how long a connection to its provider took to open.
        arrived_s: when the answer's first bytes were here, on the monotonic clock.
    """

    __slots__ = (
        "_abandon",
        "_body",
        "_clock",
        "_facts",
        "_first_chunk_us",
        "_progress",
        "_queued_us",
        "_record",
        "_recorder",
        "_rules",
        "_sent_s",
        "_started_s",
        "_told_chars",
        "_written_s",
        "arrived_s",
        "attempts",
        "dialled_s",
        "ended",
        "grant",
        "has_client_left",
        "http_status",
        "meter",
        "waited_s",
    )

    def __init__(
        self,
        record: ExchangeRecord,
        body: bytes,
        facts: RequestFacts | None,
        recorder: Recorder,
        clock: Clock,
        rules: "Rules",
        received_s: float,
    ) -> None:
        """An exchange whose request was whole at `received_s`, on the monotonic clock."""
        self._record = record
        self._body = body
        self._facts = facts
        self._recorder = recorder
        self._clock = clock
        self._rules = rules
        self._started_s = received_s
        self._abandon: Callable[[], object] | None = None
        self._progress: asyncio.TimerHandle | None = None
        self._queued_us: int | None = None
        self._first_chunk_us: int | None = None
        self._sent_s: float | None = None
        self._written_s: float | None = None
        self.arrived_s = self.dialled_s = self.waited_s = 0.0
        self.grant = Grant(record.id)
        self.attempts = 0
        self.http_status: int | None = None
        self.meter: ExchangeMeter | None = None
        self.ended = self.has_client_left = False

    @property
    def id(self) -> str:
        """Its id in the ledger."""
        return self._record.id

    @property
    def conversation_id(self) -> str | None:
        """The agent's conversation, `None` where the request named none."""
        return self._record.conversation_id

    @property
    def age_s(self) -> float:
        """How long it has been since the request was whole."""
        return self._clock.monotonic_s() - self._started_s

    def opened(self) -> None:
        """Writes the first line of the journal: from here on a crash leaves a trace.

        Raises:
            Denied: that could not be written, and budgets would lose what a crash leaves.
        """
        self._queued_us = self._elapsed_us()
        input_bytes = None if self._facts is None else self._facts.input_bytes
        record = self._record
        if self.grant.charges or self.grant.virtual_key is not None:
            # Whoever settles it after a crash charges it, and tells whose it was.
            record = msgspec.structs.replace(record, **_granted(self.grant, was_sent=True))
        is_written = self._recorder.opened(record, input_bytes=input_bytes)
        if not is_written and self.grant.charges:
            reason = "its journal cannot be written"
            raise Denied(sentences.ledger_locked(reason), http_status=403)

    def on_client_left(self, abandon: Callable[[], object]) -> None:
        """What to do when the client goes away before the end."""
        self._abandon = abandon

    def client_left(self) -> None:
        """The client is gone; the work for it is abandoned, unless it is done."""
        self.has_client_left = True
        if not self.ended and self._abandon is not None:
            self._abandon()

    def handed_over(self, sent_s: float) -> None:
        """The request was handed to the network then; where it is sent twice, the first counts."""
        if self._sent_s is None:
            self._sent_s = sent_s

    def written(self) -> float:
        """Something of the answer has just been given to the client; returns the time."""
        now_s = self._clock.monotonic_s()
        if self._written_s is None:
            self._written_s = now_s
        return now_s

    def content_came(self, at_s: float) -> None:
        """The client was given the first content then."""
        self._first_chunk_us = round((at_s - self._started_s) * 1_000_000)

    def follow(self) -> None:
        """Writes down about once a second how far a stream has come, for as long as it lasts."""
        self._told_chars = 0
        loop = asyncio.get_running_loop()
        self._progress = loop.call_later(PROGRESS_EVERY_S, self._tell_progress)

    def _tell_progress(self) -> None:
        meter = self.meter
        if self.ended or meter is None:
            return
        if meter.delivered_chars != self._told_chars:
            self._told_chars = meter.delivered_chars
            metering = meter.metering()
            self._recorder.progressed(
                self._record.id, metering.usage, metering.delivered_text_chars
            )
        loop = asyncio.get_running_loop()
        self._progress = loop.call_later(PROGRESS_EVERY_S, self._tell_progress)

    def is_used_up(self) -> bool:
        """True once the answer has used up what is reserved for it; then it must be cut."""
        grant, meter = self.grant, self.meter
        if meter is None or grant.allowance is None:
            return False
        running = grant.running
        if running is not None and meter.delivered_chars < running.next_chars:
            return False
        # One that is whole is paid for already, and worth nothing if it is not delivered.
        return not meter.has_ended and self._rules.is_used_up(grant, meter)

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
        if self._progress is not None:
            self._progress.cancel()
        seen = _NOTHING
        if not is_billed:
            seen = _NOT_BILLED
        elif self._record.operation is Operation.GENERATE:
            metering = self._metering()
            seen = _measured(metering)
            if error_type is None and metering.contradicts:
                error_type = "usage_contradicts"
        record = msgspec.structs.replace(
            self._record,
            status=status,
            http_status=self.http_status,
            error_type=error_type,
            denial=denial,
            attempts=self.attempts,
            queued_us=self._queued_us,
            time_to_first_chunk_us=self._first_chunk_us,
            duration_us=self._elapsed_us(),
            gateway_us=self._own_us(),
            **_granted(self.grant, was_sent=self.attempts > 0),
            **seen,
        )
        # First written down: a rule that fails then loses nothing that was spent.
        self._recorder.finished(record, self._body, self.meter if is_billed else None)
        self._rules.ended(self.grant, record)

    def _metering(self) -> Metering:
        metering = Metering() if self.meter is None else self.meter.metering()
        if self._facts is not None and metering.usage_quality is not UsageQuality.REPORTED:
            metering = estimated(metering, self._facts)
        return metering

    def _own_us(self) -> int | None:
        """What of the time was the gateway's own; `None` where the provider has not answered."""
        sent_s, written_s = self._sent_s, self._written_s
        if sent_s is None or written_s is None:
            return None
        asking_s = sent_s - self._started_s - self.waited_s - self.dialled_s
        return round((asking_s + written_s - self.arrived_s) * 1_000_000)

    def _elapsed_us(self) -> int:
        return round((self._clock.monotonic_s() - self._started_s) * 1_000_000)


_NOTHING: dict[str, Any] = {}
_NOT_BILLED: dict[str, Any] = {
    "cost_nano_usd": 0,
    "cost_quality": CostQuality.PRICED,
    "price_source": "not billed",
}


def _granted(grant: Grant, *, was_sent: bool) -> dict[str, Any]:
    """The fields of a record that the rules know, the model that was sent instead among them."""
    if grant == Grant(grant.exchange_id):
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
