"""Limits hold over all processes that share them, whatever becomes of one of these."""

import math
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opencode_gate.governance.policy import Owner, RateLimit
from opencode_gate.governance.rates import OwnedLimit, RateMeter
from opencode_gate.governance.shared_rates import BLOCK_WORDS, SharedRates
from opencode_gate.ledger.shared_blocks import SharedBlocks

CORE = Owner("team", "core")
CI = Owner("vkey", "ci")
PROCESSES = multiprocessing.get_context("spawn")

Open = Callable[..., SharedRates]


def opened(file: Path, *, blocks: int = 8) -> SharedBlocks:
    return SharedBlocks(file, words=BLOCK_WORDS, blocks=blocks)


@pytest.fixture
def rates(tmp_path: Path) -> Iterator[Open]:
    """Meters of as many workers as are asked for, on one file."""
    found = []

    def make(worker: int = 0, *, blocks: int = 8) -> SharedRates:
        found.append(opened(tmp_path / "rates", blocks=blocks))
        return SharedRates(found[-1], worker=worker)

    yield make
    for one in found:
        one.close()


def requests(amount: int, per: str = "minute", **fields: Any) -> OwnedLimit:
    return CORE, RateLimit(requests=amount, per=per, **fields)


def tokens(amount: int, per: str = "minute") -> OwnedLimit:
    return CORE, RateLimit(tokens=amount, per=per)


def concurrent(amount: int) -> OwnedLimit:
    return CORE, RateLimit(concurrent=amount)


def test_what_one_admits_another_counts(rates: Open) -> None:
    """And it is told exactly how long to wait."""
    one, other, limits = rates(0), rates(1), (requests(2),)
    assert one.take_now(limits, 0.0) is not None
    assert other.take_now(limits, 25.0) is not None
    assert one.take_now(limits, 30.0) is None
    turn = other.take_turn(limits, 30.0)
    assert (turn.ticket, turn.wait_s, turn.held_by) == (None, 30.0, limits[0])
    assert one.take_turn(limits, 60.0).ticket is not None
    assert other.take_turn(limits, 61.0).wait_s == 24.0


def test_a_slot_is_freed_once_and_others_are_told(rates: Open) -> None:
    one, other, limits = rates(0), rates(1), (concurrent(2),)
    first, second = one.take_now(limits, 0.0), other.take_now(limits, 0.0)
    assert first is not None and second is not None
    assert other.take_turn(limits, 0.0).wait_s == math.inf
    told = other.changes
    first.release()
    first.release()
    assert other.changes != told
    assert other.take_now(limits, 0.0) is not None
    assert one.take_now(limits, 0.0) is None


def test_tokens_are_settled_for_all(rates: Open) -> None:
    one, other, limits = rates(0), rates(1), (tokens(1_000),)
    ticket = one.take_now(limits, 0.0, 900)
    assert ticket is not None
    assert other.take_turn(limits, 1.0, 200).wait_s == 59.0
    ticket.settle(100)
    assert other.take_turn(limits, 1.0, 900).ticket is not None
    ticket.settle(101)
    assert other.take_turn(limits, 2.0, 1).wait_s == 58.0


def test_more_tokens_than_the_whole_limit_fit_when_nothing_else_counts(rates: Open) -> None:
    one, limits = rates(), (tokens(1_000),)
    assert one.take_now(limits, 0.0, 5_000) is not None
    assert one.take_turn(limits, 1.0, 1).wait_s == 59.0


def test_shadow_counts_and_holds_nobody_back(rates: Open) -> None:
    one, limits = rates(), (requests(1, mode="shadow"), requests(9, "hour"))
    assert one.take_turn(limits, 0.0).shadowed == []
    assert one.take_now(limits, 1.0) is None
    turn = one.take_turn(limits, 1.0)
    assert turn.ticket is not None
    assert turn.shadowed == [limits[0]]


def test_a_limit_that_is_changed_has_counted_already(rates: Open) -> None:
    one = rates()
    for _ in range(3):
        assert one.take_now((requests(5),), 0.0) is not None
    assert one.take_turn((requests(2),), 1.0).wait_s == 59.0
    assert one.take_now((requests(4),), 1.0) is not None


def test_what_a_worker_had_running_is_free_when_its_successor_begins(rates: Open) -> None:
    """What it was admitted still counts, and what others have running too."""
    one, other = rates(0), rates(1)
    limits = (concurrent(2), requests(3))
    assert one.take_now(limits, 0.0) is not None
    assert other.take_now(limits, 0.0) is not None
    again = rates(0)
    assert again.take_now(limits, 0.0) is not None
    assert again.take_turn(limits, 0.0).wait_s == math.inf
    assert again.take_turn((requests(3),), 0.0).wait_s == 60.0


def test_logs_in_which_nothing_counts_make_room_for_others(rates: Open) -> None:
    """A ticket of what was there before changes nothing in its place, nor is what counts lost."""
    one, other = rates(0, blocks=3), rates(1, blocks=3)
    kept, slots = (requests(1, "day"),), (concurrent(1),)
    assert one.take_now(kept, 0.0) is not None
    held = one.take_now(slots, 0.0)
    assert held is not None
    for number in range(10):
        now_s = number * 180.0
        first = ((Owner("session", f"{number}"), RateLimit(tokens=100, per="minute")),)
        second = ((Owner("session", f"{number} too"), RateLimit(tokens=100, per="minute")),)
        before = one.take_now(first, now_s, 60)
        assert before is not None
        assert other.take_now(second, now_s + 60, 60) is not None
        before.settle(1)
        assert other.take_now(second, now_s + 60, 60) is None
    assert other.take_now(kept, 2_000.0) is None
    assert other.take_now(slots, 2_000.0) is None
    new = tuple((Owner("user", str(number)), RateLimit(concurrent=1)) for number in range(2))
    with pytest.raises(OSError):
        one.take_now(new, 2_000.0)
    held.release()
    assert other.take_now(slots, 0.0) is not None


def test_many_requests_are_counted_together_and_never_too_few(rates: Open) -> None:
    """A log has room for so many entries; those beyond count up to a thousandth longer."""
    one, limits = rates(), (requests(20_000),)
    admitted = []
    for number in range(40_000):
        now_s = number * 0.004
        if one.take_now(limits, now_s) is not None:
            admitted.append(now_s)
    first = 0
    for last, now_s in enumerate(admitted):
        while admitted[first] <= now_s - 60:
            first += 1
        assert last - first + 1 <= 20_000
    # 160 seconds at 250 a second, of which 333 are allowed.
    assert len(admitted) == 40_000
    slow = (requests(9_000, "hour"),)
    taken = [number for number in range(20_000) if one.take_now(slow, number * 0.36) is not None]
    assert 17_900 <= len(taken) <= 18_000


steps = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.integers(0, 40),
        st.integers(0, 60),
        st.sampled_from(("take", "take", "end")),
    ),
    max_size=40,
)


@given(limit=st.integers(1, 6), slots=st.integers(1, 4), most=st.integers(10, 100), steps=steps)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_three_together_decide_as_one_alone_would(
    tmp_path: Path, limit: int, slots: int, most: int, steps: list[tuple[int, int, int, str]]
) -> None:
    """The same requests pass, the same wait as long, for every limit and every order of events."""
    limits = (requests(limit), tokens(most), concurrent(slots))
    alone = RateMeter()
    file = tmp_path / "rates"
    file.unlink(missing_ok=True)
    shared = [opened(file) for _ in range(3)]
    workers = [SharedRates(blocks, worker=number) for number, blocks in enumerate(shared)]
    running: list[tuple[Any, Any]] = []
    now_s = 0.0
    for worker, gap_s, amount, deed in steps:
        now_s += gap_s
        if deed == "take" or not running:
            expected = alone.take_turn(limits, now_s, amount)
            found = workers[worker].take_turn(limits, now_s, amount)
            assert found.held_by == expected.held_by
            assert found.wait_s == pytest.approx(expected.wait_s)
            if expected.ticket is not None:
                running.append((expected.ticket, found.ticket))
        else:
            for ticket in running.pop(amount % len(running)):
                ticket.release()
                ticket.settle(amount)
    for blocks in shared:
        blocks.close()


def admit_all(file: str, worker: int, go: Any, results: Any) -> None:
    """In a process of its own: takes as much as there is, at once and at the real time."""
    rates = SharedRates(opened(Path(file)), worker=worker)
    limits = (requests(500, "day"), (CI, RateLimit(tokens=2_000, per="day")))
    go.wait()
    found = [
        rates.take_now(limits[number % 2 : number % 2 + 1], time.monotonic(), 3) is not None
        for number in range(4_000)
    ]
    results.put((sum(found[::2]), sum(found[1::2])))


def test_processes_that_race_admit_exactly_the_limit(tmp_path: Path) -> None:
    """Not one request more, and not one fewer."""
    go, results = PROCESSES.Event(), PROCESSES.Queue()
    file = str(tmp_path / "rates")
    workers = [
        PROCESSES.Process(target=admit_all, args=(file, number, go, results)) for number in range(3)
    ]
    for worker in workers:
        worker.start()
    go.set()
    found = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(60)
    assert sum(requests for requests, _ in found) == 500
    assert sum(tokens for _, tokens in found) == 666


def admit_for_a_while(file: str, worker: int, start: Any, results: Any) -> None:
    """In a process of its own, for which a minute is a tenth of a second."""
    blocks = opened(Path(file))
    rates = SharedRates(blocks, worker=worker)
    admitted = []
    start.wait(60)
    until_s = time.monotonic() + 1
    while (now_s := time.monotonic()) < until_s:
        ticket = rates.take_now((tokens(50),), now_s * 600, 1)
        if ticket is not None:
            ((log, number),) = ticket.tokens
            admitted.append(blocks.times[log.at + 16 + 2 * (number % 1_544)])
            ticket.settle(1)
    results.put(admitted)


def test_processes_that_race_admit_in_no_minute_more_than_the_limit(tmp_path: Path) -> None:
    """Over many minutes that slide."""
    start, results = PROCESSES.Barrier(3), PROCESSES.Queue()
    file = str(tmp_path / "rates")
    workers = [
        PROCESSES.Process(target=admit_for_a_while, args=(file, number, start, results))
        for number in range(3)
    ]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(60)
    admitted = sorted(at_s for each in found for at_s in each)
    assert len(admitted) > 100
    for first, at_s in enumerate(admitted):
        assert sum(1 for one in admitted[first : first + 51] if one < at_s + 60) <= 50


def run_and_count(file: str, worker: int, running: Any, most: Any) -> None:
    rates = SharedRates(opened(Path(file)), worker=worker)
    for _ in range(3_000):
        ticket = rates.take_now((concurrent(2),), 0.0)
        if ticket is not None:
            with running.get_lock():
                running.value += 1
                most.value = max(most.value, running.value)
            with running.get_lock():
                running.value -= 1
            ticket.release()


def test_processes_that_race_never_run_more_at_once_than_the_limit(tmp_path: Path) -> None:
    """And in the end every slot is free."""
    running, most = PROCESSES.Value("i", 0), PROCESSES.Value("i", 0)
    file = tmp_path / "rates"
    workers = [
        PROCESSES.Process(target=run_and_count, args=(str(file), number, running, most))
        for number in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert 1 <= most.value <= 2
    rates = SharedRates(opened(file), worker=3)
    assert rates.take_now((concurrent(2),), 0.0) is not None
    assert rates.take_now((concurrent(2),), 0.0) is not None


def die_within(file: str) -> None:
    """Dies with the lock, between an entry and its sum, and with a request running."""
    blocks = opened(Path(file))
    rates = SharedRates(blocks, worker=0)
    rates.take_now((requests(3), concurrent(1)), 0.0)
    with blocks:
        (at,) = (at for at in blocks.all() if blocks.times[at + 6] == 60.0)
        blocks.numbers[at + 4] = 77
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_killed_within_the_lock_neither_holds_it_nor_spoils_what_it_guards(
    tmp_path: Path,
) -> None:
    """The next has the lock, and sums up anew."""
    file = tmp_path / "rates"
    worker: SpawnProcess = PROCESSES.Process(target=die_within, args=(str(file),))
    worker.start()
    worker.join(60)
    assert worker.exitcode == -signal.SIGKILL
    rates = SharedRates(opened(file), worker=0)
    limits = (requests(3), concurrent(9))
    assert rates.take_now(limits, 1.0) is not None
    assert rates.take_now(limits, 1.0) is not None
    assert rates.take_turn(limits, 1.0).wait_s == 59.0


def test_the_file_is_the_owners_alone(rates: Open, tmp_path: Path) -> None:
    rates()
    assert (tmp_path / "rates").stat().st_mode & 0o777 == 0o600
