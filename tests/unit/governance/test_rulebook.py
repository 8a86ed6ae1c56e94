"""A change of rules holds from the next request on, whoever makes it, and asking costs nothing."""

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest

from opencode_gate.governance.admission import Caller
from opencode_gate.governance.decisions import Denied
from opencode_gate.governance.policy import Budget, Owner, Rules
from opencode_gate.governance.rulebook import ASK_EVERY_S, Law, Rulebook
from opencode_gate.ledger.governance_store import LeaseWish, WindowKey
from opencode_gate.ledger.policy_mark import PolicyMark, mark_file
from opencode_gate.ledger.sqlite import open_store
from opencode_gate.ledger.sqlite.governance import SqliteGovernance, open_governance
from tests.support.ledger_records import a_session
from tests.support.rules import give

CALLER = Caller("01S", "dev", None, b"token")
USER = Owner("user", "dev")


class Hand:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def now_us(self) -> int:
        return round(self.now_s * 1_000_000)

    def monotonic_s(self) -> float:
        return self.now_s


class Book:
    """A rulebook over a ledger, and how often it has asked that ledger."""

    def __init__(self, ledger: Path) -> None:
        self.clock = Hand()
        self.asked = 0
        self.rulebook = Rulebook(lambda: self._opened(ledger), zone="UTC", clock=self.clock)

    def _opened(self, ledger: Path) -> SqliteGovernance:
        store = open_governance(ledger)
        change_mark = store.change_mark

        def counted() -> int:
            self.asked += 1
            return change_mark()

        store.change_mark = counted  # type: ignore[method-assign]
        return store

    def law(self) -> Law:
        return self.rulebook.law_for(CALLER, self.clock.now_s)

    def limit(self) -> int | None:
        """How much the user may spend, as the next request learns it."""
        budgets = self.law().budgets
        return budgets[0].budget.limit // 10**9 if budgets else None


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.db"
    open_store(path).close()
    return path


@pytest.fixture
def book(ledger: Path) -> Iterator[Book]:
    book = Book(ledger)
    yield book
    book.rulebook.close()


def usd(amount: int) -> Rules:
    return Rules(budgets=(Budget(window="total", usd=Decimal(amount)),))


def test_a_change_holds_from_the_next_request_on_and_the_ledger_is_not_asked_till_then(
    ledger: Path, book: Book
) -> None:
    assert book.limit() is None
    asked = book.asked
    for amount in (5, 6, 7):
        give(ledger, (USER, usd(amount)))
        assert book.limit() == amount
        asked += 1
        for _ in range(100):
            book.law()
        assert book.asked == asked
    give(ledger, (USER, None))
    assert book.limit() is None


def test_a_change_by_another_process_holds_from_the_next_request_on(
    ledger: Path, book: Book
) -> None:
    assert book.limit() is None
    subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path\n"
            "from tests.unit.governance.test_rulebook import USER, give, usd\n"
            "give(Path(sys.argv[1]), (USER, usd(9)))",
            ledger,
        ],
        check=True,
        cwd=Path(__file__).parents[3],
    )
    assert book.limit() == 9


def test_what_others_write_into_the_ledger_asks_nothing(ledger: Path, book: Book) -> None:
    """Else every exchange that is folded would have the rules asked for again."""
    book.law()
    asked = book.asked
    with closing(open_store(ledger)) as store:
        store.add_session(a_session())
    book.law()
    assert book.asked == asked


@pytest.mark.parametrize("mode", ["PASSIVE", "RESTART", "TRUNCATE"])
def test_a_change_is_seen_across_a_checkpoint(ledger: Path, book: Book, mode: str) -> None:
    give(ledger, (USER, usd(1)))
    assert book.limit() == 1
    with closing(sqlite3.connect(ledger)) as other:
        other.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()
    assert book.limit() == 1
    give(ledger, (USER, usd(2)))
    assert book.limit() == 2


def test_a_change_by_another_program_holds_within_a_second(ledger: Path, book: Book) -> None:
    """A backup that is played back among them."""
    give(ledger, (USER, usd(1)))
    assert book.limit() == 1
    copy = ledger.with_name("copy.db")
    with closing(sqlite3.connect(ledger)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    give(ledger, (USER, usd(2)))
    assert book.limit() == 2
    with closing(sqlite3.connect(copy)) as source, closing(sqlite3.connect(ledger)) as target:
        source.backup(target)
    book.clock.now_s += ASK_EVERY_S
    assert book.limit() == 1
    with closing(sqlite3.connect(ledger)) as other, other:
        other.execute("DELETE FROM policy_documents")
        other.execute("UPDATE policy_revisions SET revision = revision + 1")
    book.clock.now_s += ASK_EVERY_S
    assert book.limit() is None


def test_a_mark_that_is_lost_costs_a_second_and_no_more(ledger: Path, book: Book) -> None:
    assert book.limit() is None
    mark_file(ledger).unlink()
    give(ledger, (USER, usd(3)))
    book.clock.now_s += ASK_EVERY_S
    assert book.limit() == 3


def test_where_somebody_died_while_changing_rules_the_ledger_is_asked_each_time(
    ledger: Path, book: Book
) -> None:
    """Nobody can say whether that change came to be, until the next one."""
    mark = PolicyMark(ledger)
    mark.changing()
    for number in range(1, 4):
        book.law()
        assert book.asked == number
    with closing(sqlite3.connect(ledger)) as other, other:
        other.execute("UPDATE policy_revisions SET revision = revision + 1")
    give(ledger, (USER, usd(4)))
    assert book.limit() == 4
    asked = book.asked
    book.law()
    assert book.asked == asked


def test_where_no_mark_can_be_made_the_ledger_is_asked_each_time(ledger: Path) -> None:
    mark_file(ledger).mkdir()
    book = Book(ledger)
    for number in range(1, 4):
        book.law()
        assert book.asked == number
    book.rulebook.close()


def test_rules_that_cannot_be_read_refuse_and_are_asked_for_again(ledger: Path) -> None:
    book = Book(ledger)
    give(ledger, (USER, usd(1)))
    assert book.limit() == 1
    with closing(sqlite3.connect(ledger)) as other, other:
        [[good]] = other.execute("SELECT document FROM policy_documents")
        other.execute("UPDATE policy_documents SET document = '{'")
        other.execute("UPDATE policy_revisions SET revision = revision + 1")
    PolicyMark(ledger).changed()
    for _ in range(3):
        with pytest.raises(Denied, match="the rules cannot be read"):
            book.law()
    with closing(sqlite3.connect(ledger)) as other, other:
        other.execute("UPDATE policy_documents SET document = ?", [good])
        other.execute("UPDATE policy_revisions SET revision = revision + 1")
    assert book.limit() == 1
    book.rulebook.close()


def test_the_end_of_a_session_shows_at_once(ledger: Path, book: Book) -> None:
    """Whoever believes its token looks whether it has ended."""
    book.law()
    before = book.rulebook.mark
    with closing(open_store(ledger)) as store:
        session = a_session()
        store.add_session(session)
        book.law()
        assert book.rulebook.mark == before
        store.end_session(session.id, ended_at_us=1, exit_status=0)
    book.law()
    assert book.rulebook.mark != before


def test_how_budgets_stand_is_read_again_when_the_ledger_has_changed(
    ledger: Path, book: Book
) -> None:
    key = WindowKey("user:dev/total/usd", 0)
    first = book.rulebook.standings([key])
    assert book.rulebook.standings([key]) is first
    with closing(open_governance(ledger)) as other:
        other.lease("P", [LeaseWish(key, 100, 60, 60)])
    assert book.rulebook.standings([key])[key].standing.held == 60
