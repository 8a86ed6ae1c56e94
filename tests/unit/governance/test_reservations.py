"""Money is reserved from what is leased, leased when it runs short, and always comes back."""

import asyncio
import threading
from pathlib import Path

import msgspec
import pytest

from opencode_gate.core.clock import SystemClock
from opencode_gate.core.errors import LedgerError
from opencode_gate.core.tasks import spawn
from opencode_gate.governance.reservations import Held, Need, Place, Reservations, Short
from opencode_gate.ledger.governance_store import Standing, WindowKey
from opencode_gate.ledger.records import Charge
from opencode_gate.ledger.sqlite import open_store
from opencode_gate.ledger.sqlite.connection import connect
from opencode_gate.ledger.sqlite.governance import SqliteGovernance, open_governance
from tests.support.ledger_records import an_exchange

DAY = WindowKey("user:dev/day/usd", 0)
MONTH = WindowKey("team:core/month/usd", 0)


class Process:
    """A gateway process as the ledger sees it: reserves, and folds what it has sent."""

    def __init__(self, ledger: Path, name: str, recover=lambda: None) -> None:
        self.ledger = ledger
        self.name = name
        self.reservations = Reservations(
            name,
            lambda: open_governance(ledger),
            clock=SystemClock(),
            recover=recover,
            hurry=lambda: None,
        )

    async def reserve(self, *needs: Need, wait_s: float = 0.0) -> Held | Short:
        return await self.reservations.reserve(needs, wait_s=wait_s)

    def settle(self, held: Held, cost_nano_usd: int) -> None:
        """What the folding thread does: charges in the ledger, then tells."""
        self.charge(held, cost_nano_usd)
        self.tell(held, cost_nano_usd)

    def charge(self, held: Held, cost_nano_usd: int) -> None:
        store = open_store(self.ledger)
        store.fold(
            [
                msgspec.structs.replace(
                    an_exchange(),
                    cost_nano_usd=cost_nano_usd,
                    charges=tuple(Charge(*key, "usd", amount) for key, amount in held.amounts),
                )
            ],
            process_id=self.name,
        )
        store.close()

    def end(self) -> None:
        """What the folding thread does last."""
        self.reservations.stop()
        store = open_store(self.ledger)
        store.end_process(self.name)
        store.close()

    def tell(self, held: Held, cost_nano_usd: int) -> None:
        self.reservations.settle([(key, amount, cost_nano_usd) for key, amount in held.amounts])


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.db"
    open_store(path).close()
    return path


def standing(ledger: Path, key: WindowKey) -> Standing:
    store: SqliteGovernance = open_governance(ledger)
    found = store.standings([key])[key]
    store.close()
    return found


async def test_all_budgets_or_none(ledger: Path) -> None:
    one = Process(ledger, "one")
    refused = await one.reserve(Need(DAY, 100, 60), Need(MONTH, 50, 60))
    assert isinstance(refused, Short)
    assert refused.need.key == MONTH
    assert not refused.can_wait
    assert standing(ledger, DAY) == Standing()


async def test_what_is_settled_leaves_room_for_the_rest_of_its_reservation(ledger: Path) -> None:
    one = Process(ledger, "one")
    held = await one.reserve(Need(DAY, 100, 80))
    assert isinstance(held, Held)
    assert isinstance(await one.reserve(Need(DAY, 100, 80)), Short)
    one.settle(held, 10)
    assert isinstance(await one.reserve(Need(DAY, 100, 80)), Held)
    assert standing(ledger, DAY)[:2] == (10, 80)


async def test_a_request_waits_for_those_that_still_run(ledger: Path) -> None:
    one = Process(ledger, "one")
    held = await one.reserve(Need(DAY, 100, 80))
    assert isinstance(held, Held)
    waiting = spawn(one.reserve(Need(DAY, 100, 80), wait_s=30), name="waiting")
    await asyncio.sleep(0)
    one.reservations.release(held.amounts)
    assert isinstance(await waiting, Held)


async def test_what_is_taken_at_once_is_taken_from_all_budgets_or_from_none(ledger: Path) -> None:
    """Each in its own unit, as far as is leased, and only under the limit it was leased for."""
    one = Process(ledger, "one")
    tokens = WindowKey("team:core/month/tokens", 0)
    for _ in range(2):
        assert isinstance(await one.reserve(Need(DAY, 10**6, 100), Need(tokens, 10**6, 5)), Held)
    account = one.reservations.account
    places = [
        Place(DAY, "usd", 10**6, account(DAY)),
        Place(tokens, "tokens", 10**6, account(tokens)),
    ]
    before = one.reservations.reserved()
    charges = one.reservations.take_now(places, 70, 3, 0.0)
    assert charges == (Charge(*DAY, "usd", 70), Charge(*tokens, "tokens", 3))
    taken = {DAY: before[DAY] + 70, tokens: before[tokens] + 3}
    assert one.reservations.reserved() == taken
    assert one.reservations.take_now(places, 70, account(tokens).free + 1, 0.0) is None
    places[1].limit = 10**5
    assert one.reservations.take_now(places, 70, 3, 0.0) is None
    assert one.reservations.reserved() == taken
    one.reservations.release([(DAY, 70), (tokens, 3)])
    assert one.reservations.reserved() == before


async def test_an_account_that_was_given_back_gives_nothing_more(ledger: Path) -> None:
    """Though somebody still has it in hand, and another has taken its place."""
    one = Process(ledger, "one")
    held = await one.reserve(Need(DAY, 100, 10))
    assert isinstance(held, Held)
    place = Place(DAY, "usd", 100, one.reservations.account(DAY))
    one.settle(held, 10)
    await until(lambda: DAY not in one.reservations.reserved())
    assert one.reservations.take_now([place], 1, 0, 0.0) is None
    # Nothing of it is in the way of a request that was never sent, either.
    one.reservations.release(held.amounts)
    assert isinstance(await one.reserve(Need(DAY, 100, 90)), Held)
    assert one.reservations.take_now([place], 1, 0, 0.0) is None


async def until(is_so) -> None:
    """Waits for what is left to come about by itself."""
    async with asyncio.timeout(30):
        while not is_so():
            await asyncio.sleep(0.01)


async def test_what_can_never_fit_is_refused_without_waiting(ledger: Path) -> None:
    one = Process(ledger, "one")
    held = await one.reserve(Need(DAY, 100, 80))
    assert isinstance(held, Held)
    one.settle(held, 80)
    refused = await one.reserve(Need(DAY, 100, 30), wait_s=3600)
    assert isinstance(refused, Short)
    assert refused.free == 20


async def test_many_fit_into_one_lease_and_the_unused_part_goes_back(ledger: Path) -> None:
    one, other = Process(ledger, "one"), Process(ledger, "other")
    plenty = 1_000_000
    first = await one.reserve(Need(DAY, plenty, 10))
    assert isinstance(first, Held)
    leased = standing(ledger, DAY).held
    assert 10 < leased <= 10 + plenty // 64
    second = await one.reserve(Need(DAY, plenty, 10))
    assert isinstance(second, Held)
    assert standing(ledger, DAY).held == leased
    # What one does not use, another that needs all of it gets by waiting for it.
    assert isinstance(await other.reserve(Need(DAY, plenty, plenty - 20), wait_s=30), Held)


async def test_a_lower_limit_holds_for_what_is_leased_already(ledger: Path) -> None:
    one = Process(ledger, "one")
    assert isinstance(await one.reserve(Need(DAY, 1_000_000, 10)), Held)
    assert isinstance(await one.reserve(Need(DAY, 15, 10)), Short)
    assert isinstance(await one.reserve(Need(DAY, 20, 10)), Held)


async def test_a_dead_process_is_recovered_before_anybody_is_refused(ledger: Path) -> None:
    dead = Process(ledger, "dead")
    assert isinstance(await dead.reserve(Need(DAY, 100, 90)), Held)

    def recover() -> None:
        store = open_store(ledger)
        store.end_process("dead")
        store.close()

    one = Process(ledger, "one", recover)
    assert isinstance(await one.reserve(Need(DAY, 100, 90), wait_s=30), Held)


async def test_a_ledger_that_fails_takes_nothing_away(ledger: Path) -> None:
    one = Process(ledger, "one")
    plenty = 1_000_000
    assert isinstance(await one.reserve(Need(DAY, plenty, 10)), Held)
    lock = open_governance(ledger)
    lock._connection.execute("BEGIN EXCLUSIVE")
    with pytest.raises(LedgerError):
        await one.reserve(Need(DAY, plenty, 500_000))
    lock._connection.execute("ROLLBACK")
    lock.close()
    assert isinstance(await one.reserve(Need(DAY, plenty, 10)), Held)


async def test_what_is_leased_for_a_request_that_was_given_up_is_free_again(ledger: Path) -> None:
    """Its client left while a thread was still asking the ledger."""
    may_go_on, is_asking = threading.Event(), threading.Event()

    class Slow(SqliteGovernance):
        def lease(self, process_id, wishes):
            is_asking.set()
            assert may_go_on.wait(10)
            return super().lease(process_id, wishes)

    one = Process(ledger, "one")
    one.reservations._open_store = lambda: Slow(connect(ledger), ledger)
    given_up = spawn(one.reserve(Need(DAY, 100, 90)), name="given-up")
    await asyncio.to_thread(is_asking.wait, 10)
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    may_go_on.set()
    assert isinstance(await one.reserve(Need(DAY, 100, 90), wait_s=10), Held)


async def test_what_went_back_is_not_kept_where_the_lease_behind_it_fails(ledger: Path) -> None:
    class Locked(SqliteGovernance):
        def lease(self, process_id, wishes):
            if wishes[0].needed > 50:
                raise LedgerError("ledger-unwritable", "locked")
            return super().lease(process_id, wishes)

    one, other = Process(ledger, "one"), Process(ledger, "other")
    one.reservations._open_store = lambda: Locked(connect(ledger), ledger)
    held = await one.reserve(Need(DAY, 100, 50))
    assert isinstance(held, Held)
    one.reservations.release(held.amounts)
    with pytest.raises(LedgerError):
        await one.reserve(Need(DAY, 100, 60))
    assert isinstance(await other.reserve(Need(DAY, 100, 100)), Held)
    assert isinstance(await one.reserve(Need(DAY, 100, 50)), Short)


async def test_eight_processes_never_spend_more_than_there_is(ledger: Path) -> None:
    """Each request may cost 30 and costs 10, of 370: the truth fits 37 times."""
    processes = [Process(ledger, f"p{n}") for n in range(8)]
    sent = 0

    async def ask(process: Process) -> None:
        nonlocal sent
        answer = await process.reserve(Need(DAY, 370, 30), wait_s=60)
        if isinstance(answer, Held):
            await asyncio.sleep(0)
            await asyncio.to_thread(process.charge, answer, 10)
            process.tell(answer, 10)
            sent += 1

    await asyncio.gather(*(ask(process) for process in processes for _ in range(20)))
    for process in processes:
        process.end()
    spent, held, _ = standing(ledger, DAY)
    assert (spent, held) == (sent * 10, 0)
    # The last of it is less than one request may cost: 350 spent leave 20.
    assert sent == 35


def test_a_process_ends_well_where_its_last_charge_came_when_its_loop_was_closing(
    ledger: Path,
) -> None:
    """What a settlement starts then is never run, and nobody waits for it."""
    process = Process(ledger, "a")
    loop = asyncio.new_event_loop()

    async def charged_late() -> None:
        held = await process.reserve(Need(DAY, 1_000, 100))
        assert isinstance(held, Held)
        process.charge(held, 40)
        loop.call_soon(process.tell, held, 40)

    loop.run_until_complete(charged_late())
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    process.end()
    assert standing(ledger, DAY)[:2] == (40, 0)
