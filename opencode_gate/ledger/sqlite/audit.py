"""The audit trail in a SQLite ledger: appended to in the transaction of what it tells of.

The invariants: the chain goes on from the sealed head, so that events that are missing leave a
gap for ever; whatever was done to the tables, a row is never refused for it.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

from opencode_gate.ledger.audit import AuditEvent, AuditSeal, Draft, Head, break_event
from opencode_gate.ledger.audit_files import head_file, read_head, seal_beside, write_head

_LAST = "SELECT seq, hash FROM audit_events ORDER BY seq DESC LIMIT 1"
_SEALED = "SELECT seq, hash, seal FROM audit_heads"
_HASH = "SELECT hash FROM audit_events WHERE seq = ?"
_APPEND = "INSERT INTO audit_events (seq, at_us, kind, document, hash) VALUES (?, ?, ?, ?, ?)"
_PUT_HEAD = """
INSERT INTO audit_heads (id, seq, hash, seal) VALUES (0, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET seq = excluded.seq, hash = excluded.hash, seal = excluded.seal
"""
_EVENTS = """
SELECT seq, at_us, kind, document, hash FROM audit_events WHERE seq > ? ORDER BY seq
"""
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
        if not drafts:
            return
        head, seal = _head(self._connection), self.seal
        if not self._is_compared:
            drafts = [*self._breaks(head), *drafts]
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

    def _breaks(self, head: Head) -> list[Draft]:
        """Whether the ledger still is the one that the head outside is of."""
        outside = read_head(self._head_file)
        self._is_set_back = False
        if outside is None or outside.seq == 0:
            return []
        found = self._connection.execute(_HASH, (outside.seq,)).fetchone()
        if found is not None and found[0] == outside.hash:
            return []
        self._is_set_back = True
        return [break_event(outside, head)]


def events(connection: sqlite3.Connection, *, after: int = 0) -> Iterator[AuditEvent]:
    """The events with numbers above `after`, in their order."""
    for row in connection.execute(_EVENTS, (after,)):
        yield AuditEvent(*row)


def last_before(connection: sqlite3.Connection, at_us: int) -> int:
    """The number of the last event that was written before an instant, 0 if there is none."""
    row = connection.execute(_LAST_BEFORE, (at_us,)).fetchone()
    return 0 if row is None else int(row[0])


def sealed_head(connection: sqlite3.Connection) -> tuple[Head, str] | None:
    """The head that the ledger keeps, with its seal; `None` before the first event."""
    row = connection.execute(_SEALED).fetchone()
    return None if row is None else (Head(row[0], row[1]), row[2])


def _head(connection: sqlite3.Connection) -> Head:
    """Where the chain goes on: the sealed head, or what was put behind it since."""
    sealed = sealed_head(connection)
    last = connection.execute(_LAST).fetchone()
    head = Head() if sealed is None else sealed[0]
    return head if last is None or last[0] <= head.seq else Head(*last)
