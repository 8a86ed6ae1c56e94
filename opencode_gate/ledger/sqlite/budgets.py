"""Money of budgets in a SQLite ledger: what was charged, and what processes hold.

The idea: what is held is the sum of the leases themselves, a row for each process; nothing is
kept twice that could differ. All functions but the reading ones belong in a transaction that
writes. The invariants: a lease is given out of what is neither spent nor held; a charge that is
there already only moves what was spent by the difference.
"""

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence

from opencode_gate.ledger.governance_store import Lease, LeaseWish, Standing, WindowKey
from opencode_gate.ledger.records import ExchangeRecord, charged

SLACK_SHARE = 64
"""Beyond what is needed a lease takes at most this part of what is left."""

_SPENT = "SELECT spent FROM budget_windows WHERE budget_id = ? AND window_start_us = ?"
_HELD = """
SELECT coalesce(sum(amount), 0), coalesce(sum(amount) FILTER (WHERE process_id = ?), 0)
FROM budget_leases WHERE budget_id = ? AND window_start_us = ?
"""
_OPEN_WINDOW = """
INSERT INTO budget_windows (budget_id, window_start_us, spent) VALUES (?, ?, 0)
ON CONFLICT DO NOTHING
"""
_ADD_LEASE = """
INSERT INTO budget_leases (budget_id, window_start_us, process_id, amount) VALUES (?, ?, ?, ?)
ON CONFLICT DO UPDATE SET amount = amount + excluded.amount
"""
_TAKE_FROM_LEASE = """
UPDATE budget_leases SET amount = max(0, amount - ?)
WHERE budget_id = ? AND window_start_us = ? AND process_id = ?
"""
_DROP_EMPTY = "DELETE FROM budget_leases WHERE process_id = ? AND amount = 0"
_END_PROCESS = "DELETE FROM budget_leases WHERE process_id = ?"
_HOLDERS = "SELECT DISTINCT process_id FROM budget_leases WHERE amount > 0"
_LATEST_START = "SELECT max(window_start_us) FROM budget_windows WHERE budget_id = ?"

_CHARGED = """
SELECT exchange_id, budget_id, window_start_us, amount FROM charges
WHERE exchange_id IN (SELECT value FROM json_each(?))
"""
_PUT_CHARGE = """
INSERT INTO charges (exchange_id, budget_id, window_start_us, unit, reserved, amount)
VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET amount = excluded.amount
"""
_SPEND = """
INSERT INTO budget_windows (budget_id, window_start_us, spent) VALUES (?, ?, ?)
-- A sum beyond 64 bits stays at the largest number: a row is never refused for it.
ON CONFLICT DO UPDATE SET spent = CAST(spent + excluded.spent AS INTEGER)
"""
_WRONG_WINDOWS = f"""
WITH charged AS (
    SELECT budget_id, window_start_us, total(amount) AS amount FROM charges GROUP BY 1, 2
)
SELECT count(*) FROM budget_windows LEFT JOIN charged USING (budget_id, window_start_us)
WHERE spent < {2**62} AND spent <> coalesce(amount, 0)
"""


def lease(
    connection: sqlite3.Connection, process_id: str, wishes: Sequence[LeaseWish]
) -> list[Lease]:
    """See `ledger.governance_store.GovernanceStore.lease`."""
    keys = [_window_in_force(connection, wish.key) for wish in wishes]
    before = {key: _standing(connection, key, process_id) for key in keys}
    taken: dict[WindowKey, int] = {}
    amounts = []
    for key, wish in zip(keys, wishes, strict=True):
        left = wish.limit - before[key].spent - before[key].held - taken.get(key, 0)
        # What costs nothing fits also where a provider has billed more than there was.
        if left < wish.needed and wish.needed:
            return [Lease(each, 0, before[each]) for each in keys]
        slack = min(wish.wanted - wish.needed, (left - wish.needed) // SLACK_SHARE)
        amounts.append(wish.needed + max(0, slack))
        taken[key] = taken.get(key, 0) + amounts[-1]
    for key, amount in taken.items():
        connection.execute(_OPEN_WINDOW, key)
        connection.execute(_ADD_LEASE, (*key, process_id, amount))
    after = {
        key: Standing(standing.spent, standing.held + taken[key], standing.held_by_me + taken[key])
        for key, standing in before.items()
    }
    return [Lease(key, amount, after[key]) for key, amount in zip(keys, amounts, strict=True)]


def give_back(
    connection: sqlite3.Connection, process_id: str, amounts: Mapping[WindowKey, int]
) -> None:
    """See `ledger.governance_store.GovernanceStore.give_back`."""
    for key, amount in amounts.items():
        connection.execute(_TAKE_FROM_LEASE, (amount, *key, process_id))
    connection.execute(_DROP_EMPTY, (process_id,))


def end_process(connection: sqlite3.Connection, process_id: str) -> None:
    """Returns all that a process holds."""
    connection.execute(_END_PROCESS, (process_id,))


def lease_holders(connection: sqlite3.Connection) -> set[str]:
    """The processes that hold anything."""
    return {process_id for (process_id,) in connection.execute(_HOLDERS)}


def standings(
    connection: sqlite3.Connection, keys: Iterable[WindowKey], process_id: str | None
) -> dict[WindowKey, Standing]:
    """How budgets stand."""
    return {key: _standing(connection, key, process_id) for key in keys}


def latest_windows(connection: sqlite3.Connection, budget_ids: Iterable[str]) -> dict[str, int]:
    """The start of the latest window each budget was ever used in."""
    found = {id: connection.execute(_LATEST_START, (id,)).fetchone()[0] for id in budget_ids}
    return {id: start_us for id, start_us in found.items() if start_us is not None}


def wrong_windows(connection: sqlite3.Connection) -> int:
    """In how many windows what was spent is not the sum of the charges. Reads all of them."""
    return int(connection.execute(_WRONG_WINDOWS).fetchone()[0])


def charge(
    connection: sqlite3.Connection, exchanges: Iterable[ExchangeRecord], process_id: str | None
) -> None:
    """Charges exchanges to their budgets, and takes the money from what the process holds.

    Sums are made here and written once for each budget: a batch has few budgets and many rows.
    """
    charging = [exchange for exchange in exchanges if exchange.charges]
    if not charging:
        return
    ids = json.dumps([exchange.id for exchange in charging])
    known = {tuple(row[:3]): row[3] for row in connection.execute(_CHARGED, (ids,))}
    rows = []
    spent: dict[WindowKey, int] = {}
    released: dict[WindowKey, int] = {}
    for exchange in charging:
        for each in exchange.charges:
            key = WindowKey(each.budget_id, each.window_start_us)
            amount = charged(exchange, each)
            before = known.get((exchange.id, *key))
            if before is None:
                released[key] = released.get(key, 0) + min(amount, each.reserved)
            known[exchange.id, *key] = amount
            spent[key] = spent.get(key, 0) + amount - (0 if before is None else before)
            rows.append((exchange.id, *key, each.unit, each.reserved, amount))
    connection.executemany(_PUT_CHARGE, rows)
    connection.executemany(_SPEND, [(*key, amount) for key, amount in spent.items()])
    if process_id is not None:
        taken = [(amount, *key, process_id) for key, amount in released.items()]
        connection.executemany(_TAKE_FROM_LEASE, taken)


def _window_in_force(connection: sqlite3.Connection, key: WindowKey) -> WindowKey:
    """The window asked for, or a later one that the budget was used in already."""
    (latest_us,) = connection.execute(_LATEST_START, (key.budget_id,)).fetchone()
    return (
        key
        if latest_us is None or latest_us <= key.window_start_us
        else WindowKey(key.budget_id, latest_us)
    )


def _standing(connection: sqlite3.Connection, key: WindowKey, process_id: str | None) -> Standing:
    spent = connection.execute(_SPENT, key).fetchone()
    held, held_by_me = connection.execute(_HELD, (process_id, *key)).fetchone()
    return Standing(0 if spent is None else spent[0], held, held_by_me)
