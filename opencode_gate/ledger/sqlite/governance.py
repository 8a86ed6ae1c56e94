"""The `GovernanceStore` on SQLite, over a connection of its own.

The invariant: every method is one transaction, short enough for a request to wait for it.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from opencode_gate.core.errors import LedgerError
from opencode_gate.ledger.audit import policy_event
from opencode_gate.ledger.governance_store import (
    Lease,
    LeaseWish,
    PolicyDocument,
    Standing,
    WindowKey,
)
from opencode_gate.ledger.policy_mark import UNMARKED, PolicyMark
from opencode_gate.ledger.sqlite import budgets
from opencode_gate.ledger.sqlite.audit import AuditTrail
from opencode_gate.ledger.sqlite.connection import (
    connect,
    connect_read_only,
    ledger_errors,
    transaction,
)

_REVISION = "SELECT revision FROM policy_revisions"
_NEXT_REVISION = "UPDATE policy_revisions SET revision = revision + 1"
_DOCUMENTS = "SELECT kind, name, document FROM policy_documents ORDER BY kind, name"
_DOCUMENT = "SELECT document FROM policy_documents WHERE kind = ? AND name = ?"
_PUT_DOCUMENT = """
INSERT INTO policy_documents (kind, name, document) VALUES (?, ?, ?)
ON CONFLICT DO UPDATE SET document = excluded.document
"""
_REMOVE_DOCUMENT = "DELETE FROM policy_documents WHERE kind = ? AND name = ?"


def open_governance(path: Path, *, read_only: bool = False) -> "SqliteGovernance":
    """The rules and budgets in the ledger `path`, made or migrated if need be.

    With `read_only` nothing is written, and a missing file has no rules.

    Raises:
        LedgerError: `ledger-unwritable`, `ledger-corrupt` or `ledger-newer`.
    """
    connection = connect_read_only(path) if read_only else connect(path)
    return SqliteGovernance(connection, path, read_only=read_only)


class SqliteGovernance:
    """See `ledger.governance_store.GovernanceStore`."""

    def __init__(
        self, connection: sqlite3.Connection, path: Path, *, read_only: bool = False
    ) -> None:
        self._connection = connection
        self._path = path
        self._is_read_only = read_only
        self._audit = AuditTrail(connection, path)

    def policy_marks(self) -> Sequence[int]:
        """One number, that of this moment: even and the same as long as no rule has changed.

        Odd where nobody can say. Whoever changes the tables by other means does not change it.
        """
        if self._is_read_only:
            return UNMARKED
        with ledger_errors(self._path):
            # Else the folder may be one of another machine's, whose memory nobody shares.
            if self._connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                return UNMARKED
        try:
            return PolicyMark(self._path).numbers
        except OSError:
            return UNMARKED

    def change_mark(self) -> int:
        """Differs from the last call's if another connection has changed the database since."""
        with ledger_errors(self._path):
            # https://www.sqlite.org/pragma.html#pragma_data_version
            return int(self._connection.execute("PRAGMA data_version").fetchone()[0])

    def policy_revision(self) -> int:
        """Grows with every change of policy; 0 before the first."""
        with ledger_errors(self._path):
            return int(self._connection.execute(_REVISION).fetchone()[0])

    def policy(self) -> tuple[int, list[PolicyDocument]]:
        """The revision and all documents of it."""
        with self._read():
            revision = self.policy_revision()
            documents = [PolicyDocument(*row) for row in self._connection.execute(_DOCUMENTS)]
        return revision, documents

    def put_policy(self, changes: Iterable[PolicyDocument], *, operator: str, at_us: int) -> int:
        """Writes changes, all or none, with an audit event for each; the new revision.

        What changes nothing is passed over.
        """
        mark: PolicyMark | None = None
        try:
            with self._write():
                events = []
                for kind, name, text in changes:
                    found = self._connection.execute(_DOCUMENT, (kind, name)).fetchone()
                    before = None if found is None else found[0]
                    if text == before:
                        continue
                    if text is None:
                        self._connection.execute(_REMOVE_DOCUMENT, (kind, name))
                    else:
                        self._connection.execute(_PUT_DOCUMENT, (kind, name, text))
                    seal = self._audit.seal
                    events.append(policy_event((kind, name), before, text, operator, seal))
                if events:
                    self._connection.execute(_NEXT_REVISION)
                    self._audit.append(events, at_us)
                    mark = PolicyMark(self._path)
                    mark.changing()
                revision = self.policy_revision()
        finally:
            if mark is not None:
                self._settle(mark)
        self._audit.publish()
        return revision

    def lease(self, process_id: str, wishes: Sequence[LeaseWish]) -> list[Lease]:
        """Leases from several budgets in one step: all of them or none."""
        with self._write():
            return budgets.lease(self._connection, process_id, wishes)

    def give_back(self, process_id: str, amounts: Mapping[WindowKey, int]) -> None:
        """Returns leased money that is not reserved."""
        with self._write():
            budgets.give_back(self._connection, process_id, amounts)

    def lease_holders(self) -> set[str]:
        """The processes that hold anything."""
        with ledger_errors(self._path):
            return budgets.lease_holders(self._connection)

    def standings(
        self, keys: Iterable[WindowKey], *, process_id: str | None = None
    ) -> dict[WindowKey, Standing]:
        """How budgets stand; those nobody has used yet stand at zero."""
        with self._read():
            return budgets.standings(self._connection, keys, process_id)

    def latest_windows(self, budget_ids: Iterable[str]) -> dict[str, int]:
        """The start of the latest window each budget was ever used in."""
        with self._read():
            return budgets.latest_windows(self._connection, budget_ids)

    def close(self) -> None:
        """Lets go of the database."""
        with ledger_errors(self._path):
            self._connection.close()

    def _settle(self, mark: PolicyMark) -> None:
        """Lets readers believe the mark again; if nobody can now, they go on asking."""
        with suppress(LedgerError), self._write():
            mark.changed()

    @contextmanager
    def _write(self) -> Iterator[None]:
        with ledger_errors(self._path), transaction(self._connection):
            yield

    @contextmanager
    def _read(self) -> Iterator[None]:
        """All within sees the ledger of one moment."""
        with ledger_errors(self._path):
            self._connection.execute("BEGIN")
            try:
                yield
            finally:
                self._connection.execute("ROLLBACK")
