"""The `Store` on SQLite (WAL): one writer at a time, readers never wait.

The invariant: every method is one statement or one transaction.
"""

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from opencode_gate.core.clock import SystemClock
from opencode_gate.core.errors import LedgerError, UsageError
from opencode_gate.ledger.exchange_query import ExchangeQuery
from opencode_gate.ledger.policy_mark import PolicyMark, mark_file
from opencode_gate.ledger.ratios import Ratio, RatioKey
from opencode_gate.ledger.records import (
    Annotation,
    ConversationRecord,
    ExchangeRecord,
    Repricing,
    SessionRecord,
    ToolUse,
)
from opencode_gate.ledger.sqlite import finding, queries, tool_use, usage
from opencode_gate.ledger.sqlite.connection import (
    connect,
    connect_read_only,
    ledger_errors,
    transaction,
)
from opencode_gate.ledger.sqlite.rows import (
    conversation_of,
    conversation_row,
    exchange_of,
    exchange_row,
    parts_row,
    session_of,
    session_row,
)
from opencode_gate.ledger.totals import UsageQuery, UsageRow

if TYPE_CHECKING:
    from opencode_gate.ledger.sqlite.audit import AuditTrail

_SHOWN_MATCHES = 5


def open_store(path: Path, *, read_only: bool = False) -> "SqliteStore":
    """The ledger in the file `path`, made or migrated if need be.

    With `read_only` nothing is written, and a missing file is an empty ledger.

    Raises:
        LedgerError: `ledger-unwritable`, `ledger-corrupt` or `ledger-newer`.
    """
    return SqliteStore(connect_read_only(path) if read_only else connect(path), path)


class SqliteStore:
    """See `ledger.store.Store`."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path
        self._users: dict[str, str] = {}

    @cached_property
    def _audit(self) -> "AuditTrail":
        # Only who folds needs it; whoever starts a session waits for each import.
        from opencode_gate.ledger.sqlite.audit import AuditTrail

        return AuditTrail(self._connection, self._path)

    def add_session(self, session: SessionRecord) -> bool:
        """Records the start of a session; false if its id is known, which stays as it is."""
        with self._write():
            added = self._connection.execute(queries.INSERT_SESSION, session_row(session))
        return added.rowcount > 0

    def end_session(self, id: str, *, ended_at_us: int, exit_status: int | None) -> None:
        """Records its end. An exit status once known is not replaced by an unknown one."""
        with self._write():
            self._connection.execute(
                queries.END_SESSION,
                {"id": id, "ended_at_us": ended_at_us, "exit_status": exit_status},
            )
        if mark_file(self._path).exists():
            # Whoever reads rules without asking the ledger believes its tokens no more either.
            with suppress(LedgerError), self._write():
                PolicyMark(self._path).changed()

    def put_conversations(self, conversations: Iterable[ConversationRecord]) -> None:
        """Inserts or updates; what was known and is now `None` stays known."""
        rows = [conversation_row(conversation) for conversation in conversations]
        with self._write():
            self._connection.executemany(queries.PUT_CONVERSATION, rows)

    def fold(self, exchanges: Iterable[ExchangeRecord], *, process_id: str | None = None) -> None:
        """Inserts or updates exchanges by id, all or none, with their charges and audit events."""
        from opencode_gate.ledger.sqlite import budgets, settling

        batch = list(exchanges)
        rows = [exchange_row(exchange) for exchange in batch]
        parts = [parts_row(exchange) for exchange in batch if exchange.parts is not None]
        if not rows:
            return
        with self._write():
            settled = settling.newly_settled(self._connection, batch)
            self._connection.executemany(queries.FOLD_EXCHANGE, rows)
            self._connection.executemany(queries.PUT_PARTS, parts)
            budgets.charge(self._connection, (each.exchange for each in settled), process_id)
            drafts = settling.audit_events(self._connection, settled, self._users)
            self._audit.append(drafts, SystemClock().now_us())
        self._audit.publish()

    def lease_holders(self) -> set[str]:
        """The processes that hold money of budgets."""
        from opencode_gate.ledger.sqlite import budgets

        with ledger_errors(self._path):
            return budgets.lease_holders(self._connection)

    def end_process(self, process_id: str) -> None:
        """Returns all that a process holds, which has ended or died."""
        from opencode_gate.ledger.sqlite import budgets

        with self._write():
            budgets.end_process(self._connection, process_id)

    def annotate(self, annotations: Iterable[Annotation]) -> None:
        """Adds what became known of exchanges later; those that are not here are passed over."""
        rows = [
            {
                "id": annotation.exchange_id,
                "prompt_id": annotation.prompt_id,
                "mode": annotation.mode,
                "kind": None if annotation.kind is None else annotation.kind.value,
                "conversation_id": annotation.conversation_id,
            }
            for annotation in annotations
        ]
        with self._write():
            self._connection.executemany(queries.ANNOTATE, rows)

    def put_reconciliation(self, session_id: str, document: str) -> None:
        """Keeps the comparison of a session with the agent's own count; the last one counts."""
        with self._write():
            self._connection.execute(queries.PUT_RECONCILIATION, (session_id, document))

    def reconciliation(self, session_id: str) -> str | None:
        """The comparison kept of a session, `None` if there is none."""
        rows = self._rows(queries.RECONCILIATION, (session_id,))
        return rows[0][0] if rows else None

    def put_tool_set(self, hash: str, tool_bytes: Mapping[str, int]) -> None:
        """Records the tools of a set with the sizes of their definitions; a known one stays."""
        rows = [(hash, name, size) for name, size in tool_bytes.items()]
        with self._write():
            self._connection.executemany(queries.PUT_TOOL, rows)

    def add_token_ratios(self, ratios: Mapping[RatioKey, Ratio]) -> None:
        """Adds to the sums that estimates of tokens are corrected by."""
        rows = [
            (*key, ratio.estimated_tokens, ratio.reported_tokens, ratio.answers)
            for key, ratio in ratios.items()
        ]
        if rows:
            with self._write():
                self._connection.executemany(queries.ADD_TOKEN_RATIO, rows)

    def token_ratios(self) -> dict[RatioKey, Ratio]:
        """All those sums."""
        return {
            (provider, model, kind): Ratio(*sums)
            for provider, model, kind, *sums in self._rows(queries.TOKEN_RATIOS)
        }

    def reprice(self, repricings: Iterable[Repricing]) -> None:
        """Writes new amounts, all or none, and keeps the ones first counted."""
        rows = [
            {**repricing._asdict(), "cost_quality": repricing.cost_quality.value}
            for repricing in repricings
        ]
        with self._write():
            for row in rows:
                self._connection.execute(queries.REPRICE_REPORTED, row)
                self._connection.execute(queries.REPRICE, row)

    def session(self, id_or_prefix: str) -> SessionRecord:
        """A session by id, by a prefix only it has, or the latest (`last`)."""
        if id_or_prefix == "last":
            rows = self._rows(queries.LAST_SESSION)
            if not rows:
                raise UsageError(
                    "no-such-session", "the ledger has no session yet", hint="ogate run"
                )
            return session_of(rows[0])
        return session_of(self._match(queries.MATCHING_SESSIONS, id_or_prefix, _NO_SESSION))

    def sessions(
        self, *, limit: int | None = None, since_us: int | None = None, until_us: int | None = None
    ) -> list[SessionRecord]:
        """Sessions started in `[since_us, until_us)`, newest first."""
        bounds = {
            "limit": finding.bounded(limit),
            "since_us": since_us,
            "until_us": until_us,
        }
        return [session_of(row) for row in self._rows(queries.SESSIONS, bounds)]

    def sessions_of(self, ids: Iterable[str]) -> dict[str, SessionRecord]:
        """The sessions of these whole ids, by id; those that were not recorded are left out."""
        found = self._rows(queries.SESSIONS_OF, (json.dumps(list(ids)),))
        return {session.id: session for session in map(session_of, found)}

    def conversations(self, session_id: str) -> list[ConversationRecord]:
        """The conversations of a session, by id."""
        return [conversation_of(row) for row in self._rows(queries.CONVERSATIONS, (session_id,))]

    def exchanges(self, session_id: str) -> list[ExchangeRecord]:
        """The exchanges of a session in the order they started."""
        rows = self._rows(queries.EXCHANGES, (session_id,))
        return [exchange_of(row[:-2], row[-2], row[-1]) for row in rows]

    def exchange(self, id_or_prefix: str) -> ExchangeRecord:
        """An exchange by id, by a prefix only it has, or the latest (`last`)."""
        if id_or_prefix == "last":
            rows = self._rows(queries.LAST_EXCHANGE)
            if not rows:
                raise UsageError("no-such-call", "the ledger has no model call yet", hint="ogate")
            id = rows[0][0]
        else:
            id = self._match(queries.MATCHING_EXCHANGES, id_or_prefix, _NO_CALL)[0]
        [row] = self._rows(queries.EXCHANGE, (id,))
        return exchange_of(row[:-2], row[-2], row[-1])

    def recorded(self, ids: Iterable[str]) -> set[str]:
        """Those of these exchanges that are here."""
        return {str(row[0]) for row in self._rows(queries.RECORDED, (json.dumps(list(ids)),))}

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Within it all reading sees the ledger of one moment. Nothing may be written."""
        with ledger_errors(self._path):
            self._connection.execute("BEGIN")
        try:
            yield
        finally:
            with ledger_errors(self._path):
                self._connection.execute("ROLLBACK")

    def find(self, query: ExchangeQuery) -> list[ExchangeRecord]:
        """The exchanges that meet the conditions, latest start first, without their parts."""
        return [exchange_of(row) for row in self._rows(*finding.latest_first(query))]

    def arrivals(self, query: ExchangeQuery, *, after: int) -> tuple[list[ExchangeRecord], int]:
        """What was recorded after a mark, in the order it was, and the mark to go on from."""
        [(mark,)] = self._rows(queries.LAST_ARRIVAL)
        if after < 0:
            return [], mark
        found = self._rows(*finding.as_recorded(query, after=after, mark=mark))
        return [exchange_of(row) for row in found], mark

    def tool_sets(self, hashes: Iterable[str]) -> dict[str, dict[str, int]]:
        """The tools of sets and the bytes of their definitions; unknown sets are left out."""
        found = {hash: dict(self._rows(queries.TOOL_SET, (hash,))) for hash in hashes}
        return {hash: tool_bytes for hash, tool_bytes in found.items() if tool_bytes}

    def tool_uses(
        self, *, since_us: int | None = None, until_us: int | None = None
    ) -> list[ToolUse]:
        """Which tools the requests offered that started in `[since_us, until_us)`."""
        with ledger_errors(self._path):
            bounds = {"since_us": since_us, "until_us": until_us}
            return tool_use.tool_uses(self._connection, bounds)

    def tool_calls(
        self, *, since_us: int | None = None, until_us: int | None = None
    ) -> dict[str, int]:
        """How many answers to requests of that time called each tool, by its name."""
        with ledger_errors(self._path):
            bounds = {"since_us": since_us, "until_us": until_us}
            return tool_use.tool_calls(self._connection, bounds)

    def usage(self, query: UsageQuery) -> list[UsageRow]:
        """Totals per group, ordered by key; without groups one row, even over nothing."""
        with ledger_errors(self._path):
            return usage.usage(self._connection, query)

    def integrity(self) -> list[str]:
        """What is damaged in the database, one sentence each; empty if it is sound."""
        from opencode_gate.ledger.sqlite import budgets

        try:
            findings = [str(row[0]) for row in self._connection.execute("PRAGMA integrity_check")]
            if findings != ["ok"]:
                return findings
            wrong = usage.wrong_sums(self._connection)
            wrong_windows = budgets.wrong_windows(self._connection)
        except sqlite3.DatabaseError as error:
            return [str(error)]
        found = []
        if wrong:
            found.append(f"{wrong} {usage.WRONG_SUMS}")
        if wrong_windows:
            found.append(f"{wrong_windows} budgets differ from what was charged to them")
        return found

    def retire(self, before_us: int) -> int:
        """Forgets the parts of exchanges started before an instant; of how many."""
        with self._write():
            return self._connection.execute(queries.RETIRE_PARTS, (before_us,)).rowcount

    def vacuum(self) -> None:
        """Gives unused space back to the disk, and mends wrong sums. Writers wait meanwhile."""
        with ledger_errors(self._path):
            is_wrong = usage.wrong_sums(self._connection) > 0
        if is_wrong:
            with self._write():
                usage.sum_afresh(self._connection)
        with ledger_errors(self._path):
            self._connection.execute("VACUUM")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def backup(self, path: Path) -> None:
        """Copies the ledger as it is now, also while in use, into a new file (0600)."""
        with ledger_errors(path):
            try:
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            except OSError as error:
                is_there = isinstance(error, FileExistsError)
                why = "exists already, and a backup replaces nothing"
                raise LedgerError(
                    "ledger-unwritable",
                    f"{path} {why}" if is_there else f"cannot write {path}: {error.strerror}",
                    hint="give another name",
                ) from error
            copy = sqlite3.connect(path, isolation_level=None)
            try:
                self._connection.backup(copy)
            except BaseException:
                path.unlink()
                raise
            finally:
                copy.close()

    def close(self) -> None:
        """Lets go of the database."""
        with ledger_errors(self._path):
            self._connection.close()

    def _match(self, statement: str, asked: str, missing: "_Missing") -> tuple[Any, ...]:
        """The one row whose id is meant."""
        head, _, tail = asked.upper().partition("…")
        values = {"head": head, "tail": tail, "limit": _SHOWN_MATCHES + 1}
        matches = self._rows(statement, values)
        exact = [row for row in matches if row[0] == head] if not tail else []
        if len(matches) == 1 or exact:
            return (exact or matches)[0]
        raise missing.error(asked, [str(row[0]) for row in matches])

    @contextmanager
    def _write(self) -> Iterator[None]:
        with ledger_errors(self._path), transaction(self._connection):
            yield

    def _rows(self, statement: str, values: Any = ()) -> list[tuple[Any, ...]]:
        with ledger_errors(self._path):
            return self._connection.execute(statement, values).fetchall()


class _Missing(msgspec.Struct, frozen=True):
    """How an id that means nothing, or several things, is refused."""

    code: str
    one: str
    many: str
    listing: str

    def error(self, asked: str, matches: list[str]) -> UsageError:
        if not matches:
            return UsageError(self.code, f"no {self.one} has the id {asked!r}", hint=self.listing)
        shown = [*matches[:_SHOWN_MATCHES], *(["…"] if len(matches) > _SHOWN_MATCHES else [])]
        return UsageError(
            self.code,
            f"several {self.many} have an id like {asked!r}",
            hint="give more characters of the id, or `last`",
            details=shown,
        )


_NO_SESSION = _Missing("no-such-session", "session", "sessions", "ogate sessions list")
_NO_CALL = _Missing("no-such-call", "model call", "model calls", "ogate logs list")
