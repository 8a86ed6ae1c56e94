"""`ogate usage`: what was used in a span of days and what it cost; and its verbs.

The invariant: `usage` itself only reads, and a span in which nothing was counted is said to be
that, never shown as `$ 0`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import msgspec
import typer

from opencode_gate.cli import figures
from opencode_gate.cli.commands.usage_reprice import reprice
from opencode_gate.cli.commands.usage_tools import tools
from opencode_gate.cli.options import AsJson, Month, Since, Today, Until, Week
from opencode_gate.cli.render import Block, Column, Result, Table, Text, print_lines, printable
from opencode_gate.core.errors import UsageError

if TYPE_CHECKING:
    from opencode_gate.cli.windows import Window
    from opencode_gate.ledger.totals import Totals, UsageQuery, UsageRow

app = typer.Typer()
app.command("reprice")(reprice)
app.command("tools")(tools)

Source: TypeAlias = Literal["ogate", "opencode"]

_ULID_LENGTH = 26
_OPENCODE_NOTES = (
    "from Opencode's own history, at the prices Opencode knew; titles are not in it",
    "? is where it wrote no cost: a subscription, a free model, or a price it did not know",
)


class _Found(msgspec.Struct, frozen=True, kw_only=True):
    """What a window holds: its rows by the groups asked for, its days for the plot, its sum."""

    source: Source
    window: "Window"
    groups: tuple[str, ...]
    rows: "Sequence[UsageRow]"
    days: "Sequence[UsageRow]"
    totals: "Totals"


@app.callback(invoke_without_command=True)
def usage(
    context: typer.Context,
    today: Today = False,
    week: Week = False,
    month: Month = False,
    since: Since = None,
    until: Until = None,
    by: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GROUP",
            help="One row each: model, provider, key, session, project, repository, branch, commit,"
            " day, hour, user, agent, conversation, kind, mode, vkey, team, customer; several with"
            " commas.",
        ),
    ] = None,
    short: Annotated[
        bool, typer.Option("--short", help="One line, for a prompt or a status bar.")
    ] = False,
    source: Annotated[
        Source,
        typer.Option(help="`opencode` reads Opencode's own history, also from before ogate."),
    ] = "ogate",
    what_if: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL",
            help="What the same tokens would have cost on provider/model; several with commas.",
        ),
    ] = None,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="The rows as CSV on stdout, for a spreadsheet.")
    ] = False,
    as_json: AsJson = False,
) -> Result | None:
    """What was used and what it cost, from the ledger."""
    if context.invoked_subcommand is not None:
        _refuse_options_of_the_group(context, context.invoked_subcommand)
        return None
    if as_csv and (short or as_json):
        raise UsageError("usage", "--csv goes with neither --json nor --short")
    if what_if and (by or short or as_csv or source != "ogate"):
        raise UsageError("usage", "--what-if goes with none of --by, --short, --csv, --source")
    from opencode_gate.cli.windows import chosen_window
    from opencode_gate.core.clock import SystemClock
    from opencode_gate.core.local_time import local_zone_name

    now_us = SystemClock().now_us()
    window = chosen_window(
        {"today": today, "week": week, "month": month},
        since,
        until,
        fallback="today" if short else "month",
        now_us=now_us,
        time_zone=local_zone_name(),
    )
    if what_if:
        return _compared(window, what_if, as_json=as_json)
    wants_plot = not (short or as_csv or as_json)
    found = _read(source, window, _groups(by), wants_days=wants_plot, now_us=now_us)
    if as_csv:
        print_lines([_csv(found)])
        return Result(data={})
    if short and not as_json:
        parts = (_short_line(window, found.totals), _budgets_reached(now_us))
        return Result(data={}, blocks=[Text(" · ".join(filter(None, parts)))])
    return Result(data=_document(found), blocks=() if as_json else _blocks(found))


def _refuse_options_of_the_group(context: typer.Context, verb: str) -> None:
    """Options before the verb would be dropped in silence.

    Raises:
        UsageError: there is one.
    """
    sources = (context.get_parameter_source(name) for name in context.params)
    if any(source is not None and source.name == "COMMANDLINE" for source in sources):
        raise UsageError(
            "usage",
            f"options of `ogate usage {verb}` come after its name",
            hint=f"ogate usage {verb} --help",
        )


def _compared(window: "Window", names: Sequence[str], *, as_json: bool) -> Result:
    """The tokens of a window on other models."""
    from opencode_gate.cli.ledger_pages import ended_exchanges
    from opencode_gate.cli.what_if_view import compare, what_if_blocks, what_if_document
    from opencode_gate.cli.windows import window_document
    from opencode_gate.config.paths import paths
    from opencode_gate.ledger.sqlite import open_store

    store = open_store(paths().ledger_file, read_only=True)
    try:
        found = compare((one for page in ended_exchanges(store, window) for one in page), names)
    finally:
        store.close()
    return Result(
        data={**window_document(window), "what_if": what_if_document(found)},
        blocks=() if as_json else what_if_blocks(found, window.label),
    )


def _groups(by: Sequence[str] | None) -> tuple[str, ...]:
    """The groupings asked for, each once; by model where none is."""
    names = (name.strip() for given in by or () for name in given.split(","))
    return tuple(dict.fromkeys(name for name in names if name)) or ("model",)


def _read(
    source: Source, window: "Window", groups: tuple[str, ...], *, wants_days: bool, now_us: int
) -> _Found:
    from opencode_gate.ledger.totals import Totals, UsageQuery

    def query(*by: str) -> UsageQuery:
        return UsageQuery(
            since_us=window.since_us, until_us=window.until_us, by=by, time_zone=window.time_zone
        )

    wants_days = wants_days and window.is_longer_than_a_day(now_us)
    queries = [query(), query(*groups), *([query("day")] if wants_days else [])]
    overall, rows, *days = _ledger_rows(queries) if source == "ogate" else _opencode_rows(queries)
    return _Found(
        source=source,
        window=window,
        groups=groups,
        rows=rows,
        days=days[0] if days else [],
        totals=overall[0].totals if overall else Totals(),
    )


def _ledger_rows(queries: "Sequence[UsageQuery]") -> "list[list[UsageRow]]":
    from opencode_gate.config.paths import paths
    from opencode_gate.ledger.sqlite import open_store

    store = open_store(paths().ledger_file, read_only=True)
    try:
        # Of one moment: sessions that run beside this would make the sum differ from its rows.
        with store.snapshot():
            return [store.usage(query) for query in queries]
    finally:
        store.close()


def _opencode_rows(queries: "Sequence[UsageQuery]") -> "list[list[UsageRow]]":
    import os

    from opencode_gate.cli.agent_history import opencode_answers, usage_rows

    answers = opencode_answers(os.environ, queries[0])
    return [usage_rows(answers, query) for query in queries]


def _short_line(window: "Window", totals: "Totals") -> str:
    if not totals.requests:
        return f"{window.label}: no requests"
    cost = figures.brief_money(
        totals.cost_nano_usd, totals.cost_quality, unknown_requests=totals.unknown_cost_requests
    )
    requests = figures.counted(totals.requests, "request")
    tokens = (
        f"{figures.count_text(totals.input_tokens)} in,"
        f" {figures.count_text(totals.output_tokens)} out"
    )
    return f"{window.label}: {cost} · {requests} · {tokens}"


def _budgets_reached(now_us: int) -> str:
    """The budgets that have reached a threshold; nearly everybody has none, and loads nothing."""
    from opencode_gate.config.paths import paths
    from opencode_gate.ledger.sqlite.connection import policy_revision

    places = paths()
    if policy_revision(places.ledger_file) == 0:
        return ""
    from opencode_gate.cli.budget_view import short_line
    from opencode_gate.core.errors import PolicyDenied
    from opencode_gate.ledger.sqlite.governance import open_governance
    from opencode_gate.session.operator import os_user
    from opencode_gate.session.standing import standings_now

    store = open_governance(places.ledger_file, read_only=True)
    try:
        found = standings_now(store, places.journals, user=os_user(), at_us=now_us)
        return short_line(found, now_us)
    except PolicyDenied:
        return "the rules cannot be read: ogate doctor"
    finally:
        store.close()


def _document(found: _Found) -> dict[str, object]:
    from opencode_gate.cli.summary_view import totals_document
    from opencode_gate.cli.windows import window_document

    return {
        "source": found.source,
        **window_document(found.window),
        "by": list(found.groups),
        "totals": totals_document(found.totals),
        "rows": [{**_key_document(row), **totals_document(row.totals)} for row in found.rows],
    }


def _csv(found: _Found) -> str:
    """The rows with the names of the JSON document; an unknown value is an empty field."""
    import csv
    import io

    from opencode_gate.cli.summary_view import totals_document
    from opencode_gate.ledger.totals import Totals, UsageRow

    def fields(row: "UsageRow") -> dict[str, object]:
        return {
            name: printable(value) if isinstance(value, str) else value
            for name, value in {**_key_document(row), **totals_document(row.totals)}.items()
        }

    nothing = UsageRow(key=dict.fromkeys(found.groups), totals=Totals())
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(fields(nothing)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(fields, found.rows))
    return out.getvalue().removesuffix("\n")


def _key_document(row: "UsageRow") -> dict[str, object]:
    """A row's key with the names of the summary's document: a model is provider and model."""
    document: dict[str, object] = {}
    for name, value in row.key.items():
        if name == "model":
            provider_name, _, model = (value or "").partition("/")
            document |= {"provider_name": provider_name, "request_model": model or None}
        else:
            document["provider_name" if name == "provider" else name] = value
    return document


def _blocks(found: _Found) -> list[Block]:
    from opencode_gate.cli.summary_view import TOTALS_COLUMNS, cost_notes, totals_cells

    if not found.rows:
        return [Text(f"{found.window.label}: nothing was counted")]
    table = Table(
        columns=(*(Column(name, wrap=True) for name in found.groups), *TOTALS_COLUMNS),
        rows=[
            (*(_key_cell(name, row.key[name]) for name in found.groups), *totals_cells(row.totals))
            for row in found.rows
        ],
        footer=("total", *[""] * (len(found.groups) - 1), *totals_cells(found.totals)),
    )
    blocks: list[Block] = [Text(found.window.label, "bold"), Text(""), table]
    plot = _plot(found.days)
    if plot:
        blocks += [Text(""), *map(Text, plot)]
    notes = _OPENCODE_NOTES if found.source == "opencode" else cost_notes(found.totals)
    return [*blocks, *([Text("")] if notes else []), *(Text(note, "dim") for note in notes)]


def _key_cell(name: str, value: str | None) -> str:
    if value is None:
        return figures.NOTHING
    return figures.short_id(value) if name == "session" and len(value) == _ULID_LENGTH else value


def _plot(days: "Sequence[UsageRow]") -> list[str]:
    """Cost over days, tokens where nothing has a cost; nothing for a single day."""
    import shutil
    from datetime import date, timedelta

    from opencode_gate.cli.plot import Plot, plot_lines

    totals = {date.fromisoformat(row.key["day"] or ""): row.totals for row in days}
    if len(totals) < 2:
        return []
    first = min(totals)
    span = [first + timedelta(days=number) for number in range((max(totals) - first).days + 1)]
    costs = {day: total.cost_nano_usd for day, total in totals.items() if total.cost_nano_usd}
    tokens = {day: _tokens(total) for day, total in totals.items()}
    measured = costs if costs else tokens
    values = [measured.get(day, 0) for day in span]
    peak = max(values)
    label = figures.brief_money(peak) if costs else f"{figures.count_text(peak)} tokens"
    return plot_lines(
        Plot(days=span, values=values, peak_label=label),
        width=min(100, shutil.get_terminal_size().columns),
    )


def _tokens(totals: "Totals") -> int:
    return sum(count for count in (totals.input_tokens, totals.output_tokens) if count is not None)
