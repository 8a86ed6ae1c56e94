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
from typing import Literal, TypeAlias

from opencode_gate.governance.policy import Measure, Owner, RateLimit

OwnedLimit: TypeAlias = tuple[Owner, RateLimit]
Per: TypeAlias = Literal["minute", "hour", "day"]

PER_S: Mapping[Per | None, float] = MappingProxyType(
    {"minute": 60.0, "hour": 3_600.0, "day": 86_400.0, None: math.inf}
)

_LOGS_MAX = 4_096


class _Entry:
    """One request in a log: when it was admitted, and what it counts for."""

    __slots__ = ("amount", "at_s", "is_gone")

    def __init__(self, at_s: float, amount: int) -> None:
        self.at_s = at_s
        self.amount = amount
        self.is_gone = False


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


class RateTicket:
    """What an admitted request takes of its limits; to be released at its end."""

    __slots__ = ("running", "tokens")

    def __init__(self) -> None:
        self.tokens: list[tuple[_Log, _Entry]] = []
        self.running: list[_Log] = []

    def settle(self, tokens: int) -> None:
        """Puts the tokens it really took in place of those that were thought."""
        for log, entry in self.tokens:
            if not entry.is_gone:
                log.total += tokens - entry.amount
            entry.amount = tokens

    def release(self) -> None:
        """Frees its slots; once, however often it is called."""
        for log in self.running:
            log.total -= 1
        self.running.clear()


class RateMeter:
    """Counts against the limits of all owners, in this process."""

    def __init__(self) -> None:
        self._logs: dict[tuple[Owner, Measure, Per | None], _Log] = {}
        self._logs_max = _LOGS_MAX
        self._gauges: dict[OwnedLimit, _Gauge] = {}

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

    def take(self, limits: Iterable[OwnedLimit], now_s: float, tokens: int = 0) -> RateTicket:
        """Counts a request against all its limits, whether it fits or not."""
        ticket = RateTicket()
        for owned in limits:
            gauge = self._gauge(owned, now_s)
            log = gauge.log
            if gauge.is_concurrent:
                log.total += 1
                ticket.running.append(log)
                continue
            entry = _Entry(now_s, tokens if gauge.is_tokens else 1)
            log.entries.append(entry)
            log.total += entry.amount
            if gauge.is_tokens:
                ticket.tokens.append((log, entry))
        return ticket

    def _gauge(self, owned: OwnedLimit, now_s: float) -> _Gauge:
        gauge = self._gauges.get(owned)
        if gauge is None:
            if len(self._gauges) >= self._logs_max:
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
        self._logs_max = max(_LOGS_MAX, 2 * len(self._logs))
