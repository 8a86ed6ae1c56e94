"""The page about the ledger: its tables are the schema's, its queries run and answer."""

import re
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from opencode_gate.core.semconv import ExchangeStatus
from opencode_gate.ledger.sqlite import open_store
from tests.support.ledger_records import a_session, an_exchange

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "reference" / "ledger.md").read_text(encoding="utf-8")
QUERIES = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)


def test_the_tables_on_the_page_are_the_schema():
    """Mended by `python scripts/build_ledger_reference.py`."""
    done = subprocess.run(
        [sys.executable, "scripts/build_ledger_reference.py", "--check"], cwd=ROOT, check=False
    )
    assert done.returncode == 0


@pytest.mark.parametrize("query", QUERIES)
def test_every_query_on_the_page_runs_and_finds_something(query: str, tmp_path: Path):
    """Copied as it stands."""
    now_us = time.time_ns() // 1000
    store = open_store(tmp_path / "ledger.db")
    store.add_session(a_session(id="01S"))
    store.fold(
        [
            an_exchange(session_id="01S", started_at_us=now_us, time_to_first_chunk_us=5),
            an_exchange(
                session_id="01S", started_at_us=now_us, status=ExchangeStatus.UPSTREAM_ERROR
            ),
        ]
    )
    store.close()
    ledger = sqlite3.connect(f"file:{tmp_path}/ledger.db?mode=ro", uri=True)
    assert ledger.execute(query).fetchall()
    ledger.close()
