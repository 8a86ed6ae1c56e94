"""`ogate ledger`: checked, copied, tidied."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from opencode_gate.cli.main import main
from opencode_gate.config.paths import paths
from opencode_gate.core.clock import SystemClock
from opencode_gate.ledger.journal import Journal
from opencode_gate.ledger.sqlite import SqliteStore, open_store
from tests.support.ledger_records import a_session, an_exchange, an_open_exchange

DAY_US = 86_400_000_000


@pytest.fixture
def store():
    store = open_store(paths().ledger_file)
    store.add_session(a_session(id="01S"))
    store.fold([an_exchange(session_id="01S") for _ in range(3)])
    yield store
    store.close()


@pytest.mark.usefixtures("store")
def test_a_sound_ledger_is_said_to_be_sound(capsys) -> None:
    assert main(["ledger", "check"]) == 0
    out = capsys.readouterr().out
    assert "sound" in out
    assert str(paths().ledger_file) in out
    assert main(["ledger", "check", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["requests"], document["findings"]) == (3, [])
    assert document["bytes"] > 0


@pytest.mark.usefixtures("store")
def test_a_killed_sessions_journal_is_mentioned(capsys) -> None:
    """It is no damage: the next session folds it."""
    journal = Journal.create(paths().journals, session=a_session())
    journal.opened(an_open_exchange())
    journal.close()
    assert main(["ledger", "check", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["journals_waiting"] == 1
    assert journal.path.exists()


def test_damage_is_found_and_told_by_the_status(capsys, store: SqliteStore) -> None:
    other = sqlite3.connect(paths().ledger_file)
    with other:
        other.execute("UPDATE usage_sums SET requests = 7")
    other.close()
    assert main(["ledger", "check"]) == 1
    captured = capsys.readouterr()
    assert "damaged" in captured.out
    assert "ogate ledger vacuum" in captured.err
    assert main(["ledger", "vacuum"]) == 0
    capsys.readouterr()
    assert main(["ledger", "check"]) == 0


@pytest.mark.parametrize("verb", ["check", "backup", "vacuum"])
def test_where_no_session_ran_there_is_nothing_to_tend(capsys, verb) -> None:
    """And looking makes none."""
    assert main(["ledger", verb]) == 6
    assert "ledger-missing" in capsys.readouterr().err
    assert not paths().ledger_file.exists()


def test_a_backup_is_whole_and_private_also_while_the_ledger_is_written(
    capsys, store: SqliteStore, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.db"
    assert main(["ledger", "backup", str(copy)]) == 0
    assert capsys.readouterr().out == ""
    store.fold([an_exchange(session_id="01S")])
    restored = open_store(copy, read_only=True)
    assert len(restored.exchanges("01S")) == 3
    restored.close()
    assert copy.stat().st_mode & 0o777 == 0o600


@pytest.mark.usefixtures("store")
def test_a_backup_has_the_day_for_a_name_and_replaces_nothing(
    capsys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["ledger", "backup"]) == 0
    [copy] = tmp_path.glob("ogate-*.db")
    kept = copy.read_bytes()
    assert main(["ledger", "backup"]) == 6
    assert "replaces nothing" in capsys.readouterr().err
    assert copy.read_bytes() == kept


@pytest.mark.usefixtures("store")
def test_a_backup_that_fails_leaves_no_half_a_file(capsys, tmp_path: Path) -> None:
    assert main(["ledger", "backup", str(tmp_path / "none" / "copy.db")]) == 6
    assert "ledger-unwritable" in capsys.readouterr().err
    assert list(tmp_path.glob("**/copy.db")) == []


def test_vacuum_forgets_parts_older_than_the_setting_and_gives_their_space_back(
    capsys, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_us = SystemClock().now_us()
    store.fold(
        an_exchange(session_id="01S", parts=b"x" * 3000, started_at_us=now_us - 8 * DAY_US)
        for _ in range(300)
    )
    recent = an_exchange(session_id="01S", parts=b"y" * 12, started_at_us=now_us)
    store.fold([recent])
    monkeypatch.setenv("OGATE_LEDGER_KEEP_PARTS_DAYS", "7")
    assert main(["ledger", "vacuum"]) == 0
    said = capsys.readouterr().err
    assert "300 calls older than 7 days" in said
    assert [each.id for each in store.exchanges("01S") if each.parts] == [recent.id]
    assert len(store.exchanges("01S")) == 304
    assert paths().ledger_file.stat().st_size < 900_000


@pytest.mark.parametrize(("verb", "status"), [("check", 1), ("vacuum", 6)])
def test_a_ledger_with_a_damaged_page_is_no_bug_of_ours(
    capsys, store: SqliteStore, verb: str, status: int
) -> None:
    store.close()
    file = paths().ledger_file
    with closing(sqlite3.connect(file)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        [root] = database.execute(
            "SELECT rootpage FROM sqlite_schema WHERE name = 'exchanges'"
        ).fetchone()
        [page_bytes] = database.execute("PRAGMA page_size").fetchone()
    content = bytearray(file.read_bytes())
    start = (root - 1) * page_bytes
    content[start : start + 200] = b"\xff" * 200
    file.write_bytes(content)
    assert main(["ledger", verb]) == status
    captured = capsys.readouterr()
    assert "malformed" in captured.out + captured.err
