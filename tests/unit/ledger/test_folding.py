"""From journals into the ledger, while serving and after a crash."""

import gc
import json
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace

from opencode_gate.core.clock import SystemClock
from opencode_gate.core.errors import LedgerError
from opencode_gate.core.semconv import CostQuality, ExchangeStatus, Operation, UsageQuality
from opencode_gate.core.usage import TokenUsage
from opencode_gate.ledger import recovery
from opencode_gate.ledger.folding import Folder
from opencode_gate.ledger.journal import Journal, read_journal
from opencode_gate.ledger.records import ExchangeRecord, SessionRecord
from opencode_gate.ledger.recovery import settle_orphans
from opencode_gate.ledger.request_shape import RequestShapes
from opencode_gate.ledger.sqlite import SqliteStore, open_store
from opencode_gate.wire.prompt_parts import PART_BYTES
from tests.support.ledger_records import (
    NOON_US,
    a_session,
    an_exchange,
    an_open_exchange,
    priced_at,
)

DAY_US = 86_400_000_000


def unpriced(exchange: ExchangeRecord) -> ExchangeRecord:
    return exchange


@pytest.fixture
def store(ledger_file: Path) -> Iterator[SqliteStore]:
    store = open_store(ledger_file)
    yield store
    store.close()


@pytest.fixture
def session() -> SessionRecord:
    return a_session()


def test_submitted_exchanges_are_priced_and_committed_when_drained(
    folder: Path, ledger_file: Path, store: SqliteStore, session: SessionRecord
):
    """And the journal is gone after the end."""
    journal = Journal.create(folder, session=session)
    exchanges = [an_exchange(session_id=session.id) for _ in range(20)]
    folding = Folder(folder, ledger_file, priced_at("0.5"), journal=journal)
    for exchange in exchanges:
        journal.finished(exchange)
        folding.submit(exchange)
    folding.drain()
    rows = store.exchanges(session.id)
    assert [row.id for row in rows] == [exchange.id for exchange in exchanges]
    assert {row.cost_nano_usd for row in rows} == {500_000_000}
    assert read_journal(journal.path).folded_ids == {exchange.id for exchange in exchanges}
    folding.close()
    assert list(folder.iterdir()) == []


def chat_body(*tools: str, said: str = "hello") -> bytes:
    return json.dumps(
        {
            "model": "m",
            "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": said}],
            "tools": [{"type": "function", "function": {"name": name}} for name in tools],
        }
    ).encode()


def test_what_a_request_was_made_of_is_committed_with_it(
    folder: Path, ledger_file: Path, store: SqliteStore, session: SessionRecord
):
    """Its parts, and of each set of tools the names and sizes."""
    journal = Journal.create(folder, session=session)
    shapes = RequestShapes(b"k" * 32)
    folding = Folder(folder, ledger_file, unpriced, journal=journal, shapes=shapes)
    exchanges = [an_exchange(session_id=session.id) for _ in range(3)]
    for exchange, tools in zip(exchanges, (["glob"], ["glob"], ["glob", "read"]), strict=True):
        folding.submit(exchange, chat_body(*tools))
    folding.drain()
    first, again, more = store.exchanges(session.id)
    assert first.parts is not None
    assert len(first.parts) == 3 * PART_BYTES
    assert first.parts == again.parts
    assert first.parts[PART_BYTES:] == more.parts[PART_BYTES:]  # type: ignore[index]
    assert first.tool_set == again.tool_set != more.tool_set
    assert first.tool_set is not None
    assert more.tool_set is not None
    found = store.tool_sets([first.tool_set, more.tool_set])
    assert list(found[first.tool_set]) == ["glob"]
    assert sorted(found[more.tool_set]) == ["glob", "read"]
    folding.close()


def test_a_body_that_cannot_be_read_costs_only_its_parts(
    folder: Path,
    ledger_file: Path,
    store: SqliteStore,
    session: SessionRecord,
    monkeypatch: pytest.MonkeyPatch,
):
    journal = Journal.create(folder, session=session)
    shapes = RequestShapes(b"k" * 32)
    folding = Folder(folder, ledger_file, unpriced, journal=journal, shapes=shapes)
    exchanges = [an_exchange(session_id=session.id) for _ in range(2)]
    folding.submit(exchanges[0], b"no JSON")
    folding.drain()
    monkeypatch.setattr(shapes, "shaped", lambda *_: 1 / 0)
    folding.submit(exchanges[1], chat_body())
    folding.drain()
    assert store.exchanges(session.id) == exchanges
    folding.close()


def test_a_body_is_looked_at_in_the_folding_thread(
    folder: Path,
    ledger_file: Path,
    session: SessionRecord,
    monkeypatch: pytest.MonkeyPatch,
):
    """Never in the one that serves requests."""
    journal = Journal.create(folder, session=session)
    shapes = RequestShapes(b"k" * 32)
    threads: list[threading.Thread] = []
    shaped = shapes.shaped
    monkeypatch.setattr(
        shapes,
        "shaped",
        lambda *given: threads.append(threading.current_thread()) or shaped(*given),
    )
    folding = Folder(folder, ledger_file, unpriced, journal=journal, shapes=shapes)
    folding.submit(an_exchange(session_id=session.id), chat_body())
    folding.drain()
    assert threads == [folding]
    folding.close()


def test_bodies_are_let_go_of_while_the_ledger_fails(
    folder: Path, ledger_file: Path, session: SessionRecord
):
    """A database that cannot be written for hours must not fill the memory with prompts."""
    ledger_file.mkdir()
    journal = Journal.create(folder, session=session)
    shapes = RequestShapes(b"k" * 32)
    folding = Folder(folder, ledger_file, unpriced, journal=journal, shapes=shapes)
    bodies = [chat_body(said=f"{number}" * 1000) for number in range(3)]
    for body in bodies:
        folding.submit(an_exchange(session_id=session.id), body)
    with pytest.raises(LedgerError):
        folding.drain()
    assert not any(
        referrer for body in bodies for referrer in gc.get_referrers(body) if referrer is not bodies
    )
    ledger_file.rmdir()
    folding.close()
    with closing(open_store(ledger_file)) as opened:
        assert all(exchange.parts for exchange in opened.exchanges(session.id))


def test_tools_with_a_name_no_database_takes_do_not_hold_up_the_exchange(
    folder: Path, ledger_file: Path, store: SqliteStore, session: SessionRecord
):
    """A lone surrogate out of a client's request."""
    journal = Journal.create(folder, session=session)
    shapes = RequestShapes(b"k" * 32)
    shapes.tool_sets["aa"] = {"gl\ud800ob": 512}
    folding = Folder(folder, ledger_file, unpriced, journal=journal, shapes=shapes)
    exchange = an_exchange(session_id=session.id, tool_set="aa")
    folding.submit(exchange)
    folding.drain()
    assert store.exchanges(session.id) == [exchange]
    folding.close()


def test_parts_older_than_the_user_keeps_go_when_a_session_starts(
    folder: Path, ledger_file: Path, store: SqliteStore, session: SessionRecord
):
    """And only those; without a limit nothing goes."""
    now_us = SystemClock().now_us()
    ages_days = (0, 29, 31)
    store.fold(
        an_exchange(session_id=session.id, parts=b"x" * 12, started_at_us=now_us - days * DAY_US)
        for days in ages_days
    )
    for keep_days, left in ((None, 3), (30, 2), (0, 0)):
        journal = Journal.create(folder, session=session)
        folding = Folder(folder, ledger_file, unpriced, journal=journal, keep_parts_days=keep_days)
        folding.drain()
        folding.close()
        assert sum(each.parts is not None for each in store.exchanges(session.id)) == left


def test_close_commits_what_was_submitted_just_before(
    folder: Path, ledger_file: Path, store: SqliteStore, session: SessionRecord
):
    """Nothing depends on a drain."""
    journal = Journal.create(folder, session=session)
    folding = Folder(folder, ledger_file, unpriced, journal=journal)
    exchange = an_exchange(session_id=session.id)
    journal.finished(exchange)
    folding.submit(exchange)
    folding.close()
    assert store.exchanges(session.id) == [exchange]


def test_an_open_exchange_keeps_the_journal(
    folder: Path, ledger_file: Path, store: SqliteStore, session: SessionRecord
):
    """The next start settles it."""
    journal = Journal.create(folder, session=session)
    folding = Folder(folder, ledger_file, unpriced, journal=journal)
    journal.opened(an_open_exchange(session_id=session.id))
    folding.close()
    assert journal.path.exists()
    assert settle_orphans(folder, store, unpriced) == 1
    assert not journal.path.exists()


def test_a_failing_price_book_loses_no_exchange(
    folder: Path, ledger_file: Path, store: SqliteStore, session: SessionRecord
):
    """It is recorded without a price."""

    def broken(exchange: ExchangeRecord) -> ExchangeRecord:
        raise KeyError("no such model")

    journal = Journal.create(folder, session=session)
    folding = Folder(folder, ledger_file, broken, journal=journal)
    exchange = an_exchange(
        session_id=session.id, cost_nano_usd=None, cost_quality=CostQuality.UNKNOWN
    )
    journal.finished(exchange)
    folding.submit(exchange)
    folding.close()
    assert store.exchanges(session.id) == [exchange]


def test_a_value_no_database_takes_costs_only_itself(
    folder: Path, ledger_file: Path, store: SqliteStore, session: SessionRecord
):
    """Its exchange stays, as unknown; the rest of the batch is untouched."""
    journal = Journal.create(folder, session=session)
    folding = Folder(folder, ledger_file, unpriced, journal=journal)
    good = an_exchange(session_id=session.id)
    huge = an_exchange(session_id=session.id, usage=TokenUsage(output=2**70))
    odd = an_exchange(session_id=session.id, request_model="m\ud800")
    for exchange in (good, huge, odd):
        journal.finished(exchange)
        folding.submit(exchange)
    folding.close()
    rows = {row.id: row for row in store.exchanges(session.id)}
    assert rows[good.id] == good
    assert rows[huge.id].usage == TokenUsage()
    assert rows[huge.id].usage_quality is UsageQuality.UNKNOWN
    assert rows[huge.id].cost_nano_usd is None
    assert rows[odd.id].request_model == "m?"


def test_a_database_that_comes_back_loses_nothing(
    folder: Path, ledger_file: Path, session: SessionRecord, monkeypatch: pytest.MonkeyPatch
):
    """While it is away draining fails, the journal stays; afterwards all is committed."""
    monkeypatch.setattr("opencode_gate.ledger.folding._RETRY_AFTER_S", 0.001)
    ledger_file.mkdir()
    journal = Journal.create(folder, session=session)
    folding = Folder(folder, ledger_file, unpriced, journal=journal)
    exchange = an_exchange(session_id=session.id)
    journal.finished(exchange)
    folding.submit(exchange)
    with pytest.raises(LedgerError) as caught:
        folding.drain()
    assert caught.value.code == "ledger-unwritable"
    assert folding.failure is not None
    ledger_file.rmdir()
    while folding.failure is not None:
        folding_failed = folding.failure
        try:
            folding.drain()
        except LedgerError:
            assert folding_failed
    folding.close()
    store = open_store(ledger_file)
    assert store.exchanges(session.id) == [exchange]
    store.close()
    assert list(folder.iterdir()) == []


def test_closing_without_a_database_says_so_and_keeps_the_journal(
    folder: Path, ledger_file: Path, session: SessionRecord
):
    """The launcher passes it on; the next start recovers."""
    ledger_file.write_bytes(b"This is no database, it is a letter." * 100)
    journal = Journal.create(folder, session=session)
    folding = Folder(folder, ledger_file, unpriced, journal=journal)
    exchange = an_exchange(session_id=session.id)
    journal.finished(exchange)
    folding.submit(exchange)
    with pytest.raises(LedgerError) as caught:
        folding.close()
    assert caught.value.code == "ledger-corrupt"
    assert not folding.is_alive()
    ledger_file.unlink()
    store = open_store(ledger_file)
    assert settle_orphans(folder, store, unpriced) == 1
    assert store.exchanges(session.id) == [exchange]
    assert store.session(session.id).id == session.id
    store.close()


def test_a_bug_is_told_to_who_waits_and_ends_no_folding(
    folder: Path, ledger_file: Path, store: SqliteStore, session: SessionRecord
):
    """Draining is an error, not a wait for ever; what could not be folded is as soon as it can."""
    journal = Journal.create(folder, session=session)
    exchange = an_exchange(session_id=session.id)
    with pytest.MonkeyPatch.context() as broken:
        broken.setattr("opencode_gate.ledger.folding.commit", _bug)
        folding = Folder(folder, ledger_file, unpriced, journal=journal)
        journal.finished(exchange)
        folding.submit(exchange)
        with pytest.raises(LedgerError):
            folding.drain()
        assert journal.path.exists()
    folding.close()
    assert [row.id for row in store.exchanges(session.id)] == [exchange.id]


def test_a_journal_nobody_can_settle_stays_and_holds_up_no_other(
    folder: Path, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
):
    first, second = (Journal.create(folder, session=a_session()) for _ in range(2))
    exchange = an_exchange()
    for journal in (first, second):
        journal.finished(exchange if journal is second else an_exchange())
        os.close(journal._descriptor)
    read = recovery.read_journal
    monkeypatch.setattr(
        recovery, "read_journal", lambda path: _bug() if path == first.path else read(path)
    )
    assert settle_orphans(folder, store, unpriced) == 1
    assert store.recorded([exchange.id]) == {exchange.id}
    assert (first.path.exists(), second.path.exists()) == (True, False)


def test_a_journal_nobody_can_open_keeps_no_process_from_folding(
    folder: Path, ledger_file: Path, store: SqliteStore, session: SessionRecord
):
    """One of another user, left behind in the same folder."""
    (folder / "0.jsonl").mkdir(parents=True)
    journal = Journal.create(folder, session=session)
    folding = Folder(folder, ledger_file, unpriced, journal=journal)
    exchange = an_exchange(session_id=session.id)
    journal.finished(exchange)
    folding.submit(exchange)
    folding.close()
    assert store.exchanges(session.id) == [exchange]


def _bug(*_: object) -> None:
    raise AssertionError("bug")


def test_a_started_gateway_settles_the_dead_first(
    folder: Path, ledger_file: Path, store: SqliteStore, session: SessionRecord
):
    """Without anybody asking."""
    dead = Journal.create(folder, session=session)
    exchange = an_exchange(session_id=session.id)
    dead.finished(exchange)
    dead.close()
    journal = Journal.create(folder, session=session)
    folding = Folder(folder, ledger_file, unpriced, journal=journal)
    folding.drain()
    assert store.exchanges(session.id) == [exchange]
    assert not dead.path.exists()
    assert store.session(session.id).ended_at_us is None
    folding.close()


def test_what_was_open_becomes_interrupted_with_the_tokens_seen(
    folder: Path, store: SqliteStore, session: SessionRecord
):
    """Estimated, priced, once."""
    journal = Journal.create(folder, session=session)
    cut = an_open_exchange(session_id=session.id)
    unseen = an_open_exchange(session_id=session.id)
    journal.opened(cut)
    journal.progressed(cut.id, TokenUsage(input_uncached=500, output=1), 4001)
    journal.opened(unseen)
    journal.close()
    assert settle_orphans(folder, store, priced_at("0.01")) == 2
    rows = {row.id: row for row in store.exchanges(session.id)}
    settled = rows[cut.id]
    assert settled.status is ExchangeStatus.INTERRUPTED
    assert settled.usage == TokenUsage(input_uncached=500, output=1001)
    assert settled.usage_quality is UsageQuality.ESTIMATED
    assert settled.cost_nano_usd == 10_000_000
    assert rows[unseen.id].usage_quality is UsageQuality.UNKNOWN
    assert rows[unseen.id].status is ExchangeStatus.INTERRUPTED
    assert settle_orphans(folder, store, priced_at("0.01")) == 0


def test_input_nobody_counted_is_estimated_from_the_prompts_size(
    folder: Path, store: SqliteStore, session: SessionRecord
):
    """What was sent is billed, even if no word came back; a listing is not."""
    journal = Journal.create(folder, session=session)
    silent = an_open_exchange(session_id=session.id)
    counted = an_open_exchange(session_id=session.id)
    listing = an_open_exchange(session_id=session.id, operation=Operation.LIST_MODELS)
    for exchange in (silent, counted, listing):
        journal.opened(exchange, input_bytes=4001)
    journal.progressed(counted.id, TokenUsage(cache_read=900), 0)
    journal.close()
    settle_orphans(folder, store, unpriced)
    rows = {row.id: row for row in store.exchanges(session.id)}
    assert rows[silent.id].usage == TokenUsage(input_uncached=1001)
    assert rows[silent.id].usage_quality is UsageQuality.ESTIMATED
    assert rows[counted.id].usage == TokenUsage(cache_read=900)
    assert rows[listing.id].usage == TokenUsage()


def test_a_reported_output_above_the_text_delivered_is_kept(
    folder: Path, store: SqliteStore, session: SessionRecord
):
    """Reasoning is output that is not text."""
    journal = Journal.create(folder, session=session)
    cut = an_open_exchange(session_id=session.id)
    journal.opened(cut)
    journal.progressed(cut.id, TokenUsage(input_uncached=5, output=900), 40)
    journal.close()
    settle_orphans(folder, store, unpriced)
    [row] = store.exchanges(session.id)
    assert row.usage.output == 900


def test_folded_exchanges_are_not_folded_and_priced_again(
    folder: Path, store: SqliteStore, session: SessionRecord
):
    """The price of the day they were folded stays."""
    journal = Journal.create(folder, session=session)
    folded = an_exchange(session_id=session.id, cost_nano_usd=11)
    journal.finished(folded)
    store.fold([folded])
    journal.folded([folded.id])
    journal.opened(an_open_exchange(session_id=session.id))
    journal.close()
    assert settle_orphans(folder, store, priced_at("9")) == 1
    assert store.exchanges(session.id)[0].cost_nano_usd == 11


def test_a_journal_settled_twice_makes_the_same_rows(
    folder: Path, store: SqliteStore, session: SessionRecord
):
    """A crash between the commit and the removal."""
    journal = Journal.create(folder, session=session)
    cut = an_open_exchange(session_id=session.id)
    journal.finished(an_exchange(session_id=session.id))
    journal.opened(cut)
    journal.close()
    content = journal.path.read_bytes()
    settle_orphans(folder, store, priced_at("1"))
    rows = store.exchanges(session.id)
    journal.path.write_bytes(content)
    settle_orphans(folder, store, priced_at("1"))
    assert store.exchanges(session.id) == rows
    assert len(rows) == 2


def test_a_session_nobody_ended_ends_when_its_journal_does(
    folder: Path, store: SqliteStore, session: SessionRecord
):
    """Its last sign of life, without an exit status."""
    journal = Journal.create(folder, session=session)
    journal.finished(
        an_exchange(
            session_id=session.id, started_at_us=NOON_US + 100, duration_us=23, cost_nano_usd=1
        )
    )
    journal.close()
    settle_orphans(folder, store, unpriced)
    assert store.session(session.id) == replace(session, ended_at_us=NOON_US + 123)


def test_a_session_the_launcher_ended_keeps_its_end(
    folder: Path, store: SqliteStore, session: SessionRecord
):
    """Only the gateway had died."""
    store.add_session(session)
    store.end_session(session.id, ended_at_us=NOON_US + 9, exit_status=0)
    journal = Journal.create(folder, session=session)
    journal.finished(an_exchange(session_id=session.id))
    journal.close()
    settle_orphans(folder, store, unpriced)
    assert store.session(session.id) == replace(session, ended_at_us=NOON_US + 9, exit_status=0)


def test_the_journal_stays_if_the_commit_fails(
    folder: Path, ledger_file: Path, session: SessionRecord, monkeypatch: pytest.MonkeyPatch
):
    """Another process holds the database for too long."""
    monkeypatch.setattr("opencode_gate.ledger.sqlite.connection.BUSY_TIMEOUT_S", 0.01)
    store = open_store(ledger_file)
    journal = Journal.create(folder, session=session)
    journal.finished(an_exchange(session_id=session.id))
    journal.close()
    other = sqlite3.connect(ledger_file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(LedgerError) as caught:
        settle_orphans(folder, store, unpriced)
    assert caught.value.code == "ledger-unwritable"
    assert journal.path.exists()
    other.execute("ROLLBACK")
    other.close()
    assert settle_orphans(folder, store, unpriced) == 1
    store.close()


def test_an_empty_journal_is_removed(folder: Path, store: SqliteStore):
    """A process that died between making and locking its file."""
    folder.mkdir()
    (folder / "01EMPTY.jsonl").touch()
    assert settle_orphans(folder, store, unpriced) == 0
    assert list(folder.iterdir()) == []
