"""Totals over whole ledgers: the rules of `ledger.totals` as SQL over rows.

The idea: the statements give *measures*, which unlike totals can be added up, so that a question
may be answered in pieces. Values are bound; only names out of the tables below are put into a
statement.
"""

import json
import sqlite3
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

from opencode_gate.core.local_time import offset_spans
from opencode_gate.core.semconv import CostQuality
from opencode_gate.ledger.totals import Totals, UsageQuery, UsageRow

Span = tuple[int, int, int]
"""First microsecond, first microsecond after it, the local time's offset from UTC within."""

_DAY_US = 86_400_000_000
_HOUR_US = 3_600_000_000
_EPOCH = date(1970, 1, 1)
_QUALITIES = tuple(CostQuality)

_BOUNDS = """
SELECT (SELECT min(started_at_us) FROM exchanges), (SELECT max(started_at_us) FROM exchanges)
"""

GROUP_EXPRESSIONS = {
    "model": "exchanges.provider_name || '/' || "
    "coalesce(exchanges.request_model, exchanges.response_model)",
    "provider": "exchanges.provider_name",
    "key": "exchanges.credential_name",
    "session": "exchanges.session_id",
    "project": "sessions.project",
    "repository": "sessions.repository",
    "branch": "sessions.branch",
    "commit": 'sessions."commit"',
    "day": f"(exchanges.started_at_us + spans.offset_us) / {_DAY_US}",
    "hour": f"(exchanges.started_at_us + spans.offset_us) / {_HOUR_US} % 24",
    "user": "sessions.user",
    "agent": "sessions.agent",
    "conversation": "exchanges.conversation_id",
    "kind": "exchanges.kind",
    "mode": "exchanges.mode",
}

_OF_SESSION = {"project", "repository", "branch", "commit", "user", "agent"}
_OF_TIME = {"day", "hour"}

_IS_REQUEST = "operation = 'generate'"
_IS_REFUSED = """coalesce(http_status >= 400, 0) AND coalesce(
    input_tokens, output_tokens, reasoning_output_tokens, input_audio_tokens, output_audio_tokens
) IS NULL"""
_ASKS_FOR_COST = f"(cost_nano_usd IS NOT NULL OR ({_IS_REQUEST} AND NOT ({_IS_REFUSED})))"

_SUMS = (
    "input_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
    "output_tokens",
    "reasoning_output_tokens",
    "cost_nano_usd",
)

_MEASURES = f"""
    count(*) FILTER (WHERE {_IS_REQUEST}),
    {", ".join(f"sum({name})" for name in _SUMS)},
    count(*) FILTER (WHERE cost_nano_usd IS NOT NULL AND cost_quality = 'reported'),
    count(*) FILTER (WHERE cost_nano_usd IS NOT NULL AND cost_quality = 'priced'),
    count(*) FILTER (WHERE cost_nano_usd IS NOT NULL AND cost_quality = 'estimated'),
    count(*) FILTER (WHERE cost_nano_usd IS NOT NULL AND cost_quality = 'unknown'),
    count(*) FILTER (WHERE cost_nano_usd IS NULL AND {_ASKS_FOR_COST})
"""
"""Requests, sums, known costs by quality, and costs that are asked for and missing."""

_SPANS = """
WITH spans (start_us, end_us, offset_us) AS MATERIALIZED (
    SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]')
    FROM json_each(:spans)
)
"""


def usage(connection: sqlite3.Connection, query: UsageQuery) -> list[UsageRow]:
    """The rows of a query; see `ledger.store.Store.usage`."""
    values: dict[str, object] = {"spans": json.dumps(_spans(connection, query))}
    if query.session_ids is not None:
        values["sessions"] = json.dumps(query.session_ids)
    size = len(query.by)
    groups = [
        (row[:size], _totals(row[size:]))
        for row in connection.execute(_over_exchanges(query), values)
    ]
    return [
        UsageRow(key=dict(zip(query.by, map(_key_text, query.by, key), strict=True)), totals=totals)
        for key, totals in groups
    ]


def _over_exchanges(query: UsageQuery) -> str:
    groups = [GROUP_EXPRESSIONS[name] for name in query.by]
    # CROSS JOIN holds SQLite to this order: one search of the index over time for each span.
    source = "spans CROSS JOIN exchanges"
    conditions = [
        "exchanges.status <> 'denied'",
        "exchanges.started_at_us >= spans.start_us",
        "exchanges.started_at_us < spans.end_us",
    ]
    if query.session_ids is not None:
        source = "json_each(:sessions) AS chosen CROSS JOIN spans CROSS JOIN exchanges"
        conditions.append("exchanges.session_id = chosen.value")
    if _OF_SESSION & set(query.by):
        source += " LEFT JOIN sessions ON sessions.id = exchanges.session_id"
    return f"""
    {_SPANS}
    SELECT {"".join(f"{group}, " for group in groups)} {_MEASURES}
    FROM {source} WHERE {" AND ".join(conditions)}
    {f"GROUP BY {', '.join(groups)} ORDER BY {', '.join(groups)}" if groups else ""}
    """


def _spans(connection: sqlite3.Connection, query: UsageQuery) -> list[Span]:
    """The time asked for that has exchanges in it, cut where local time changes if that matters."""
    first_us, last_us = connection.execute(_BOUNDS).fetchone()
    if first_us is None:
        return []
    start_us = first_us if query.since_us is None else max(first_us, query.since_us)
    end_us = last_us + 1 if query.until_us is None else min(last_us + 1, query.until_us)
    if start_us >= end_us:
        return []
    if _OF_TIME & set(query.by):
        return offset_spans(start_us, end_us, query.zone)
    return [(start_us, end_us, 0)]


def _key_text(name: str, value: Any) -> str | None:
    if value is None:
        return None
    if name == "day":
        return (_EPOCH + timedelta(days=value)).isoformat()
    return f"{value:02}" if name == "hour" else str(value)


def _totals(measures: Sequence[Any]) -> Totals:
    requests, uncached, read, created, output, reasoning, cost, *counts = measures
    *known, missing = counts
    by_quality = [*known[:-1], known[-1] + missing]
    present = [quality for quality, count in zip(_QUALITIES, by_quality, strict=True) if count]
    return Totals(
        requests=requests,
        input_tokens=uncached,
        cache_read_input_tokens=read,
        cache_creation_input_tokens=created,
        output_tokens=output,
        reasoning_output_tokens=reasoning,
        cost_nano_usd=cost,
        cost_quality=present[-1] if present else CostQuality.UNKNOWN,
        unknown_cost_requests=missing,
    )
