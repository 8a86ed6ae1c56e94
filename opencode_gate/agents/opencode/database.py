"""What Opencode wrote down itself: its conversations, its answers, its own idea of their cost.

The invariant: every function gives `None` (or nothing) for a database that is absent, locked or
of an unknown shape; none of them raises.
"""

import json
import sqlite3
from decimal import Decimal
from pathlib import Path
from typing import Final

import msgspec

from opencode_gate.agents.opencode.database_reading import (
    AgentModel,
    column_model,
    cost_usd,
    first_row,
    message_model,
    microseconds,
    model_of,
    reading,
    row_usage,
    rows_of,
    span,
)
from opencode_gate.core.usage import TokenUsage

# A message that reached no provider has neither tokens nor an end.
_ANSWER: Final = """
json_extract(message.data, '$.role') = 'assistant'
  AND message.time_created >= :since AND message.time_created < :until
  AND (json_extract(message.data, '$.finish') IS NOT NULL
       OR json_extract(message.data, '$.tokens.output') > 0)
"""

_FIELDS: Final = """
  json_extract(message.data, '$.providerID') AS provider_id,
  json_extract(message.data, '$.modelID') AS model_id,
  json_extract(message.data, '$.cost') AS cost,
  json_extract(message.data, '$.tokens.input') AS input,
  json_extract(message.data, '$.tokens.output') AS output,
  json_extract(message.data, '$.tokens.reasoning') AS reasoning,
  json_extract(message.data, '$.tokens.cache.read') AS cache_read,
  json_extract(message.data, '$.tokens.cache.write') AS cache_write
"""

_HISTORY: Final = f"""
SELECT message.time_created AS at, session.id AS conversation_id, session.parent_id,
  session.title, session.directory, project.worktree,
  json_extract(message.data, '$.agent') AS agent,
  {_FIELDS}
FROM message
JOIN session ON session.id = message.session_id
LEFT JOIN project ON project.id = session.project_id
WHERE {_ANSWER}
ORDER BY message.time_created, message.id
"""

_LAST: Final = """
SELECT id FROM session WHERE directory = :directory AND parent_id IS NULL
ORDER BY time_updated DESC, id DESC LIMIT 1
"""

_LAST_MODEL_IN_FOLDER: Final = """
SELECT message.data FROM message JOIN session ON session.id = message.session_id
WHERE session.directory = :directory AND session.parent_id IS NULL
  AND json_extract(message.data, '$.role') = 'user'
  AND json_extract(message.data, '$.model.providerID') IS NOT NULL
ORDER BY message.time_created DESC, message.id DESC LIMIT 1
"""

_LAST_MODEL_IN_SESSION: Final = """
SELECT data FROM message
WHERE session_id = :id AND json_extract(data, '$.role') = 'user'
  AND json_extract(data, '$.model.providerID') IS NOT NULL
ORDER BY time_created DESC, id DESC LIMIT 1
"""


class RecordedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One answer out of Opencode's history.

    Attributes:
        at_us: when it began, UTC microseconds.
        project: the folder's name of its repository, or of the folder itself.
    """

    at_us: int
    conversation_id: str
    parent_id: str | None
    title: str | None
    directory: str | None
    project: str
    agent_name: str | None
    provider_id: str
    model_id: str
    usage: TokenUsage
    cost_usd: Decimal | None


def history(
    database: Path | None, since_us: int, until_us: int
) -> tuple[RecordedAnswer, ...] | None:
    """Every answer Opencode recorded in a span of time, oldest first."""
    with reading(database) as connection:
        rows = (
            None if connection is None else rows_of(connection, _HISTORY, span(since_us, until_us))
        )
    if rows is None:
        return None
    return tuple(
        RecordedAnswer(
            at_us=microseconds(row["at"]),
            conversation_id=row["conversation_id"],
            parent_id=row["parent_id"],
            title=row["title"],
            directory=row["directory"],
            project=_project(row),
            agent_name=row["agent"],
            provider_id=row["provider_id"] or "",
            model_id=row["model_id"] or "",
            usage=row_usage(row),
            cost_usd=cost_usd(row["cost"]),
        )
        for row in rows
    )


def last_session(database: Path | None, folder: Path) -> str | None:
    """The conversation that `--continue` would take up in `folder`."""
    with reading(database) as connection:
        row = (
            None if connection is None else first_row(connection, _LAST, {"directory": str(folder)})
        )
    return None if row is None else row["id"]


def last_model(database: Path | None, folder: Path) -> AgentModel | None:
    """The model the user last spoke to in `folder`."""
    with reading(database) as connection:
        if connection is None:
            return None
        row = first_row(connection, _LAST_MODEL_IN_FOLDER, {"directory": str(folder)})
    return None if row is None else message_model(row["data"])


def session_model(
    database: Path | None, session_id: str | None, *, folder: Path | None = None
) -> AgentModel | None:
    """The model that Opencode goes on with in a conversation.

    Without `session_id`, in the conversation that `--continue` would take up in `folder`.
    """
    if session_id is None and folder is not None:
        session_id = last_session(database, folder)
    if session_id is None:
        return None
    with reading(database) as connection:
        if connection is None:
            return None
        row = first_row(connection, _LAST_MODEL_IN_SESSION, {"id": session_id})
        if row is not None:
            return message_model(row["data"])
        row = first_row(connection, "SELECT model FROM session WHERE id = :id", {"id": session_id})
    return None if row is None else column_model(row["model"])


def recent_models(recent_models_file: Path) -> tuple[AgentModel, ...]:
    """The models chosen last in the terminal interface, newest first, for all folders together."""
    try:
        document = json.loads(recent_models_file.read_bytes())
    except (OSError, ValueError):
        return ()
    recent = document.get("recent") if isinstance(document, dict) else None
    if not isinstance(recent, list):
        return ()
    models = (model_of(entry, "modelID") for entry in recent)
    return tuple(model for model in models if model is not None)


def has_organisation(database: Path | None) -> bool:
    """A console account with an active organisation: its configuration outranks a session's."""
    query = "SELECT 1 FROM account_state WHERE active_org_id IS NOT NULL LIMIT 1"
    with reading(database) as connection:
        return connection is not None and first_row(connection, query, {}) is not None


def newest_major(database: Path | None) -> int | None:
    """The highest major version of Opencode that has kept a conversation in this database."""
    with reading(database) as connection:
        if connection is None:
            return None
        rows = rows_of(connection, "SELECT DISTINCT version FROM session", {})
    majors = [
        int(head)
        for row in rows or ()
        if isinstance(row["version"], str) and (head := row["version"].partition(".")[0]).isdigit()
    ]
    return max(majors, default=None)


def _project(row: sqlite3.Row) -> str:
    worktree = row["worktree"] or ""
    folder = worktree if worktree not in ("", "/") else row["directory"] or ""
    return Path(folder).name or folder
