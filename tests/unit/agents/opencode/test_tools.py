"""Whose a tool is, by the names Opencode gives them."""

import json
from pathlib import Path

import pytest

from opencode_gate.agents.opencode.tools import OWN_TOOLS, mcp_servers, server_of


@pytest.mark.parametrize(
    ("tool", "servers", "owner"),
    [
        ("github_create_issue", ["github", "git"], "github"),
        ("git_hub_log", ["git", "git_hub"], "git_hub"),
        ("my_server_1_ping", ["my server.1"], "my server.1"),
        ("context7_get-library-docs", ["context7"], "context7"),
        ("github", ["github"], None),
        ("bash", ["github"], None),
        ("gitlab_log", ["git"], None),
    ],
)
def test_a_tool_is_of_the_server_whose_name_leads_its_own(tool, servers, owner) -> None:
    """The longest of those that fit, spelled as Opencode spells them."""
    assert server_of(tool, servers) == owner


def test_servers_are_those_of_the_user_and_of_every_project(isolated_home: Path) -> None:
    """Global, per project, with comments, and switched-off ones too: they may have been on."""
    user = isolated_home / ".config/opencode/opencode.jsonc"
    user.parent.mkdir(parents=True)
    user.write_text('{"mcp": {"github": {"type": "remote", "url": "http://x"}}, /* c */}')
    project, other = isolated_home / "project", isolated_home / "other"
    for folder, name in ((project, "notes"), (other, "db")):
        folder.mkdir()
        (folder / ".git").mkdir()
        config = {"mcp": {name: {"type": "local", "command": ["x"], "enabled": False}}}
        (folder / "opencode.json").write_text(json.dumps(config))
    environ = {"HOME": str(isolated_home)}
    assert mcp_servers(environ, [project, other]) == {"github", "notes", "db"}
    assert mcp_servers(environ, [project, isolated_home / "gone"]) == {"github", "notes"}


def test_no_configuration_is_no_server(isolated_home: Path) -> None:
    assert mcp_servers({"HOME": str(isolated_home)}, [isolated_home]) == frozenset()


def test_opencodes_own_tools_are_known() -> None:
    """As 1.18 offers them in a new session."""
    offered = {"bash", "edit", "glob", "grep", "read", "skill", "task", "todowrite", "webfetch"}
    assert offered < OWN_TOOLS
