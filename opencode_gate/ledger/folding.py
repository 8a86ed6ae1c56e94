"""From the gateway into the ledger, by a thread of its own.

The idea: what a request came to is looked at, priced and committed where nothing waits for it,
many at a time; in the gateway's life that is a process of its own (`server.folding_child`). The
invariants: a journal goes only after its rows are committed, and what the process holds of
budgets is returned only after all it spent is charged.
"""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec

from opencode_gate.core.clock import SystemClock
from opencode_gate.core.errors import LedgerError
from opencode_gate.ledger.audit import AuditSeal
from opencode_gate.ledger.audit_files import seal_beside
from opencode_gate.ledger.calibration import Calibration, CountText
from opencode_gate.ledger.committing import Price, commit
from opencode_gate.ledger.records import ExchangeRecord
from opencode_gate.ledger.recovery import settle_orphans
from opencode_gate.ledger.request_shape import RequestShapes
from opencode_gate.ledger.sqlite import open_store
from opencode_gate.ledger.store import Store
from opencode_gate.wire.metering import Delivered

OnFolded = Callable[[Sequence[ExchangeRecord]], None]

GATHER_S = 0.25
"""How long what comes in is gathered before it is committed."""

_RETRY_AFTER_S = 2.0
_DAY_US = 86_400_000_000

_logger = logging.getLogger(__name__)


class _Submitted(NamedTuple):
    exchange: ExchangeRecord
    body: bytes | None
    delivered: Delivered | None


class Marks(Protocol):
    """The journal, as far as folding concerns it."""

    @property
    def process_id(self) -> str:
        """What the process is called that the exchanges are of."""
        ...

    @property
    def is_settled(self) -> bool:
        """True while everything that was begun is committed to the ledger."""
        ...

    def folded(self, ids: Sequence[str]) -> None:
        """The exchanges are committed."""
        ...

    def close(self) -> None:
        """Nothing will be folded any more."""
        ...


class Folder(threading.Thread):
    """Prices and commits finished exchanges in batches, off the hot path.

    Its first work is to settle the journals of dead processes and, with `keep_parts_days`, to
    forget the parts that are older. A failing database is tried again every few seconds;
    meanwhile the journal keeps everything.

    Args:
        on_folded: told in this thread what was committed, as it was: priced. Also of what could
            be committed only late.
        on_failure: told in this thread why a batch could not be committed, and `None` once one
            could again.
    """

    def __init__(
        self,
        journal_dir: Path,
        store_path: Path,
        price: Price,
        *,
        journal: Marks,
        shapes: RequestShapes | None = None,
        count_text: CountText | None = None,
        keep_parts_days: int | None = None,
        on_folded: OnFolded | None = None,
        on_failure: Callable[[LedgerError | None], None] | None = None,
        gather_s: float = GATHER_S,
    ) -> None:
        super().__init__(name="ledger-folding", daemon=True)
        self._journal_dir = journal_dir
        self._store_path = store_path
        self._price = price
        self._journal = journal
        self._shapes = shapes
        self._calibration = Calibration(count_text)
        self._keep_parts_days = keep_parts_days
        self._on_folded = on_folded
        self._on_failure = on_failure
        self._gather_s = gather_s
        self._seal: AuditSeal | None = None
        self._changed = threading.Condition()
        self._waiting: list[_Submitted] = []
        self._body_bytes = 0
        self._has_begun = False
        self._is_closing = False
        self._has_ended = False
        self._is_hurried = False
        self._recoveries_asked = 0
        self._recoveries_done = 0
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
        delivered: Delivered | None = None,
    ) -> None:
        """Hands over a finished exchange that is in the journal already. Never blocks on I/O.

        Args:
            body: the request's; it is looked at and let go of, and nothing of it is kept.
            delivered: of the answer; the same holds for it.
        """
        with self._changed:
            self._waiting.append(_Submitted(exchange, body, delivered))
            self._body_bytes += 0 if body is None else len(body)
            if len(self._waiting) == 1:
                # Else the thread is at work or gathering; waking it would cost each request.
                self._changed.notify_all()

    def wait_for_room(self, body_bytes: int) -> None:
        """Returns when the bodies that wait to be looked at are no more than that. Blocks."""
        with self._changed:
            self._changed.wait_for(lambda: self._body_bytes <= body_bytes or self._has_ended)

    def hurry(self) -> None:
        """Commits what waits without gathering more. Never blocks on I/O."""
        with self._changed:
            if self._waiting and not self._is_hurried:
                self._is_hurried = True
                if self._failure is None:
                    self._changed.notify_all()

    def recover(self) -> None:
        """Settles soon what processes left that died meanwhile. Never blocks on I/O."""
        with self._changed:
            self._recoveries_asked += 1
            if self._failure is None:
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
                lambda: self._is_idle() or self._failures > failures + 1 or self._has_ended
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
            self.stop()

    def stop(self) -> None:
        """Ends the thread, whatever is left, and lets go of the journal."""
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
            self._end_process()
        finally:
            if self._store is not None:
                self._store.close()
            with self._changed:
                self._has_ended = True
                self._changed.notify_all()

    def _is_done(self) -> bool:
        return self._has_begun and not self._waiting

    def _is_idle(self) -> bool:
        return self._is_done() and self._recoveries_asked == self._recoveries_done

    def _is_pressed(self) -> bool:
        """Whether somebody waits for the next commit."""
        return (
            self._drains > 0
            or self._is_closing
            or self._is_hurried
            or self._recoveries_asked > self._recoveries_done
        )

    def _next_batch(self) -> bool:
        """Waits for work; false when there will be none."""
        with self._changed:
            if self._failure is not None and not self._drains and not self._is_closing:
                self._changed.wait(_RETRY_AFTER_S)
            self._changed.wait_for(lambda: not self._is_idle() or self._is_closing)
            if self._has_begun:
                # Not at once: this thread would run just when the next request wants to.
                self._changed.wait_for(self._is_pressed, self._gather_s)
            self._is_hurried = False
            return not self._is_closing

    def _attempt(self) -> None:
        recoveries = self._recoveries_asked
        batch = self._taken()
        tool_sets = {} if self._shapes is None else self._shapes.tool_sets
        try:
            if self._store is None:
                self._store = open_store(self._store_path)
                self._calibration.remember(self._store.token_ratios())
            if recoveries > self._recoveries_done or not self._has_begun:
                settle_orphans(self._journal_dir, self._store, self._price)
            if not self._has_begun and self._keep_parts_days is not None:
                self._store.retire(SystemClock().now_us() - self._keep_parts_days * _DAY_US)
            _put_tool_sets(self._store, tool_sets)
            self._store.add_token_ratios(self._calibration.learned)
            self._calibration.learned.clear()
            folded = commit(self._store, batch, self._price, self._journal.process_id)
        except LedgerError as error:
            _logger.warning("the ledger cannot be written: %s", error)
            self._failed(error)
            return
        except Exception:
            # A thread that ends here would fold nothing any more, and say so to nobody.
            _logger.exception("a batch cannot be folded")
            self._failed(_stopped(self._store_path))
            return
        if folded:
            self._journal.folded([exchange.id for exchange in folded])
            self._tell(folded)
        with self._changed:
            del self._waiting[: len(batch)]
            tool_sets.clear()
            self._has_begun = True
            self._recoveries_done = recoveries
            was_failing, self._failure = self._failure is not None, None
            self._changed.notify_all()
        if was_failing and self._on_failure is not None:
            self._on_failure(None)

    def _failed(self, error: LedgerError) -> None:
        with self._changed:
            self._failure = error
            self._failures += 1
            self._changed.notify_all()
        if self._on_failure is not None:
            self._on_failure(error)

    def _tell(self, folded: Sequence[ExchangeRecord]) -> None:
        if self._on_folded is None:
            return
        try:
            self._on_folded(folded)
        except Exception:
            # Whatever is wrong with who listens, the next exchanges are folded too.
            _logger.exception("what was folded could not be told")

    def _end_process(self) -> None:
        """Returns what this process holds of budgets, unless something is still to be charged."""
        if self._store is None or not self._is_done() or not self._journal.is_settled:
            return
        try:
            self._store.end_process(self._journal.process_id)
        except LedgerError as error:
            # Whoever settles next returns it: the holder of it has no journal any more.
            _logger.warning("what is left of budgets cannot be returned now: %s", error)

    def _taken(self) -> list[ExchangeRecord]:
        """What waits now; the bodies are let go of, however long the ledger fails."""
        with self._changed:
            waiting = list(self._waiting)
        batch = [self._shaped(submitted) for submitted in waiting]
        with self._changed:
            self._waiting[: len(batch)] = [_Submitted(exchange, None, None) for exchange in batch]
            self._body_bytes -= sum(len(each.body) for each in waiting if each.body is not None)
            self._changed.notify_all()
        return batch

    def _shaped(self, submitted: _Submitted) -> ExchangeRecord:
        """An exchange with what its body and its answer tell of it."""
        exchange, body, delivered = submitted
        if body is None:
            return exchange
        try:
            exchange = self._hashed(exchange, body, delivered)
            exchange = self._calibration.settled(exchange, body, delivered)
            return exchange if self._shapes is None else self._shapes.shaped(exchange, body)
        except Exception:
            # Whatever a client may send, the exchange happened.
            _logger.exception("what exchange %s was made of could not be read", exchange.id)
            return exchange

    def _hashed(
        self, exchange: ExchangeRecord, body: bytes, delivered: Delivered | None
    ) -> ExchangeRecord:
        if self._seal is None:
            self._seal = seal_beside(self._store_path)
        hashes: dict[str, Any] = {"request_hash": self._seal.of_content(body)}
        if delivered is not None and delivered.text:
            text = delivered.text.encode("utf-8", "surrogatepass")
            hashes["answer_hash"] = self._seal.of_content(text)
        return msgspec.structs.replace(exchange, **hashes)


def _put_tool_sets(store: Store, tool_sets: Mapping[str, Mapping[str, int]]) -> None:
    for tool_set, tool_bytes in tool_sets.items():
        try:
            store.put_tool_set(tool_set, tool_bytes)
        except ValueError:
            # A name that is no Unicode; what the tools were is the least of a ledger's facts.
            _logger.warning("the tools of %s cannot be stored", tool_set)


def _stopped(store_path: Path) -> LedgerError:
    return LedgerError(
        "ledger-unwritable",
        f"folding into {store_path} has stopped",
        hint="the journal is kept; the next start folds it",
    )
