"""`ogate usage tools`: what tool definitions take of the input, and what nobody ever calls.

The invariant: it only reads; a server is one of Opencode's configuration, as it is now in the
folders that were worked in.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from opencode_gate.cli.options import AsJson, Month, Since, Today, Until, Week
from opencode_gate.cli.render import Result

if TYPE_CHECKING:
    from opencode_gate.catalog.rows import ModelPrice
    from opencode_gate.cli.windows import Window
    from opencode_gate.ledger.records import ToolUse
    from opencode_gate.ledger.store import Store
    from opencode_gate.session.tool_costs import ToolReport


def tools(
    today: Today = False,
    week: Week = False,
    month: Month = False,
    since: Since = None,
    until: Until = None,
    as_json: AsJson = False,
) -> Result:
    """What the definitions of tools and MCP servers cost, and which are never called."""
    from opencode_gate.cli.tools_view import tools_blocks, tools_document
    from opencode_gate.cli.windows import chosen_window, window_document
    from opencode_gate.config.paths import paths
    from opencode_gate.core.clock import SystemClock
    from opencode_gate.core.local_time import local_zone_name
    from opencode_gate.ledger.sqlite import open_store

    now_us = SystemClock().now_us()
    window = chosen_window(
        {"today": today, "week": week, "month": month},
        since,
        until,
        fallback="month",
        now_us=now_us,
        time_zone=local_zone_name(),
    )
    store = open_store(paths().ledger_file, read_only=True)
    try:
        report, servers = _report(store, window, now_us)
    finally:
        store.close()
    return Result(
        data={**window_document(window), **tools_document(report, servers)},
        blocks=() if as_json else tools_blocks(report, window.label),
    )


def _report(store: "Store", window: "Window", now_us: int) -> "tuple[ToolReport, frozenset[str]]":
    """The report over a window, and the servers that are configured."""
    from opencode_gate.agents.opencode.tools import OWN_TOOLS, mcp_servers, server_of
    from opencode_gate.cli.price_book import price_book, price_of
    from opencode_gate.cli.tools_view import OPENCODE, UNKNOWN_OWNER
    from opencode_gate.session.tool_costs import tool_report

    uses = store.tool_uses(since_us=window.since_us, until_us=window.until_us)
    sessions = store.sessions_of({use.session_id for use in uses})
    folders = {Path(session.directory) for session in sessions.values()}
    servers = mcp_servers(os.environ, [Path.cwd(), *folders])
    book = price_book() if any(use.tool_set for use in uses) else None
    at_us = now_us if window.until_us is None else min(now_us, window.until_us)

    def owner_of(tool: str) -> str:
        if tool in OWN_TOOLS:
            return OPENCODE
        return server_of(tool, servers) or UNKNOWN_OWNER

    def price(use: "ToolUse") -> "ModelPrice | None":
        models = (use.response_model, use.request_model)
        return None if book is None else price_of(book, use.provider_name, models, at_us=at_us)

    report = tool_report(
        uses,
        tool_sets=store.tool_sets({use.tool_set for use in uses if use.tool_set is not None}),
        calls=store.tool_calls(since_us=window.since_us, until_us=window.until_us),
        owner_of=owner_of,
        price_of=price,
    )
    return report, servers
