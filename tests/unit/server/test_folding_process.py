"""The folding process: nothing is lost, nothing counts twice, and nobody waits for it."""

import asyncio
import gc
import os
import random
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from opencode_gate.core.errors import LedgerError
from opencode_gate.ledger.folding_frames import Drain, Drained, Hurry, frame
from opencode_gate.ledger.governance_store import LeaseWish, Standing, WindowKey
from opencode_gate.ledger.journal import Journal, journals, read_journal
from opencode_gate.ledger.records import Charge, ExchangeRecord, FoldedExchange
from opencode_gate.ledger.sqlite import SqliteStore, open_store
from opencode_gate.ledger.sqlite.audit import open_audit
from opencode_gate.ledger.sqlite.governance import SqliteGovernance
from opencode_gate.server import folding_process
from opencode_gate.server.folding_link import FoldingLink
from opencode_gate.server.folding_process import FoldingProcess
from opencode_gate.server.folding_sender import LARGE_BYTES
from opencode_gate.wire.meter import ExchangeMeter
from opencode_gate.wire.routes import identify
from tests.support.folding_gateways import BODY, folding_of
from tests.support.ledger_records import a_session, an_exchange, an_open_exchange

KEY = WindowKey("user:ada/day/usd", 7)
LONG_S = 30.0
"""A test that waits so long has failed."""
LARGE_BODY = BODY[:-1] + b',"x":"' + b"x" * (1 << 20) + b'"}'
SENDING = "folding-send"
ANSWER = b'{"choices": [{"message": {"content": "good day"}, "finish_reason": "stop"}]}'


@pytest.fixture
def store(ledger_file: Path) -> Iterator[SqliteStore]:
    with closing(open_store(ledger_file)) as opened:
        opened.add_session(a_session(id="01S"))
        yield opened


class _Meter(ExchangeMeter):
    """One whose end can be seen."""


def meter() -> ExchangeMeter:
    """Of an answer that was read to its end."""
    route = identify("POST", "/v1/chat/completions")
    made = _Meter(route, streamed=False, asked_for_usage=False)
    made.observe_body(ANSWER)
    made.end()
    return made


def an_end(**changes: object) -> ExchangeRecord:
    return an_exchange(session_id="01S", charges=(Charge(*KEY, "usd", 10**9),), **changes)


def audited(ledger_file: Path) -> list[str]:
    with closing(open_audit(ledger_file)) as trail:
        return [event.document for event in trail.events()]


async def until(came: Callable[[], object]) -> None:
    """Waits for what the loop's turns bring about."""
    give_up_s = time.monotonic() + LONG_S
    while not came():
        assert time.monotonic() < give_up_s
        await asyncio.sleep(0.005)


class Listener:
    """Keeps what was folded."""

    def __init__(self) -> None:
        self.told: list[FoldedExchange] = []

    def __call__(self, folded: Sequence[FoldedExchange]) -> None:
        self.told.extend(folded)


def test_what_is_handed_over_without_a_loop_is_committed_when_drained(
    journal: Journal, folder: Path, ledger_file: Path, store: SqliteStore
) -> None:
    """As at the end of a gateway: rows with what bodies and answers tell, and no journal left."""
    heard = Listener()
    folding = folding_of(journal, ledger_file, on_folded=heard)
    exchanges = [an_end() for _ in range(100)]
    for exchange in exchanges:
        folding.submit(exchange, journal.finished(exchange), BODY, meter())
    folding.drain()
    rows = store.exchanges("01S")
    assert [row.id for row in rows] == [exchange.id for exchange in exchanges]
    assert all(row.parts is not None for row in rows)
    assert all("request_hash" in event and "answer_hash" in event for event in audited(ledger_file))
    assert [each.id for each in heard.told] == [exchange.id for exchange in exchanges]
    assert {each.cost_nano_usd for each in heard.told} == {1_234_567}
    assert {each.taken for each in heard.told} == {((*KEY, 10**9, 1_234_567),)}
    assert read_journal(journal.path).folded_ids == {exchange.id for exchange in exchanges}
    folding.close()
    assert list(folder.iterdir()) == []


async def test_a_turn_of_the_loop_hands_over_and_lets_go(
    journal: Journal, ledger_file: Path, store: SqliteStore
) -> None:
    """Also of the meter: what an answer said does not stay in memory."""
    heard = Listener()
    folding = folding_of(journal, ledger_file, on_folded=heard)
    exchange, read = an_end(), meter()
    gone = weakref.ref(read)
    folding.submit(exchange, journal.finished(exchange), BODY, read)
    del read
    await until(lambda: heard.told)
    gc.collect()
    assert gone() is None
    assert journal.is_settled
    folding.close()


async def test_hurry_does_not_wait_for_more(
    journal: Journal, ledger_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody waits for the money."""
    monkeypatch.setattr(folding_process, "GATHER_S", LONG_S * 10)
    monkeypatch.setattr(folding_process, "_LOOK_AGAIN_S", LONG_S * 10)
    heard = Listener()
    folding = folding_of(journal, ledger_file, on_folded=heard)
    folding.hurry()  # Nothing waits: nothing happens, and no process is started.
    assert folding.process_id is None
    for number in range(1, 4):
        exchange = an_end()
        folding.submit(exchange, journal.finished(exchange))
        folding.hurry()
        await until(lambda number=number: len(heard.told) == number)
    folding.close()


def test_who_records_nothing_starts_no_process(
    journal: Journal, folder: Path, ledger_file: Path
) -> None:
    folding = folding_of(journal, ledger_file)
    folding.close()
    assert folding.process_id is None
    assert not ledger_file.exists()
    assert list(folder.iterdir()) == []


def test_what_the_dead_left_is_settled_though_nothing_was_recorded(
    journal: Journal, folder: Path, ledger_file: Path, store: SqliteStore
) -> None:
    """A gateway that was started again for a session whose agent then asks nothing more."""
    dead = Journal.create(folder, session=a_session(id="01S"))
    opened = an_open_exchange(session_id="01S")
    dead.opened(opened)
    dead.close()
    folding_of(journal, ledger_file).close()
    assert [row.id for row in store.exchanges("01S")] == [opened.id]
    assert journals(folder) == []


async def test_the_dead_are_recovered_when_asked_for(
    journal: Journal, folder: Path, ledger_file: Path, governance: SqliteGovernance
) -> None:
    """Their money comes free while this process goes on."""
    folding = folding_of(journal, ledger_file)
    await asyncio.to_thread(folding.drain)
    dead = Journal.create(folder, session=a_session(id="01DEAD"))
    governance.lease(dead.process_id, [LeaseWish(KEY, 10**12, 10**9, 10**9)])
    dead.close()
    dead.path.touch()
    folding.recover()
    await asyncio.to_thread(folding.drain)
    assert governance.standings([KEY])[KEY] == Standing()
    folding.close()


def test_a_clean_end_returns_what_is_held_and_one_with_open_exchanges_does_not(
    folder: Path, ledger_file: Path, governance: SqliteGovernance
) -> None:
    for is_open in (False, True):
        journal = Journal.create(folder, session=a_session(id="01S"))
        governance.lease(journal.process_id, [LeaseWish(KEY, 10**12, 10**9, 10**9)])
        folding = folding_of(journal, ledger_file)
        ended = an_end()
        folding.submit(ended, journal.finished(ended))
        if is_open:
            journal.opened(an_open_exchange(session_id="01S"))
        folding.close()
        assert (governance.lease_holders() == {journal.process_id}) is is_open


@pytest.mark.parametrize("seed", range(6))
async def test_a_kill_of_the_process_at_any_moment_loses_and_doubles_nothing(
    journal: Journal, ledger_file: Path, store: SqliteStore, governance: SqliteGovernance, seed: int
) -> None:
    """While it starts, hears, folds or tells: another one takes over what is not committed."""
    moments = random.Random(seed)
    heard = Listener()
    folding = folding_of(journal, ledger_file, on_folded=heard)
    exchanges = [an_end() for _ in range(400)]
    kills = sorted(moments.sample(range(400), 4))
    for number, exchange in enumerate(exchanges):
        folding.submit(exchange, journal.finished(exchange), BODY, meter())
        if number in kills:
            if moments.random() < 0.5:
                told = len(heard.told)
                folding.hurry()
                await until(lambda told=told: len(heard.told) > told)
            if folding.process_id is not None:
                os.kill(folding.process_id, signal.SIGKILL)
        if number % 8 == 0:
            await asyncio.sleep(0)
    await asyncio.to_thread(folding.drain)
    rows = store.exchanges("01S")
    assert sorted(row.id for row in rows) == sorted(exchange.id for exchange in exchanges)
    assert sorted(each.id for each in heard.told) == sorted(row.id for row in rows)
    assert governance.standings([KEY])[KEY].spent == 400 * 1_234_567
    assert len(audited(ledger_file)) == 400
    assert store.integrity() == []
    folding.close()
    assert not journal.path.exists()


def test_a_process_that_dies_again_and_again_is_given_up(
    journal: Journal,
    folder: Path,
    ledger_file: Path,
    store: SqliteStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is said, nobody who submits is stopped, and the next start folds the journal."""
    monkeypatch.setattr("sys.executable", "/bin/false")
    folding = folding_of(journal, ledger_file)
    exchange = an_end()
    folding.submit(exchange, journal.finished(exchange), BODY)
    with pytest.raises(LedgerError, match="stopped"):
        folding.drain()
    assert folding.failure is not None
    later, read = an_end(), meter()
    gone = weakref.ref(read)
    folding.submit(later, journal.finished(later), BODY, read)
    del read
    with pytest.raises(LedgerError, match="stopped"):
        folding.close()
    assert gone() is None
    monkeypatch.undo()
    folding_of(Journal.create(folder, session=a_session()), ledger_file).close()
    assert {row.id for row in store.exchanges("01S")} == {exchange.id, later.id}


def test_after_a_while_it_is_tried_again(
    journal: Journal, ledger_file: Path, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway that serves for weeks does not stop folding for good."""
    with monkeypatch.context() as broken:
        broken.setattr("sys.executable", "/bin/false")
        folding = folding_of(journal, ledger_file)
        exchange = an_end()
        folding.submit(exchange, journal.finished(exchange))
        with pytest.raises(LedgerError):
            folding.drain()
    monkeypatch.setattr(folding_process, "RESTART_WINDOW_S", 0.0)
    folding.drain()
    assert folding.failure is None
    assert [row.id for row in store.exchanges("01S")] == [exchange.id]
    folding.close()


async def test_a_ledger_that_cannot_be_written_is_said_and_tried_again(
    journal: Journal, tmp_path: Path
) -> None:
    in_the_way = tmp_path / "in the way"
    in_the_way.write_text("")
    heard = Listener()
    folding = folding_of(journal, in_the_way / "ledger.db", on_folded=heard)
    exchange = an_end()
    folding.submit(exchange, journal.finished(exchange), BODY)
    await until(lambda: folding.failure is not None)
    assert folding.failure is not None
    assert folding.failure.code == "ledger-unwritable"
    with pytest.raises(LedgerError, match="in the way"):
        await asyncio.to_thread(folding.drain)
    assert not journal.is_settled
    in_the_way.unlink()
    await until(lambda: heard.told)
    assert folding.failure is None
    folding.close()


async def test_a_process_that_takes_nothing_costs_bodies_and_no_rows(
    journal: Journal, ledger_file: Path, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is kept for it is bounded."""
    monkeypatch.setattr(folding_process, "UNSENT_MAX_BYTES", 2 << 20)
    folding = folding_of(journal, ledger_file)
    await asyncio.to_thread(folding.drain)
    assert folding.process_id is not None
    os.kill(folding.process_id, signal.SIGSTOP)
    body = BODY[:-1] + b',"x":"' + b"x" * 100_000 + b'"}'
    for _ in range(64):
        exchange = an_end()
        folding.submit(exchange, journal.finished(exchange), body)
    assert folding.unsent_bytes < 3 << 20
    os.kill(folding.process_id, signal.SIGCONT)
    await asyncio.to_thread(folding.drain)
    rows = store.exchanges("01S")
    assert len(rows) == 64
    assert 0 < sum(row.parts is None for row in rows) < 64
    folding.close()


def test_values_that_no_line_takes_cost_themselves_and_not_the_row(
    journal: Journal, ledger_file: Path, store: SqliteStore
) -> None:
    folding = folding_of(journal, ledger_file)
    odd = an_end(request_model="\ud800", raw_usage="\ud800")
    line = journal.finished(odd)
    assert line is None
    folding.submit(odd, line, BODY)
    folding.close()
    [row] = store.exchanges("01S")
    assert (row.id, row.usage.is_empty) == (odd.id, True)


@pytest.fixture
def senders(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """How much there was to send, and the thread that did it, each time that something was."""
    seen: list[tuple[int, str]] = []
    send = FoldingLink.send

    def watched(link: FoldingLink) -> None:
        if link.unsent_bytes:
            seen.append((link.unsent_bytes, threading.current_thread().name))
        send(link)

    monkeypatch.setattr(FoldingLink, "send", watched)
    return seen


def sending_threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith(SENDING)]


async def begun(folding: FoldingProcess, journal: Journal) -> list[ExchangeRecord]:
    """What a process that takes nothing was given, of which some is being sent."""
    await asyncio.to_thread(folding.drain)
    assert folding.process_id is not None
    os.kill(folding.process_id, signal.SIGSTOP)
    exchanges = [an_end() for _ in range(16)]
    for exchange in exchanges:
        folding.submit(exchange, journal.finished(exchange), LARGE_BODY, meter())
    await until(sending_threads)
    return exchanges


async def test_large_bodies_are_not_sent_by_the_loops_thread(
    journal: Journal, ledger_file: Path, store: SqliteStore, senders: list[tuple[int, str]]
) -> None:
    """Copying them would hold up every request; what is small is not worth another thread."""
    heard = Listener()
    folding = folding_of(journal, ledger_file, on_folded=heard)
    here = threading.current_thread().name
    for number, body in enumerate((BODY, LARGE_BODY, BODY), 1):
        senders.clear()
        exchange = an_end()
        folding.submit(exchange, journal.finished(exchange), body, meter())
        await until(lambda number=number: len(heard.told) == number)
        large = {name for size, name in senders if size >= LARGE_BYTES}
        assert large == set() if body is BODY else here not in large != set()
        assert body is LARGE_BODY or {name for _, name in senders} == {here}
    assert all(row.parts is not None for row in store.exchanges("01S"))
    folding.close()
    assert sending_threads() == []


async def test_large_and_small_arrive_in_their_order(journal: Journal, ledger_file: Path) -> None:
    """Also what ends while a thread sends."""
    heard = Listener()
    folding = folding_of(journal, ledger_file, on_folded=heard)
    exchanges = [an_end() for _ in range(120)]
    for number, exchange in enumerate(exchanges):
        body = LARGE_BODY if number % 5 == 0 else BODY
        folding.submit(exchange, journal.finished(exchange), body, meter())
        await asyncio.sleep(0.005 if number % 20 == 0 else 0)
    await until(lambda: len(heard.told) == len(exchanges))
    assert [each.id for each in heard.told] == [exchange.id for exchange in exchanges]
    folding.close()


async def test_a_close_while_a_thread_sends_commits_all_of_it(
    journal: Journal, folder: Path, ledger_file: Path, store: SqliteStore
) -> None:
    folding = folding_of(journal, ledger_file)
    exchanges = await begun(folding, journal)
    process_id = folding.process_id
    assert process_id is not None
    closing_up = asyncio.get_running_loop().run_in_executor(None, folding.close)
    await asyncio.sleep(0)
    os.kill(process_id, signal.SIGCONT)
    await closing_up
    rows = store.exchanges("01S")
    assert [row.id for row in rows] == [exchange.id for exchange in exchanges]
    assert all(row.parts is not None for row in rows)
    assert sending_threads() == []
    assert list(folder.iterdir()) == []


async def test_a_kill_while_a_thread_sends_loses_and_doubles_nothing(
    journal: Journal, ledger_file: Path, store: SqliteStore
) -> None:
    """The loop's next turns hand all of it to another process."""
    heard = Listener()
    folding = folding_of(journal, ledger_file, on_folded=heard)
    exchanges = await begun(folding, journal)
    assert folding.process_id is not None
    os.kill(folding.process_id, signal.SIGKILL)
    await until(lambda: len(heard.told) >= len(exchanges))
    assert sorted(each.id for each in heard.told) == sorted(each.id for each in exchanges)
    assert len(store.exchanges("01S")) == len(exchanges)
    later = an_end()
    folding.submit(later, journal.finished(later), LARGE_BODY, meter())
    await until(lambda: heard.told[-1].id == later.id)
    assert store.exchanges("01S")[-1].parts is not None
    folding.close()
    assert sending_threads() == []


async def test_an_order_given_while_another_has_the_turn_is_passed_on(
    journal: Journal, ledger_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody waits for the money, whatever a thread is about."""
    given: list[bytes] = []
    queue = FoldingLink.queue

    def watched(link: FoldingLink, head: bytes, body: bytes = b"") -> None:
        given.append(head)
        queue(link, head, body)

    folding = folding_of(journal, ledger_file)
    await asyncio.to_thread(folding.drain)
    monkeypatch.setattr(FoldingLink, "queue", watched)
    with folding._turn:
        exchange = an_end()
        folding.submit(exchange, journal.finished(exchange))
        folding.hurry()
        assert given == []
    await until(lambda: frame(Hurry()) in given)
    folding.close()


def test_who_no_longer_waits_while_a_process_is_started_disturbs_no_other(
    journal: Journal, ledger_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was answered by the process before, and goes in a thread that needs no turn for that."""
    folding = folding_of(journal, ledger_file)
    queue = FoldingLink.queue

    def meanwhile(link: FoldingLink, head: bytes, body: bytes = b"") -> None:
        if head == frame(Drain(1)):
            folding._drains.pop(0)
        queue(link, head, body)

    monkeypatch.setattr(FoldingLink, "queue", meanwhile)
    folding._drains[0] = Drained(0)
    folding.drain()
    folding.close()
