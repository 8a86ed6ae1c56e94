"""`ogate logs`: every model call, later and as it happens.

The invariant: it only reads the ledger, beside running sessions, and shows no prompt or answer:
the ledger holds none.
"""

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer
from msgspec.structs import replace

from opencode_gate.cli import render
from opencode_gate.cli.options import AsJson
from opencode_gate.cli.render import Result, Text
from opencode_gate.core.errors import UsageError
from opencode_gate.core.semconv import ExchangeStatus

if TYPE_CHECKING:
    from opencode_gate.ledger.exchange_query import ExchangeQuery
    from opencode_gate.ledger.records import ExchangeRecord, SessionRecord
    from opencode_gate.ledger.sqlite import SqliteStore

app = typer.Typer()

Provider = Annotated[str | None, typer.Option("--provider", help="Only of this provider.")]
Model = Annotated[
    str | None, typer.Option("--model", help="Only of this model, with its provider or without.")
]
Key = Annotated[
    str | None, typer.Option("--key", metavar="NAME", help="Only paid by this stored key.")
]
VirtualKey = Annotated[
    str | None, typer.Option("--vkey", metavar="NAME", help="Only under this virtual key.")
]
Team = Annotated[
    str | None, typer.Option("--team", metavar="NAME", help="Only of this team's virtual keys.")
]
Session = Annotated[
    str | None, typer.Option("--session", help="Only of this session: its id, a beginning, `last`.")
]
Status = Annotated[
    list[ExchangeStatus] | None,
    typer.Option("--status", help="Only calls that ended so; may be given several times."),
]
Error = Annotated[
    str | None,
    typer.Option(metavar="REASON", help="Only with this reason: `connect`, `429`, `no-route`."),
]
MinCost = Annotated[
    str | None, typer.Option(metavar="USD", help="Only calls that cost this much or more.")
]
MaxCost = Annotated[
    str | None, typer.Option(metavar="USD", help="Only calls that cost this much or less.")
]

_POLL_S = 0.25


@app.command("list")
def list_calls(
    limit: Annotated[int, typer.Option(min=1, help="How many, the latest of them.")] = 50,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="From then on: 2026-11-03, 2026-11-03T14:00, 7d."),
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="Up to then; a day still counts.")
    ] = None,
    provider: Provider = None,
    model: Model = None,
    key: Key = None,
    vkey: VirtualKey = None,
    team: Team = None,
    session: Session = None,
    status: Status = None,
    error: Error = None,
    min_cost: MinCost = None,
    max_cost: MaxCost = None,
    as_json: AsJson = False,
) -> Result:
    """The latest model calls, the last one at the bottom."""
    from opencode_gate.cli.call_view import calls_table, documents

    with _ledger() as store:
        query = _query(
            store,
            _Conditions(
                provider, model, key, vkey, team, session, status, error, min_cost, max_cost
            ),
            since,
            until,
        )
        found = store.find(replace(query, limit=limit))[::-1]
        sessions = _sessions(store, found)
    if as_json:
        return Result(data={"calls": documents(found, sessions)})
    if not found:
        return Result(data={}, blocks=[Text("no such calls")])
    return Result(data={}, blocks=[calls_table(found, sessions, width=render.stdout_width())])


@app.command()
def show(
    call: Annotated[
        str, typer.Argument(metavar="CALL", help="Its id, the beginning of it, or `last`.")
    ] = "last",
    as_json: AsJson = False,
) -> Result:
    """Everything that is known of one call."""
    from opencode_gate.cli.call_view import call_facts, exchange_document

    with _ledger() as store:
        found = store.exchange(call)
        session = _sessions(store, [found]).get(found.session_id)
    return Result(
        data={"call": exchange_document(session, found) | {"raw_usage": found.raw_usage}},
        blocks=() if as_json else call_facts(session, found),
    )


@app.command()
def tail(
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=0, help="How many of the latest come first.")
    ] = 10,
    provider: Provider = None,
    model: Model = None,
    key: Key = None,
    vkey: VirtualKey = None,
    team: Team = None,
    session: Session = None,
    status: Status = None,
    error: Error = None,
    min_cost: MinCost = None,
    max_cost: MaxCost = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line, without an envelope.")
    ] = False,
) -> int:
    """Calls as they end, also of sessions in other terminals; Ctrl-C leaves."""
    from opencode_gate.cli.call_view import json_line, running_line

    try:
        _wait_for_ledger()
        with _ledger() as store:
            query = _query(
                store,
                _Conditions(
                    provider, model, key, vkey, team, session, status, error, min_cost, max_cost
                ),
            )
            for some in _as_they_come(store, query, lines):
                sessions = _sessions(store, some) if as_json else {}
                render.print_lines(
                    json_line(sessions.get(each.session_id), each)
                    if as_json
                    else running_line(each)
                    for each in some
                )
                sys.stdout.flush()
    except KeyboardInterrupt:
        # The one way to leave, so it is no failure.
        return 0
    return 0


def _as_they_come(
    store: "SqliteStore", query: "ExchangeQuery", lines: int
) -> "Iterator[list[ExchangeRecord]]":
    """The latest calls, then new ones for ever."""
    # The mark first: what arrives between the two comes twice rather than never.
    _, mark = store.arrivals(query, after=-1)
    latest = store.find(replace(query, limit=lines))[::-1] if lines else []
    yield latest
    seen = {exchange.id for exchange in latest}
    while True:
        found, mark = store.arrivals(query, after=mark)
        yield [exchange for exchange in found if exchange.id not in seen]
        time.sleep(_POLL_S)


class _Conditions(NamedTuple):
    """The options of the same names."""

    provider: str | None
    model: str | None
    key: str | None
    vkey: str | None
    team: str | None
    session: str | None
    status: Sequence[ExchangeStatus] | None
    error: str | None
    min_cost: str | None
    max_cost: str | None


def _query(
    store: "SqliteStore", asked: _Conditions, since: str | None = None, until: str | None = None
) -> "ExchangeQuery":
    from opencode_gate.cli.windows import window_between
    from opencode_gate.core.clock import SystemClock
    from opencode_gate.core.local_time import local_zone_name
    from opencode_gate.ledger.exchange_query import ExchangeQuery

    window = window_between(
        since, until, now_us=SystemClock().now_us(), time_zone=local_zone_name()
    )
    return ExchangeQuery(
        since_us=window.since_us,
        until_us=window.until_us,
        provider_name=asked.provider,
        model=asked.model,
        credential_name=asked.key,
        virtual_key=asked.vkey,
        team=asked.team,
        session_id=None if asked.session is None else store.session(asked.session).id,
        statuses=tuple(asked.status or ()),
        error=asked.error,
        min_cost_nano_usd=_nano_usd("--min-cost", asked.min_cost),
        max_cost_nano_usd=_nano_usd("--max-cost", asked.max_cost),
    )


def _nano_usd(option: str, text: str | None) -> int | None:
    from opencode_gate.core.money import nano_usd

    if text is None:
        return None
    try:
        amount = Decimal(text.removeprefix("$"))
    except InvalidOperation as error:
        raise UsageError(
            "usage", f"{option} {text!r} is not an amount", hint=f"{option} 0.05"
        ) from error
    if not amount.is_finite() or not 0 <= amount <= 10**9:
        raise UsageError("usage", f"{option} {text!r} is not an amount", hint=f"{option} 0.05")
    return nano_usd(amount)


def _sessions(
    store: "SqliteStore", exchanges: "Iterable[ExchangeRecord]"
) -> "dict[str, SessionRecord]":
    """The sessions of some calls, as far as they were recorded."""
    return store.sessions_of({exchange.session_id for exchange in exchanges})


def _wait_for_ledger() -> None:
    """Until the first session has made it: whoever tails may have started before."""
    from opencode_gate.config.paths import paths

    while not paths().ledger_file.exists():
        time.sleep(_POLL_S)


@contextmanager
def _ledger() -> "Iterator[SqliteStore]":
    from opencode_gate.config.paths import paths
    from opencode_gate.ledger.sqlite import open_store

    store = open_store(paths().ledger_file, read_only=True)
    try:
        yield store
    finally:
        store.close()
