"""Searching the exchanges: an `ExchangeQuery` as a statement and the values it binds.

Values are always bound; only the fixed conditions below are put into a statement.
"""

import json
import sys

from opencode_gate.core.semconv import ExchangeStatus
from opencode_gate.ledger.exchange_query import ExchangeQuery
from opencode_gate.ledger.sqlite.rows import EXCHANGE_COLUMNS

_CONDITIONS = {
    "since_us": "started_at_us >= :since_us",
    "until_us": "started_at_us < :until_us",
    "session_id": "session_id = :session_id",
    "conversation_id": "conversation_id = :conversation_id",
    "provider_name": "provider_name = :provider_name",
    "model": "(request_model = :model OR response_model = :model"
    " OR provider_name || '/' || coalesce(request_model, response_model) = :model)",
    "credential_name": "credential_name = :credential_name",
    "virtual_key": "virtual_key = :virtual_key",
    "team": "team = :team",
    "customer": "customer = :customer",
    "error": "(error_type = :error OR denial = :error OR CAST(http_status AS TEXT) = :error)",
    "min_cost_nano_usd": "cost_nano_usd >= :min_cost_nano_usd",
    "max_cost_nano_usd": "cost_nano_usd <= :max_cost_nano_usd",
}

_COLUMNS = ", ".join(EXCHANGE_COLUMNS)

Statement = tuple[str, dict[str, object]]


def latest_first(query: ExchangeQuery) -> Statement:
    """The exchanges of a query from the latest start on, a page of them."""
    conditions, values = _conditions(query)
    if query.before is not None:
        conditions.append("(started_at_us, id) < (:before_us, :before_id)")
        values["before_us"], values["before_id"] = query.before
    values["limit"] = bounded(query.limit)
    return (
        f"SELECT {_COLUMNS} FROM exchanges {_where(conditions)}"
        " ORDER BY started_at_us DESC, id DESC LIMIT :limit",
        values,
    )


def as_recorded(query: ExchangeQuery, *, after: int, mark: int) -> Statement:
    """The exchanges of a query with a row number above `after` up to `mark`."""
    conditions, values = _conditions(query)
    conditions.append("rowid > :after AND rowid <= :mark")
    values |= {"after": after, "mark": mark}
    return (
        f"SELECT {_COLUMNS} FROM exchanges {_where(conditions)} ORDER BY rowid",
        values,
    )


def bounded(limit: int | None) -> int:
    """A number of rows as SQLite takes it: of 64 bits, and -1 for all."""
    return -1 if limit is None else min(limit, sys.maxsize)


def _conditions(query: ExchangeQuery) -> tuple[list[str], dict[str, object]]:
    values: dict[str, object] = {
        name: getattr(query, name) for name in _CONDITIONS if getattr(query, name) is not None
    }
    conditions = [_CONDITIONS[name] for name in values]
    if query.statuses:
        values["statuses"] = json.dumps([status.value for status in query.statuses])
        conditions.append("status IN (SELECT value FROM json_each(:statuses))")
        if ExchangeStatus.COMPLETED not in query.statuses:
            # In these words, so that SQLite takes the index of what did not end well.
            conditions.append("status <> 'completed'")
    return conditions, values


def _where(conditions: list[str]) -> str:
    return f"WHERE {' AND '.join(conditions)}" if conditions else ""
