"""Money that is held before it is spent: leased from the ledger, reserved from in memory.

The idea: a request reserves its worst case in every budget above it. As long as this process
holds a lease with enough in it, that is a few additions; else a thread leases more, from all
budgets in one transaction. What a request has cost leaves the lease when the folding thread has
charged it. The invariants: nothing is reserved that is not leased, so the ledger's own rule
(spent and held never exceed the limit) holds for all processes together; what is leased and not
used for a second goes back.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar
from weakref import WeakValueDictionary

import msgspec

from opencode_gate.core.clock import Clock
from opencode_gate.core.errors import LedgerError
from opencode_gate.core.tasks import spawn
from opencode_gate.ledger.governance_store import (
    GovernanceStore,
    Lease,
    LeaseWish,
    Standing,
    WindowKey,
)

RETURN_AFTER_S = 1.0
"""What is leased and not reserved for so long goes back."""
ASK_AGAIN_S = 0.15
"""How often a request that waits for other processes' money looks for it."""
RECOVER_EVERY_S = 2.0
LEASED_AHEAD = 256
"""A lease takes, where there is plenty, as much as so many requests like this one need."""

_T = TypeVar("_T")


class Need(NamedTuple):
    """What a request may take at most from a budget."""

    key: WindowKey
    limit: int
    amount: int


class Held(NamedTuple):
    """What is reserved for one request: in which window of which budget how much."""

    amounts: tuple[tuple[WindowKey, int], ...] = ()


class Short(NamedTuple):
    """A budget that has too little left, and how it stands."""

    need: Need
    standing: Standing

    @property
    def can_wait(self) -> bool:
        """True if it could fit once the requests that still run are settled."""
        return self.standing.spent + self.need.amount <= self.need.limit

    @property
    def free(self) -> int:
        """What nobody has spent or holds."""
        return max(0, self.need.limit - self.standing.spent - self.standing.held)


class _Account(msgspec.Struct):
    """What this process holds of one budget in one window, and what of it is reserved."""

    held: int = 0
    reserved: int = 0
    limit: int = 0
    used_s: float = 0.0

    @property
    def free(self) -> int:
        return self.held - self.reserved


class Reservations:
    """The leases of one process.

    Args:
        open_store: opens the ledger's side of it, in the thread that asks.
        recover: has what dead processes left settled soon, so that their leases come free.
        hurry: has what has ended charged without delay.
    """

    def __init__(
        self,
        process_id: str,
        open_store: Callable[[], GovernanceStore],
        *,
        clock: Clock,
        recover: Callable[[], object],
        hurry: Callable[[], object],
    ) -> None:
        self._process_id = process_id
        self._open_store = open_store
        self._clock = clock
        self._recover = recover
        self._hurry = hurry
        self._accounts: dict[WindowKey, _Account] = {}
        # A queue for requests that need the same budgets, kept as long as somebody stands in it.
        self._locks: WeakValueDictionary[tuple[str, ...], asyncio.Lock] = WeakValueDictionary()
        self._settled = asyncio.Event()
        self._store: GovernanceStore | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._returning: asyncio.Task[None] | None = None
        self._recovered_s = float("-inf")

    async def reserve(self, needs: Sequence[Need], *, wait_s: float) -> Held | Short:
        """Reserves from all budgets or from none.

        Waits for requests that still run, at most `wait_s`, where their settling could help.

        Raises:
            LedgerError: the ledger cannot be asked.
        """
        held = self._reserve_here(needs)
        if held is not None:
            return held
        budget_ids = tuple(need.key.budget_id for need in needs)
        lock = self._locks.setdefault(budget_ids, asyncio.Lock())
        give_up_s = self._clock.monotonic_s() + wait_s
        async with lock:
            while True:
                self._settled.clear()
                held = self._reserve_here(needs)
                answer = held if held is not None else await self._lease(needs)
                if isinstance(answer, Held) or not answer.can_wait:
                    return answer
                left_s = give_up_s - self._clock.monotonic_s()
                if left_s <= 0:
                    return answer
                self._hurry()
                await self._money_may_be_back(min(left_s, ASK_AGAIN_S), answer)

    def release(self, held: Held) -> None:
        """Takes a reservation back: the request was never sent."""
        for key, amount in held.amounts:
            self._accounts[key].reserved -= amount
        self._return_later()
        self._settled.set()

    def settle(self, charged: Iterable[tuple[WindowKey, int, int]]) -> None:
        """Takes note of what the ledger has charged: budget and window, reserved, charged.

        What a request cost beyond its reservation was never held here.
        """
        for key, reserved, amount in charged:
            account = self._accounts.get(key)
            if account is not None and reserved:
                account.reserved -= reserved
                account.held -= min(amount, reserved)
        self._return_later()
        self._settled.set()

    def reserved(self) -> Mapping[WindowKey, int]:
        """What is reserved by requests that are not settled yet."""
        return {key: account.reserved for key, account in self._accounts.items()}

    def stop(self) -> None:
        """Lets go of the thread and its connection.

        What is held stays held until the process ends in the ledger, behind its last charge.
        """
        # A loop that has ended may have left one behind: the last charges come while it closes.
        if self._returning is not None and not self._returning.get_loop().is_closed():
            self._returning.cancel()
        if self._thread is not None:
            self._thread.submit(self._close_store)
            self._thread.shutdown(wait=True)

    def _reserve_here(self, needs: Sequence[Need]) -> Held | None:
        """Reserves from what is leased already; a limit that changed is asked about anew."""
        accounts = self._accounts
        now_s = self._clock.monotonic_s()
        for key, limit, amount in needs:
            account = accounts.get(key)
            if (
                account is None
                or account.limit != limit
                or account.held - account.reserved < amount
            ):
                return None
        for key, _, amount in needs:
            account = accounts[key]
            account.reserved += amount
            account.used_s = now_s
        return Held(tuple((need.key, need.amount) for need in needs))

    async def _lease(self, needs: Sequence[Need]) -> Held | Short:
        """Leases more; what comes for a request that was given up meanwhile is free again."""
        work = spawn(self._leased(needs), name="lease")
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            work.add_done_callback(self._release_unwanted)
            raise

    def _release_unwanted(self, work: "asyncio.Task[Held | Short]") -> None:
        if not work.cancelled() and work.exception() is None:
            answer = work.result()
            if isinstance(answer, Held):
                self.release(answer)

    async def _leased(self, needs: Sequence[Need]) -> Held | Short:
        unused = self._taken_out(need.key for need in needs)
        wishes = [
            LeaseWish(need.key, need.limit, need.amount, need.amount * LEASED_AHEAD)
            for need in needs
        ]
        try:
            leases = await self._in_thread(lambda store: self._lease_anew(store, wishes, unused))
        except LedgerError:
            self._put_back(unused)
            raise
        short = [
            Short(need, lease.standing)
            for need, lease in zip(needs, leases, strict=True)
            if need.amount and lease.standing.spent + lease.standing.held + need.amount > need.limit
        ]
        if any(lease.amount < need.amount for need, lease in zip(needs, leases, strict=True)):
            return next((one for one in short if not one.can_wait), short[0])
        now_s = self._clock.monotonic_s()
        for need, lease in zip(needs, leases, strict=True):
            account = self._accounts.setdefault(lease.key, _Account())
            account.held += lease.amount
            account.reserved += need.amount
            account.limit = need.limit
            account.used_s = now_s
        self._return_later()
        return Held(
            tuple((lease.key, need.amount) for need, lease in zip(needs, leases, strict=True))
        )

    def _lease_anew(
        self, store: GovernanceStore, wishes: Sequence[LeaseWish], unused: dict[WindowKey, int]
    ) -> list[Lease]:
        if unused:
            store.give_back(self._process_id, unused)
            # From here on others may have it, also where the lease fails.
            unused.clear()
        return store.lease(self._process_id, wishes)

    def _taken_out(self, keys: Iterable[WindowKey]) -> dict[WindowKey, int]:
        """Takes what is free out of accounts, at once, so that it can be given back."""
        unused = {}
        for key in keys:
            account = self._accounts.get(key)
            if account is not None and account.free > 0:
                unused[key] = account.free
                account.held = account.reserved
        return unused

    def _put_back(self, unused: Mapping[WindowKey, int]) -> None:
        """The ledger did not take it: it is still ours."""
        for key, amount in unused.items():
            self._accounts.setdefault(key, _Account()).held += amount

    async def _money_may_be_back(self, timeout_s: float, short: Short) -> None:
        """Waits until something was settled here, or for a moment: others settle elsewhere."""
        standing = short.standing
        now_s = self._clock.monotonic_s()
        if standing.held > standing.held_by_me and now_s - self._recovered_s > RECOVER_EVERY_S:
            self._recovered_s = now_s
            self._recover()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._settled.wait(), timeout_s)

    def _return_later(self) -> None:
        if self._returning is None or self._returning.done():
            self._returning = spawn(self._return_unused(), name="leases")

    async def _return_unused(self) -> None:
        while any(account.free > 0 for account in self._accounts.values()):
            await asyncio.sleep(RETURN_AFTER_S)
            stale_s = self._clock.monotonic_s() - RETURN_AFTER_S
            idle = [key for key, one in self._accounts.items() if one.used_s <= stale_s]
            unused = self._taken_out(idle)
            if unused:
                try:
                    await self._given_back(unused)
                except LedgerError:
                    self._put_back(unused)
                    continue
            for key in idle:
                account = self._accounts.get(key)
                if account is not None and not account.held and not account.reserved:
                    del self._accounts[key]

    def _given_back(self, unused: Mapping[WindowKey, int]) -> Awaitable[None]:
        return self._in_thread(lambda store: store.give_back(self._process_id, unused))

    def _in_thread(self, deed: Callable[[GovernanceStore], _T]) -> Awaitable[_T]:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="leases")
        return asyncio.get_running_loop().run_in_executor(
            self._thread, lambda: deed(self._opened())
        )

    def _opened(self) -> GovernanceStore:
        if self._store is None:
            self._store = self._open_store()
        return self._store

    def _close_store(self) -> None:
        if self._store is not None:
            self._store.close()
