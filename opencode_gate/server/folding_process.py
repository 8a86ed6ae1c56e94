"""The folding process as the gateway sees it: given what ended, heard, started again.

The idea: what has ended is gathered and handed over a few times a second, by whoever has a turn:
a timer of the event loop, a thread that waits for all of it, and the end of the process, when
there is no loop any more. The socket never blocks, so that each of them can. Large bodies are
copied to the socket by a thread of their own, while the loop goes on. The invariants: an
exchange is kept here until the other end says that it is committed, and is handed over again to
the next process if one dies; whatever happens there, no request waits for it.
"""

import asyncio
import collections
import contextlib
import itertools
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from opencode_gate.core.errors import LedgerError
from opencode_gate.ledger.committing import storable
from opencode_gate.ledger.folding_frames import (
    Begin,
    Drain,
    Drained,
    End,
    Failing,
    Folded,
    Hurry,
    Order,
    Recover,
    Report,
    Submit,
    frame,
    read_of,
)
from opencode_gate.ledger.journal import Journal, finished_line, orphans
from opencode_gate.ledger.records import ExchangeRecord, FoldedExchange
from opencode_gate.server.folding_link import FoldingLink
from opencode_gate.server.folding_sender import FoldingSender
from opencode_gate.wire.meter import ExchangeMeter

GATHER_S = 0.2
"""How long what ends is gathered before it is handed over."""
AT_ONCE = 32
"""So many are handed over without waiting: a longer turn would make requests wait."""
UNSENT_MAX_BYTES = 64 * 1024 * 1024
"""Beyond it bodies are left out; what they would have told stays unknown."""
START_AFTER_S = 2.0
"""How long the start of the process leaves the machine to the agent's."""
RESTARTS = 5
RESTART_WINDOW_S = 60.0

_LOOK_AGAIN_S = 0.1
_HURRIED_S = 0.005
_BLOCKED_S = 0.002
_WAIT_S = 0.02
_END_TIMEOUT_S = 10.0

_logger = logging.getLogger(__name__)

OnFolded = Callable[[Sequence[FoldedExchange]], None]


class _Ended(NamedTuple):
    exchange: ExchangeRecord
    line: bytes | None
    body: bytes | None
    meter: ExchangeMeter | None


class FoldingProcess:
    """Hands exchanges that ended to a process that prices and commits them.

    `submit`, `hurry`, `recover` and `begin` are for the event loop's thread, the others for any.

    Args:
        on_folded: told what was committed, by whoever has the turn.
    """

    def __init__(
        self, begin: Begin, journal: Journal, *, on_folded: OnFolded | None = None
    ) -> None:
        self._begin = begin
        self._journal = journal
        self._on_folded = on_folded
        self._turn = threading.Lock()
        self._link: FoldingLink | None = None
        self._deaths: collections.deque[float] = collections.deque(maxlen=RESTARTS)
        self._ended: collections.deque[_Ended] = collections.deque()
        self._uncommitted: dict[str, bytes] = {}
        self._numbers = itertools.count(1)
        self._drains: dict[int, Drained | None] = {}
        self._failure: LedgerError | None = None
        self._stopped: LedgerError | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_due = False
        self._is_hurried = False
        self._orders: collections.deque[Order] = collections.deque()
        self._sender = FoldingSender(self._turn, lambda: self._link)

    @property
    def failure(self) -> LedgerError | None:
        """Why the latest batch could not be committed; `None` while all is well."""
        return self._failure if self._stopped is None else self._stopped

    @property
    def process_id(self) -> int | None:
        """The number of the process, `None` while there is none."""
        return None if self._link is None else self._link.process_id

    @property
    def unsent_bytes(self) -> int:
        """What the process has not taken yet."""
        return 0 if self._link is None else self._link.unsent_bytes

    def begin(self) -> None:
        """Has the process started soon, though nothing has ended: it settles what others left."""
        self._is_due = True
        self._arm(START_AFTER_S)

    def submit(
        self,
        exchange: ExchangeRecord,
        line: bytes | None = None,
        body: bytes | None = None,
        meter: ExchangeMeter | None = None,
    ) -> None:
        """Hands over a finished exchange that is in the journal already. Never blocks.

        Args:
            line: the exchange's in the journal; `None` if it has values that no line takes.
            body: the request's, to be looked at; nothing of it is kept.
            meter: of the answer; it is asked later what it saw delivered.
        """
        ended = self._ended
        ended.append(_Ended(exchange, line, body, meter))
        if len(ended) >= AT_ONCE:
            self._take_turn()
        elif self._timer is None or self._is_due:
            self._is_due = False
            self._arm(GATHER_S)

    def hurry(self) -> None:
        """Has committed what waits without gathering more. Never blocks."""
        if (self._ended or self._uncommitted) and not self._is_hurried:
            self._is_hurried = True
            self._take_turn(Hurry())

    def recover(self) -> None:
        """Has settled soon what processes left that died meanwhile. Never blocks."""
        self._is_due = True
        self._take_turn(Recover())

    def drain(self, *, recovering: bool = False) -> None:
        """Returns when everything submitted before is committed. Blocks: not for event loops.

        Args:
            recovering: what processes left that died meanwhile, too.

        Raises:
            LedgerError: it cannot be committed now; the journal keeps it for the next start.
        """
        number = next(self._numbers)
        with self._turn:
            self._drains[number] = None
            if self._link is not None:
                self._pass_on(self._link, None)
                if recovering:
                    self._link.queue(frame(Recover()))
                self._link.queue(frame(Drain(number)))
        try:
            while (drained := self._drains[number]) is None:
                with self._turn:
                    self._work(None)
                    if self._stopped is not None:
                        raise self._stopped
                    link = self._link
                if link is not None and self._drains[number] is None:
                    link.wait(_WAIT_S)
        finally:
            del self._drains[number]
        if drained.problem is not None:
            raise drained.problem.error()

    def close(self) -> None:
        """Commits what is left, ends the process, and removes the journal if all is committed.

        Raises:
            LedgerError: something could not be committed; the journal stays for the next start.
        """
        try:
            if self._link is not None or self._ended or self._uncommitted or self._has_orphans():
                self.drain()
        finally:
            with self._turn:
                if self._link is not None:
                    self._end(self._link)
            self._sender.close()
            self._journal.close()

    def _has_orphans(self) -> bool:
        return bool(orphans(self._journal.path.parent))

    def _end(self, link: FoldingLink) -> None:
        """Lets the process return what this one holds of budgets, and go."""
        link.queue(frame(End(self._journal.is_settled)))
        give_up_s = time.monotonic() + _END_TIMEOUT_S
        with contextlib.suppress(OSError):
            while time.monotonic() < give_up_s:
                link.send()
                self._hear(link.receive())
                link.wait(_WAIT_S)
        link.close(grace_s=_END_TIMEOUT_S)
        self._link = None

    def _arm(self, delay_s: float) -> None:
        """Takes a turn after a while; without a loop that is left to who drains."""
        if self._timer is not None:
            self._timer.cancel()
        try:
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._tick)
        except RuntimeError:
            self._timer = None

    def _tick(self) -> None:
        self._timer = None
        self._take_turn()

    def _take_turn(self, order: Order | None = None) -> None:
        """One turn of the event loop's thread; if another has it, the next one is soon."""
        if order is not None:
            self._orders.append(order)
        delay_s: float | None = _WAIT_S
        if self._turn.acquire(blocking=False):
            try:
                is_needed = bool(self._is_due or self._ended or self._uncommitted)
                if is_needed or self._link is not None:
                    self._is_due = False
                    self._work(AT_ONCE)
                delay_s = self._next_turn_s()
            finally:
                self._turn.release()
        if delay_s is not None:
            self._arm(delay_s)

    def _next_turn_s(self) -> float | None:
        """When to look again; `None` if there is nothing to look for."""
        link = self._link
        if link is not None and link.unsent_bytes and not self._sender.is_sending:
            return _BLOCKED_S
        if self._is_hurried and self.failure is None:
            return _HURRIED_S
        if self._uncommitted or self._ended or self._sender.is_sending:
            return _LOOK_AGAIN_S
        return None

    def _work(self, at_most: int | None) -> None:
        """Hears what the process says and tells it what there is, as far as it takes it.

        Args:
            at_most: how much of what ended; `None` is all of it, for who may wait.
        """
        link = self._started() if self._link is None else self._link
        if link is None:
            self._keep_lines()
            self._orders.clear()
            return
        try:
            self._hear(link.receive())
            self._pass_on(link, at_most)
            while self._orders:
                link.queue(frame(self._orders.popleft()))
            if at_most is None or not self._sender.takes(link):
                link.send()
        except OSError as error:
            self._died(link, error)

    def _started(self) -> FoldingLink | None:
        """A new process, told of what none has committed; `None` if there cannot be one now."""
        now_s = time.monotonic()
        if len(self._deaths) == RESTARTS and now_s - self._deaths[0] < RESTART_WINDOW_S:
            if self._stopped is None:
                self._stopped = _stopped(self._begin.ledger_file)
                _logger.error("%s: it ended %d times within a minute", self._stopped, RESTARTS)
            return None
        try:
            link = FoldingLink()
        except OSError as error:
            _logger.warning("the folding process cannot be started: %s", error)
            self._deaths.append(now_s)
            return None
        self._link, self._stopped, self._failure = link, None, None
        link.queue(frame(self._begin))
        for line in self._uncommitted.values():
            link.queue(frame(Submit(line)))
        self._pass_on(link, None)
        # Who was answered leaves without a turn, in whichever thread.
        for number, drained in tuple(self._drains.items()):
            if drained is None:
                link.queue(frame(Drain(number)))
        return link

    def _died(self, link: FoldingLink, error: OSError) -> None:
        _logger.warning("the folding process has ended (%s); another takes its place", error)
        self._deaths.append(time.monotonic())
        self._link = None
        link.close(grace_s=0.0)

    def _pass_on(self, link: FoldingLink, at_most: int | None) -> None:
        """Puts what has ended into the queue; bodies and meters are let go of."""
        ended = self._ended
        for _ in range(len(ended) if at_most is None else min(at_most, len(ended))):
            exchange, line, body, meter = ended.popleft()
            if line is None:
                line = _storable_line(exchange)
            self._uncommitted[exchange.id] = line
            if body is None or link.unsent_bytes + len(body) > UNSENT_MAX_BYTES:
                link.queue(frame(Submit(line)))
            else:
                link.queue(_submission(line, body, meter), body)

    def _keep_lines(self) -> None:
        """Keeps what has ended for the next process, without what was to be looked at."""
        while self._ended:
            exchange, line, _, _ = self._ended.popleft()
            self._uncommitted[exchange.id] = _storable_line(exchange) if line is None else line

    def _hear(self, reports: Sequence[Report]) -> None:
        for report in reports:
            match report:
                case Folded(exchanges):
                    self._committed(exchanges)
                case Failing(problem):
                    self._failure = None if problem is None else problem.error()
                case Drained(number) if number in self._drains:
                    self._drains[number] = report
                case _:
                    pass

    def _committed(self, exchanges: Sequence[FoldedExchange]) -> None:
        # What a process that died had committed may be told of once more.
        new = [each for each in exchanges if self._uncommitted.pop(each.id, None) is not None]
        self._is_hurried = False
        if not new:
            return
        self._journal.folded([each.id for each in new])
        if self._on_folded is not None:
            try:
                self._on_folded(new)
            except Exception:
                # Whatever is wrong with who listens, the next exchanges are folded too.
                _logger.exception("what was folded could not be told")


def _storable_line(exchange: ExchangeRecord) -> bytes:
    _logger.error("exchange %s has values that cannot be stored", exchange.id)
    return finished_line(storable(exchange))


def _submission(line: bytes, body: bytes, meter: ExchangeMeter | None) -> bytes:
    """The frame of an exchange with a body; what of its answer no frame takes is left out."""
    try:
        read = None if meter is None else read_of(meter.delivered())
        return frame(Submit(line, True, read), len(body))
    except Exception:
        # Whatever a client or a provider may send, the exchange happened.
        _logger.exception("what an exchange delivered cannot be read")
        return frame(Submit(line, True), len(body))


def _stopped(ledger_file: str) -> LedgerError:
    return LedgerError(
        "ledger-unwritable",
        f"folding into {ledger_file} has stopped",
        hint="the journal is kept; the next start folds it",
    )
