"""What is usual is told from the ledger, and asking for it never waits."""

import threading
from pathlib import Path

import pytest

from opencode_gate.core.errors import LedgerError
from opencode_gate.ledger.spend_history import KNOWN_FOR_S, SpendHistory
from opencode_gate.ledger.sqlite import open_store
from opencode_gate.ledger.sqlite.spend_history import (
    SPAN_US,
    SPANS_MIN,
    usual_spend_per_minute,
)
from tests.support.ledger_records import NOON_US, an_exchange

DAY_US = 86_400_000_000
BEGIN_US = NOON_US // SPAN_US * SPAN_US - 20 * DAY_US


def ledger(folder: Path, spans: list[int], *, begin_us: int = BEGIN_US, **fields) -> Path:
    """One exchange a span, each of so many nano-dollars."""
    path = folder / "ledger.db"
    store = open_store(path)
    store.fold(
        [
            an_exchange(
                started_at_us=begin_us + number * SPAN_US + number % 7,
                cost_nano_usd=amount,
                **fields,
            )
            for number, amount in enumerate(spans)
        ]
    )
    store.close()
    return path


def test_the_usual_is_what_99_of_100_spans_stayed_below(tmp_path):
    spans = [number * 5 for number in range(1, 201)]
    assert usual_spend_per_minute(ledger(tmp_path, spans), NOON_US) == 198


def test_one_wild_span_in_a_hundred_is_not_usual(tmp_path):
    path = ledger(tmp_path, [5_000] * 199 + [10**15])
    assert usual_spend_per_minute(path, NOON_US) == 1_000


def test_what_lies_in_one_span_of_one_session_adds_up(tmp_path):
    ledger(tmp_path, [400] * 100)
    path = ledger(tmp_path, [100] * 100)
    assert usual_spend_per_minute(path, NOON_US) == 100
    ledger(tmp_path, [100_000] * 100, session_id="01OTHER")
    assert usual_spend_per_minute(path, NOON_US) == 20_000


def test_too_little_says_nothing(tmp_path):
    assert usual_spend_per_minute(tmp_path / "none.db", NOON_US) is None
    path = ledger(tmp_path, [5] * (SPANS_MIN - 1))
    assert usual_spend_per_minute(path, NOON_US) is None
    ledger(tmp_path, [0, None], begin_us=BEGIN_US + DAY_US)
    assert usual_spend_per_minute(path, NOON_US) is None
    ledger(tmp_path, [5], begin_us=BEGIN_US + 2 * DAY_US)
    assert usual_spend_per_minute(path, NOON_US) == 1


def test_the_last_hour_and_what_is_older_than_a_month_do_not_count(tmp_path):
    path = ledger(tmp_path, [5_000] * 100)
    ledger(tmp_path, [10**15] * 11, begin_us=NOON_US - 11 * SPAN_US)
    ledger(tmp_path, [10**15] * 100, begin_us=NOON_US - 31 * DAY_US)
    assert usual_spend_per_minute(path, NOON_US) == 1_000


class HandClock:
    now_s = 0.0

    def monotonic_s(self) -> float:
        return self.now_s

    def now_us(self) -> int:
        return 0


def test_asking_never_waits_and_looks_up_once_an_hour():
    may_answer, looks = threading.Semaphore(0), []

    def look_up() -> int:
        looks.append(threading.current_thread())
        may_answer.acquire()
        return len(looks)

    clock = HandClock()
    history = SpendHistory(look_up, clock)
    assert looks == []
    for _ in range(3):
        assert history.usual_nano_usd_per_minute() is None
    may_answer.release()
    _last(looks).join()
    assert history.usual_nano_usd_per_minute() == 1
    clock.now_s += KNOWN_FOR_S
    assert history.usual_nano_usd_per_minute() == 1
    may_answer.release()
    _last(looks).join()
    assert history.usual_nano_usd_per_minute() == 2


def _last(looks: list[threading.Thread]) -> threading.Thread:
    """The thread that looks now, which may not have begun yet."""
    for thread in threading.enumerate():
        if thread.name == "spend-history":
            return thread
    return looks[-1]


@pytest.mark.filterwarnings("error")
def test_a_ledger_that_cannot_be_read_makes_nothing_usual():
    looked = threading.Event()

    def look_up() -> int:
        looked.set()
        raise LedgerError("ledger-corrupt", "the ledger is damaged")

    history = SpendHistory(look_up, HandClock())
    history.usual_nano_usd_per_minute()
    assert looked.wait(10)
    assert history.usual_nano_usd_per_minute() is None
