"""The sums a SQLite ledger keeps: wrong ones are found and mended, whoever wrote the rows."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from opencode_gate.ledger.sqlite import SqliteStore, open_store
from opencode_gate.ledger.totals import UsageQuery
from tests.support.ledger_records import NOON_US, an_exchange

HOUR_US = 3_600_000_000


@pytest.fixture
def store(ledger_file: Path) -> Iterator[SqliteStore]:
    store = open_store(ledger_file)
    store.fold(
        [
            an_exchange(started_at_us=NOON_US + n * HOUR_US, request_model=f"m-{n % 2}")
            for n in range(30)
        ]
    )
    yield store
    store.close()


def change(ledger_file: Path, statement: str) -> None:
    other = sqlite3.connect(ledger_file)
    with other:
        other.execute(statement)
    other.close()


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM exchanges WHERE request_model = 'm-1'",
        "UPDATE exchanges SET output_tokens = 5, status = 'denied' WHERE request_model = 'm-1'",
        "UPDATE exchanges SET started_at_us = started_at_us + 86400000000, provider_name = 'x'",
    ],
)
def test_rows_changed_by_another_program_are_counted_right(
    store: SqliteStore, ledger_file: Path, statement: str
):
    """The file is its owner's: `sqlite3 ledger.db` may be used on it."""
    change(ledger_file, statement)
    assert store.integrity() == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE usage_sums SET cost_nano_usd = cost_nano_usd + 1 WHERE group_id = 0",
        "UPDATE usage_sums SET requests = 0 WHERE group_id = 1",
        "DELETE FROM usage_sums WHERE width_us = 86400000000",
        "DELETE FROM usage_sums",
        "UPDATE usage_sums SET known_input_tokens = 0",
    ],
)
def test_wrong_sums_are_found_and_mended(store: SqliteStore, ledger_file: Path, statement: str):
    """The check compares them with the rows; vacuuming sums afresh."""
    query = UsageQuery(by=("model", "day"))
    before = store.usage(query)
    change(ledger_file, statement)
    [finding] = store.integrity()
    assert "differ from the rows" in finding
    store.vacuum()
    assert store.integrity() == []
    assert store.usage(query) == before


def test_totals_of_long_spans_are_not_made_from_rows(store: SqliteStore, ledger_file: Path):
    """Without the sums the answer is another: so it is they that are read."""
    change(ledger_file, "DELETE FROM usage_sums")
    for by in ((), ("model",), ("day",), ("hour", "kind")):
        assert all(row.totals.requests == 0 for row in store.usage(UsageQuery(by=by)))
    [row] = store.usage(UsageQuery(by=("session",)))
    assert row.totals.requests == 30
