"""Which sets of tools were offered to which models, and which tools were called.

Only requests that a provider took count: what it refused, or we did, was read by no model.
"""

import json
import sqlite3
from collections.abc import Mapping

from opencode_gate.core.semconv import WireFormat
from opencode_gate.ledger.records import ToolUse
from opencode_gate.ledger.sqlite.rows import USAGE_COLUMNS, usage_of

Bounds = Mapping[str, int | None]
"""`since_us` and `until_us`."""

_TAKEN = """
operation = 'generate' AND status NOT IN ('denied', 'open') AND coalesce(http_status < 400, 1)
    AND (:since_us IS NULL OR started_at_us >= :since_us)
    AND (:until_us IS NULL OR started_at_us < :until_us)
"""

_USES = f"""
SELECT session_id, tool_set, wire_format, provider_name, request_model, response_model, count(*),
    {", ".join(f"sum({name})" for name in USAGE_COLUMNS)}
FROM exchanges WHERE {_TAKEN}
GROUP BY 1, 2, 3, 4, 5, 6
"""

_CALLS = f"""
SELECT tools_called, count(*) FROM exchanges
WHERE tools_called IS NOT NULL AND {_TAKEN} GROUP BY tools_called
"""


def tool_uses(connection: sqlite3.Connection, bounds: Bounds) -> list[ToolUse]:
    """See `ledger.store.Store.tool_uses`."""
    return [
        ToolUse(
            session_id=row[0],
            tool_set=row[1],
            wire_format=WireFormat(row[2]),
            provider_name=row[3],
            request_model=row[4],
            response_model=row[5],
            requests=row[6],
            usage=usage_of(row[7:]),
        )
        for row in connection.execute(_USES, bounds)
    ]


def tool_calls(connection: sqlite3.Connection, bounds: Bounds) -> dict[str, int]:
    """See `ledger.store.Store.tool_calls`."""
    calls: dict[str, int] = {}
    for names, answers in connection.execute(_CALLS, bounds):
        for name in json.loads(names):
            calls[name] = calls.get(name, 0) + answers
    return calls
