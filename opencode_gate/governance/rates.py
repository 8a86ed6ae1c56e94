"""How fast somebody may ask: requests and tokens in a sliding time, and requests at once.

The idea: a log of what was admitted in the last minute, hour or day, so that a limit holds for
every such time and not only for those of the calendar, and so that the time to wait is known
exactly. The invariants: what was admitted in any span of that length is never more than the
limit, as long as tokens are no more than was said beforehand; a slot is freed once, however a
request ends; what is counted in shadow holds nobody back. Nothing here reads a clock: time is
handed in, monotonic seconds.
"""

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple, Protocol, TypeAlias

import msgspec

from opencode_gate.governance.policy import Measure, Owner, RateLimit

OwnedLimit: TypeAlias = tuple[Owner, RateLimit]
Per: TypeAlias = Literal["minute", "hour", "day"]

PER_S: Mapping[Per | None, float] = MappingProxyType(
    {"minute": 60.0, "hour": 3_600.0, "day": 86_400.0, None: math.inf}
)

_LOGS_MAX = 4_096
_PLANS_MAX = 8_192
_EXACT_ENTRIES = 512
"""A log with fewer has each request of its own moment; a longer one counts some as later."""
_GRAINS = 4_096
"""Into so many parts of its time a long log is divided: it has no more entries than that."""


class Ticket(Protocol):
    """What an admitted request takes of its limits; to be released at its end."""

    @property
    def tokens(self) -> Sequence[object]:
        """What it counts for in limits of tokens."""
        ...

    def settle(self, tokens: int) -> None:
        """Puts the tokens it really took in place of those that were thought."""
        ...

    def release(self) -> None:
        """Frees its slots; once, however often it is called."""
        ...


class Turn(NamedTuple):
    """A request that was counted, and which limits in shadow would have held it back; or for how
    long it is held back, and by which limit.
    """

    ticket: Ticket | None = None
    shadowed: Sequence[OwnedLimit] = ()
    wait_s: float = 0.0
    held_by: OwnedLimit | None = None


class Rates(Protocol):
    """What requests are held against."""

    @property
    def changes(self) -> int | None:
        """Grows when something has become free in another process; `None` where there is none."""
        ...

    def take_now(
        self, limits: Sequence[OwnedLimit], now_s: float, tokens: int = 0
    ) -> Ticket | None:
        """Counts a request if it fits under all its limits now, those in shadow too."""
        ...

    def take_turn(self, limits: Sequence[OwnedLimit], now_s: float, tokens: int = 0) -> Turn:
        """Counts a request if it fits under all limits that are enforced."""
        ...


class _Entry(msgspec.Struct):
    """What was admitted at one moment: when, and what it counts for."""

    at_s: float
    amount: int
    is_gone: bool = False


class _Log:
    """What counts against a limit now; `total` is the sum of its entries."""

    __slots__ = ("entries", "total")

    def __init__(self) -> None:
        self.entries: deque[_Entry] = deque()
        self.total = 0

    def forget(self, before_s: float) -> None:
        """Leaves out what was admitted at that moment or earlier."""
        entries = self.entries
        while entries and entries[0].at_s <= before_s:
            entry = entries.popleft()
            entry.is_gone = True
            self.total -= entry.amount

    def append(self, now_s: float, amount: int, per_s: float) -> _Entry:
        """Counts an amount; the entry it is part of.

        A log that has grown long counts what comes close together as one, of its last moment.
        """
        entries = self.entries
        self.total += amount
        if entries:
            last = entries[-1]
            if now_s <= last.at_s:
                last.amount += amount
                return last
            if len(entries) >= _EXACT_ENTRIES:
                self.forget(now_s - per_s)
                entries.append(_Entry(now_s + per_s / _GRAINS, amount))
                return entries[-1]
        entry = _Entry(now_s, amount)
        entries.append(entry)
        return entry


class _Gauge:
    """A limit, read once, and the log it is held against."""

    __slots__ = ("is_concurrent", "is_tokens", "limit", "log", "per_s")

    def __init__(self, limit: RateLimit, log: _Log) -> None:
        self.log = log
        self.limit = limit.amount
        self.per_s = PER_S[limit.per]
        self.is_tokens = limit.measure == "tokens"
        self.is_concurrent = limit.measure == "concurrent"

    def wait_s(self, now_s: float, tokens: int) -> float:
        log = self.log
        log.forget(now_s - self.per_s)
        amount = min(tokens, self.limit) if self.is_tokens else 1
        too_many = log.total + amount - self.limit
        if too_many <= 0:
            return 0.0
        for entry in log.entries:
            too_many -= entry.amount
            if too_many <= 0:
                return entry.at_s + self.per_s - now_s
        return math.inf


_Plan: TypeAlias = tuple[Sequence[OwnedLimit], tuple[_Gauge, ...]]
"""Limits that are asked together, and their gauges."""


class RateTicket:
    """What an admitted request takes of its limits; to be released at its end."""

    __slots__ = ("amount", "running", "tokens")

    def __init__(self, tokens: int) -> None:
        self.amount = tokens
        self.tokens: list[tuple[_Log, _Entry]] = []
        self.running: list[_Log] = []

    def settle(self, tokens: int) -> None:
        """Puts the tokens it really took in place of those that were thought."""
        more = tokens - self.amount
        self.amount = tokens
        for log, entry in self.tokens:
            entry.amount += more
            if not entry.is_gone:
                log.total += more

    def release(self) -> None:
        """Frees its slots; once, however often it is called."""
        for log in self.running:
            log.total -= 1
        self.running.clear()


class RateMeter:
    """Counts against the limits of all owners, in this process."""

    changes: None = None

    def __init__(self) -> None:
        self._logs: dict[tuple[Owner, Measure, Per | None], _Log] = {}
        self._logs_max = _LOGS_MAX
        self._gauges: dict[OwnedLimit, _Gauge] = {}
        # By identity: to hash limits would take longer than to hold a request against them. They
        # are kept beside their gauges, so that no others come to have their identity.
        self._plans: dict[int, _Plan] = {}

    def wait_s(self, owner: Owner, limit: RateLimit, now_s: float, tokens: int = 0) -> float:
        """How long until a request fits under a limit if nothing else is admitted before.

        0 where it fits now, endless where that takes another to end. A request with more tokens
        than the whole limit fits when nothing else counts.
        """
        return self._gauge((owner, limit), now_s).wait_s(now_s, tokens)

    def most_waited(
        self, limits: Iterable[OwnedLimit], now_s: float, tokens: int = 0
    ) -> tuple[float, OwnedLimit | None]:
        """The limit that holds a request back longest, and how long; 0 and `None` if none does.

        Limits in shadow hold nothing back.
        """
        longest_s, which = 0.0, None
        for owned in limits:
            if owned[1].mode == "enforce":
                wait_s = self._gauge(owned, now_s).wait_s(now_s, tokens)
                if wait_s > longest_s:
                    longest_s, which = wait_s, owned
        return longest_s, which

    def shadowed(
        self, limits: Iterable[OwnedLimit], now_s: float, tokens: int = 0
    ) -> Sequence[OwnedLimit]:
        """The limits in shadow that would hold a request back."""
        return [
            owned
            for owned in limits
            if owned[1].mode == "shadow" and self._gauge(owned, now_s).wait_s(now_s, tokens) > 0
        ]

    def take(self, limits: Sequence[OwnedLimit], now_s: float, tokens: int = 0) -> RateTicket:
        """Counts a request against all its limits, whether it fits or not."""
        return _taken(self._planned(limits, now_s), now_s, tokens)

    def take_now(
        self, limits: Sequence[OwnedLimit], now_s: float, tokens: int = 0
    ) -> RateTicket | None:
        """Counts a request if it fits under all its limits now, those in shadow too; else `None`.

        Args:
            limits: those of a law, the same object each time.
        """
        gauges = self._planned(limits, now_s)
        for gauge in gauges:
            log = gauge.log
            amount = tokens if gauge.is_tokens else 1
            # What is out of date may still be counted in; then it is looked at more closely.
            if log.total + amount > gauge.limit and gauge.wait_s(now_s, tokens) > 0:
                return None
        return _taken(gauges, now_s, tokens)

    def take_turn(self, limits: Sequence[OwnedLimit], now_s: float, tokens: int = 0) -> Turn:
        """Counts a request if it fits under all limits that are enforced."""
        wait_s, held_by = self.most_waited(limits, now_s, tokens)
        if held_by is not None:
            return Turn(wait_s=wait_s, held_by=held_by)
        shadowed = self.shadowed(limits, now_s, tokens)
        return Turn(self.take(limits, now_s, tokens), shadowed)

    def _planned(self, limits: Sequence[OwnedLimit], now_s: float) -> tuple[_Gauge, ...]:
        plan = self._plans.get(id(limits))
        if plan is not None and plan[0] is limits:
            return plan[1]
        if len(self._gauges) + len(limits) > self._logs_max or len(self._plans) >= _PLANS_MAX:
            self._forget_idle(now_s)
        gauges = tuple([self._gauge(owned, now_s) for owned in limits])
        if isinstance(limits, tuple):
            self._plans[id(limits)] = limits, gauges
        return gauges

    def _gauge(self, owned: OwnedLimit, now_s: float) -> _Gauge:
        gauge = self._gauges.get(owned)
        if gauge is None:
            if len(self._gauges) > self._logs_max:
                self._forget_idle(now_s)
            owner, limit = owned
            # The amount is no part of the key: a limit that is raised has counted already.
            log = self._logs.setdefault((owner, limit.measure, limit.per), _Log())
            gauge = self._gauges[owned] = _Gauge(limit, log)
        return gauge

    def _forget_idle(self, now_s: float) -> None:
        """Leaves out the logs in which nothing counts any more."""
        for (_, _, per), log in self._logs.items():
            log.forget(now_s - PER_S[per])
        self._logs = {key: log for key, log in self._logs.items() if log.total}
        self._gauges.clear()
        self._plans.clear()
        self._logs_max = max(_LOGS_MAX, 2 * len(self._logs))


def _taken(gauges: Iterable[_Gauge], now_s: float, tokens: int) -> RateTicket:
    ticket = RateTicket(tokens)
    for gauge in gauges:
        log = gauge.log
        if gauge.is_concurrent:
            log.total += 1
            ticket.running.append(log)
        elif gauge.is_tokens:
            ticket.tokens.append((log, log.append(now_s, tokens, gauge.per_s)))
        else:
            log.append(now_s, 1, gauge.per_s)
    return ticket
