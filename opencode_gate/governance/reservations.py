"""Money that is held before it is spent: leased from the ledger, reserved from in memory.

The idea: a request reserves its worst case in every budget above it. As long as this process
holds a lease with enough in it, that is a few additions; else a thread leases more, from all
budgets in one transaction. What a request has cost leaves the lease when the folding process has
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
from opencode_gate.governance.policy import Unit
from opencode_gate.ledger.governance_store import (
    GovernanceStore,
    Lease,
    LeaseWish,
    Standing,
    WindowKey,
)
from opencode_gate.ledger.records import Charge

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


class Account(msgspec.Struct):
    """What this process holds of one budget in one window, and what of it is free."""

    held: int = 0
    free: int = 0
    limit: int = 0
    used_s: float = 0.0


class Place(msgspec.Struct):
    """A budget in a window, to be reserved from again and again, and its account."""

    key: WindowKey
    unit: Unit
    limit: int
    account: Account


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
        self._accounts: dict[WindowKey, Account] = {}
        # A queue for requests that need the same budgets, kept as long as somebody stands in it.
        self._locks: WeakValueDictionary[tuple[str, ...], asyncio.Lock] = WeakValueDictionary()
        self._settled = asyncio.Event()
        self._store: GovernanceStore | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._returning: asyncio.Task[None] | None = None
        self._recovered_s = float("-inf")

    def account(self, key: WindowKey) -> Account:
        """What is leased of a budget now; an empty one where nothing is."""
        return self._accounts.get(key) or Account()

    def take_now(
        self, places: Sequence[Place], nano_usd: int, tokens: int, now_s: float
    ) -> tuple[Charge, ...] | None:
        """Reserves so much from all budgets, each in its unit, if enough is leased; else nothing.

        An account that others have replaced meanwhile is empty, so nothing is taken from it.
        """
        charges: list[Charge] = []
        for place in places:
            account, unit = place.account, place.unit
            amount = tokens if unit == "tokens" else nano_usd
            # A limit that has changed is asked about anew.
            if account.free < amount or account.limit != place.limit:
                for earlier, charge in zip(places, charges, strict=False):
                    earlier.account.free += charge.reserved
                return None
            account.free -= amount
            account.used_s = now_s
            budget_id, start_us = place.key
            charges.append(Charge(budget_id, start_us, unit, amount))
        return tuple(charges)

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

    def release(self, reserved: Iterable[tuple[WindowKey, int]]) -> None:
        """Takes a reservation back: the request was never sent."""
        for key, amount in reserved:
            account = self._accounts.get(key)
            if account is not None:
                account.free += amount
        self._return_later()
        self._settled.set()

    def settle(self, charged: Iterable[tuple[WindowKey, int, int]]) -> None:
        """Takes note of what the ledger has charged: budget and window, reserved, charged.

        What a request cost beyond its reservation was never held here.
        """
        for key, reserved, amount in charged:
            account = self._accounts.get(key)
            if account is not None and reserved:
                spent = min(amount, reserved)
                account.held -= spent
                account.free += reserved - spent
        self._return_later()
        self._settled.set()

    def reserved(self) -> Mapping[WindowKey, int]:
        """What is reserved by requests that are not settled yet."""
        return {key: account.held - account.free for key, account in self._accounts.items()}

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
        now_s = self._clock.monotonic_s()
        taken: list[tuple[Account, int]] = []
        for key, limit, amount in needs:
            account = self._accounts.get(key)
            if account is None or account.limit != limit or account.free < amount:
                for earlier, its_amount in taken:
                    earlier.free += its_amount
                return None
            account.free -= amount
            account.used_s = now_s
            taken.append((account, amount))
        return Held(tuple([(need.key, need.amount) for need in needs]))

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
                self.release(answer.amounts)

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
            account = self._accounts.setdefault(lease.key, Account())
            account.held += lease.amount
            account.free += lease.amount - need.amount
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
                account.held -= account.free
                account.free = 0
        return unused

    def _put_back(self, unused: Mapping[WindowKey, int]) -> None:
        """The ledger did not take it: it is still ours."""
        for key, amount in unused.items():
            account = self._accounts.setdefault(key, Account())
            account.held += amount
            account.free += amount

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
                if account is not None and not account.held:
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
