"""The audit trail in a SQLite ledger: appended to in the transaction of what it tells of.

The invariants: the chain goes on from the sealed head, so that events that are missing leave a
gap for ever; whatever was done to the tables, a row is never refused for it.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

from opencode_gate.core.errors import LedgerError
from opencode_gate.ledger.audit import AuditEvent, AuditSeal, Draft, Head, break_event
from opencode_gate.ledger.audit_files import head_file, read_head, seal_beside, write_head
from opencode_gate.ledger.sqlite.connection import connect_read_only, ledger_errors
from opencode_gate.ledger.sqlite.finding import bounded

_LAST = "SELECT seq, hash FROM audit_events ORDER BY seq DESC LIMIT 1"
_SEALED = "SELECT seq, hash, seal FROM audit_heads"
_HASH = "SELECT hash FROM audit_events WHERE seq = ?"
_APPEND = "INSERT INTO audit_events (seq, at_us, kind, document, hash) VALUES (?, ?, ?, ?, ?)"
_PUT_HEAD = """
INSERT INTO audit_heads (id, seq, hash, seal) VALUES (0, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET seq = excluded.seq, hash = excluded.hash, seal = excluded.seal
"""
_SOME = """
SELECT seq, at_us, kind, document, hash FROM audit_events
WHERE seq > :after AND (:kind IS NULL OR kind = :kind)
"""
_EVENTS = f"{_SOME} ORDER BY seq"
_LATEST = f"{_SOME} ORDER BY seq DESC LIMIT :limit"
# Backwards: what is asked for lies at the end, and times have no index.
_LAST_BEFORE = "SELECT seq FROM audit_events WHERE at_us < ? ORDER BY seq DESC LIMIT 1"


class AuditTrail:
    """Appends to the trail of one ledger, over one connection."""

    def __init__(self, connection: sqlite3.Connection, ledger_file: Path) -> None:
        self._connection = connection
        self._ledger_file = ledger_file
        self._head_file = head_file(ledger_file)
        self._is_compared = False
        self._is_set_back = False
        self._written: Head | None = None

    @cached_property
    def seal(self) -> AuditSeal:
        """The seal; its key is read, or made, when it is first asked for."""
        return seal_beside(self._ledger_file)

    def append(self, drafts: Sequence[Draft], at_us: int) -> None:
        """Adds events. Only within a transaction that writes.

        Raises:
            LedgerError: the key cannot be used.
        """
        # Of a transaction that was not committed, nothing is told outside.
        self._written = None
        if not drafts:
            return
        head, seal = _head(self._connection), self.seal
        if not self._is_compared:
            drafts = [*self._breaks(), *drafts]
        seq, hash = head
        rows = []
        for kind, document in drafts:
            seq += 1
            hash = seal.hash_of(hash, seq, at_us, kind, document)
            rows.append((seq, at_us, kind, document, hash))
        self._connection.executemany(_APPEND, rows)
        self._written = Head(seq, hash)
        self._connection.execute(_PUT_HEAD, (seq, hash, seal.of_head(self._written)))

    def publish(self) -> None:
        """Keeps the head outside the ledger too; once the transaction is committed."""
        if self._written is not None:
            write_head(self._head_file, self._written, may_set_back=self._is_set_back)
            self._written = None
            self._is_compared = True
            self._is_set_back = False

    def _breaks(self) -> list[Draft]:
        """Whether the trail still is the one it was, by both of its heads."""
        sealed = sealed_head(self._connection)
        found = _last(self._connection)
        self._is_set_back = False
        if sealed is None and found is not None:
            return [break_event(None, found)]
        if sealed is not None and (sealed[0] != found or self.seal.of_head(sealed[0]) != sealed[1]):
            return [break_event(sealed[0], found)]
        outside = read_head(self._head_file)
        if outside is None or self._has(outside):
            return []
        self._is_set_back = True
        return [break_event(outside, found)]

    def _has(self, head: Head) -> bool:
        found = self._connection.execute(_HASH, (head.seq,)).fetchone()
        return head.seq == 0 or (found is not None and found[0] == head.hash)


def sealed_head(connection: sqlite3.Connection) -> tuple[Head, str] | None:
    """The head that the ledger keeps, with its seal; `None` before the first event."""
    row = connection.execute(_SEALED).fetchone()
    return None if row is None else (Head(row[0], row[1]), row[2])


def _last(connection: sqlite3.Connection) -> Head | None:
    last = connection.execute(_LAST).fetchone()
    return None if last is None else Head(*last)


def _head(connection: sqlite3.Connection) -> Head:
    """Where the chain goes on: the sealed head, or what was put behind it since."""
    sealed, last = sealed_head(connection), _last(connection)
    head = Head() if sealed is None else sealed[0]
    return head if last is None or last.seq <= head.seq else last


def open_audit(path: Path) -> "AuditReader":
    """The trail in the ledger `path`, as of now; nothing is written.

    Raises:
        LedgerError: there is no ledger, or it cannot be used.
    """
    if not path.exists():
        raise LedgerError("ledger-missing", f"there is no ledger at {path}", hint="ogate run")
    connection = connect_read_only(path)
    with ledger_errors(path):
        # All reading sees the ledger of one moment.
        connection.execute("BEGIN")
    return AuditReader(connection, path)


class AuditReader:
    """Reads the trail of one ledger, as it was when it was opened."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path

    def head(self) -> tuple[Head, str] | None:
        """The last event by the ledger's own word, with its seal; `None` if it has none."""
        with ledger_errors(self._path):
            return sealed_head(self._connection)

    def events(self, *, after: int = 0, kind: str | None = None) -> Iterator[AuditEvent]:
        """The events with numbers above `after`, in their order."""
        with ledger_errors(self._path):
            for row in self._connection.execute(_EVENTS, {"after": after, "kind": kind}):
                yield AuditEvent(*row)

    def latest(self, limit: int, *, after: int = 0, kind: str | None = None) -> list[AuditEvent]:
        """The last of those, in their order."""
        with ledger_errors(self._path):
            values = {"after": after, "kind": kind, "limit": bounded(limit)}
            return [AuditEvent(*row) for row in self._connection.execute(_LATEST, values)][::-1]

    def last_before(self, at_us: int) -> int:
        """The number of the last event that was written before an instant, 0 if there is none."""
        with ledger_errors(self._path):
            row = self._connection.execute(_LAST_BEFORE, (at_us,)).fetchone()
            return 0 if row is None else int(row[0])

    def close(self) -> None:
        """Lets go of the ledger."""
        with ledger_errors(self._path):
            self._connection.close()
