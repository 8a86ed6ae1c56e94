"""From journals into the ledger: by a thread while the gateway serves, and after a crash.

The idea: folding is an upsert by ULID, so doing it twice is doing it once. That is all the
recovery there is: read the journal of a dead process again, close what is open, commit, remove.
The invariants: a journal goes only after its rows are committed, a journal whose process lives
is never touched, and no exchange is lost because it could not be priced.
"""

import logging
import threading
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from opencode_gate.core.clock import SystemClock
from opencode_gate.core.errors import LedgerError
from opencode_gate.core.semconv import CostQuality, ExchangeStatus, Operation, UsageQuality
from opencode_gate.core.usage import TokenUsage
from opencode_gate.ledger.calibration import Calibration, CountText
from opencode_gate.ledger.journal import (
    Journal,
    JournalContents,
    claimed,
    journals,
    orphans,
    read_journal,
    session_id_of,
)
from opencode_gate.ledger.records import ExchangeRecord
from opencode_gate.ledger.request_shape import RequestShapes
from opencode_gate.ledger.sqlite import open_store
from opencode_gate.ledger.store import Store
from opencode_gate.wire.estimates import estimated_tokens, quality_of_estimate
from opencode_gate.wire.meter import ExchangeMeter

Price = Callable[[ExchangeRecord], ExchangeRecord]
_T = TypeVar("_T")

_RETRY_AFTER_S = 2.0
_GATHER_S = 0.25
_DAY_US = 86_400_000_000

_logger = logging.getLogger(__name__)


class _Submitted(NamedTuple):
    exchange: ExchangeRecord
    body: bytes | None
    meter: ExchangeMeter | None


class Folder(threading.Thread):
    """Prices and commits finished exchanges in batches, off the hot path.

    Its first work is to settle the journals of dead processes and, with `keep_parts_days`, to
    forget the parts that are older. A failing database is tried again every few seconds;
    meanwhile the journal keeps everything.
    """

    def __init__(
        self,
        journal_dir: Path,
        store_path: Path,
        price: Price,
        *,
        journal: Journal,
        shapes: RequestShapes | None = None,
        count_text: CountText | None = None,
        keep_parts_days: int | None = None,
    ) -> None:
        super().__init__(name="ledger-folding", daemon=True)
        self._journal_dir = journal_dir
        self._store_path = store_path
        self._price = price
        self._journal = journal
        self._shapes = shapes
        self._calibration = Calibration(count_text)
        self._keep_parts_days = keep_parts_days
        self._changed = threading.Condition()
        self._waiting: list[_Submitted] = []
        self._has_begun = False
        self._is_closing = False
        self._has_ended = False
        self._drains = 0
        self._failures = 0
        self._failure: LedgerError | None = None
        self._store: Store | None = None
        self.start()

    @property
    def failure(self) -> LedgerError | None:
        """Why the latest batch could not be committed; `None` while all is well."""
        return self._failure

    def submit(
        self,
        exchange: ExchangeRecord,
        body: bytes | None = None,
        meter: ExchangeMeter | None = None,
    ) -> None:
        """Hands over a finished exchange that is in the journal already. Never blocks on I/O.

        Args:
            body: the request's; it is looked at and let go of, and nothing of it is kept.
            meter: of the answer; the same holds for what it saw delivered.
        """
        with self._changed:
            self._waiting.append(_Submitted(exchange, body, meter))
            if len(self._waiting) == 1:
                # Else the thread is at work or gathering; waking it would cost each request.
                self._changed.notify_all()

    def drain(self) -> None:
        """Returns when everything submitted before is committed. Blocks: not for event loops.

        Raises:
            LedgerError: it cannot be committed now; the journal keeps it for the next start.
        """
        with self._changed:
            self._drains += 1
            failures = self._failures
            self._changed.notify_all()
            # The first failure may be of a batch that was under way.
            self._changed.wait_for(
                lambda: self._is_done() or self._failures > failures + 1 or self._has_ended
            )
            self._drains -= 1
            if not self._is_done():
                raise self._failure or _stopped(self._store_path)

    def close(self) -> None:
        """Commits what is left, ends the thread, and removes the journal if all is committed.

        Raises:
            LedgerError: something could not be committed; the journal stays for the next start.
        """
        try:
            self.drain()
        finally:
            with self._changed:
                self._is_closing = True
                self._changed.notify_all()
            self.join()
            self._journal.close()

    def run(self) -> None:
        """The thread's work; not to be called."""
        try:
            while self._next_batch():
                self._attempt()
        finally:
            if self._store is not None:
                self._store.close()
            with self._changed:
                self._has_ended = True
                self._changed.notify_all()

    def _is_done(self) -> bool:
        return self._has_begun and not self._waiting

    def _next_batch(self) -> bool:
        """Waits for work; false when there will be none."""
        with self._changed:
            if self._failure is not None and not self._drains and not self._is_closing:
                self._changed.wait(_RETRY_AFTER_S)
            self._changed.wait_for(lambda: not self._is_done() or self._is_closing)
            if self._has_begun:
                # Not at once: this thread would run just when the next request wants to.
                self._changed.wait_for(lambda: self._drains > 0 or self._is_closing, _GATHER_S)
            return not self._is_closing

    def _attempt(self) -> None:
        batch = self._taken()
        tool_sets = {} if self._shapes is None else self._shapes.tool_sets
        try:
            if self._store is None:
                self._store = open_store(self._store_path)
                self._calibration.remember(self._store.token_ratios())
            if not self._has_begun:
                settle_orphans(self._journal_dir, self._store, self._price)
                if self._keep_parts_days is not None:
                    self._store.retire(SystemClock().now_us() - self._keep_parts_days * _DAY_US)
            _put_tool_sets(self._store, tool_sets)
            self._store.add_token_ratios(self._calibration.learned)
            self._calibration.learned.clear()
            _commit(self._store, batch, self._price)
        except LedgerError as error:
            _logger.warning("the ledger cannot be written: %s", error)
            with self._changed:
                self._failure = error
                self._failures += 1
                self._changed.notify_all()
            return
        if batch:
            self._journal.folded([exchange.id for exchange in batch])
        with self._changed:
            del self._waiting[: len(batch)]
            tool_sets.clear()
            self._has_begun = True
            self._failure = None
            self._changed.notify_all()

    def _taken(self) -> list[ExchangeRecord]:
        """What waits now; the bodies are let go of, however long the ledger fails."""
        with self._changed:
            waiting = list(self._waiting)
        batch = [
            _shaped(submitted, self._shapes, self._calibration) for submitted in _unhurried(waiting)
        ]
        with self._changed:
            self._waiting[: len(batch)] = [_Submitted(exchange, None, None) for exchange in batch]
        return batch


def settle_orphans(journal_dir: Path, store: Store, price: Price) -> int:
    """Folds the journals of dead processes and removes them; how many exchanges that recovered.

    What was open is closed as `interrupted` with the tokens seen so far, `estimated`. A session
    that has no living gateway any more and no end gets the last time its journal knows.

    Raises:
        LedgerError: the database failed; the journals stay.
    """
    dead = orphans(journal_dir)
    living = [path for path in journals(journal_dir) if path not in dead]
    living_sessions = {session_id_of(path) for path in living}
    recovered = 0
    for path in dead:
        try:
            with claimed(path) as claim:
                if claim is not None:
                    contents = read_journal(path)
                    recovered += _settle(contents, store, price)
                    _settle_session(contents, store, living_sessions)
                    claim.is_settled = True
        except OSError as error:
            _logger.warning("the journal %s is left as it is: %s", path, error)
    return recovered


def _settle_session(
    contents: JournalContents, store: Store, living_sessions: Container[str | None]
) -> None:
    session = contents.session
    if session is None:
        return
    store.add_session(session)
    if session.id in living_sessions or store.session(session.id).ended_at_us is not None:
        return
    store.end_session(session.id, ended_at_us=contents.last_seen_us, exit_status=None)


def _settle(contents: JournalContents, store: Store, price: Price) -> int:
    calibration = Calibration(known=store.token_ratios())
    unfolded = [
        _closed(contents, exchange, calibration)
        for id, exchange in contents.exchanges.items()
        if id not in contents.folded_ids
    ]
    _commit(store, unfolded, price)
    return len(unfolded)


def _put_tool_sets(store: Store, tool_sets: Mapping[str, Mapping[str, int]]) -> None:
    for tool_set, tool_bytes in tool_sets.items():
        try:
            store.put_tool_set(tool_set, tool_bytes)
        except ValueError:
            # A name that is no Unicode; what the tools were is the least of a ledger's facts.
            _logger.warning("the tools of %s cannot be stored", tool_set)


def _closed(
    contents: JournalContents, exchange: ExchangeRecord, calibration: Calibration
) -> ExchangeRecord:
    """An exchange as it is recorded when its process died."""
    if exchange.status is not ExchangeStatus.OPEN:
        return exchange
    return msgspec.structs.replace(
        seen_so_far(contents, exchange, calibration),
        status=ExchangeStatus.INTERRUPTED,
        error_type="gateway_died",
    )


def seen_so_far(
    contents: JournalContents, exchange: ExchangeRecord, calibration: Calibration | None = None
) -> ExchangeRecord:
    """An open exchange with what its journal tells of its tokens, estimated where need be."""
    usage = exchange.usage
    corrected = Calibration() if calibration is None else calibration
    input_bytes = contents.input_bytes.get(exchange.id)
    is_generation = exchange.operation is Operation.GENERATE
    if is_generation and usage.input_tokens is None and input_bytes is not None:
        uncached = estimated_tokens(input_bytes, exchange.wire_format)
        uncached = round(uncached * corrected.factor(exchange, "input_size"))
        usage = msgspec.structs.replace(usage, input_uncached=uncached)
    delivered_chars = contents.delivered_text_chars.get(exchange.id, 0)
    delivered_tokens = estimated_tokens(delivered_chars, exchange.wire_format)
    delivered_tokens = round(delivered_tokens * corrected.factor(exchange, "output_size"))
    # Providers send a first output count of one or so long before the true one.
    if delivered_tokens > 0 and (usage.output is None or usage.output < delivered_tokens):
        usage = msgspec.structs.replace(usage, output=delivered_tokens)
    return msgspec.structs.replace(
        exchange,
        usage=usage,
        usage_quality=UsageQuality.UNKNOWN
        if usage.is_empty
        else quality_of_estimate(exchange.request_model, is_reasoning_hidden=False),
    )


def _commit(store: Store, batch: Iterable[ExchangeRecord], price: Price) -> None:
    priced = [_priced(exchange, price) for exchange in _unhurried(batch)]
    try:
        store.fold(priced)
    except (ValueError, OverflowError):
        for exchange in priced:
            _fold_alone(store, exchange)


def _unhurried(items: Iterable[_T]) -> Iterator[_T]:
    """The items; between two of them the event loop's thread may go first.

    Else a batch would keep the interpreter for a whole switch interval each time, and a request
    that comes just then would wait for it.
    """
    for item in items:
        yield item
        time.sleep(0)


def _fold_alone(store: Store, exchange: ExchangeRecord) -> None:
    """Folds one of a batch with a value no database takes, if need be without such values."""
    try:
        store.fold([exchange])
    except (ValueError, OverflowError):
        _logger.exception("exchange %s has values that cannot be stored", exchange.id)
        store.fold(
            [
                msgspec.structs.replace(
                    exchange,
                    request_model=_storable(exchange.request_model),
                    response_model=_storable(exchange.response_model),
                    raw_usage=_storable(exchange.raw_usage),
                    finish_reason=_storable(exchange.finish_reason),
                    usage=TokenUsage(),
                    usage_quality=UsageQuality.UNKNOWN,
                    prompt_id=None,
                    tools_called=(),
                    reported_cost_nano_usd=None,
                    priced_cost_nano_usd=None,
                    cache_saved_nano_usd=None,
                    cost_nano_usd=None,
                    cost_quality=CostQuality.UNKNOWN,
                )
            ]
        )


def _storable(text: str | None) -> str | None:
    return None if text is None else text.encode("utf-8", "replace").decode()


def _shaped(
    submitted: _Submitted, shapes: RequestShapes | None, calibration: Calibration
) -> ExchangeRecord:
    exchange, body, meter = submitted
    if body is None:
        return exchange
    try:
        if meter is not None:
            exchange = calibration.settled(exchange, body, meter.delivered())
        return exchange if shapes is None else shapes.shaped(exchange, body)
    except Exception:
        # Whatever a client may send, the exchange happened.
        _logger.exception("what exchange %s was made of could not be read", exchange.id)
        return exchange


def _priced(exchange: ExchangeRecord, price: Price) -> ExchangeRecord:
    try:
        return price(exchange)
    except Exception:
        # Whatever is wrong with a price book, the exchange happened.
        _logger.exception("exchange %s could not be priced", exchange.id)
        return exchange


def _stopped(store_path: Path) -> LedgerError:
    return LedgerError(
        "ledger-unwritable",
        f"folding into {store_path} has stopped",
        hint="the journal is kept; the next start folds it",
    )
