"""The same limits for several gateway processes: their logs are in memory that all of them map.

The idea: a log is a ring of entries in a block of `SharedBlocks`; a request is held against its
limits and counted in one hold of the lock, so no two processes think the same place free. The
invariants are those of `rates`, for all processes together, and: what a process that died had
running is free again when its successor begins; what it died within counts, or does not, whole.
"""

import math
from collections.abc import Sequence
from hashlib import blake2b

from opencode_gate.governance.policy import RateLimit
from opencode_gate.governance.rates import PER_S, OwnedLimit, Turn
from opencode_gate.ledger.shared_blocks import Key, SharedBlocks

WORKERS_MAX = 64

_OLDEST, _NEXT, _TOTAL, _EPOCH, _PER_S = range(2, 7)
"""Where in a block: the numbers of its entries, counted on for ever, and what they sum up to."""
_ENTRIES_AT = 16
_ENTRIES = 1_544
_EXACT_ENTRIES = 512
"""A log with fewer has each request of its own moment; a longer one counts some as later."""
_GRAINS = 1_024
"""Into so many parts of its time a long log is divided: it has no more entries than that."""
_PLANS_MAX = 8_192

BLOCK_WORDS = _ENTRIES_AT + 2 * _ENTRIES
BLOCKS = 4_096


class _SharedLog:
    """What counts against a limit now, in one block; `concurrent` has a number for each worker."""

    __slots__ = ("_blocks", "_numbers", "_times", "at", "key")

    def __init__(self, blocks: SharedBlocks, at: int, key: Key) -> None:
        self._blocks = blocks
        self._numbers = blocks.numbers
        self._times = blocks.times
        self.at = at
        self.key = key

    def forget(self, before_s: float) -> int:
        """Leaves out what was admitted at that moment or earlier; what is left sums up to."""
        numbers, times, at = self._numbers, self._times, self.at
        if numbers[at + _EPOCH] != self._blocks.epoch:
            self._sum_up()
        oldest, behind = numbers[at + _OLDEST], numbers[at + _NEXT]
        while oldest < behind:
            entry = at + _ENTRIES_AT + oldest % _ENTRIES * 2
            if times[entry] > before_s:
                break
            oldest += 1
            numbers[at + _OLDEST] = oldest
            numbers[at + _TOTAL] -= numbers[entry + 1]
        return numbers[at + _TOTAL]

    def free_s(self, amount: int) -> float | None:
        """When the youngest was admitted of the oldest that sum up to an amount."""
        numbers, at = self._numbers, self.at
        for number in range(numbers[at + _OLDEST], numbers[at + _NEXT]):
            entry = at + _ENTRIES_AT + number % _ENTRIES * 2
            amount -= numbers[entry + 1]
            if amount <= 0:
                return self._times[entry]
        return None

    def append(self, now_s: float, amount: int, per_s: float) -> int:
        """Counts an amount, in a log in which nothing is to be forgotten; the entry's number."""
        numbers, times, at = self._numbers, self._times, self.at
        oldest, behind = numbers[at + _OLDEST], numbers[at + _NEXT]
        if behind > oldest:
            last = at + _ENTRIES_AT + (behind - 1) % _ENTRIES * 2
            if now_s <= times[last]:
                numbers[last + 1] += amount
                numbers[at + _TOTAL] += amount
                return behind - 1
            if behind - oldest >= _EXACT_ENTRIES:
                now_s += per_s / _GRAINS
        entry = at + _ENTRIES_AT + behind % _ENTRIES * 2
        times[entry] = now_s
        numbers[entry + 1] = amount
        numbers[at + _NEXT] = behind + 1
        numbers[at + _TOTAL] += amount
        return behind

    def change(self, number: int, by: int) -> None:
        """Adds to what an entry counts for, if it still counts."""
        numbers, at = self._numbers, self.at
        if self._blocks.has(at, self.key) and number >= numbers[at + _OLDEST]:
            numbers[at + _ENTRIES_AT + number % _ENTRIES * 2 + 1] += by
            numbers[at + _TOTAL] += by

    def running(self) -> int:
        """How many run at once, over all workers."""
        first = self.at + _ENTRIES_AT
        return sum(self._numbers[first : first + WORKERS_MAX])

    def run(self, worker: int, by: int) -> None:
        """So many more of one worker run."""
        if self._blocks.has(self.at, self.key):
            self._numbers[self.at + _ENTRIES_AT + worker] += by

    def _sum_up(self) -> None:
        """Makes good what a process left that died between an entry and the sum."""
        numbers, at = self._numbers, self.at
        entries = range(numbers[at + _OLDEST], numbers[at + _NEXT])
        numbers[at + _TOTAL] = sum(
            numbers[at + _ENTRIES_AT + number % _ENTRIES * 2 + 1] for number in entries
        )
        numbers[at + _EPOCH] = self._blocks.epoch


class _Gauge:
    """A limit, read once, and the log it is held against."""

    __slots__ = ("is_concurrent", "is_enforced", "is_tokens", "limit", "log", "owned", "per_s")

    def __init__(self, owned: OwnedLimit, log: _SharedLog) -> None:
        self.owned = owned
        self.log = log
        limit = owned[1]
        self.limit = limit.amount
        self.per_s = PER_S[limit.per]
        self.is_tokens = limit.measure == "tokens"
        self.is_concurrent = limit.measure == "concurrent"
        self.is_enforced = limit.mode == "enforce"

    def wait_s(self, now_s: float, tokens: int) -> float:
        if self.is_concurrent:
            return 0.0 if self.log.running() < self.limit else math.inf
        amount = min(tokens, self.limit) if self.is_tokens else 1
        too_many = self.log.forget(now_s - self.per_s) + amount - self.limit
        if too_many <= 0:
            return 0.0
        free_s = self.log.free_s(too_many)
        # What counts a moment long is not yet free where one rounds to nothing.
        return math.inf if free_s is None else max(free_s + self.per_s - now_s, 1e-6)


class SharedTicket:
    """What an admitted request takes of its limits; to be released at its end."""

    __slots__ = ("_amount", "_blocks", "_running", "_worker", "tokens")

    def __init__(self, blocks: SharedBlocks, worker: int, amount: int) -> None:
        self._blocks = blocks
        self._worker = worker
        self._amount = amount
        self.tokens: list[tuple[_SharedLog, int]] = []
        self._running: list[_SharedLog] = []

    def settle(self, tokens: int) -> None:
        """Puts the tokens it really took in place of those that were thought."""
        more = tokens - self._amount
        self._amount = tokens
        if not self.tokens or not more:
            return
        with self._blocks as blocks:
            for log, number in self.tokens:
                log.change(number, more)
            blocks.tell()

    def release(self) -> None:
        """Frees its slots; once, however often it is called."""
        if not self._running:
            return
        running, self._running = self._running, []
        with self._blocks as blocks:
            for log in running:
                log.run(self._worker, -1)
            blocks.tell()

    def take(self, gauge: _Gauge, now_s: float) -> None:
        """Counts against one limit."""
        log = gauge.log
        if gauge.is_concurrent:
            log.run(self._worker, 1)
            self._running.append(log)
        elif gauge.is_tokens:
            self.tokens.append((log, log.append(now_s, self._amount, gauge.per_s)))
        else:
            log.append(now_s, 1, gauge.per_s)


class SharedRates:
    """Counts against the limits of all owners, in all processes that share the blocks.

    A successor of a worker is that worker again; what was running there is over.
    """

    def __init__(self, blocks: SharedBlocks, *, worker: int) -> None:
        self._blocks = blocks
        self._worker = worker
        self._plans: dict[int, tuple[Sequence[OwnedLimit], tuple[_Gauge, ...]]] = {}
        self._reclaimed = -1
        with blocks:
            for at in blocks.all():
                if blocks.times[at + _PER_S] == math.inf:
                    blocks.numbers[at + _ENTRIES_AT + worker] = 0
            blocks.tell()

    @property
    def changes(self) -> int | None:
        """Grows when something has become free, in whichever process. May be asked at any time."""
        return self._blocks.changes

    def take_now(
        self, limits: Sequence[OwnedLimit], now_s: float, tokens: int = 0
    ) -> SharedTicket | None:
        """Counts a request if it fits under all its limits now, those in shadow too; else `None`.

        Args:
            limits: those of a law, the same object each time.
        """
        with self._blocks:
            gauges = self._planned(limits, now_s)
            for gauge in gauges:
                if gauge.wait_s(now_s, tokens) > 0:
                    return None
            return self._taken(gauges, now_s, tokens)

    def take_turn(self, limits: Sequence[OwnedLimit], now_s: float, tokens: int = 0) -> Turn:
        """Counts a request if it fits under all limits that are enforced."""
        with self._blocks:
            gauges = self._planned(limits, now_s)
            longest_s, held_by, shadowed = 0.0, None, []
            for gauge in gauges:
                wait_s = gauge.wait_s(now_s, tokens)
                if wait_s > 0 and not gauge.is_enforced:
                    shadowed.append(gauge.owned)
                elif wait_s > longest_s:
                    longest_s, held_by = wait_s, gauge.owned
            if held_by is not None:
                return Turn(held_by=held_by, wait_s=longest_s)
            return Turn(self._taken(gauges, now_s, tokens), shadowed)

    def _taken(self, gauges: Sequence[_Gauge], now_s: float, tokens: int) -> SharedTicket:
        ticket = SharedTicket(self._blocks, self._worker, tokens)
        for gauge in gauges:
            ticket.take(gauge, now_s)
        return ticket

    def _planned(self, limits: Sequence[OwnedLimit], now_s: float) -> tuple[_Gauge, ...]:
        if self._reclaimed != self._blocks.reclaimed or len(self._plans) >= _PLANS_MAX:
            self._reclaimed = self._blocks.reclaimed
            self._plans.clear()
        plan = self._plans.get(id(limits))
        if plan is not None and plan[0] is limits:
            return plan[1]
        gauges: list[_Gauge] = []
        for owned in limits:
            in_use = [gauge.log.at for gauge in gauges]
            gauges.append(_Gauge(owned, self._log(owned, now_s, in_use)))
        self._plans[id(limits)] = limits, tuple(gauges)
        return self._plans[id(limits)][1]

    def _log(self, owned: OwnedLimit, now_s: float, in_use: Sequence[int]) -> _SharedLog:
        owner, limit = owned
        # The amount is no part of the key: a limit that is raised has counted already.
        key = _key((*owner, limit.measure, limit.per))
        at = self._blocks.find(key)
        if at is None:
            at = self._begun(key, limit, now_s, in_use)
        return _SharedLog(self._blocks, at, key)

    def _begun(self, key: Key, limit: RateLimit, now_s: float, in_use: Sequence[int]) -> int:
        """A new log: where it begins.

        Args:
            in_use: logs that stay though nothing counts in them yet.

        Raises:
            OSError: there is no room for it.
        """
        blocks, numbers = self._blocks, self._blocks.numbers
        at = blocks.hand_out()
        if at is None:
            self._forget_idle(now_s, in_use)
            at = blocks.hand_out()
            if at is None:
                raise OSError("more rate limits count at once than there is room for")
        # Entries are counted on: a ticket of what was here before must find none of its own.
        numbers[at + _OLDEST] = numbers[at + _NEXT]
        numbers[at + _TOTAL] = 0
        numbers[at + _EPOCH] = blocks.epoch
        blocks.times[at + _PER_S] = PER_S[limit.per]
        for number in range(WORKERS_MAX):
            numbers[at + _ENTRIES_AT + number] = 0
        numbers[at], numbers[at + 1] = key
        return at

    def _forget_idle(self, now_s: float, in_use: Sequence[int]) -> None:
        """Takes back the blocks in which nothing counts any more."""
        blocks, numbers = self._blocks, self._blocks.numbers
        for at in list(blocks.all()):
            log = _SharedLog(blocks, at, (numbers[at], numbers[at + 1]))
            per_s = blocks.times[at + _PER_S]
            if per_s == math.inf:
                is_idle = not log.running()
            else:
                log.forget(now_s - per_s)
                is_idle = numbers[at + _OLDEST] == numbers[at + _NEXT]
            if is_idle and at not in in_use:
                blocks.reclaim(at)


def _key(parts: tuple[str | None, ...]) -> Key:
    digest = blake2b(repr(parts).encode(), digest_size=16).digest()
    high, low = (int.from_bytes(half, "big", signed=True) for half in (digest[:8], digest[8:]))
    return high, low
