"""What Opencode itself wrote down while it ran: conversations, what was typed, what was answered.

One assistant message is a *turn*: one answer of a model, with the failed tries that came before
it. All of it is read from one snapshot of the database. The invariant: nothing here raises, and
no text of a prompt leaves this module but by `prompt_texts`, which somebody has to ask for.
"""

import json
import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Final

import msgspec

from opencode_gate.agents.opencode.database_reading import (
    columns_of,
    cost_usd,
    count_of,
    microseconds,
    reading,
    row_usage,
    rows_of,
    span,
    sum_usd,
    total_usage,
)
from opencode_gate.core.usage import TokenUsage

# Up from what is given to the roots, then down to every sub-agent.
_OURS: Final = """
WITH RECURSIVE
  upward(id) AS (
    SELECT session.id FROM session WHERE session.id IN (SELECT value FROM json_each(:ids))
    UNION
    SELECT session.parent_id FROM session JOIN upward ON session.id = upward.id
    WHERE session.parent_id IS NOT NULL
  ),
  family(id) AS (
    SELECT id FROM upward
    UNION
    SELECT session.id FROM session JOIN family ON session.parent_id = family.id
  ),
  ours(id, is_given) AS (
    SELECT id, 1 FROM family
    UNION
    SELECT session.id, 0 FROM session
    WHERE session.directory IN (SELECT value FROM json_each(:directories))
      AND session.time_updated >= :since AND session.time_created < :until
      AND session.id NOT IN (SELECT id FROM family)
      AND session.id NOT IN (SELECT value FROM json_each(:foreign))
  )
"""

_TOTALS: Final = (
    "tokens_input",
    "tokens_output",
    "tokens_reasoning",
    "tokens_cache_read",
    "tokens_cache_write",
)

_CONVERSATIONS: Final = """
SELECT session.id, session.parent_id, session.title, session.directory, {agent}, ours.is_given,
  session.time_created >= :since AS is_new, {totals}
FROM session JOIN ours ON ours.id = session.id
ORDER BY session.time_created, session.id
"""

_TURNS: Final = """
SELECT message.id, message.session_id, message.time_created,
  json_extract(message.data, '$.parentID') AS prompt_id,
  coalesce(json_extract(message.data, '$.agent'), json_extract(message.data, '$.mode')) AS agent,
  json_extract(message.data, '$.providerID') AS provider_id,
  json_extract(message.data, '$.modelID') AS model_id,
  json_extract(message.data, '$.time.completed') AS time_completed,
  json_extract(message.data, '$.error.name') AS error_name,
  coalesce(json_extract(message.data, '$.summary'), 0) = 1 AS is_compaction,
  json_extract(message.data, '$.cost') AS cost,
  json_extract(message.data, '$.tokens.input') AS input,
  json_extract(message.data, '$.tokens.output') AS output,
  json_extract(message.data, '$.tokens.reasoning') AS reasoning,
  json_extract(message.data, '$.tokens.cache.read') AS cache_read,
  json_extract(message.data, '$.tokens.cache.write') AS cache_write,
  message.time_created >= :since AND message.time_created < :until AS is_inside,
  EXISTS (SELECT 1 FROM part WHERE part.message_id = message.id
          AND json_extract(part.data, '$.type') = 'step-finish') AS has_step
FROM message JOIN ours ON ours.id = message.session_id
WHERE json_extract(message.data, '$.role') = 'assistant'
ORDER BY message.time_created, message.id
"""

_PROMPTS: Final = """
SELECT message.id, message.session_id, message.time_created,
  json_extract(message.data, '$.agent') AS agent,
  json_extract(part.data, '$.type') AS part_type,
  coalesce(json_extract(part.data, '$.synthetic'), 0) = 1 AS is_synthetic,
  coalesce(json_extract(part.data, '$.auto'), 0) = 1 AS is_automatic,
  coalesce(json_extract(part.data, '$.overflow'), 0) = 1 AS is_overflow,
  substr(json_extract(part.data, '$.text'), 1, 400) AS text
FROM message JOIN ours ON ours.id = message.session_id
LEFT JOIN part ON part.message_id = message.id
WHERE json_extract(message.data, '$.role') = 'user' AND message.time_created < :until
ORDER BY message.time_created, message.id, part.id
"""

_TEXTS: Final = """
SELECT part.message_id AS id, json_extract(part.data, '$.text') AS text
FROM part
WHERE part.message_id IN (SELECT value FROM json_each(:ids))
  AND json_extract(part.data, '$.type') = 'text'
  AND coalesce(json_extract(part.data, '$.synthetic'), 0) = 0
ORDER BY part.id
"""


class AgentFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What Opencode counted; its amounts are at the prices of its own catalogue."""

    usage: TokenUsage
    cost_usd: Decimal | None


class RecordedConversation(msgspec.Struct, frozen=True, kw_only=True):
    """One of Opencode's conversations.

    Attributes:
        is_given: it, or one of its family, was asked for by id; else it was only used in the
            same folder in the same span of time, and may be another Opencode's.
        is_new: it was begun in the span.
        row: what its own running total grew by in the span; `None` where there is none.
    """

    id: str
    parent_id: str | None
    title: str | None
    directory: str | None
    agent_name: str | None
    is_given: bool
    is_new: bool
    row: AgentFigures | None


class RecordedPrompt(msgspec.Struct, frozen=True, kw_only=True):
    """One message to the model.

    Attributes:
        agent_name: the agent (the mode) it was meant for: `plan`, `build`.
        is_typed: a person (or a parent agent) wrote it; else Opencode did, to go on by itself
            after a compaction or a change of mode.
    """

    id: str
    conversation_id: str
    agent_name: str | None
    created_at_us: int
    is_typed: bool


class RecordedTurn(msgspec.Struct, frozen=True, kw_only=True):
    """One answer of a model.

    Attributes:
        prompt_id: the message it answers.
        ended_at_us: `None` where Opencode never came to write it.
        is_answer: a model's answer was counted; else it failed, was broken off, or no model was
            asked at all.
        error_name: Opencode's name of what ended it early.
    """

    id: str
    conversation_id: str
    prompt_id: str | None
    agent_name: str | None
    is_compaction: bool
    provider_id: str
    model_id: str
    started_at_us: int
    ended_at_us: int | None
    figures: AgentFigures
    is_answer: bool
    error_name: str | None


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Everything of one run, each list by time; turns are those of the span alone."""

    conversations: tuple[RecordedConversation, ...] = ()
    prompts: tuple[RecordedPrompt, ...] = ()
    turns: tuple[RecordedTurn, ...] = ()


def run_record(
    database: Path | None,
    since_us: int,
    until_us: int,
    *,
    conversation_ids: Collection[str],
    directories: Collection[str] = (),
    foreign_ids: Collection[str] = (),
) -> RunRecord | None:
    """What was recorded in `[since_us, until_us)`; `None` where it cannot be read.

    Looked at are the given conversations with their whole families, and those used in one of
    `directories` in that span, but for `foreign_ids`.
    """
    parameters = {
        **span(since_us, until_us),
        "ids": json.dumps(sorted(conversation_ids)),
        "directories": json.dumps(sorted(directories)),
        "foreign": json.dumps(sorted(foreign_ids)),
    }
    with reading(database) as connection:
        if connection is None:
            return None
        try:
            connection.execute("BEGIN")
        except sqlite3.Error:
            return None
        conversations = rows_of(connection, _conversations_query(connection), parameters)
        turns = rows_of(connection, _OURS + _TURNS, parameters)
        prompts = rows_of(connection, _OURS + _PROMPTS, parameters)
    if conversations is None or turns is None or prompts is None:
        return None
    outside = _outside(turns)
    # Early 1.x versions name the agent only in the turns.
    agents = {row["session_id"]: row["agent"] for row in turns if not row["is_compaction"]}
    return RunRecord(
        conversations=tuple(
            _conversation(row, outside.get(row["id"]), agents.get(row["id"]))
            for row in conversations
        ),
        prompts=tuple(_prompts(prompts)),
        turns=tuple(_turn(row) for row in turns if row["is_inside"]),
    )


def prompt_texts(database: Path | None, prompt_ids: Collection[str]) -> dict[str, str] | None:
    """What was typed, for showing it to the person who asks; `None` where it cannot be read."""
    with reading(database) as connection:
        if connection is None:
            return None
        rows = rows_of(connection, _TEXTS, {"ids": json.dumps(sorted(prompt_ids))})
    if rows is None:
        return None
    texts: dict[str, str] = {}
    for row in rows:
        if isinstance(row["text"], str):
            before = texts.get(row["id"])
            texts[row["id"]] = row["text"] if before is None else f"{before}\n{row['text']}"
    return texts


def _conversations_query(connection: sqlite3.Connection) -> str:
    # Early 1.x versions keep neither an agent nor running totals.
    known = columns_of(connection, "session")
    totals = ", ".join(
        f"session.{name}" if name in known else f"NULL AS {name}" for name in ("cost", *_TOTALS)
    )
    agent = "session.agent" if "agent" in known else "NULL AS agent"
    return _OURS + _CONVERSATIONS.format(agent=agent, totals=totals)


def _outside(turns: Iterable[sqlite3.Row]) -> Mapping[str, AgentFigures]:
    """Per conversation, what its turns before and after the span amount to."""
    groups: dict[str, list[AgentFigures]] = {}
    for row in turns:
        if not row["is_inside"]:
            groups.setdefault(row["session_id"], []).append(_figures(row))
    return {conversation_id: total_figures(group) for conversation_id, group in groups.items()}


def total_figures(figures: Collection[AgentFigures]) -> AgentFigures:
    """Figures added up."""
    return AgentFigures(
        usage=total_usage([part.usage for part in figures]),
        cost_usd=sum_usd([part.cost_usd for part in figures]),
    )


def _conversation(
    row: sqlite3.Row, outside: AgentFigures | None, agent_name: str | None
) -> RecordedConversation:
    return RecordedConversation(
        id=row["id"],
        parent_id=row["parent_id"],
        title=row["title"],
        directory=row["directory"],
        agent_name=agent_name if row["agent"] is None else row["agent"],
        is_given=bool(row["is_given"]),
        is_new=bool(row["is_new"]),
        row=_growth(row, outside),
    )


def _growth(row: sqlite3.Row, outside: AgentFigures | None) -> AgentFigures | None:
    """What a running total grew by in the span: all of it, less the turns outside."""
    amount = cost_usd(row["cost"])
    counts = [count_of(row[name]) for name in _TOTALS]
    if amount is None or any(count is None for count in counts):
        return None
    plain_input, output, reasoning, cache_read, cache_write = (count or 0 for count in counts)
    before = TokenUsage() if outside is None else outside.usage
    spent_before = None if outside is None else outside.cost_usd
    return AgentFigures(
        usage=TokenUsage(
            input_uncached=_less(plain_input, before.input_uncached),
            cache_read=_less(cache_read, before.cache_read),
            cache_write_5m=_less(cache_write, before.cache_write_5m),
            output=_less(output + reasoning, before.output),
            reasoning=_less(reasoning, before.reasoning),
        ),
        cost_usd=amount if spent_before is None else amount - spent_before,
    )


def _less(total: int, before: int | None) -> int:
    return total if before is None else total - before


def _turn(row: sqlite3.Row) -> RecordedTurn:
    figures = _figures(row)
    ended_at_us = microseconds(row["time_completed"])
    return RecordedTurn(
        id=row["id"],
        conversation_id=row["session_id"],
        prompt_id=row["prompt_id"],
        agent_name=row["agent"],
        is_compaction=bool(row["is_compaction"]),
        provider_id=row["provider_id"] or "",
        model_id=row["model_id"] or "",
        started_at_us=microseconds(row["time_created"]),
        ended_at_us=ended_at_us if ended_at_us > 0 else None,
        figures=figures,
        is_answer=bool(row["has_step"]) or _counts_something(figures),
        error_name=row["error_name"],
    )


def _figures(row: sqlite3.Row) -> AgentFigures:
    return AgentFigures(usage=row_usage(row), cost_usd=cost_usd(row["cost"]))


def _counts_something(figures: AgentFigures) -> bool:
    usage = figures.usage
    return any((figures.cost_usd, usage.input_tokens, usage.output))


def _prompts(rows: Iterable[sqlite3.Row]) -> Iterable[RecordedPrompt]:
    parts: dict[str, list[sqlite3.Row]] = {}
    for row in rows:
        parts.setdefault(row["id"], []).append(row)
    typed_before: dict[str, str | None] = {}
    overflowed: set[str] = set()
    for message_id, group in parts.items():
        conversation_id = group[0]["session_id"]
        own = _own_text(group)
        is_typed = any(_is_somebodys(row) for row in group)
        if conversation_id in overflowed and own is not None:
            # After a compaction for want of room Opencode asks the same question again itself.
            is_typed = is_typed and own != typed_before.get(conversation_id)
            overflowed.discard(conversation_id)
        if any(row["is_overflow"] for row in group):
            overflowed.add(conversation_id)
        if is_typed:
            typed_before[conversation_id] = own
        yield RecordedPrompt(
            id=message_id,
            conversation_id=conversation_id,
            agent_name=group[0]["agent"],
            created_at_us=microseconds(group[0]["time_created"]),
            is_typed=is_typed,
        )


def _own_text(group: Sequence[sqlite3.Row]) -> str | None:
    texts = [row["text"] for row in group if row["part_type"] == "text" and not row["is_synthetic"]]
    return texts[0] if texts else None


def _is_somebodys(row: sqlite3.Row) -> bool:
    """Whether a part was not made by Opencode; a message without parts is given the benefit."""
    return not row["is_synthetic"] and not row["is_automatic"]
