"""What tool definitions take of the input: a table of servers, and the tools nobody calls.

The invariant: every token count here is an estimate and is marked as one, and so is its price.
"""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from opencode_gate.cli import figures
from opencode_gate.cli.render import Block, Column, Table, Text
from opencode_gate.core.money import usd_text
from opencode_gate.core.semconv import CostQuality

if TYPE_CHECKING:
    from opencode_gate.session.tool_costs import ToolCost, ToolReport

OPENCODE = "Opencode's own"
UNKNOWN_OWNER = "no known server"

_SHOWN_TOOLS = 20
_NOTES = (
    "~ is estimated: tokens from the size of each definition, money from what an input token"
    " of the same requests cost on average",
)


def tools_document(report: "ToolReport", servers: Collection[str]) -> dict[str, object]:
    """The report for machines; every `tokens` and `cost_usd` is an estimate."""
    from opencode_gate.session.tool_costs import together

    tokens, cost = together(report.never_called)
    return {
        "requests": report.requests,
        "input_tokens": report.input_tokens,
        "share_of_input": _share(report.whole, report),
        **_cost_document(report.whole),
        "unmeasured_requests": report.unmeasured_requests,
        "servers": [
            {
                "server": server.whole.name if server.whole.name in servers else None,
                "owner": _owner(server.whole.name, servers),
                "share_of_input": _share(server.whole, report),
                **_cost_document(server.whole),
                "tools": [{"name": tool.name, **_cost_document(tool)} for tool in server.tools],
            }
            for server in report.servers
        ],
        "never_called": {
            "tools": [tool.name for tool in report.never_called],
            "tokens": tokens,
            "cost_usd": None if cost is None else usd_text(cost),
        },
    }


def _owner(name: str, servers: Collection[str]) -> str:
    if name in servers:
        return "mcp"
    return "opencode" if name == OPENCODE else "unknown"


def _cost_document(tool: "ToolCost") -> dict[str, object]:
    return {
        "tool_requests": tool.requests,
        "sessions": tool.sessions,
        "calls": tool.calls,
        "tokens": tool.tokens,
        "tokens_per_request": _each(tool.tokens, tool.requests),
        "tokens_per_session": _each(tool.tokens, tool.sessions),
        "cost_usd": None if tool.cost_nano_usd is None else usd_text(tool.cost_nano_usd),
        "unpriced_requests": tool.unpriced_requests,
    }


def tools_blocks(report: "ToolReport", label: str) -> list[Block]:
    """The report for people."""
    if not report.whole.requests:
        return [Text(f"{label}: no request with tools was recorded"), *_unmeasured(report)]
    blocks: list[Block] = [Text(_headline(report, label), "bold"), Text(""), _servers_table(report)]
    if report.never_called:
        blocks += [
            Text(""),
            _never_called_table(report),
            Text(""),
            Text(_saving(report)),
        ]
    notes = [*_NOTES]
    if any(server.whole.name == UNKNOWN_OWNER for server in report.servers):
        notes.append(
            f"{UNKNOWN_OWNER}: plugins' and custom tools, and those of servers that are not in"
            " Opencode's configuration now"
        )
    return [*blocks, Text(""), *(Text(note, "dim") for note in notes), *_unmeasured(report)]


def _headline(report: "ToolReport", label: str) -> str:
    share = figures.percent_text(
        min(report.whole.tokens, report.input_tokens or 0), report.input_tokens
    )
    requests = figures.counted(report.requests, "request")
    sessions = figures.counted(report.whole.sessions, "session")
    total = figures.count_text(report.input_tokens)
    return (
        f"{label}: tool definitions take ~{share} of {total} input tokens"
        f" ({requests}, {sessions} with tools)"
    )


def _servers_table(report: "ToolReport") -> Table:
    return Table(
        columns=(
            Column("server", wrap=True),
            Column("tools", "right"),
            Column("never called", "right"),
            Column("requests", "right"),
            Column("a request", "right"),
            Column("a session", "right"),
            Column("of input", "right"),
            Column("cost", "right"),
        ),
        rows=[
            (
                server.whole.name,
                str(len(server.tools)),
                str(len(server.never_called)),
                *_cells(server.whole, report),
            )
            for server in report.servers
        ],
        footer=(
            "total",
            str(sum(len(server.tools) for server in report.servers)),
            str(len(report.never_called)),
            *_cells(report.whole, report),
        ),
    )


def _cells(tool: "ToolCost", report: "ToolReport") -> tuple[str, ...]:
    tokens = min(tool.tokens, report.input_tokens) if report.input_tokens is not None else None
    return (
        str(tool.requests),
        _estimate(_each(tool.tokens, tool.requests)),
        _estimate(_each(tool.tokens, tool.sessions)),
        f"~{figures.percent_text(tokens, report.input_tokens)}",
        _money(tool),
    )


def _never_called_table(report: "ToolReport") -> Table:
    owners = {tool.name: server.whole.name for server in report.servers for tool in server.tools}
    rest = report.never_called[_SHOWN_TOOLS:]
    rows: list[Sequence[str]] = [
        (
            tool.name,
            owners[tool.name],
            _estimate(_each(tool.tokens, tool.requests)),
            _estimate(tool.tokens),
            _money(tool),
        )
        for tool in report.never_called[:_SHOWN_TOOLS]
    ]
    if rest:
        rows.append((f"and {len(rest)} more", "", "", "", ""))
    return Table(
        columns=(
            Column("never called", wrap=True),
            Column("server", wrap=True),
            Column("a request", "right"),
            Column("in all", "right"),
            Column("cost", "right"),
        ),
        rows=rows,
    )


def _saving(report: "ToolReport") -> str:
    from opencode_gate.session.tool_costs import together

    tokens, cost = together(report.never_called)
    tools = figures.counted(len(report.never_called), "tool")
    money = figures.brief_money(
        cost,
        _quality(cost),
        unknown_requests=max(tool.unpriced_requests for tool in report.never_called),
    )
    return (
        f"without the {tools} never called, it would have been"
        f" {_estimate(tokens)} tokens and {money} less"
    )


def _unmeasured(report: "ToolReport") -> list[Block]:
    if not report.unmeasured_requests:
        return []
    requests = figures.counted(report.unmeasured_requests, "request")
    return [Text(f"{requests} offered tools of which nothing is kept", "dim")]


def _money(tool: "ToolCost") -> str:
    return figures.money_text(
        tool.cost_nano_usd, _quality(tool.cost_nano_usd), unknown_requests=tool.unpriced_requests
    )


def _quality(cost_nano_usd: int | None) -> CostQuality:
    """Nothing of a free model is no estimate."""
    return CostQuality.ESTIMATED if cost_nano_usd else CostQuality.PRICED


def _estimate(count: int | None) -> str:
    return f"~{figures.count_text(count)}"


def _each(tokens: int, count: int) -> int | None:
    return round(tokens / count) if count else None


def _share(tool: "ToolCost", report: "ToolReport") -> float | None:
    return round(tool.tokens / report.input_tokens, 4) if report.input_tokens else None
