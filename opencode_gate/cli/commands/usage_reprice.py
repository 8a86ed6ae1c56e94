"""`ogate usage reprice`: what a corrected price book changes in what was counted before.

The invariant: with `--dry-run` nothing is written; without it the amounts first counted stay
beside the new ones, and what a provider reported stays what counts.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from opencode_gate.cli import figures
from opencode_gate.cli.options import AsJson, Since, Until
from opencode_gate.cli.render import Block, Column, Result, Table, Text
from opencode_gate.core.money import usd_text
from opencode_gate.core.usage import sum_known

if TYPE_CHECKING:
    from opencode_gate.catalog.prices import PriceBook
    from opencode_gate.catalog.repricing import Change, ModelChanges
    from opencode_gate.cli.windows import Window
    from opencode_gate.ledger.records import ExchangeRecord
    from opencode_gate.ledger.store import Store


def reprice(
    since: Since = None,
    until: Until = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would change, and write nothing.")
    ] = False,
    as_json: AsJson = False,
) -> Result:
    """Price anew what was counted, each request as of its day.

    The amounts first counted are kept beside the new ones. What a provider reported itself goes
    on counting.
    """
    from opencode_gate.catalog.repricing import Tally
    from opencode_gate.cli.ledger_pages import ended_exchanges
    from opencode_gate.cli.price_book import price_book
    from opencode_gate.cli.windows import window_between
    from opencode_gate.config.paths import paths
    from opencode_gate.core.clock import SystemClock
    from opencode_gate.core.local_time import local_zone_name
    from opencode_gate.ledger.sqlite import open_store

    now_us = SystemClock().now_us()
    window = window_between(since, until, now_us=now_us, time_zone=local_zone_name())
    book = price_book()
    store = open_store(paths().ledger_file, read_only=dry_run)
    tally = Tally()
    examined = 0
    try:
        # Written page by page, so that a running session never waits long for its turn.
        for page in ended_exchanges(store, window):
            examined += len(page)
            found = _changes(page, book)
            if found and not dry_run:
                _write(store, found)
            for change in found:
                tally.add(change)
    finally:
        store.close()
    rows = tally.rows()
    return Result(
        data=_document(window, rows, examined, tally.beside_reported, dry_run=dry_run),
        blocks=() if as_json else _blocks(window, rows, examined, tally.beside_reported),
        talk=() if as_json else _talk(rows, dry_run=dry_run),
    )


def _changes(page: "Sequence[ExchangeRecord]", book: "PriceBook") -> "list[Change]":
    from opencode_gate.catalog.repricing import change_of

    return [change for record in page if (change := change_of(record, book)) is not None]


def _write(store: "Store", changes: "Sequence[Change]") -> None:
    from opencode_gate.ledger.records import Repricing

    store.reprice(
        Repricing(
            change.exchange_id,
            change.cost_nano_usd,
            change.cost_quality,
            change.price_source,
            change.cache_saved_nano_usd,
        )
        for change in changes
    )


def _document(
    window: "Window",
    rows: "Sequence[ModelChanges]",
    examined: int,
    beside_reported: int,
    *,
    dry_run: bool,
) -> dict[str, object]:
    return {
        "since": figures.iso_text(window.since_us),
        "until": figures.iso_text(window.until_us),
        "time_zone": window.time_zone,
        "is_written": not dry_run,
        "examined_requests": examined,
        "beside_reported_requests": beside_reported,
        "totals": _sums(rows),
        "models": [
            {
                "provider_name": row.provider_name,
                "request_model": row.request_model,
                **_sums([row]),
                "price_sources": sorted(row.sources),
            }
            for row in rows
        ],
    }


def _sums(rows: "Sequence[ModelChanges]") -> dict[str, object]:
    old = sum_known(*(row.old_cost_nano_usd for row in rows))
    return {
        "changed_requests": sum(row.changed for row in rows),
        "old_cost_usd": None if old is None else usd_text(old),
        "old_unknown_cost_requests": sum(row.old_unknown for row in rows),
        "new_cost_usd": usd_text(sum(row.new_cost_nano_usd for row in rows)) if rows else None,
    }


def _blocks(
    window: "Window", rows: "Sequence[ModelChanges]", examined: int, beside_reported: int
) -> list[Block]:
    looked_at = f"{window.label}: {figures.counted(examined, 'request')} looked at"
    notes = []
    if beside_reported:
        requests = figures.counted(beside_reported, "request")
        notes.append(f"{requests} with a reported cost: it goes on counting, the book's changes")
    if not rows:
        return [Text(f"{looked_at}, no amount changes"), *(Text(note, "dim") for note in notes)]
    if any(row.old_unknown for row in rows):
        notes.append("? had no known price, and is not in the old sum")
    table = Table(
        columns=(
            Column("model", wrap=True),
            Column("requests", "right"),
            Column("old", "right"),
            Column("new", "right"),
            Column("difference", "right"),
            Column("by", wrap=True),
        ),
        rows=[
            (
                f"{row.provider_name}/{row.request_model or figures.UNKNOWN}",
                *_cells([row]),
                ", ".join(sorted(row.sources)),
            )
            for row in rows
        ],
        footer=("total", *_cells(rows), ""),
    )
    blocks: list[Block] = [Text(looked_at, "bold"), Text(""), table]
    return [*blocks, *([Text("")] if notes else []), *(Text(note, "dim") for note in notes)]


def _cells(rows: "Sequence[ModelChanges]") -> tuple[str, ...]:
    old = sum_known(*(row.old_cost_nano_usd for row in rows))
    new = sum(row.new_cost_nano_usd for row in rows)
    unknown = sum(row.old_unknown for row in rows)
    return (
        str(sum(row.changed for row in rows)),
        figures.money_text(old, unknown_requests=unknown),
        figures.money_text(new),
        _difference(new - (old if old is not None else 0)),
    )


def _difference(amount_nano_usd: int) -> str:
    sign = "-" if amount_nano_usd < 0 else "+"
    return f"{sign} {figures.money_text(abs(amount_nano_usd))}"


def _talk(rows: "Sequence[ModelChanges]", *, dry_run: bool) -> list[str]:
    if not rows:
        return []
    if dry_run:
        return ["nothing was written; without --dry-run it is"]
    return ["written; the amounts first counted are kept beside the new ones"]
