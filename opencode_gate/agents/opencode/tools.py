"""Whose a tool is: Opencode's own, or an MCP server's of the user's configuration.

Opencode names the tools of a server `<server>_<tool>`, anything but letters, digits, `_` and `-`
replaced by `_`. The invariant: a tool whose server is not configured here is `None`'s, never
given to the likeliest one.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from opencode_gate.agents.opencode.config_files import config_sources
from opencode_gate.agents.opencode.folders import agent_folders
from opencode_gate.agents.opencode.jsonc import as_object

OWN_TOOLS = frozenset(
    {
        "StructuredOutput",
        "apply_patch",
        "bash",
        "batch",
        "codesearch",
        "edit",
        "glob",
        "grep",
        "invalid",
        "list",
        "lsp",
        "multiedit",
        "patch",
        "plan_enter",
        "plan_exit",
        "question",
        "read",
        "skill",
        "task",
        "todoread",
        "todowrite",
        "webfetch",
        "websearch",
        "write",
    }
)
"""The tools that any 1.x version offers by itself."""

_UNUSUAL = re.compile(r"[^a-zA-Z0-9_-]")


def mcp_servers(environ: Mapping[str, str], folders: Iterable[Path]) -> frozenset[str]:
    """The names of the MCP servers configured for work in any of some folders."""
    places = agent_folders(environ)
    return frozenset(
        name
        for folder in folders
        for source in config_sources(environ, places, folder)
        for name in as_object(source.config.get("mcp"))
    )


def server_of(tool: str, servers: Iterable[str]) -> str | None:
    """The server whose tool it is; of several that could be, the one with the longest name."""
    owners = [name for name in servers if tool.startswith(f"{_UNUSUAL.sub('_', name)}_")]
    return max(owners, key=len, default=None)
