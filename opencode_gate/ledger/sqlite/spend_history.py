"""How fast a person usually spends, told from what the ledger has.

Spans of five minutes of each session are compared, as spending is watched over as long; those
without any spending tell nothing and are left out.
"""

from contextlib import closing
from pathlib import Path

from opencode_gate.ledger.sqlite.connection import connect_read_only, ledger_errors

SPAN_US = 300_000_000
DAYS = 30
SPANS_MIN = 100
"""Below it (some eight hours of work) nobody can say what is usual."""
_DAY_US = 86_400_000_000
_UNTIL_US = 3_600_000_000
"""The last hour is left out: what runs away just now is not usual."""

_SPANS = """
SELECT sum(cost_nano_usd) AS spent FROM exchanges
WHERE started_at_us >= ? AND started_at_us < ? AND cost_nano_usd > 0
GROUP BY session_id, started_at_us / ? ORDER BY spent
"""


def usual_spend_per_minute(path: Path, now_us: int) -> int | None:
    """What 99 of 100 spans of the last 30 days stayed at or below, in nano-dollars a minute.

    Reads all rows of that time: not for an event loop.

    Args:
        path: the ledger's file; without one nothing was ever spent.
        now_us: UTC microseconds.

    Returns:
        `None` where there is too little to go by.

    Raises:
        LedgerError: the ledger cannot be read.
    """
    bounds = (now_us - DAYS * _DAY_US, now_us - _UNTIL_US, SPAN_US)
    with closing(connect_read_only(path)) as connection, ledger_errors(path):
        spans = [spent for (spent,) in connection.execute(_SPANS, bounds)]
    if len(spans) < SPANS_MIN:
        return None
    highest: int = spans[-(-99 * len(spans) // 100) - 1]
    return highest * 60_000_000 // SPAN_US
