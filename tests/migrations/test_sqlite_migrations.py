"""Every ledger that was ever written opens, with its rows, or is refused in plain words.

`frozen/NNNN.sql` is a ledger as version NNNN wrote it, with rows. Each migration comes with the
frozen ledger it makes, and neither is edited once released.
"""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from opencode_gate.core.errors import LedgerError
from opencode_gate.ledger.sqlite import connection as connection_module
from opencode_gate.ledger.sqlite import open_store
from opencode_gate.ledger.sqlite.connection import LATEST_VERSION, migrations, statements
from opencode_gate.ledger.totals import UsageQuery
from tests.support.ledger_records import a_conversation, a_session, an_exchange

FROZEN = sorted((Path(__file__).parent / "frozen").glob("*.sql"))
ROOT = Path(__file__).parents[2]


def schema_of(path: Path) -> dict[str, str]:
    """Every table and index, without the white space of its statement."""
    connection = sqlite3.connect(path)
    try:
        rows = connection.execute("SELECT name, coalesce(sql, '') FROM sqlite_schema")
        schema = {name: " ".join(sql.split()) for name, sql in rows}
        for pragma in ("user_version", "application_id", "journal_mode"):
            schema[pragma] = str(connection.execute(f"PRAGMA {pragma}").fetchone()[0])
        return schema
    finally:
        connection.close()


@pytest.fixture
def ledger_file(tmp_path: Path) -> Path:
    return tmp_path / "data" / "ledger.db"


@pytest.fixture
def fresh_schema(tmp_path: Path) -> dict[str, str]:
    open_store(tmp_path / "fresh.db").close()
    return schema_of(tmp_path / "fresh.db")


def test_the_version_spelled_out_is_the_number_of_migrations():
    """They are numbered without a gap."""
    assert len(migrations()) == LATEST_VERSION
    names = sorted(
        path.name for path in Path(connection_module.__file__).parent.glob("migrations/*.sql")
    )
    assert [name[:5] for name in names] == [f"{n:04}_" for n in range(1, LATEST_VERSION + 1)]


def test_every_released_version_has_a_frozen_ledger():
    """So that the next migration is tested against it."""
    assert [path.stem for path in FROZEN] == [f"{n:04}" for n in range(1, LATEST_VERSION + 1)]


def test_a_blank_file_becomes_a_ledger(ledger_file: Path, fresh_schema: dict[str, str]):
    """`touch` is no crime."""
    ledger_file.parent.mkdir()
    ledger_file.touch()
    open_store(ledger_file).close()
    assert schema_of(ledger_file) == fresh_schema


@pytest.mark.parametrize("frozen", FROZEN, ids=lambda path: path.stem)
def test_an_earlier_ledger_opens_with_its_rows(
    frozen: Path, ledger_file: Path, fresh_schema: dict[str, str]
):
    """Its schema is then the one of a fresh ledger, and what it knew is still known."""
    ledger_file.parent.mkdir()
    old = sqlite3.connect(ledger_file)
    old.executescript(frozen.read_text())
    tables = ("sessions", "conversations", "exchanges")
    before = {table: old.execute(f"SELECT * FROM {table}").fetchall() for table in tables}
    old.close()
    assert all(before.values())

    store = open_store(ledger_file)
    assert schema_of(ledger_file) == fresh_schema
    sessions = store.sessions()
    assert len(sessions) == len(before["sessions"])
    exchanges = [each for session in sessions for each in store.exchanges(session.id)]
    assert len(exchanges) == len(before["exchanges"])
    conversations = [each for session in sessions for each in store.conversations(session.id)]
    assert len(conversations) == len(before["conversations"])
    [row] = store.usage(UsageQuery())
    assert row.totals.cost_nano_usd == 1_234_567
    assert row.totals.input_tokens == 4321
    assert store.integrity() == []
    store.fold(exchanges)
    store.fold([msgspec.structs.replace(each, id=f"{each.id[:-1]}Z") for each in exchanges])
    assert store.integrity() == []
    store.close()


def test_a_ledger_another_process_is_making_is_waited_for(
    ledger_file: Path, fresh_schema: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    """Two first sessions at once: SQLite itself would not wait here."""
    ledger_file.parent.mkdir()
    other = sqlite3.connect(ledger_file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    pauses: list[float] = []

    def released_at_the_third(pause_s: float) -> None:
        pauses.append(pause_s)
        if len(pauses) == 3:
            other.execute("ROLLBACK")

    monkeypatch.setattr(connection_module.time, "sleep", released_at_the_third)
    open_store(ledger_file).close()
    other.close()
    assert len(pauses) == 3
    assert schema_of(ledger_file) == fresh_schema


def test_a_ledger_that_stays_held_is_unwritable(ledger_file: Path, monkeypatch: pytest.MonkeyPatch):
    """After a while, not for ever."""
    monkeypatch.setattr(connection_module, "BUSY_TIMEOUT_S", 0.01)
    ledger_file.parent.mkdir()
    other = sqlite3.connect(ledger_file, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(LedgerError) as caught:
        open_store(ledger_file)
    assert caught.value.code == "ledger-unwritable"
    assert "another process" in caught.value.message
    other.close()


def test_opening_again_changes_nothing(ledger_file: Path, fresh_schema: dict[str, str]):
    """Migrations run once."""
    for _ in range(3):
        store = open_store(ledger_file)
        store.add_session(a_session())
        store.close()
    assert schema_of(ledger_file) == fresh_schema
    store = open_store(ledger_file)
    assert len(store.sessions()) == 3
    store.close()


@pytest.fixture
def next_version(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Pretends that one more migration exists."""

    def pretend(script: str) -> None:
        scripts = [*migrations(), script]
        monkeypatch.setattr(connection_module, "migrations", lambda: scripts)
        monkeypatch.setattr(connection_module, "LATEST_VERSION", len(scripts))

    return pretend


def test_a_migration_keeps_rows_and_leaves_the_schema_of_a_fresh_ledger(
    ledger_file: Path, tmp_path: Path, next_version: Callable[[str], None]
):
    """The mechanism itself, with a migration that adds a column and an index."""
    store = open_store(ledger_file)
    session, exchange = a_session(), an_exchange()
    store.add_session(session)
    store.fold([exchange])
    store.close()
    next_version(
        "ALTER TABLE exchanges ADD COLUMN colour TEXT;\nCREATE INDEX c ON exchanges (colour);"
    )
    store = open_store(ledger_file)
    assert store.session("last") == session
    assert store.exchanges(exchange.session_id) == [exchange]
    store.close()
    open_store(tmp_path / "fresh.db").close()
    assert schema_of(ledger_file) == schema_of(tmp_path / "fresh.db")


def test_a_failing_migration_leaves_the_ledger_as_it_was(
    ledger_file: Path, next_version: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
):
    """All or nothing: the old version can still read it."""
    store = open_store(ledger_file)
    store.add_session(a_session())
    store.close()
    before = schema_of(ledger_file)
    with monkeypatch.context():
        next_version("ALTER TABLE exchanges ADD COLUMN colour TEXT; DROP TABLE nothing;")
        with pytest.raises(LedgerError):
            open_store(ledger_file)
    assert schema_of(ledger_file) == before


def test_reading_an_earlier_ledger_migrates_it_first(
    ledger_file: Path, next_version: Callable[[str], None]
):
    """Queries know only one schema."""
    store = open_store(ledger_file)
    store.add_session(a_session())
    store.close()
    next_version("ALTER TABLE sessions ADD COLUMN team TEXT;")
    reader = open_store(ledger_file, read_only=True)
    assert len(reader.sessions()) == 1
    reader.close()
    assert "team" in schema_of(ledger_file)["sessions"]


@pytest.mark.parametrize("read_only", [False, True])
def test_a_newer_ledger_is_refused_and_left_alone(ledger_file: Path, read_only: bool):
    """Politely, with the way out."""
    open_store(ledger_file).close()
    newer = sqlite3.connect(ledger_file)
    newer.execute(f"PRAGMA user_version = {LATEST_VERSION + 1}")
    newer.close()
    before = ledger_file.read_bytes()
    with pytest.raises(LedgerError) as caught:
        open_store(ledger_file, read_only=read_only)
    assert caught.value.code == "ledger-newer"
    assert caught.value.exit_code == 6
    assert caught.value.hint is not None and "upgrade ogate" in caught.value.hint
    assert ledger_file.read_bytes() == before


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize(
    "content", [b"x", b"Dear Ada,\n" * 500, b"SQLite format 3\x00" + b"\xff" * 4096]
)
def test_a_file_that_is_no_database_is_corrupt_and_left_alone(
    ledger_file: Path, content: bytes, read_only: bool
):
    """Nothing of it is overwritten."""
    ledger_file.parent.mkdir()
    ledger_file.write_bytes(content)
    with pytest.raises(LedgerError) as caught:
        open_store(ledger_file, read_only=read_only)
    assert caught.value.code == "ledger-corrupt"
    assert caught.value.hint is not None
    assert ledger_file.read_bytes() == content


def test_another_programs_database_is_no_ledger(ledger_file: Path):
    """And is not written to."""
    ledger_file.parent.mkdir()
    other = sqlite3.connect(ledger_file)
    other.execute("CREATE TABLE cookies (x)")
    other.close()
    before = ledger_file.read_bytes()
    with pytest.raises(LedgerError) as caught:
        open_store(ledger_file)
    assert caught.value.code == "ledger-corrupt"
    assert ledger_file.read_bytes() == before


def test_damage_in_the_middle_is_found_when_met_and_when_asked(ledger_file: Path):
    """A query says `ledger-corrupt`, the check says what."""
    store = open_store(ledger_file)
    store.add_session(a_session(id="01S"))
    store.put_conversations([a_conversation("01S")])
    store.fold([an_exchange(session_id="01S") for _ in range(1500)])
    store.close()
    size = ledger_file.stat().st_size
    with ledger_file.open("r+b") as file:
        file.seek(size // 4)
        file.write(b"\xde\xad" * ((size - size // 4) // 2))
    store = open_store(ledger_file)
    with pytest.raises(LedgerError) as caught:
        store.exchanges("01S")
    assert caught.value.code == "ledger-corrupt"
    assert store.integrity() != []
    store.close()


def test_a_missing_ledger_reads_as_an_empty_one(ledger_file: Path):
    """Looking makes no file."""
    store = open_store(ledger_file, read_only=True)
    assert store.sessions() == []
    assert store.usage(UsageQuery(by=("day",))) == []
    store.close()
    assert not ledger_file.parent.exists()


def test_a_reader_cannot_write(ledger_file: Path):
    """Whatever it is asked to."""
    open_store(ledger_file).close()
    reader = open_store(ledger_file, read_only=True)
    with pytest.raises(LedgerError) as caught:
        reader.add_session(a_session())
    assert caught.value.code == "ledger-unwritable"
    reader.close()


def test_a_reader_sees_what_a_living_writer_committed(ledger_file: Path):
    """Without waiting for it."""
    writer = open_store(ledger_file)
    reader = open_store(ledger_file, read_only=True)
    writer.add_session(a_session())
    assert len(reader.sessions()) == 1
    reader.close()
    writer.close()


def test_the_ledger_is_for_its_owner_only(ledger_file: Path):
    """With the files SQLite puts beside it."""
    store = open_store(ledger_file)
    store.add_session(a_session())
    files = list(ledger_file.parent.iterdir())
    assert {file.name for file in files} == {"ledger.db", "ledger.db-wal", "ledger.db-shm"}
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    assert ledger_file.parent.stat().st_mode & 0o777 == 0o700
    store.close()


def as_anybody(code: str, ledger_file: Path) -> str:
    """Runs code that must not have root's powers over files; gives its output."""
    uid = 65534
    drop = f"os.setgroups([]); os.setgid({uid}); os.setuid({uid})" if os.geteuid() == 0 else ""
    # Everything is imported before the powers go: the source tree may be root's.
    prelude = (
        "import os, sys; from pathlib import Path\n"
        "from opencode_gate.core.errors import LedgerError\n"
        "from opencode_gate.ledger.sqlite import open_store\n"
        "import opencode_gate.ledger.sqlite.connection as c, pathlib, urllib.parse\n"
        "path = Path(sys.argv[1])\n"
        "scripts = c.migrations(); c.migrations = lambda: scripts\n"
        f"{drop}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", prelude + code, str(ledger_file)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def open_to_all(folder: Path) -> None:
    for parent in (folder, *folder.parents):
        if parent.stat().st_uid == os.geteuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)


OPEN_AND_SAY = (
    "try:\n"
    "    open_store(path); print('opened')\n"
    "except LedgerError as error:\n"
    "    print(error.code, '|', error.message)\n"
)


def test_a_read_only_folder_is_unwritable(tmp_path: Path):
    """Said before anything is started."""
    folder = tmp_path / "read-only"
    folder.mkdir()
    open_to_all(folder)
    folder.chmod(0o555)
    said = as_anybody(OPEN_AND_SAY, folder / "ledger.db")
    assert said.startswith("ledger-unwritable |")
    said = as_anybody(OPEN_AND_SAY, folder / "deeper" / "ledger.db")
    assert said.startswith("ledger-unwritable |")


def test_a_ledger_in_a_read_only_folder_can_be_read_but_not_opened_for_writing(tmp_path: Path):
    """`ogate usage` works from a read-only home."""
    ledger_file = tmp_path / "data" / "ledger.db"
    store = open_store(ledger_file)
    store.add_session(a_session())
    store.close()
    open_to_all(ledger_file.parent)
    ledger_file.chmod(0o444)
    ledger_file.parent.chmod(0o555)
    assert as_anybody(OPEN_AND_SAY, ledger_file).startswith("ledger-unwritable |")
    read = "print(len(open_store(path, read_only=True).sessions()))"
    assert as_anybody(read, ledger_file) == "1"


def test_an_old_sqlite_is_named(ledger_file: Path, monkeypatch: pytest.MonkeyPatch):
    """Rather than a syntax error."""
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 26, 0))
    with pytest.raises(LedgerError) as caught:
        open_store(ledger_file)
    assert caught.value.code == "ledger-unwritable"
    assert "3.38.0 is needed" in caught.value.message


def test_statements_are_split_where_they_end():
    """Not at a semicolon in a comment or a string."""
    script = "CREATE TABLE a (x); -- one; two\nINSERT INTO a VALUES\n  ('b;c');\n"
    connection = sqlite3.connect(":memory:")
    for statement in statements(script):
        connection.execute(statement)
    assert connection.execute("SELECT x FROM a").fetchall() == [("b;c",)]
    connection.close()
