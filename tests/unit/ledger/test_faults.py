"""Processes die and share: every exchange is in the ledger exactly once, with what was seen."""

import random
import sqlite3
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen

import pytest

from opencode_gate.core.errors import LedgerError
from opencode_gate.core.semconv import ExchangeStatus, UsageQuality
from opencode_gate.core.usage import TokenUsage
from opencode_gate.ledger import folding as folding_module
from opencode_gate.ledger.folding import Folder
from opencode_gate.ledger.journal import Journal, is_living, journals, orphans
from opencode_gate.ledger.records import ExchangeRecord
from opencode_gate.ledger.recovery import settle_orphans
from opencode_gate.ledger.sqlite import SqliteStore, open_store
from opencode_gate.ledger.sqlite.connection import transaction
from tests.support.ledger_children import child, unpriced, usage_of
from tests.support.ledger_records import a_session, an_exchange


@dataclass
class Said:
    """What a child has said it did before it was killed."""

    opened: list[str] = field(default_factory=list)
    progressed: dict[str, int] = field(default_factory=dict)
    finished: dict[str, int] = field(default_factory=dict)


def killed_after(process: Popen[bytes], lines: int) -> Said:
    """Kills the child in the middle of whatever follows its n-th deed; gives all it said."""
    assert process.stdout is not None
    said = [process.stdout.readline() for _ in range(lines)]
    process.kill()
    said += process.stdout.readlines()
    process.wait()
    result = Said()
    for line in said:
        match line.decode().split():
            case ["opened", id]:
                result.opened.append(id)
            case ["progressed", id, step]:
                result.progressed[id] = int(step)
            case ["finished", id, number] if line.endswith(b"\n"):
                result.finished[id] = int(number)
    return result


def check_every_exchange_once(rows: list[ExchangeRecord], said: Said) -> None:
    """At most the one deed under way at the kill is more than what was said."""
    by_id = {row.id: row for row in rows}
    assert len(by_id) == len(rows)
    assert set(said.opened) <= set(by_id)
    assert len(set(by_id) - set(said.opened)) <= 1
    unsaid_ends = 0
    for id, row in by_id.items():
        if id in said.finished:
            assert row.status is ExchangeStatus.COMPLETED
            assert row.usage == usage_of(said.finished[id])
            assert row.usage_quality is UsageQuality.REPORTED
        elif row.status is ExchangeStatus.COMPLETED:
            unsaid_ends += 1
        else:
            assert row.status is ExchangeStatus.INTERRUPTED
            step = said.progressed.get(id)
            seen = row.usage.output
            assert seen == step or (seen is not None and seen == (0 if step is None else step) + 1)
            expected = UsageQuality.UNKNOWN if seen is None else UsageQuality.ESTIMATED
            assert row.usage_quality is expected
    assert unsaid_ends <= 1


@pytest.fixture
def store(ledger_file: Path):
    store = open_store(ledger_file)
    yield store
    store.close()


@pytest.mark.parametrize("seed", range(8))
def test_a_kill_at_any_point_loses_no_exchange_and_makes_none(
    folder: Path, store: SqliteStore, seed: int
):
    """The finished ones with their counts, the others interrupted with the tokens seen."""
    lines = random.Random(seed).randrange(1, 120)
    with child("append", folder, "01S") as process:
        said = killed_after(process, lines)
    recovered = settle_orphans(folder, store, unpriced)
    rows = store.exchanges("01S")
    assert len(rows) == recovered
    check_every_exchange_once(rows, said)
    assert list(folder.iterdir()) == []
    assert settle_orphans(folder, store, unpriced) == 0
    assert store.exchanges("01S") == rows


@pytest.mark.parametrize("seed", range(4))
def test_a_kill_while_folding_loses_no_exchange_and_makes_none(
    folder: Path, ledger_file: Path, store: SqliteStore, seed: int
):
    """Whether its commit had happened or not, or only its mark in the journal was missing."""
    lines = random.Random(seed).randrange(1, 400)
    with child("serve", folder, ledger_file, "01S") as process:
        said = killed_after(process, lines)
    settle_orphans(folder, store, unpriced)
    check_every_exchange_once(store.exchanges("01S"), said)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("seed", range(6))
def test_a_kill_while_the_journal_is_made_anew_loses_no_exchange_and_makes_none(
    folder: Path, ledger_file: Path, store: SqliteStore, seed: int
):
    """Again and again, by a thread, while exchanges begin and end; nobody takes it for dead."""
    lines = random.Random(seed).randrange(1, 400)
    with child("serve", folder, ledger_file, "01S", 500) as process:
        assert process.stdout is not None
        path = Path(process.stdout.readline().split()[1].decode())
        before, replaced = path.stat().st_ino, False
        while not replaced:
            process.stdout.readline()
            assert (is_living(path), orphans(folder)) == (True, [])
            replaced = path.stat().st_ino != before
        said = killed_after(process, lines)
    settle_orphans(folder, store, unpriced)
    rows = store.exchanges("01S")
    assert {*said.opened, *said.finished} <= {row.id for row in rows}
    assert len({row.id for row in rows}) == len(rows)
    assert list(folder.iterdir()) == []


def test_a_living_process_is_left_alone(folder: Path, ledger_file: Path, store: SqliteStore):
    """Its journal stays, its open exchanges stay open, its session has not ended."""
    with (
        child("append", folder, "01LIVING") as living,
        child("append", folder, "01DEAD") as dead,
    ):
        assert living.stdout is not None
        path = Path(living.stdout.readline().split()[1].decode())
        said = killed_after(dead, 20)
        settle_orphans(folder, store, unpriced)
        check_every_exchange_once(store.exchanges("01DEAD"), said)
        assert journals(folder) == [path]
        assert store.exchanges("01LIVING") == []
        assert [session.id for session in store.sessions()] == ["01DEAD"]
        said = killed_after(living, 20)
    settle_orphans(folder, store, unpriced)
    check_every_exchange_once(store.exchanges("01LIVING"), said)


def test_several_processes_make_and_fill_one_ledger_at_once(folder: Path, ledger_file: Path):
    """All start on a machine that has no ledger yet; none fails, nothing is lost or doubled."""
    with ExitStack() as stack:
        children = [
            stack.enter_context(child("fold", folder, ledger_file, f"01S{n}", 120))
            for n in range(3)
        ]
        for process in children:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
        for process in children:
            assert process.stdin is not None
            process.stdin.write(b"go\n")
            process.stdin.flush()
        for process in children:
            assert process.stdout is not None
            assert process.stdout.readline() == b"closed\n"
    store = open_store(ledger_file)
    for n in range(3):
        usages = [row.usage for row in store.exchanges(f"01S{n}")]
        assert usages == [usage_of(number) for number in range(120)]
    assert store.integrity() == []
    store.close()
    assert list(folder.iterdir()) == []


def test_two_processes_that_settle_at_once_recover_each_exchange_once(
    folder: Path, ledger_file: Path
):
    """Whoever holds a journal's lock settles it, the other passes on."""
    for n in range(30):
        journal = Journal.create(folder, session=a_session(id=f"01S{n:02}"))
        journal.finished(an_exchange(session_id=f"01S{n:02}"))
        journal.close()
    with (
        child("settle", folder, ledger_file) as first,
        child("settle", folder, ledger_file) as second,
    ):
        recovered = []
        for process in (first, second):
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
        for process in (first, second):
            assert process.stdin is not None
            process.stdin.write(b"go\n")
            process.stdin.flush()
        for process in (first, second):
            assert process.stdout is not None
            recovered.append(int(process.stdout.readline()))
            assert process.wait() == 0
    store = open_store(ledger_file)
    settled_later = settle_orphans(folder, store, unpriced)
    assert sum(recovered) + settled_later == 30
    assert len(store.sessions()) == 30
    assert all(len(store.exchanges(f"01S{n:02}")) == 1 for n in range(30))
    store.close()


def test_a_torn_last_line_is_settled_as_far_as_it_was_written(folder: Path, store: SqliteStore):
    """A finish that was cut short leaves its exchange interrupted, not lost."""
    journal = Journal.create(folder, session=a_session(id="01S"))
    exchange = an_exchange(session_id="01S")
    journal.opened(
        ExchangeRecord(
            id=exchange.id,
            session_id="01S",
            operation=exchange.operation,
            wire_format=exchange.wire_format,
            provider_name="practice",
            status=ExchangeStatus.OPEN,
            started_at_us=exchange.started_at_us,
        )
    )
    journal.finished(exchange)
    journal.close()
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole[:-20])
    assert settle_orphans(folder, store, unpriced) == 1
    [row] = store.exchanges("01S")
    assert (row.id, row.status) == (exchange.id, ExchangeStatus.INTERRUPTED)
    assert row.usage == TokenUsage()


def test_a_full_disk_under_the_ledger_keeps_everything_in_the_journal(
    folder: Path, ledger_file: Path, monkeypatch: pytest.MonkeyPatch
):
    """Draining says so; the next start, with space again, recovers it all."""

    def with_no_room(path: Path) -> SqliteStore:
        store = open_store(path)
        store._connection.execute("PRAGMA max_page_count = 1")
        return store

    monkeypatch.setattr(folding_module, "open_store", with_no_room)
    journal = Journal.create(folder, session=a_session(id="01S"))
    folding = Folder(folder, ledger_file, unpriced, journal=journal)
    exchanges = [an_exchange(session_id="01S", raw_usage="x" * 500) for _ in range(100)]
    for exchange in exchanges:
        journal.finished(exchange)
        folding.submit(exchange)
    with pytest.raises(LedgerError) as caught:
        folding.close()
    assert caught.value.code == "ledger-unwritable"
    assert "full" in caught.value.message
    assert orphans(folder) == [journal.path]
    store = open_store(ledger_file)
    settle_orphans(folder, store, unpriced)
    assert store.exchanges("01S") == exchanges
    store.close()


def test_a_commit_that_fails_lets_go_of_the_lock(tmp_path: Path):
    path = tmp_path / "some.db"
    one, other = (sqlite3.connect(path, isolation_level=None, timeout=0) for _ in range(2))
    one.execute("PRAGMA foreign_keys = ON")
    one.execute("CREATE TABLE whole (id INTEGER PRIMARY KEY)")
    one.execute(
        "CREATE TABLE part (id INTEGER REFERENCES whole (id) DEFERRABLE INITIALLY DEFERRED)"
    )
    with pytest.raises(sqlite3.IntegrityError), transaction(one):
        one.execute("INSERT INTO part VALUES (1)")
    with transaction(other):
        other.execute("INSERT INTO whole VALUES (1)")
