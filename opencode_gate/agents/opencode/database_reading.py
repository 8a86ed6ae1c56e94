"""Opening Opencode's SQLite database without disturbing it, and what its values mean.

It belongs to a running Opencode: it is opened read-only, with its write-ahead log where there
is one and as an immutable file where there is none, so that no `-wal` or `-shm` file is ever
left behind by us. The invariant: an absent, locked or changed database costs an answer
(`None`), never an error.
"""

import json
import math
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import msgspec

from opencode_gate.core.usage import TokenUsage, sum_known

_BUSY_TIMEOUT_S: Final = 0.5
_MS: Final = 1000


class AgentModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model as Opencode names it."""

    provider_id: str
    model_id: str

    def __str__(self) -> str:
        return f"{self.provider_id}/{self.model_id}"


@contextmanager
def reading(database: Path | None) -> Iterator[sqlite3.Connection | None]:
    """A read-only connection, or `None` when there is nothing to read."""
    connection = _open(database)
    if connection is None:
        yield None
        return
    with closing(connection):
        connection.row_factory = sqlite3.Row
        yield connection


def _open(database: Path | None) -> sqlite3.Connection | None:
    if database is None:
        return None
    try:
        if not database.is_file():
            return None
        log = database.with_name(database.name + "-wal")
        # Without a log nobody has the database open for writing, and a plain read-only
        # connection would create one beside it.
        mode = "mode=ro" if log.exists() else "mode=ro&immutable=1"
        return sqlite3.connect(
            f"{database.absolute().as_uri()}?{mode}", uri=True, timeout=_BUSY_TIMEOUT_S
        )
    except (OSError, sqlite3.Error):
        return None


def rows_of(
    connection: sqlite3.Connection, query: str, parameters: Mapping[str, object]
) -> list[sqlite3.Row] | None:
    """All rows of a query, `None` if the database does not understand it."""
    try:
        return connection.execute(query, parameters).fetchall()
    except sqlite3.Error:
        return None


def first_row(
    connection: sqlite3.Connection, query: str, parameters: Mapping[str, object]
) -> sqlite3.Row | None:
    """The first row of a query, `None` if there is none."""
    rows = rows_of(connection, query, parameters)
    return rows[0] if rows else None


def columns_of(connection: sqlite3.Connection, table: str) -> frozenset[str]:
    """The columns a table has in this version of the schema."""
    rows = rows_of(connection, "SELECT name FROM pragma_table_info(:table)", {"table": table})
    return frozenset(row["name"] for row in rows or ())


def microseconds(time_ms: object) -> int:
    """A time of Opencode's, which are milliseconds; 0 for what is no number."""
    if not isinstance(time_ms, int | float) or not math.isfinite(time_ms):
        return 0
    return int(time_ms * _MS)


def span(since_us: int, until_us: int | None) -> dict[str, object]:
    """A span of time in Opencode's milliseconds; its end is not part of it."""
    until = 2**62 if until_us is None else -(-until_us // _MS)
    return {"since": since_us // _MS, "until": until}


def column_model(text: str | None) -> AgentModel | None:
    """The JSON of the column `session.model`."""
    try:
        return model_of(json.loads(text), "id") if text else None
    except ValueError:
        return None


def message_model(text: str) -> AgentModel | None:
    """The model in the JSON of a user's message."""
    try:
        message = json.loads(text)
    except ValueError:
        return None
    return model_of(message.get("model"), "modelID") if isinstance(message, dict) else None


def model_of(value: Any, id_key: str) -> AgentModel | None:
    """The model that a JSON object names, its id under `id_key`."""
    if not isinstance(value, dict):
        return None
    provider_id, model_id = value.get("providerID"), value.get(id_key)
    if not isinstance(provider_id, str) or not isinstance(model_id, str):
        return None
    return AgentModel(provider_id=provider_id, model_id=model_id)


def row_usage(row: sqlite3.Row) -> TokenUsage:
    """Opencode keeps reasoning beside the output, not as a part of it."""
    output, reasoning = count_of(row["output"]), count_of(row["reasoning"])
    return TokenUsage(
        input_uncached=count_of(row["input"]),
        cache_read=count_of(row["cache_read"]),
        cache_write_5m=count_of(row["cache_write"]),
        output=output if reasoning is None or output is None else output + reasoning,
        reasoning=reasoning,
    )


def total_usage(usages: Sequence[TokenUsage]) -> TokenUsage:
    """Token counts added up; what none of them knows stays unknown."""
    return TokenUsage(
        input_uncached=sum_known(*(usage.input_uncached for usage in usages)),
        cache_read=sum_known(*(usage.cache_read for usage in usages)),
        cache_write_5m=sum_known(*(usage.cache_write_5m for usage in usages)),
        output=sum_known(*(usage.output for usage in usages)),
        reasoning=sum_known(*(usage.reasoning for usage in usages)),
    )


def count_of(value: object) -> int | None:
    """A number of tokens as Opencode stored it."""
    return int(value) if isinstance(value, int | float) and math.isfinite(value) else None


def cost_usd(value: object) -> Decimal | None:
    """An amount in USD as Opencode stored it, a floating-point number."""
    is_amount = isinstance(value, int | float) and math.isfinite(value)
    return Decimal(repr(value)) if is_amount else None


def sum_usd(amounts: Sequence[Decimal | None]) -> Decimal | None:
    """The sum of what is known, `None` if nothing is."""
    known = [amount for amount in amounts if amount is not None]
    return sum(known, Decimal(0)) if known else None
