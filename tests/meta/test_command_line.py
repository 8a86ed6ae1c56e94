"""Every command there is: it resolves, it is explained, and it is documented."""

import importlib
import re
from pathlib import Path

import pytest
import typer

from opencode_gate.cli import command_group, registry
from opencode_gate.cli.command_tree import Node, tree
from opencode_gate.cli.exit_codes import MEANINGS, ExitCode
from opencode_gate.core import errors
from opencode_gate.core.errors import CODES, GateError

ROOT = Path(__file__).parent.parent.parent
NOT_DOCUMENTS = {("completion", "show"), ("config", "path")}


@pytest.fixture(scope="module")
def nodes() -> list[Node]:
    return list(tree().walk())


@pytest.mark.parametrize("name", registry.COMMANDS)
def test_every_entry_of_the_registry_resolves(name) -> None:
    """A string that names a module fails only when somebody runs the command: so all are run."""
    entry = registry.COMMANDS[name]
    found = getattr(importlib.import_module(entry.module), entry.attribute)
    assert isinstance(found, typer.Typer) == (entry.attribute == "app")
    assert command_group.load(name).name == name


def test_the_grammar_of_the_design_is_there(nodes) -> None:
    paths = {" ".join(node.path) for node in nodes}
    assert paths >= {
        "run",
        *(f"keys {verb}" for verb in ("add", "list", "test", "rename", "rotate", "remove")),
        *(f"providers {verb}" for verb in ("list", "show", "add", "edit", "remove")),
        *(f"models {verb}" for verb in ("list", "show", "refresh")),
        "usage",
        *(f"sessions {verb}" for verb in ("list", "show", "export")),
        *(f"logs {verb}" for verb in ("list", "show", "tail")),
        "top",
        *(f"ledger {verb}" for verb in ("check", "backup", "vacuum")),
        *(f"budgets {verb}" for verb in ("list", "set", "raise", "remove")),
        *(f"vkeys {verb}" for verb in ("create", "list", "show", "set", "disable", "enable")),
        *(f"vkeys {verb}" for verb in ("rotate", "revoke")),
        *(f"teams {verb}" for verb in ("create", "list", "show", "set", "remove")),
        *(f"customers {verb}" for verb in ("create", "list", "show", "set", "remove")),
        *(f"policy {verb}" for verb in ("show", "check", "export", "apply", "why")),
        "doctor",
        "alias install",
        "alias remove",
        "uninstall",
        *(f"config {verb}" for verb in ("path", "show", "get", "set", "edit")),
        "completion show",
        "completion install",
    }


def test_help_fits_one_screen(capsys) -> None:
    from opencode_gate.cli.main import main

    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 37
    assert max(map(len, lines)) <= 80
    assert not [line for line in lines if line.rstrip().endswith("...") and "ARGS" not in line]


def test_every_command_and_option_is_explained(nodes) -> None:
    unexplained = [
        (*node.path, *(option.names or (option.label,)))
        for node in nodes
        for option in node.options
        if not option.help
    ]
    assert unexplained == []
    assert [node.path for node in nodes if not node.help] == []


def test_every_command_that_lists_or_shows_has_json(nodes) -> None:
    without = [
        node.path
        for node in nodes
        if node.path
        and node.path not in NOT_DOCUMENTS
        and node.path[-1] in ("list", "show", "usage", "doctor")
        and "--json" not in {name for option in node.options for name in option.names}
    ]
    assert without == []


def test_a_command_that_asks_can_be_told_not_to(nodes) -> None:
    """`--yes` without `--no-input` would leave scripts without the clear error."""
    named = {
        node.path: {name for option in node.options for name in option.names} for node in nodes
    }
    assert [
        path for path, names in named.items() if "--yes" in names and "--no-input" not in names
    ] == []


def test_every_exit_status_has_a_meaning() -> None:
    assert set(MEANINGS) == set(ExitCode)


def test_every_error_class_ends_with_a_documented_status() -> None:
    classes = [
        found
        for found in vars(errors).values()
        if isinstance(found, type) and issubclass(found, GateError)
    ]
    assert {found.exit_code for found in classes} <= {status.value for status in ExitCode}


def test_codes_are_kebab_case_and_explained_in_a_sentence() -> None:
    for code, meaning in CODES.items():
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", code)
        assert meaning[0].isupper()
        assert meaning.endswith((".", "?"))


@pytest.mark.parametrize("script", ["build_completions", "build_docs"])
def test_what_is_generated_is_what_is_committed(script, monkeypatch, capsys) -> None:
    """Run the script of that name to mend it."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    monkeypatch.setattr("sys.argv", [script, "--check"])
    assert importlib.import_module(script).main() == 0, capsys.readouterr().out


def test_the_powershell_script_knows_every_command(nodes) -> None:
    """PowerShell itself is not at hand here: at least no fact is missing from its tables."""
    text = (ROOT / "completions" / "ogate.ps1").read_text()
    for node in nodes:
        for option in node.options:
            assert all(f"'{name}' = " in text for name in option.names)
        for child in node.children:
            assert f"'{child.path[-1]}' = " in text
    assert text.count("{") == text.count("}")
    assert text.count("(") == text.count(")")
