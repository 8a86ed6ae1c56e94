"""The `Store` on SQLite (WAL): one writer at a time, readers never wait.

The invariant: every method is one statement or one transaction.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

from opencode_gate.core.errors import UsageError
from opencode_gate.core.semconv import CostQuality
from opencode_gate.ledger.records import ConversationRecord, ExchangeRecord, SessionRecord
from opencode_gate.ledger.sqlite import queries
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
    session_of,
    session_row,
)
from opencode_gate.ledger.totals import Totals, UsageQuery, UsageRow

_BEGINNING_US, _END_US = 0, 2**63 - 1
_QUALITIES = tuple(CostQuality)
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

    def add_session(self, session: SessionRecord) -> None:
        """Records the start of a session; an id that is known already stays as it is."""
        with self._write():
            self._connection.execute(queries.INSERT_SESSION, session_row(session))

    def end_session(self, id: str, *, ended_at_us: int, exit_status: int | None) -> None:
        """Records its end. An exit status once known is not replaced by an unknown one."""
        with self._write():
            self._connection.execute(
                queries.END_SESSION,
                {"id": id, "ended_at_us": ended_at_us, "exit_status": exit_status},
            )

    def put_conversations(self, conversations: Iterable[ConversationRecord]) -> None:
        """Inserts or updates; what was known and is now `None` stays known."""
        rows = [conversation_row(conversation) for conversation in conversations]
        with self._write():
            self._connection.executemany(queries.PUT_CONVERSATION, rows)

    def fold(self, exchanges: Iterable[ExchangeRecord]) -> None:
        """Inserts or updates exchanges by id, all or none."""
        rows = [exchange_row(exchange) for exchange in exchanges]
        if rows:
            with self._write():
                self._connection.executemany(queries.FOLD_EXCHANGE, rows)

    def session(self, id_or_prefix: str) -> SessionRecord:
        """A session by id, by a prefix only it has, or the latest (`last`)."""
        if id_or_prefix == "last":
            rows = self._rows(queries.LAST_SESSION)
            if not rows:
                raise UsageError(
                    "no-such-session", "the ledger has no session yet", hint="ogate run"
                )
            return session_of(rows[0])
        head, _, tail = id_or_prefix.upper().partition("…")
        matches = self._rows(
            queries.MATCHING_SESSIONS, {"head": head, "tail": tail, "limit": _SHOWN_MATCHES + 1}
        )
        if len(matches) == 1:
            return session_of(matches[0])
        if any(row[0] == head for row in matches):
            return session_of(next(row for row in matches if row[0] == head))
        raise _no_such_session(id_or_prefix, [str(row[0]) for row in matches])

    def sessions(
        self, *, limit: int | None = None, since_us: int | None = None, until_us: int | None = None
    ) -> list[SessionRecord]:
        """Sessions started in `[since_us, until_us)`, newest first."""
        bounds = {
            "limit": -1 if limit is None else limit,
            "since_us": since_us,
            "until_us": until_us,
        }
        return [session_of(row) for row in self._rows(queries.SESSIONS, bounds)]

    def conversations(self, session_id: str) -> list[ConversationRecord]:
        """The conversations of a session, by id."""
        return [conversation_of(row) for row in self._rows(queries.CONVERSATIONS, (session_id,))]

    def exchanges(self, session_id: str) -> list[ExchangeRecord]:
        """The exchanges of a session in the order they started."""
        return [exchange_of(row) for row in self._rows(queries.EXCHANGES, (session_id,))]

    def usage(self, query: UsageQuery) -> list[UsageRow]:
        """Totals per group, ordered by key; without groups one row, even over nothing."""
        since_us = _BEGINNING_US if query.since_us is None else query.since_us
        until_us = _END_US if query.until_us is None else query.until_us
        bounds: dict[str, object] = {"since_us": since_us, "until_us": until_us}
        if "day" in query.by:
            days = self._days(since_us, until_us, query.zone)
            bounds = {"days": json.dumps(days)}
        size = len(query.by)
        return [
            UsageRow(key=dict(zip(query.by, row[:size], strict=True)), totals=_totals(row[size:]))
            for row in self._rows(queries.usage(query.by), bounds)
        ]

    def integrity(self) -> list[str]:
        """What is damaged in the database, one sentence each; empty if it is sound."""
        try:
            findings = [str(row[0]) for row in self._connection.execute("PRAGMA integrity_check")]
        except sqlite3.DatabaseError as error:
            return [str(error)]
        return [] if findings == ["ok"] else findings

    def close(self) -> None:
        """Lets go of the database."""
        with ledger_errors(self._path):
            self._connection.close()

    @contextmanager
    def _write(self) -> Iterator[None]:
        with ledger_errors(self._path), transaction(self._connection):
            yield

    def _rows(self, statement: str, values: Any = ()) -> list[tuple[Any, ...]]:
        with ledger_errors(self._path):
            return self._connection.execute(statement, values).fetchall()

    def _days(self, since_us: int, until_us: int, zone: tzinfo) -> list[tuple[str, int, int]]:
        """The local days with exchanges between two instants, clipped to these."""
        first_us, last_us = self._rows(queries.SPAN)[0]
        if first_us is None:
            return []
        days = local_days(max(first_us, since_us), min(last_us, until_us), zone)
        return [(day, max(start, since_us), min(end, until_us)) for day, start, end in days]


def local_days(first_us: int, last_us: int, zone: tzinfo) -> list[tuple[str, int, int]]:
    """Each local day from the one of `first_us` to the one of `last_us`, with its bounds.

    A day is `(YYYY-MM-DD, first microsecond, first microsecond after it)`: 23 or 25 hours long
    when the clocks change, and 0 where a zone skipped it.
    """
    day = datetime.fromtimestamp(first_us / 1e6, zone).date()
    last = datetime.fromtimestamp(last_us / 1e6, zone).date()
    days = []
    start_us = _midnight_us(day, zone)
    while day <= last:
        following = day + timedelta(days=1)
        end_us = _midnight_us(following, zone)
        days.append((day.isoformat(), start_us, end_us))
        day, start_us = following, end_us
    return days


def _midnight_us(day: date, zone: tzinfo) -> int:
    # In a gap or an overlap, `fold=0` gives the day's first instant (PEP 495).
    return int(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()) * 1_000_000


def _totals(row: tuple[Any, ...]) -> Totals:
    requests, uncached, read, created, output, reasoning, cost, worst, unknown = row
    return Totals(
        requests=requests,
        input_tokens=uncached,
        cache_read_input_tokens=read,
        cache_creation_input_tokens=created,
        output_tokens=output,
        reasoning_output_tokens=reasoning,
        cost_nano_usd=cost,
        cost_quality=CostQuality.UNKNOWN if worst is None else _QUALITIES[worst],
        unknown_cost_requests=unknown,
    )


def _no_such_session(asked: str, matches: list[str]) -> UsageError:
    if not matches:
        return UsageError(
            "no-such-session",
            f"no session has the id {asked!r}",
            hint="ogate sessions list",
        )
    shown = [*matches[:_SHOWN_MATCHES], *(["…"] if len(matches) > _SHOWN_MATCHES else [])]
    return UsageError(
        "no-such-session",
        f"several sessions have an id like {asked!r}",
        hint="give more characters of the id, or `last`",
        details=shown,
    )
