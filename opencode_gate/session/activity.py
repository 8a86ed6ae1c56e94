"""What runs on this machine now: sessions, requests in flight, tokens a second, spend so far.

The idea: the ledger knows what ended, the journals of living gateways what has not. Both are only
read, beside the processes that write them. The invariant: an exchange counts once, from its
journal until it is folded and from the ledger after that, so that the spend never falls back.
"""

from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec.structs import replace

from opencode_gate.core.clock import Clock, SystemClock
from opencode_gate.core.errors import PolicyDenied
from opencode_gate.core.local_time import day_start_us, local_day
from opencode_gate.core.semconv import ExchangeStatus
from opencode_gate.governance.standing import (
    Above,
    BudgetStanding,
    above_session,
    standings_above,
)
from opencode_gate.ledger.committing import Price
from opencode_gate.ledger.exchange_query import ExchangeQuery
from opencode_gate.ledger.governance_store import GovernanceStore
from opencode_gate.ledger.journal import JournalContents, is_living, journals, read_journal
from opencode_gate.ledger.records import ExchangeRecord, SessionRecord
from opencode_gate.ledger.recovery import seen_so_far
from opencode_gate.ledger.store import Store
from opencode_gate.ledger.totals import Totals, UsageQuery, sum_of, total_of

ERRORS = (ExchangeStatus.UPSTREAM_ERROR, ExchangeStatus.INTERRUPTED, ExchangeStatus.DENIED)
"""What somebody should know about; a person who pressed Esc knows."""

_DAY_US = 86_400_000_000
_STALLED_US = 3_000_000


class Flight(msgspec.Struct, frozen=True, kw_only=True):
    """A request that has not ended.

    Attributes:
        exchange: with the tokens seen so far and what these cost, both estimated.
        elapsed_us: since its start.
        tokens_per_s: output lately, `None` before the first of it.
    """

    exchange: ExchangeRecord
    elapsed_us: int
    tokens_per_s: float | None = None


class RunningSession(msgspec.Struct, frozen=True, kw_only=True):
    """A session whose gateway lives, with its totals up to this moment."""

    session: SessionRecord
    up_us: int
    totals: Totals
    flights: tuple[Flight, ...] = ()


class Activity(msgspec.Struct, frozen=True, kw_only=True):
    """All of it at one moment.

    Attributes:
        today: totals of all sessions since local midnight, with what is in flight.
        errors: the latest of the last 24 hours, latest first.
        budgets: those of the user and those above what runs, the fullest first.
        problem: why nobody can say how budgets stand, empty where somebody can.
    """

    at_us: int
    running: tuple[RunningSession, ...]
    today: Totals
    errors: tuple[ExchangeRecord, ...]
    budgets: tuple[BudgetStanding, ...] = ()
    problem: str = ""

    @property
    def flights(self) -> tuple[Flight, ...]:
        """All requests in flight, the longest first."""
        flights = [flight for running in self.running for flight in running.flights]
        return tuple(sorted(flights, key=lambda flight: flight.exchange.started_at_us))

    @property
    def tokens_per_s(self) -> float:
        """Output of all requests in flight together."""
        return sum(flight.tokens_per_s or 0.0 for flight in self.flights)


class _Progress(msgspec.Struct):
    """The output of one request: how much when last told, and how fast it came until then."""

    at_us: int
    tokens: int
    tokens_per_s: float | None


class Watch(msgspec.Struct):
    """Looks again and again; what one look learns makes the next one cheaper and tells speeds.

    Attributes:
        open_ledger: a store to read from; closed after each look, so that a ledger that is made
            or replaced meanwhile is seen.
        open_governance: the same for its rules and budgets.
        user: whose budgets are looked at also while nothing runs.
    """

    open_ledger: Callable[[], Store]
    open_governance: Callable[[], GovernanceStore]
    user: str
    journals: Path
    price: Price
    time_zone: str
    clock: Clock = msgspec.field(default_factory=SystemClock)
    shown_errors: int = 5
    _known: dict[Path, tuple[tuple[int, int], JournalContents]] = {}
    _progress: dict[str, _Progress] = {}

    def look(self) -> Activity:
        """What is going on at this moment.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        now_us = self.clock.now_us()
        # The journals first: what is folded between the two reads would else count nowhere.
        living = self._living()
        store = self.open_ledger()
        try:
            with store.snapshot():
                activity = self._joined(store, living, now_us)
        finally:
            store.close()
        try:
            running = {one.session.id for one in activity.running}
            return replace(activity, budgets=self._budgets(living, running, now_us))
        except PolicyDenied as error:
            return replace(activity, problem=error.message)

    def _budgets(
        self, living: list[JournalContents], running: set[str], now_us: int
    ) -> tuple[BudgetStanding, ...]:
        above = [Above(user=self.user)]
        for contents in living:
            if contents.session is not None:
                above += above_session(contents.session, contents.exchanges.values())
        governance = self.open_governance()
        try:
            found = standings_above(governance, above, at_us=now_us, time_zone=self.time_zone)
        finally:
            governance.close()
        # The journal of a gateway for many has the sessions too that have ended.
        seen = [one for one in found if one.owner.kind != "session" or one.owner.name in running]
        return tuple(sorted(seen, key=lambda one: -one.percent))

    def _joined(self, store: Store, living: list[JournalContents], now_us: int) -> Activity:
        sessions = {
            contents.session.id: contents.session for contents in living if contents.session
        }
        # A gateway for many serves sessions that others have begun.
        served = {each.session_id for contents in living for each in contents.exchanges.values()}
        for session in store.sessions_of(served - sessions.keys()).values():
            if session.ended_at_us is None:
                sessions[session.id] = session
        ids = tuple(sessions)
        folded = {
            row.key["session"]: row.totals
            for row in store.usage(UsageQuery(session_ids=ids, by=("session",)))
        }
        pending = [each for contents in living for each in self._pending(store, contents, now_us)]
        midnight_us = day_start_us(local_day(now_us, self.time_zone), self.time_zone)
        [today] = store.usage(UsageQuery(since_us=midnight_us))
        errors = store.find(
            ExchangeQuery(since_us=now_us - _DAY_US, statuses=ERRORS, limit=self.shown_errors)
        )
        flights = [each for each in pending if each.exchange.status is ExchangeStatus.OPEN]
        self._progress = {
            id: progress
            for id, progress in self._progress.items()
            if id in {flight.exchange.id for flight in flights}
        }
        return Activity(
            at_us=now_us,
            running=tuple(
                RunningSession(
                    session=session,
                    up_us=max(0, now_us - session.started_at_us),
                    totals=sum_of(
                        [folded.get(session.id, Totals()), _total(pending, session_id=session.id)]
                    ),
                    flights=tuple(
                        flight for flight in flights if flight.exchange.session_id == session.id
                    ),
                )
                for session in sorted(sessions.values(), key=lambda one: one.started_at_us)
            ),
            today=sum_of([today.totals, _total(pending, since_us=midnight_us)]),
            errors=tuple(errors),
        )

    def _living(self) -> list[JournalContents]:
        """The journals of living gateways; one that was not appended to is not read again."""
        known = {}
        for path in journals(self.journals):
            try:
                state = path.stat()
                stamp = (state.st_size, state.st_mtime_ns)
                if not is_living(path):
                    continue
                before = self._known.get(path)
                contents = before[1] if before and before[0] == stamp else read_journal(path)
            except OSError:
                continue
            known[path] = (stamp, contents)
        self._known = known
        return [contents for _, contents in known.values()]

    def _pending(self, store: Store, contents: JournalContents, now_us: int) -> list[Flight]:
        """What of a journal is not in the ledger: in flight, or about to be folded."""
        unfolded = [
            exchange for id, exchange in contents.exchanges.items() if id not in contents.folded_ids
        ]
        # The mark that says `folded` comes after the commit.
        ended = [each for each in unfolded if each.status is not ExchangeStatus.OPEN]
        recorded = store.recorded(each.id for each in ended)
        return [
            self._flight(contents, exchange, now_us)
            for exchange in unfolded
            if exchange.id not in recorded
        ]

    def _flight(self, contents: JournalContents, exchange: ExchangeRecord, now_us: int) -> Flight:
        is_open = exchange.status is ExchangeStatus.OPEN
        seen = self.price(seen_so_far(contents, exchange) if is_open else exchange)
        return Flight(
            exchange=seen,
            elapsed_us=max(0, now_us - exchange.started_at_us),
            tokens_per_s=self._speed(seen, now_us) if is_open else None,
        )

    def _speed(self, exchange: ExchangeRecord, now_us: int) -> float | None:
        """Output tokens a second between the last two times progress was told."""
        tokens, told_after_us = exchange.usage.output, exchange.duration_us
        if not tokens or not told_after_us:
            return None
        at_us = exchange.started_at_us + told_after_us
        before = self._progress.get(exchange.id)
        if before is None:
            progress = _Progress(at_us, tokens, tokens / (told_after_us / 1e6))
        elif at_us > before.at_us:
            gained = max(0, tokens - before.tokens)
            progress = _Progress(at_us, tokens, gained / ((at_us - before.at_us) / 1e6))
        else:
            progress = before
        self._progress[exchange.id] = progress
        return progress.tokens_per_s if now_us - at_us < _STALLED_US else 0.0


def _total(pending: list[Flight], *, session_id: str | None = None, since_us: int = 0) -> Totals:
    """The totals of what is not in the ledger yet.

    A request in flight whose cost is not known yet is not one whose cost is unknown.
    """
    chosen = [
        flight.exchange
        for flight in pending
        if flight.exchange.started_at_us >= since_us
        and session_id in (None, flight.exchange.session_id)
    ]
    waiting = [
        each for each in chosen if each.status is ExchangeStatus.OPEN and each.cost_nano_usd is None
    ]
    without_cost = replace(total_of(waiting), unknown_cost_requests=0)
    return sum_of([total_of(each for each in chosen if each not in waiting), without_cost])
