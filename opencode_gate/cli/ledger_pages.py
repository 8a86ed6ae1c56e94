"""The exchanges of a span of time, a page at a time: a ledger may hold more than fits in memory."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opencode_gate.cli.windows import Window
    from opencode_gate.ledger.records import ExchangeRecord
    from opencode_gate.ledger.store import Store

PAGE = 2_000


def ended_exchanges(store: "Store", window: "Window") -> "Iterator[list[ExchangeRecord]]":
    """What was let through and has ended, latest first; what still runs is priced when it ends."""
    from opencode_gate.core.semconv import ExchangeStatus
    from opencode_gate.ledger.exchange_query import ExchangeQuery

    ended = tuple(
        status
        for status in ExchangeStatus
        if status not in (ExchangeStatus.OPEN, ExchangeStatus.DENIED)
    )
    before: tuple[int, str] | None = None
    while True:
        page = store.find(
            ExchangeQuery(
                since_us=window.since_us,
                until_us=window.until_us,
                statuses=ended,
                before=before,
                limit=PAGE,
            )
        )
        if page:
            yield page
        if len(page) < PAGE:
            return
        before = (page[-1].started_at_us, page[-1].id)
