"""The folding thread and budgets: who is told, what is hurried, recovered and returned."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from opencode_gate.core.errors import LedgerError
from opencode_gate.ledger.audit_files import seal_beside
from opencode_gate.ledger.folding import Folder
from opencode_gate.ledger.governance_store import LeaseWish, Standing, WindowKey
from opencode_gate.ledger.journal import Journal
from opencode_gate.ledger.records import Charge, ExchangeRecord
from opencode_gate.ledger.sqlite import SqliteStore, open_store
from opencode_gate.ledger.sqlite.audit import open_audit
from opencode_gate.ledger.sqlite.governance import SqliteGovernance
from opencode_gate.wire.meter import ExchangeMeter
from opencode_gate.wire.routes import identify
from tests.support.ledger_records import a_session, an_exchange, an_open_exchange, priced_at

KEY = WindowKey("user:ada/day/usd", 7)
LONG_S = 30.0
"""A test that waits so long has failed."""


@pytest.fixture
def store(ledger_file: Path) -> Iterator[SqliteStore]:
    with closing(open_store(ledger_file)) as opened:
        yield opened


class Listener:
    """Keeps what was folded, and lets a test wait for it."""

    def __init__(self) -> None:
        self.told: list[ExchangeRecord] = []
        self.threads: set[threading.Thread] = set()
        self.came = threading.Event()

    def __call__(self, folded: Sequence[ExchangeRecord]) -> None:
        self.told.extend(folded)
        self.threads.add(threading.current_thread())
        self.came.set()


def charged_exchange(**changes: Any) -> ExchangeRecord:
    fields = {"session_id": "01S", "charges": (Charge(*KEY, "usd", 10**9),), **changes}
    return an_exchange(**fields)


def lease(governance: SqliteGovernance, process_id: str, amount: int) -> None:
    [answer] = governance.lease(process_id, [LeaseWish(KEY, 10**12, amount, amount)])
    assert answer.amount == amount


def test_who_listens_is_told_what_was_committed_as_it_was_priced(
    folder: Path, ledger_file: Path, journal: Journal, store: SqliteStore
):
    """In the folding thread, and never before it is in the ledger."""
    heard = Listener()
    recorded: list[bool] = []

    def listen(folded: Sequence[ExchangeRecord]) -> None:
        with closing(open_store(ledger_file, read_only=True)) as reader:
            recorded.extend(reader.recorded([each.id]) == {each.id} for each in folded)
        heard(folded)

    folding = Folder(folder, ledger_file, priced_at("0.5"), journal=journal, on_folded=listen)
    exchanges = [charged_exchange() for _ in range(5)]
    for exchange in exchanges:
        folding.submit(exchange)
    folding.drain()
    assert [each.id for each in heard.told] == [each.id for each in exchanges]
    assert {each.cost_nano_usd for each in heard.told} == {500_000_000}
    assert recorded == [True] * 5
    assert heard.threads == {folding}
    folding.close()


def test_who_listens_badly_loses_no_exchange(
    folder: Path, ledger_file: Path, journal: Journal, store: SqliteStore
):
    def broken(folded: Sequence[ExchangeRecord]) -> None:
        raise RuntimeError

    folding = Folder(folder, ledger_file, priced_at("0.5"), journal=journal, on_folded=broken)
    for _ in range(2):
        folding.submit(charged_exchange())
        folding.drain()
    folding.close()
    assert len(store.exchanges("01S")) == 2


def test_a_late_commit_is_told_too(folder: Path, ledger_file: Path, journal: Journal):
    """The ledger could not be written when the exchange ended."""
    ledger_file.mkdir(parents=True)
    heard = Listener()
    folding = Folder(folder, ledger_file, priced_at("0.5"), journal=journal, on_folded=heard)
    exchange = charged_exchange()
    folding.submit(exchange)
    with pytest.raises(LedgerError):
        folding.drain()
    assert heard.told == []
    ledger_file.rmdir()
    folding.drain()
    assert [each.id for each in heard.told] == [exchange.id]
    folding.close()


def test_a_value_no_database_takes_is_told_as_it_was_folded(
    folder: Path, ledger_file: Path, journal: Journal, governance: SqliteGovernance
):
    """What is released in memory is what was charged: here the reservation."""
    heard = Listener()
    folding = Folder(folder, ledger_file, lambda each: each, journal=journal, on_folded=heard)
    folding.submit(charged_exchange(cost_nano_usd=2**70))
    folding.drain()
    [told] = heard.told
    assert told.cost_nano_usd is None
    assert governance.standings([KEY])[KEY].spent == 10**9
    folding.close()


def test_hurry_does_not_wait_for_more(folder: Path, ledger_file: Path, journal: Journal):
    """Somebody waits for the money."""
    heard = Listener()
    folding = Folder(
        folder,
        ledger_file,
        priced_at("0.5"),
        journal=journal,
        on_folded=heard,
        gather_s=LONG_S * 10,
    )
    folding.drain()
    folding.hurry()  # Nothing waits: nothing happens.
    for _ in range(3):
        heard.came.clear()
        folding.submit(charged_exchange())
        folding.hurry()
        assert heard.came.wait(LONG_S)
    folding.close()


def test_the_money_of_a_process_that_died_meanwhile_is_recovered_when_asked_for(
    folder: Path, ledger_file: Path, journal: Journal, governance: SqliteGovernance
):
    """Without a restart of anybody."""
    folding = Folder(folder, ledger_file, priced_at("0.5"), journal=journal)
    folding.drain()
    dead = Journal.create(folder, session=a_session(id="01DEAD"))
    lease(governance, dead.process_id, 3 * 10**9)
    dead.opened(an_open_exchange(session_id="01DEAD", charges=(Charge(*KEY, "usd", 10**9),)))
    dead.close()
    folding.recover()
    folding.drain()
    folding.close()
    assert governance.standings([KEY])[KEY] == Standing(spent=500_000_000)


def test_a_clean_end_returns_what_is_held_after_the_last_charge(
    folder: Path, ledger_file: Path, journal: Journal, governance: SqliteGovernance
):
    lease(governance, journal.process_id, 2 * 10**9)
    lease(governance, "OTHER", 10**9)
    folding = Folder(folder, ledger_file, priced_at("0.5"), journal=journal)
    (folder / "OTHER.jsonl").touch()
    exchange = charged_exchange()
    journal.finished(exchange)
    folding.submit(exchange)
    folding.close()
    assert governance.lease_holders() <= {"OTHER"}
    assert governance.standings([KEY])[KEY].spent == 500_000_000


def test_what_is_not_charged_yet_stays_held(
    folder: Path, ledger_file: Path, journal: Journal, governance: SqliteGovernance
):
    """An exchange that is still open at the end: whoever settles it returns the rest."""
    lease(governance, journal.process_id, 2 * 10**9)
    folding = Folder(folder, ledger_file, priced_at("0.5"), journal=journal)
    opened = an_open_exchange(session_id="01S", charges=(Charge(*KEY, "usd", 10**9),))
    journal.opened(opened)
    folding.close()
    assert governance.standings([KEY])[KEY] == Standing(held=2 * 10**9)
    next_journal = Journal.create(folder, session=a_session(id="01NEXT"))
    Folder(folder, ledger_file, priced_at("0.5"), journal=next_journal).close()
    assert governance.standings([KEY])[KEY] == Standing(spent=500_000_000)


def test_the_trail_has_keyed_hashes_of_request_and_answer(
    folder: Path, ledger_file: Path, journal: Journal
):
    """Equal contents have equal hashes; without the key they tell nothing."""
    body = b'{"model": "m", "messages": [{"role": "user", "content": "hello"}]}'
    meter = ExchangeMeter(
        identify("POST", "/v1/chat/completions"), streamed=False, asked_for_usage=False
    )
    meter.observe_body(
        b'{"choices": [{"message": {"content": "good day"}, "finish_reason": "stop"}]}'
    )
    meter.end()
    folding = Folder(folder, ledger_file, priced_at("0.5"), journal=journal)
    folding.submit(an_exchange(session_id="01S"), body, meter.delivered())
    folding.submit(an_exchange(session_id="01S"), body, None)
    folding.close()
    seal = seal_beside(ledger_file)
    with closing(open_audit(ledger_file)) as trail:
        answered, unanswered = [msgspec.json.decode(each.document) for each in trail.events()]
    assert answered["request_hash"] == unanswered["request_hash"] == seal.of_content(body)
    assert answered["answer_hash"] == seal.of_content(b"good day")
    assert "answer_hash" not in unanswered
    assert seal.of_content(body) != seal_beside(ledger_file.parent / "x" / "y.db").of_content(body)
