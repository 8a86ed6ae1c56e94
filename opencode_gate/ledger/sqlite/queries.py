"""Every statement the SQLite ledger runs, except its migrations.

Values are always bound; only names out of the tables below are put into a statement.
"""

from collections.abc import Sequence

from opencode_gate.ledger.sqlite.rows import (
    CONVERSATION_COLUMNS,
    EXCHANGE_COLUMNS,
    SESSION_COLUMNS,
)


def _columns(names: Sequence[str]) -> str:
    return ", ".join(names)


def _holes(names: Sequence[str]) -> str:
    return ", ".join("?" * len(names))


INSERT_SESSION = f"""
INSERT INTO sessions ({_columns(SESSION_COLUMNS)}) VALUES ({_holes(SESSION_COLUMNS)})
ON CONFLICT (id) DO NOTHING
"""

END_SESSION = """
UPDATE sessions SET ended_at_us = :ended_at_us, exit_status = :exit_status
WHERE id = :id AND (:exit_status IS NOT NULL OR exit_status IS NULL)
"""

PUT_CONVERSATION = f"""
INSERT INTO conversations ({_columns(CONVERSATION_COLUMNS)})
VALUES ({_holes(CONVERSATION_COLUMNS)})
ON CONFLICT (session_id, id) DO UPDATE SET
    parent_id = coalesce(excluded.parent_id, parent_id),
    title = coalesce(excluded.title, title),
    kind = excluded.kind,
    agent_name = coalesce(excluded.agent_name, agent_name)
"""

_FINALITY = "CASE {}.status WHEN 'open' THEN 0 WHEN 'interrupted' THEN 1 ELSE 2 END"
"""An end that was seen is worth more than one that was inferred, and that more than none."""

FOLD_EXCHANGE = f"""
INSERT INTO exchanges ({_columns(EXCHANGE_COLUMNS)}) VALUES ({_holes(EXCHANGE_COLUMNS)})
ON CONFLICT (id) DO UPDATE SET
    {_columns([f"{name} = excluded.{name}" for name in EXCHANGE_COLUMNS if name != "id"])}
WHERE {_FINALITY.format("excluded")} >= {_FINALITY.format("exchanges")}
"""

_SESSION = f"SELECT {_columns(SESSION_COLUMNS)} FROM sessions"

LAST_SESSION = f"{_SESSION} ORDER BY started_at_us DESC, id DESC LIMIT 1"

MATCHING_SESSIONS = f"""
{_SESSION} WHERE id >= :head AND substr(id, 1, length(:head)) = :head
    AND length(id) >= length(:head) + length(:tail)
    AND substr(id, length(id) - length(:tail) + 1) = :tail
ORDER BY id LIMIT :limit
"""

SESSIONS = f"""
{_SESSION}
WHERE (:since_us IS NULL OR started_at_us >= :since_us)
    AND (:until_us IS NULL OR started_at_us < :until_us)
ORDER BY started_at_us DESC, id DESC LIMIT :limit
"""

CONVERSATIONS = f"""
SELECT {_columns(CONVERSATION_COLUMNS)} FROM conversations WHERE session_id = ? ORDER BY id
"""

EXCHANGES = f"""
SELECT {_columns(EXCHANGE_COLUMNS)} FROM exchanges WHERE session_id = ? ORDER BY started_at_us, id
"""

SPAN = """
SELECT (SELECT min(started_at_us) FROM exchanges), (SELECT max(started_at_us) FROM exchanges)
"""

GROUP_EXPRESSIONS = {
    "model": "exchanges.provider_name || '/' || "
    "coalesce(exchanges.request_model, exchanges.response_model)",
    "provider": "exchanges.provider_name",
    "key": "exchanges.credential_name",
    "session": "exchanges.session_id",
    "project": "sessions.project",
    "branch": "sessions.branch",
    "day": "days.day",
    "user": "sessions.user",
    "kind": "exchanges.kind",
}

_IS_REQUEST = "operation = 'generate'"
_IS_REFUSED = """coalesce(http_status >= 400, 0) AND coalesce(
    input_tokens, output_tokens, reasoning_output_tokens, input_audio_tokens, output_audio_tokens
) IS NULL"""
_ASKS_FOR_COST = f"(cost_nano_usd IS NOT NULL OR ({_IS_REQUEST} AND NOT ({_IS_REFUSED})))"

_TOTALS = f"""
    count(*) FILTER (WHERE {_IS_REQUEST}),
    sum(input_tokens),
    sum(cache_read_input_tokens),
    sum(cache_creation_input_tokens),
    sum(output_tokens),
    sum(reasoning_output_tokens),
    sum(cost_nano_usd),
    max(CASE
        WHEN cost_nano_usd IS NULL OR cost_quality = 'unknown' THEN 3
        WHEN cost_quality = 'estimated' THEN 2
        WHEN cost_quality = 'priced' THEN 1
        ELSE 0
    END) FILTER (WHERE {_ASKS_FOR_COST}),
    count(*) FILTER (WHERE cost_nano_usd IS NULL AND {_ASKS_FOR_COST})
"""
"""The rules of `ledger.totals` in SQL; the third last is the rank of the worst quality."""


_DAYS = """
WITH days (day, start_us, end_us) AS MATERIALIZED (
    SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]')
    FROM json_each(:days)
)
"""


def usage(by: Sequence[str]) -> str:
    """The statement for totals grouped by names out of `GROUP_EXPRESSIONS`.

    Grouped by day it binds `:days`, a JSON list of `[day, first microsecond, first microsecond
    after it]`; else `:since_us` and `:until_us`.
    """
    groups = [GROUP_EXPRESSIONS[name] for name in by]
    is_daily = "day" in by
    # CROSS JOIN holds SQLite to this order: one search of the index over time for each day.
    source = "days CROSS JOIN exchanges" if is_daily else "exchanges"
    start, end = ("days.start_us", "days.end_us") if is_daily else (":since_us", ":until_us")
    if {"project", "branch", "user"} & set(by):
        source += " LEFT JOIN sessions ON sessions.id = exchanges.session_id"
    return f"""
    {_DAYS if is_daily else ""}
    SELECT {"".join(f"{group}, " for group in groups)} {_TOTALS}
    FROM {source}
    WHERE exchanges.status <> 'denied'
        AND exchanges.started_at_us >= {start} AND exchanges.started_at_us < {end}
    {f"GROUP BY {_columns(groups)} ORDER BY {_columns(groups)}" if groups else ""}
    """
