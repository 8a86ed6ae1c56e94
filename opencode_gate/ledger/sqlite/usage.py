"""Totals over whole ledgers, quick also where there are millions of rows.

The idea: what is grouped by model, provider, keys, team, customer, kind, mode and time alone is
answered from sums that are kept by day and by quarter of an hour, the rest and what begins or ends
within a quarter from the rows. All give *measures*, which unlike totals can be added up. The
invariant: an answer is the same as from the rows alone; the sums are kept by the transaction that
changes a row, and `wrong_sums` compares.

What an exchange counts for is said once, in the view `measured_exchanges`. Values are bound; only
names out of the tables below are put into a statement.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, timedelta
from typing import Any

from opencode_gate.core.local_time import offset_spans
from opencode_gate.core.semconv import CostQuality
from opencode_gate.core.usage import sum_known
from opencode_gate.ledger.totals import Totals, UsageQuery, UsageRow

WRONG_SUMS = "kept sums differ from the rows they are sums of"
"""How a finding ends that `vacuum` mends; the rows themselves are sound."""

Span = tuple[int, int, int]
"""First microsecond, first microsecond after it, the local time's offset from UTC within."""

_QUARTER_US = 900_000_000
_HOUR_US = 3_600_000_000
_DAY_US = 86_400_000_000
_EPOCH = date(1970, 1, 1)
_QUALITIES = tuple(CostQuality)

_OF_GROUP = {
    "model": "{0}.provider_name || '/' || {0}.model",
    "provider": "{0}.provider_name",
    "key": "{0}.credential_name",
    "kind": "{0}.kind",
    "mode": "{0}.mode",
    "vkey": "{0}.virtual_key",
    "team": "{0}.team",
    "customer": "{0}.customer",
}
_GROUP_COLUMNS = (
    "provider_name",
    "model",
    "credential_name",
    "kind",
    "mode",
    "virtual_key",
    "team",
    "customer",
)
_OF_TIME = {
    "day": f"({{0}}.started_at_us + spans.offset_us) / {_DAY_US}",
    "hour": f"({{0}}.started_at_us + spans.offset_us) / {_HOUR_US} % 24",
}
_OF_EXCHANGE = {"session": "{0}.session_id", "conversation": "{0}.conversation_id"}
_OF_SESSION = {
    name: f'sessions."{name}"'
    for name in ("project", "repository", "branch", "commit", "user", "agent")
}
GROUP_EXPRESSIONS = _OF_GROUP | _OF_TIME | _OF_EXCHANGE | _OF_SESSION

_SUMS = (
    "input_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
    "output_tokens",
    "reasoning_output_tokens",
    "cost_nano_usd",
)
_COUNTS = ("reported_costs", "priced_costs", "estimated_costs", "doubtful_costs", "missing_costs")

_MEASURES = ", ".join(f"sum({name})" for name in ("requests", *_SUMS, *_COUNTS))
_MEASURES_OF_SUMS = ", ".join(
    [
        "sum(requests)",
        *(f"CASE WHEN sum(known_{name}) THEN sum({name}) END" for name in _SUMS),
        *(f"sum({name})" for name in _COUNTS),
    ]
)

_BOUNDS = """
SELECT (SELECT min(started_at_us) FROM exchanges), (SELECT max(started_at_us) FROM exchanges)
"""

_SPANS = """
WITH spans (start_us, end_us, offset_us) AS MATERIALIZED (
    SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]')
    FROM json_each(:spans)
)
"""

Key = tuple[Any, ...]
Measures = tuple[Any, ...]
"""Requests, `_SUMS` and `_COUNTS`."""

_NOTHING: Measures = (0, *[None] * len(_SUMS), *[0] * len(_COUNTS))
_WIDTHS_US = (_DAY_US, _QUARTER_US)


def usage(connection: sqlite3.Connection, query: UsageQuery) -> list[UsageRow]:
    """The rows of a query; see `ledger.store.Store.usage`."""
    found: dict[Key, Measures] = {} if query.by else {(): _NOTHING}
    size = len(query.by)
    for statement, spans in _pieces(query, _spans(connection, query)):
        values = {"spans": json.dumps(spans), "sessions": json.dumps(query.session_ids)}
        for row in connection.execute(statement, values):
            key, measures = row[:size], row[size:]
            found[key] = _added(found[key], measures) if key in found else measures
    return [
        UsageRow(
            key=dict(zip(query.by, map(_key_text, query.by, key), strict=True)),
            totals=_totals(found[key]),
        )
        for key in sorted(found, key=_unknown_first)
    ]


def wrong_sums(connection: sqlite3.Connection) -> int:
    """How many of the sums are not those of the rows. Reads the whole ledger."""
    columns = ["exchanges", "requests", *(f"{k}{name}" for name in _SUMS for k in ("", "known_"))]
    columns += _COUNTS
    of_rows = ["count(*)", "sum(requests)"]
    of_rows += [
        expression
        for name in _SUMS
        for expression in (f"coalesce(sum({name}), 0)", f"count({name})")
    ]
    of_rows += [f"sum({name})" for name in _COUNTS]
    all_columns = ", ".join(columns)
    identity = f"json_array({', '.join(_GROUP_COLUMNS)})"
    kept = f"""
        SELECT width_us, identity, started_at_us, {all_columns}
        FROM usage_sums JOIN usage_groups ON usage_groups.id = group_id WHERE exchanges <> 0
    """
    # Only the quarters of each group are read from the rows: the other sums are sums of these.
    quarters = f"""
        SELECT {_QUARTER_US} AS width_us, {identity} AS identity,
            started_at_us - started_at_us % {_QUARTER_US} AS started_at_us,
            {", ".join(f"{of} AS {name}" for of, name in zip(of_rows, columns, strict=True))}
        FROM measured_exchanges GROUP BY 2, 3
    """
    wider = [
        f"""
        SELECT {width_us}, {group}, started_at_us - started_at_us % {width_us},
            {", ".join(f"sum({name})" for name in columns)}
        FROM quarters GROUP BY 2, 3
        """
        for width_us in (_QUARTER_US, _DAY_US)
        for group in ("identity", "'[]'")
        if (width_us, group) != (_QUARTER_US, "identity")
    ]
    (count,) = connection.execute(f"""
        WITH
            quarters AS MATERIALIZED ({quarters}),
            kept AS ({kept}),
            true_ones AS ({" UNION ALL ".join(["SELECT * FROM quarters", *wider])})
        SELECT count(*) FROM (
            SELECT width_us, identity, started_at_us
            FROM (SELECT * FROM kept EXCEPT SELECT * FROM true_ones)
            UNION
            SELECT width_us, identity, started_at_us
            FROM (SELECT * FROM true_ones EXCEPT SELECT * FROM kept)
        )
    """).fetchone()
    return int(count)


def sum_afresh(connection: sqlite3.Connection) -> None:
    """Makes all sums anew from the rows. Takes minutes over millions of them."""
    connection.execute("DELETE FROM usage_sums")
    connection.execute("INSERT INTO usage_changes SELECT id, 1 FROM exchanges")


def _over_exchanges(query: UsageQuery) -> str:
    groups = [GROUP_EXPRESSIONS[name].format("exchanges") for name in query.by]
    # CROSS JOIN holds SQLite to this order: one search of the index over time for each span.
    source = "spans CROSS JOIN measured_exchanges AS exchanges"
    conditions = [
        "exchanges.started_at_us >= spans.start_us",
        "exchanges.started_at_us < spans.end_us",
    ]
    if query.session_ids is not None:
        source = f"json_each(:sessions) AS chosen CROSS JOIN {source}"
        conditions.append("exchanges.session_id = chosen.value")
    if _OF_SESSION.keys() & set(query.by):
        source += " LEFT JOIN sessions ON sessions.id = exchanges.session_id"
    return f"""
    {_SPANS}
    SELECT {"".join(f"{group}, " for group in groups)} {_MEASURES}
    FROM {source} WHERE {" AND ".join(conditions)}
    GROUP BY {", ".join(groups) if groups else "NULL"}
    """


def _over_sums(query: UsageQuery, width_us: int) -> str:
    groups = [
        GROUP_EXPRESSIONS[name].format("sums" if name in _OF_TIME else "usage_groups")
        for name in query.by
    ]
    is_of_all = not _OF_GROUP.keys() & set(query.by)
    return f"""
    {_SPANS}
    SELECT {"".join(f"{group}, " for group in groups)} {_MEASURES_OF_SUMS}
    FROM spans CROSS JOIN usage_groups CROSS JOIN usage_sums AS sums
    WHERE usage_groups.id {"= 0" if is_of_all else "> 0"}
        AND sums.width_us = {width_us} AND sums.group_id = usage_groups.id
        AND sums.started_at_us >= spans.start_us AND sums.started_at_us < spans.end_us
    GROUP BY {", ".join(groups) if groups else "NULL"} HAVING sum(exchanges) <> 0
    """


def _spans(connection: sqlite3.Connection, query: UsageQuery) -> list[Span]:
    """The time asked for that has exchanges in it, cut where local time changes if that matters."""
    first_us, last_us = connection.execute(_BOUNDS).fetchone()
    if first_us is None:
        return []
    # Whole days on either side: before the first and after the last there is nothing.
    start_us = first_us - first_us % _DAY_US
    end_us = last_us - last_us % _DAY_US + _DAY_US
    if query.since_us is not None:
        start_us = max(start_us, query.since_us)
    if query.until_us is not None:
        end_us = min(end_us, query.until_us)
    if start_us >= end_us:
        return []
    if _OF_TIME.keys() & set(query.by):
        return offset_spans(start_us, end_us, query.zone)
    return [(start_us, end_us, 0)]


def _pieces(query: UsageQuery, spans: list[Span]) -> Iterator[tuple[str, list[Span]]]:
    """The statements that answer a query together, with the time that is left to each."""
    if query.session_ids is None and set(query.by) <= {*_OF_GROUP, *_OF_TIME}:
        # A day of UTC is no local day, and says nothing of hours.
        for width_us in [_QUARTER_US] if _OF_TIME.keys() & set(query.by) else _WIDTHS_US:
            whole, spans = _split(spans, width_us)
            if whole:
                yield _over_sums(query, width_us), whole
    if spans:
        yield _over_exchanges(query), spans


def _split(spans: Iterable[Span], width_us: int) -> tuple[list[Span], list[Span]]:
    """What of some spans is whole quarters (or days), and what is left of them.

    Where local time is not whole quarters away from UTC, nothing of a span is whole.
    """
    whole, edges = [], []
    for start_us, end_us, offset_us in spans:
        first_us = -(-start_us // width_us) * width_us
        last_us = end_us // width_us * width_us
        if first_us >= last_us or offset_us % _QUARTER_US:
            edges.append((start_us, end_us, offset_us))
            continue
        whole.append((first_us, last_us, offset_us))
        edges += [
            (from_us, to_us, offset_us)
            for from_us, to_us in ((start_us, first_us), (last_us, end_us))
            if from_us < to_us
        ]
    return whole, edges


def _added(some: Measures, more: Measures) -> Measures:
    return tuple(sum_known(*pair) for pair in zip(some, more, strict=True))


def _unknown_first(key: Key) -> list[tuple[bool, Any]]:
    return [(value is not None, value) for value in key]


def _key_text(name: str, value: Any) -> str | None:
    if value is None:
        return None
    if name == "day":
        return (_EPOCH + timedelta(days=value)).isoformat()
    return f"{value:02}" if name == "hour" else str(value)


def _totals(measures: Sequence[Any]) -> Totals:
    requests, uncached, read, created, output, reasoning, cost, *counts = measures
    *known, missing = counts
    by_quality = [*known[:-1], known[-1] + missing]
    present = [quality for quality, count in zip(_QUALITIES, by_quality, strict=True) if count]
    return Totals(
        requests=requests,
        input_tokens=uncached,
        cache_read_input_tokens=read,
        cache_creation_input_tokens=created,
        output_tokens=output,
        reasoning_output_tokens=reasoning,
        cost_nano_usd=cost,
        cost_quality=present[-1] if present else CostQuality.UNKNOWN,
        unknown_cost_requests=missing,
    )
