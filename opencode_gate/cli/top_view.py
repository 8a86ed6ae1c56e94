"""What `ogate top` shows: as a document, and as a screen of any height.

The invariant: the screen is never larger than the terminal; what does not fit is counted.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from opencode_gate.cli import figures
from opencode_gate.cli.budget_view import amount_text, label_text, standing_document
from opencode_gate.cli.call_view import (
    clock_text,
    cost_text,
    end_text,
    exchange_document,
    model_text,
)
from opencode_gate.cli.render import Block, Table, Text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from opencode_gate.governance.standing import BudgetStanding
    from opencode_gate.ledger.records import ExchangeRecord
    from opencode_gate.session.activity import Activity, Flight, RunningSession

_FRAME = 3
"""Lines around the parts: the first, an empty one, the last."""

_LEAST_PART = 3
"""Lines of the smallest part: its heading, a row, an empty one."""

_SESSION_COLUMNS = (
    ("session", 0),
    ("project", 0),
    ("up", 2),
    ("requests", 3),
    ("flying", 1),
    ("tokens/s", 4),
    ("in", 6),
    ("out", 5),
    ("cost", 0),
)
"""Titles, and which goes first where there is no room (see `FittedColumn.rank`)."""


def activity_document(activity: "Activity") -> dict[str, object]:
    """One look for machines."""
    from opencode_gate.cli.summary_view import session_document, totals_document

    return {
        "at": figures.iso_text(activity.at_us),
        "running": [
            {
                "session": session_document(running.session),
                "totals": totals_document(running.totals),
                "in_flight": [_flight_document(running, flight) for flight in running.flights],
            }
            for running in activity.running
        ],
        "tokens_per_s": round(activity.tokens_per_s, 1),
        "today": totals_document(activity.today),
        "errors": [exchange_document(None, exchange) for exchange in activity.errors],
        "budgets": [standing_document(standing) for standing in activity.budgets],
    }


def screen(
    activity: "Activity | None", problem: str, *, width: int, height: int
) -> "RenderableType":
    """The whole screen, for a terminal of that size."""
    from opencode_gate.cli.render import drawn

    if activity is None:
        return drawn([Text(problem or "…")])
    return drawn(screen_blocks(activity, problem, width=width, height=height))


def screen_blocks(activity: "Activity", problem: str, *, width: int, height: int) -> list[Block]:
    """The screen's blocks from the top, each row of one line."""
    parts: list[tuple[Sequence[Any], Callable[[Any], Table]]] = [
        (activity.running, lambda some: _sessions(some, width)),
        (activity.budgets, lambda some: _budgets(some, activity.at_us, width)),
        (activity.flights, lambda some: _flights(some, activity, width)),
        (activity.errors, lambda some: _errors(some, width)),
    ]
    room = height - _FRAME - (0 if activity.running else 2)
    chosen = [part for part in parts if part[0]][: max(1, room // _LEAST_PART)]
    rooms = _rooms([len(rows) for rows, _ in chosen], room - 2 * len(chosen))
    blocks: list[Block] = [Text(_headline(activity, width), "bold"), Text("")]
    if not activity.running:
        blocks += [Text("no session is running", "dim"), Text("")]
    for (rows, table), shown in zip(chosen, rooms, strict=True):
        blocks += [table(rows[:shown]), Text("")]
    hidden = sum(len(rows) for rows, _ in parts) - sum(rooms)
    problem = problem or activity.problem
    last = ("q leaves", f"{hidden} more do not fit" if hidden > 0 else "", problem)
    blocks.append(Text(_joined(last, width), "red" if problem else "dim"))
    return blocks


def _rooms(wanted: "Sequence[int]", free: int) -> list[int]:
    """How many rows each part gets: the last gives way first, none is empty."""
    rooms = [min(count, 1) for count in wanted]
    for place, count in enumerate(wanted):
        rooms[place] += max(0, min(count - rooms[place], free - sum(rooms)))
    return rooms


def _headline(activity: "Activity", width: int) -> str:
    today = activity.today
    spent = figures.brief_money(
        today.cost_nano_usd, today.cost_quality, unknown_requests=today.unknown_cost_requests
    )
    parts = [
        "ogate top",
        f"today {spent if today.requests else '$0'}",
        figures.counted(len(activity.running), "session"),
        f"{len(activity.flights)} in flight",
        f"{activity.tokens_per_s:.0f} tokens/s",
        f"{figures.counted(today.requests, 'request')} today",
        clock_text(activity.at_us),
    ]
    return _joined(parts, width)


def _joined(parts: "Iterable[str]", width: int) -> str:
    """As many of the parts, from the first, as one line holds."""
    line = ""
    for part in filter(None, parts):
        longer = f"{line} · {part}" if line else part
        if len(longer) > width:
            break
        line = longer
    return line


def _sessions(running: "Sequence[RunningSession]", width: int) -> Table:
    from opencode_gate.cli.fitted_table import FittedColumn, fitted_table

    cells = list(zip(*map(_session_cells, running), strict=True))
    return fitted_table(
        [
            FittedColumn(
                title=title,
                cells=column,
                rank=rank,
                is_text=title == "project",
                justify="left" if title in ("session", "project") else "right",
            )
            for (title, rank), column in zip(_SESSION_COLUMNS, cells, strict=True)
        ],
        width=width,
    )


def _session_cells(running: "RunningSession") -> tuple[str, ...]:
    session, totals = running.session, running.totals
    speed = sum(flight.tokens_per_s or 0.0 for flight in running.flights)
    cost = figures.money_text(
        totals.cost_nano_usd,
        totals.cost_quality,
        unknown_requests=totals.unknown_cost_requests,
    )
    return (
        figures.short_id(session.id),
        f"{session.project} ({session.branch})" if session.branch else session.project,
        figures.duration_text(running.up_us),
        str(totals.requests),
        str(len(running.flights) or figures.NOTHING),
        f"{speed:.0f}" if running.flights else figures.NOTHING,
        _count(totals.input_tokens),
        _count(totals.output_tokens),
        cost if totals.requests else figures.NOTHING,
    )


def _budgets(budgets: "Sequence[BudgetStanding]", now_us: int, width: int) -> Table:
    from opencode_gate.cli.fitted_table import FittedColumn, fitted_table

    def amounts(of: "Callable[[BudgetStanding], int]") -> list[str]:
        return [amount_text(of(one), one.unit) for one in budgets]

    resets = [_resets_text(one) for one in budgets]
    return fitted_table(
        [
            FittedColumn(
                title="budget", cells=[_budget_label(one, now_us) for one in budgets], is_text=True
            ),
            FittedColumn(title="spent", cells=amounts(lambda one: one.spent), justify="right"),
            FittedColumn(
                title="held", cells=amounts(lambda one: one.held), rank=2, justify="right"
            ),
            FittedColumn(title="of", cells=amounts(lambda one: one.limit), justify="right"),
            FittedColumn(
                title="used", cells=[f"{one.percent} %" for one in budgets], justify="right"
            ),
            FittedColumn(title="", cells=[_state_text(one) for one in budgets]),
            FittedColumn(title="begins anew", cells=resets, rank=3),
        ],
        width=width,
    )


def _budget_label(standing: "BudgetStanding", now_us: int) -> str:
    """Which budget it is, and of which session where several may run."""
    text = label_text(standing, now_us)
    kind, name = standing.owner
    return f"{text} {figures.short_id(name)}" if kind == "session" else text


def _state_text(standing: "BudgetStanding") -> str:
    if standing.is_spent:
        return "spent"
    warned = standing.warned_percent
    return "" if warned is None else f"past {warned} %"


def _resets_text(standing: "BudgetStanding") -> str:
    resets_at_us = standing.resets_at_us
    return figures.NOTHING if resets_at_us is None else figures.time_text(resets_at_us)


def _flights(flights: "Sequence[Flight]", activity: "Activity", width: int) -> Table:
    from opencode_gate.cli.fitted_table import FittedColumn, fitted_table

    projects = {each.session.id: each.session.project for each in activity.running}
    of_project = [projects.get(flight.exchange.session_id, "") for flight in flights]
    purposes = [flight.exchange.mode or flight.exchange.kind.value for flight in flights]
    times = [figures.seconds_text(flight.elapsed_us / 1e6) for flight in flights]
    outputs = [_count(flight.exchange.usage.output) for flight in flights]
    models = [model_text(flight.exchange) for flight in flights]
    costs = [_cost_so_far(flight) for flight in flights]
    speeds = [_speed(flight) for flight in flights]
    return fitted_table(
        [
            FittedColumn(title="in flight", cells=models, is_text=True),
            FittedColumn(title="project", cells=of_project, rank=3, is_text=True),
            FittedColumn(title="for", cells=purposes, rank=4),
            FittedColumn(title="since", cells=times, justify="right"),
            FittedColumn(title="tokens/s", cells=speeds, rank=1, justify="right"),
            FittedColumn(title="out", cells=outputs, rank=2, justify="right"),
            FittedColumn(title="cost", cells=costs, justify="right"),
        ],
        width=width,
    )


def _errors(errors: "Sequence[ExchangeRecord]", width: int) -> Table:
    from opencode_gate.cli.fitted_table import FittedColumn, fitted_table

    sessions = [figures.short_id(each.session_id) for each in errors]
    return fitted_table(
        [
            FittedColumn(title="last errors", cells=[model_text(e) for e in errors], is_text=True),
            FittedColumn(title="what", cells=[end_text(each) for each in errors], is_text=True),
            FittedColumn(title="session", cells=sessions, rank=1),
            FittedColumn(title="at", cells=[clock_text(each.started_at_us) for each in errors]),
        ],
        width=width,
    )


def _flight_document(running: "RunningSession", flight: "Flight") -> dict[str, object]:
    speed = flight.tokens_per_s
    return exchange_document(running.session, flight.exchange) | {
        "elapsed_s": flight.elapsed_us / 1e6,
        "tokens_per_s": None if speed is None else round(speed, 1),
    }


def _speed(flight: "Flight") -> str:
    return figures.NOTHING if flight.tokens_per_s is None else f"{flight.tokens_per_s:.0f}"


def _count(count: int | None) -> str:
    return figures.NOTHING if count is None else figures.count_text(count)


def _cost_so_far(flight: "Flight") -> str:
    is_known = flight.exchange.cost_nano_usd is not None
    return cost_text(flight.exchange) if is_known else figures.NOTHING
