"""Which exchanges of a batch settle something: what is charged and told of, once each.

The invariant: an exchange that is folded again settles nothing, unless its end is worth more than
the one the ledger has, as the statement that folds it decides too.
"""

import json
import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from opencode_gate.core.semconv import ExchangeStatus
from opencode_gate.ledger.audit import Draft, exchange_event
from opencode_gate.ledger.records import ExchangeRecord

_STATUSES = "SELECT id, status FROM exchanges WHERE id IN (SELECT value FROM json_each(?))"
_USERS = "SELECT id, user FROM sessions WHERE id IN (SELECT value FROM json_each(?))"

_FINALITY = {ExchangeStatus.OPEN: 0, ExchangeStatus.INTERRUPTED: 1}
_SEEN_END = 2


class Settled(NamedTuple):
    """An exchange that ended; `replaces` is the lesser end that the ledger had of it."""

    exchange: ExchangeRecord
    replaces: str | None


def newly_settled(
    connection: sqlite3.Connection, exchanges: Sequence[ExchangeRecord]
) -> list[Settled]:
    """Those with an end that the ledger does not have yet. Asked before they are folded."""
    ids = json.dumps([exchange.id for exchange in exchanges])
    known = {id: ExchangeStatus(status) for id, status in connection.execute(_STATUSES, (ids,))}
    settled = []
    for exchange in exchanges:
        before = known.get(exchange.id, ExchangeStatus.OPEN)
        if _finality(exchange.status) > _finality(before):
            known[exchange.id] = exchange.status
            replaces = None if before is ExchangeStatus.OPEN else before.value
            settled.append(Settled(exchange, replaces))
    return settled


def audit_events(
    connection: sqlite3.Connection, settled: Sequence[Settled], users: dict[str, str]
) -> list[Draft]:
    """What the audit trail says of them.

    Args:
        users: whose sessions are whose, as far as it was looked up before; added to.
    """
    unknown = {end.exchange.session_id for end in settled} - users.keys()
    if unknown:
        users.update(connection.execute(_USERS, (json.dumps(sorted(unknown)),)).fetchall())
    return [
        exchange_event(end.exchange, users.get(end.exchange.session_id), end.replaces)
        for end in settled
    ]


def _finality(status: ExchangeStatus) -> int:
    return _FINALITY.get(status, _SEEN_END)
