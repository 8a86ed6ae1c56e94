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
    agent_name = coalesce(excluded.agent_name, agent_name),
    directory = coalesce(excluded.directory, directory)
"""

_FINALITY = "CASE {}.status WHEN 'open' THEN 0 WHEN 'interrupted' THEN 1 ELSE 2 END"
"""An end that was seen is worth more than one that was inferred, and that more than none."""

_ANNOTATED = ("conversation_id", "prompt_id", "mode")

FOLD_EXCHANGE = f"""
INSERT INTO exchanges ({_columns(EXCHANGE_COLUMNS)}) VALUES ({_holes(EXCHANGE_COLUMNS)})
ON CONFLICT (id) DO UPDATE SET
    {
    _columns(
        [
            f"{name} = coalesce(excluded.{name}, {name})"
            if name in _ANNOTATED
            else f"{name} = excluded.{name}"
            for name in EXCHANGE_COLUMNS
            if name != "id"
        ]
    )
}
WHERE {_FINALITY.format("excluded")} > {_FINALITY.format("exchanges")}
"""

PUT_PARTS = """
INSERT INTO message_parts (started_at_us, exchange_id, parts) VALUES (?, ?, ?)
ON CONFLICT DO NOTHING
"""

ANNOTATE = """
UPDATE exchanges SET
    prompt_id = coalesce(:prompt_id, prompt_id),
    mode = coalesce(:mode, mode),
    kind = coalesce(:kind, kind),
    conversation_id = coalesce(conversation_id, :conversation_id)
WHERE id = :id
"""

PUT_RECONCILIATION = """
INSERT INTO reconciliations (session_id, document) VALUES (?, ?)
ON CONFLICT (session_id) DO UPDATE SET document = excluded.document
"""

RECONCILIATION = "SELECT document FROM reconciliations WHERE session_id = ?"

PUT_TOOL = """
INSERT INTO tool_sets (hash, tool_name, schema_bytes) VALUES (?, ?, ?) ON CONFLICT DO NOTHING
"""

REPRICE = """
UPDATE exchanges SET
    superseded_cost_nano_usd = CASE
        WHEN superseded_price_source IS NULL THEN cost_nano_usd ELSE superseded_cost_nano_usd
    END,
    superseded_price_source =
        coalesce(superseded_price_source, price_source, 'none'),
    cost_nano_usd = :cost_nano_usd,
    cost_quality = :cost_quality,
    price_source = :price_source,
    priced_cost_nano_usd = :cost_nano_usd,
    cache_saved_nano_usd = :cache_saved_nano_usd
WHERE id = :id AND cost_quality <> 'reported'
    AND (cost_nano_usd, cost_quality, price_source)
        IS NOT (:cost_nano_usd, :cost_quality, :price_source)
"""

REPRICE_REPORTED = """
UPDATE exchanges SET
    priced_cost_nano_usd = :cost_nano_usd, cache_saved_nano_usd = :cache_saved_nano_usd
WHERE id = :id AND cost_quality = 'reported'
"""

_SESSION = f"SELECT {_columns(SESSION_COLUMNS)} FROM sessions"

_BY_NAME = """
WHERE id >= :head AND id < :head || char(1114111)
    AND length(id) >= length(:head) + length(:tail)
    AND substr(id, length(id) - length(:tail) + 1) = :tail
ORDER BY id LIMIT :limit
"""
_LATEST = "ORDER BY started_at_us DESC, id DESC LIMIT 1"

LAST_SESSION = f"{_SESSION} {_LATEST}"

MATCHING_SESSIONS = f"{_SESSION} {_BY_NAME}"

SESSIONS = f"""
{_SESSION}
WHERE (:since_us IS NULL OR started_at_us >= :since_us)
    AND (:until_us IS NULL OR started_at_us < :until_us)
ORDER BY started_at_us DESC, id DESC LIMIT :limit
"""

SESSIONS_OF = f"{_SESSION} WHERE id IN (SELECT value FROM json_each(?))"

CONVERSATIONS = f"""
SELECT {_columns(CONVERSATION_COLUMNS)} FROM conversations WHERE session_id = ? ORDER BY id
"""

_EXCHANGE = f"""
SELECT {_columns([f"exchanges.{name}" for name in EXCHANGE_COLUMNS])}, parts, (
    SELECT json_group_array(json_array(budget_id, window_start_us, unit, reserved))
    FROM charges WHERE charges.exchange_id = exchanges.id
)
FROM exchanges LEFT JOIN message_parts
    ON message_parts.started_at_us = exchanges.started_at_us
        AND message_parts.exchange_id = exchanges.id
"""

EXCHANGES = f"{_EXCHANGE} WHERE session_id = ? ORDER BY exchanges.started_at_us, exchanges.id"

EXCHANGE = f"{_EXCHANGE} WHERE exchanges.id = ?"

RECORDED = "SELECT id FROM exchanges WHERE id IN (SELECT value FROM json_each(?))"

LAST_EXCHANGE = f"SELECT id FROM exchanges {_LATEST}"

MATCHING_EXCHANGES = f"SELECT id FROM exchanges {_BY_NAME}"

TOOL_SET = "SELECT tool_name, schema_bytes FROM tool_sets WHERE hash = ?"

LAST_ARRIVAL = "SELECT coalesce(max(rowid), 0) FROM exchanges"
"""Row numbers grow with each exchange that is new, whatever its start or id."""

RETIRE_PARTS = "DELETE FROM message_parts WHERE started_at_us < ?"

ADD_TOKEN_RATIO = """
    INSERT INTO token_ratios
        (provider_name, model, kind, estimated_tokens, reported_tokens, answers)
    VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT (provider_name, model, kind) DO UPDATE SET
        estimated_tokens = estimated_tokens + excluded.estimated_tokens,
        reported_tokens = reported_tokens + excluded.reported_tokens,
        answers = answers + excluded.answers
"""

TOKEN_RATIOS = """
    SELECT provider_name, model, kind, estimated_tokens, reported_tokens, answers
    FROM token_ratios
"""
