"""Opening a SQLite ledger: whose file it is, which version, and what its errors mean.

The schema's version is `user_version`; its history is the numbered files in `migrations/`, of
which one that was released is never edited. A file of a later version is left alone. The
invariant: a connection handed out has exactly the schema this code was written for.

WAL with `synchronous=NORMAL` (https://www.sqlite.org/pragma.html#pragma_synchronous): a killed
process loses nothing; a power cut may lose the last seconds, never the rest.
"""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from opencode_gate.config.paths import private_folder
from opencode_gate.core.errors import ConfigError, LedgerError

APPLICATION_ID = 0x6F676174
"""`ogat`: marks the file as ours (https://www.sqlite.org/pragma.html#pragma_application_id)."""

OLDEST_SQLITE = (3, 38, 0)
"""Strict tables came with 3.37, JSON functions that are always there with 3.38."""

BUSY_TIMEOUT_S = 5.0

_RETRY_AFTER_S = 0.01

_SMALLEST_PAGE_BYTES = 512
"""Below it SQLite takes a file for an empty one (https://www.sqlite.org/fileformat.html)."""


def migrations() -> list[str]:
    """The migrations' SQL, oldest first; the n-th leads to version n."""
    scripts = sorted((Path(__file__).parent / "migrations").glob("*.sql"))
    return [script.read_text(encoding="utf-8") for script in scripts]


LATEST_VERSION = 7
"""The version the migrations lead to; spelled out so that opening a ledger reads no file."""


def connect(path: Path) -> sqlite3.Connection:
    """A connection for reading and writing; the file is made or migrated if need be.

    Raises:
        LedgerError: `ledger-unwritable`, `ledger-corrupt` or `ledger-newer`.
    """
    _check_sqlite(path)
    with ledger_errors(path):
        _make(path)
        connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        try:
            version = _version(connection, path)
            _check_writable(path)
            _use_wal(connection)
            if version < LATEST_VERSION:
                _migrate(connection, path)
            connection.execute("PRAGMA synchronous = NORMAL")
        except BaseException:
            connection.close()
            raise
        return connection


def connect_read_only(path: Path) -> sqlite3.Connection:
    """A connection that changes nothing; an empty ledger where there is no file yet.

    Raises:
        LedgerError: `ledger-unwritable`, `ledger-corrupt` or `ledger-newer`.
    """
    _check_sqlite(path)
    if not path.exists():
        connection = sqlite3.connect(":memory:", isolation_level=None)
        _migrate(connection, path)
        return connection
    with ledger_errors(path):
        connection = _open_existing(path)
        try:
            version = _version(connection, path)
        except BaseException:
            connection.close()
            raise
    if version < LATEST_VERSION:
        connection.close()
        connect(path).close()
        return connect_read_only(path)
    return connection


def policy_revision(path: Path) -> int:
    """The revision of the rules in a ledger, 0 where there never were any.

    For those to whom rules that do not exist shall cost nothing.

    Raises:
        LedgerError: `ledger-unwritable`, `ledger-corrupt` or `ledger-newer`.
    """
    if not path.exists():
        return 0
    connection = connect_read_only(path)
    try:
        with ledger_errors(path):
            return int(connection.execute("SELECT revision FROM policy_revisions").fetchone()[0])
    finally:
        connection.close()


@contextmanager
def ledger_errors(path: Path) -> Iterator[None]:
    """Turns what SQLite and the file system say into a `LedgerError`."""
    try:
        yield
    except sqlite3.Error as error:
        raise _explained(error, path) from error
    except OSError as error:
        raise _unwritable(path, error.strerror or str(error)) from error


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All or nothing, and no other writer meanwhile."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # A commit that fails leaves the transaction open, and with it the lock.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _check_sqlite(path: Path) -> None:
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        needed = ".".join(map(str, OLDEST_SQLITE))
        raise _unwritable(path, f"Python's SQLite is {sqlite3.sqlite_version}, {needed} is needed")


def _make(path: Path) -> None:
    """The empty file, readable by its owner alone: SQLite gives its side files the same mode."""
    if path.exists():
        return
    try:
        private_folder(path.parent)
    except ConfigError as error:
        raise _unwritable(path, error.message) from error
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))


def _open_existing(path: Path) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode=ro"
    connection = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)
    try:
        connection.execute("PRAGMA user_version")
    except sqlite3.OperationalError as error:
        connection.close()
        wal = path.with_name(path.name + "-wal")
        is_bare = not wal.exists() or wal.stat().st_size == 0
        if not is_bare or _primary_code(error) not in _NO_SIDE_FILES:
            raise
        # A folder that cannot be written cannot hold the shared-memory file of WAL either.
        uri += "&immutable=1"
        connection = sqlite3.connect(uri, uri=True, isolation_level=None)
    return connection


def _version(connection: sqlite3.Connection, path: Path) -> int:
    """The schema's version, 0 for a blank file.

    Raises:
        LedgerError: the file is cut short, another program's, or of a later version.
    """
    if path.exists() and 0 < path.stat().st_size < _SMALLEST_PAGE_BYTES:
        raise _corrupt(path, "it is cut short")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > LATEST_VERSION:
        raise LedgerError(
            "ledger-newer",
            f"{path} was written by a newer ogate (version {version}, known here {LATEST_VERSION})",
            hint="upgrade ogate, or set OGATE_HOME to keep a second ledger",
        )
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    is_blank = version == 0 and application == 0 and tables == 0
    if application != APPLICATION_ID and not is_blank:
        raise _corrupt(path, "it is a database, but not a ledger of ogate")
    return int(version)


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switches a new ledger to WAL, which it then stays in.

    SQLite answers `busy` at once where two processes switch together: the busy timeout does
    not cover a lock that would be upgraded (https://www.sqlite.org/c3ref/busy_handler.html).
    """
    give_up_s = time.monotonic() + BUSY_TIMEOUT_S
    while connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            if connection.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
                return  # A file system without shared memory: slower, and just as safe.
        except sqlite3.OperationalError as error:
            if not _is_busy(error) or time.monotonic() > give_up_s:
                raise
            time.sleep(_RETRY_AFTER_S)


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Brings the schema to the latest version, all or nothing."""
    with transaction(connection):
        # Another process may have done it while this one waited for the lock.
        version = _version(connection, path)
        for number, script in enumerate(migrations(), start=1):
            if number > version:
                for statement in statements(script):
                    connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {LATEST_VERSION}")


def statements(script: str) -> Iterator[str]:
    """The statements of an SQL script (`executescript` would end the transaction)."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _check_writable(path: Path) -> None:
    """Finds out now, not at the first exchange: SQLite opens a read-only file without a word."""
    if not os.access(path, os.W_OK) or not os.access(path.parent, os.W_OK):
        raise _unwritable(path, "it or its folder is read-only")


_NO_SIDE_FILES = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def _explained(error: sqlite3.Error, path: Path) -> LedgerError:
    if _primary_code(error) in _DAMAGED:
        return _corrupt(path, str(error))
    if _is_busy(error):
        return _unwritable(path, f"another process holds it for more than {BUSY_TIMEOUT_S:.0f} s")
    return _unwritable(path, str(error))


def _is_busy(error: sqlite3.Error) -> bool:
    return _primary_code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _primary_code(error: sqlite3.Error) -> int | None:
    """SQLite's result code without its extension; `None` if the error is Python's own."""
    code = getattr(error, "sqlite_errorcode", None)
    return code & 0xFF if isinstance(code, int) else None


def _corrupt(path: Path, reason: str) -> LedgerError:
    return LedgerError(
        "ledger-corrupt",
        f"the ledger {path} cannot be read: {reason}",
        # With its side files: SQLite would play an orphaned log into the next ledger.
        hint=f"move {path.name}* out of {path.parent}; the next run starts a new ledger",
    )


def _unwritable(path: Path, reason: str) -> LedgerError:
    return LedgerError(
        "ledger-unwritable",
        f"the ledger {path} cannot be used: {reason}",
        hint="check the folder and the free space, or set OGATE_HOME to a folder you can write",
    )
