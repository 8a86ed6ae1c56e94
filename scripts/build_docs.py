"""Writes the reference pages that are made from code: commands, errors, statuses, settings.

python scripts/build_docs.py
python scripts/build_docs.py --check
"""

import argparse
import ast
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec

from opencode_gate.cli.command_tree import Node, tree
from opencode_gate.cli.exit_codes import MEANINGS
from opencode_gate.config import price_settings, settings
from opencode_gate.core import errors
from opencode_gate.core.errors import CODES, GateError

ROOT = Path(__file__).parent.parent
TARGET = ROOT / "docs" / "reference"
_NOTE = "<!-- Made by scripts/build_docs.py; change the code, not this page. -->\n"


def commands_page() -> str:
    """Every command with its own help."""
    nodes = list(tree().walk())
    sections = [_command_section(node) for node in nodes]
    return (
        f"# Commands\n\n{_NOTE}\n"
        "`ogate --version` prints the version. `--debug` before `--` on any line adds the\n"
        "traceback to an error. What stands behind the first `--` reaches Opencode as it is.\n"
        '`--json` prints one document with `"version": 1`, and nothing else on stdout.\n\n'
        + "\n".join(sections)
    )


def _command_section(node: Node) -> str:
    title = " ".join(("ogate", *node.path))
    text = "\n".join(line.rstrip() for line in node.text.splitlines())
    return f"{'#' * min(4, 2 + len(node.path) // 2)} {title}\n\n```\n{text}\n```\n"


def errors_page() -> str:
    """Every error code, what it means, and the exit status of the commands that end with it."""
    statuses = _statuses()
    rows = [
        f"| `{code}` | {meaning} | {', '.join(map(str, sorted(statuses.get(code, ()))))} |"
        for code, meaning in sorted(CODES.items())
    ]
    return (
        f"# Errors\n\n{_NOTE}\n"
        "An error is printed on stderr with its code in brackets, where ogate looked, and what\n"
        "to do next:\n\n"
        "```\nerror: no credential for anthropic  [missing-credential]\n"
        '  ogate looked in the OS keyring (service "ogate"), ANTHROPIC_API_KEY and '
        "Opencode's auth.json.\n"
        "  hint: ogate keys add anthropic\n```\n\n"
        "The gateway uses the same codes towards Opencode, in the error shape of the client's own\n"
        "format. `ogate run` returns 125 instead of 1 and 3 to 8 when Opencode was not started.\n\n"
        "| code | meaning | exit status |\n| --- | --- | --- |\n" + "\n".join(rows) + "\n"
    )


def _statuses() -> dict[str, set[int]]:
    """Per code, the exit statuses of the error classes it is raised with, read from the source."""
    classes = {
        name: found.exit_code
        for name, found in inspect.getmembers(errors, inspect.isclass)
        if issubclass(found, GateError) and found is not GateError
    }
    statuses: dict[str, set[int]] = {}
    for file in sorted((ROOT / "opencode_gate").rglob("*.py")):
        for name, code in _raised(ast.parse(file.read_text(encoding="utf-8"))):
            if name in classes and code in CODES:
                statuses.setdefault(code, set()).add(classes[name])
    return statuses


def _raised(module: ast.Module) -> Iterator[tuple[str, str]]:
    for call in ast.walk(module):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.args:
            first = call.args[0]
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield call.func.id, first.value


def statuses_page() -> str:
    """Every exit status."""
    rows = [f"| {status.value} | {_cell(text)} |" for status, text in sorted(MEANINGS.items())]
    return (
        f"# Exit statuses\n\n{_NOTE}\n"
        "Once Opencode runs, `ogate run` ends with Opencode's own status (128 + n when signal n\n"
        "ended it). Everything else ends with one of these:\n\n"
        "| status | meaning |\n| --- | --- |\n" + "\n".join(rows) + "\n"
    )


def settings_page() -> str:
    """Every key of `config.toml`, from the docstrings of the settings."""
    sections = [
        ("[run]", settings.RunSettings),
        ("[catalog]", settings.CatalogSettings),
        ("[pricing]", settings.PricingSettings),
        ("[ledger]", settings.LedgerSettings),
        ("[runaway]", settings.RunawaySettings),
        ("[providers.ID]", settings.ProviderSettings),
        ("[providers.ID.models.MODEL]", settings.ModelSettings),
        ('[prices."PROVIDER/MODEL"]', price_settings.PriceSettings),
        ('[[prices."PROVIDER/MODEL".tiers]]', price_settings.PriceTierSettings),
    ]
    names = ", ".join(f"`[{name}]`" for name in settings.ENVIRONMENT_SECTIONS)
    return (
        f"# Settings\n\n{_NOTE}\n"
        "`ogate config path` says where `config.toml` lies, `ogate config edit` opens it. A flag\n"
        f"beats a variable, a variable beats the file. A key of {names} is also\n"
        "read from `OGATE_<SECTION>_<KEY>` (`OGATE_RUN_SUMMARY=off`). Unknown keys are refused.\n\n"
        + "\n".join(_settings_section(title, found) for title, found in sections)
    )


def _settings_section(title: str, found: type) -> str:
    summary, _, attributes = inspect.cleandoc(found.__doc__ or "").partition("\n\nAttributes:\n")
    meanings = {
        name: _cell(text)
        for name, text in re.findall(
            r"^    (\w+): (.*?)(?=^    \w+: |\Z)", attributes, re.MULTILINE | re.DOTALL
        )
    }
    rows = [
        f"| `{field.name}` | {_default(field)} | {meanings[field.name]} |"
        for field in msgspec.structs.fields(found)
    ]
    head = "| key | default | meaning |\n| --- | --- | --- |\n"
    return f"## `{title}`\n\n{summary}\n\n{head}" + "\n".join(rows) + "\n"


def _default(field: msgspec.structs.FieldInfo) -> str:
    value = field.default
    if value is msgspec.NODEFAULT or value in (None, ()) or isinstance(value, Mapping):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f'`"{value}"`' if isinstance(value, str) else f"`{value}`"


def _cell(text: str) -> str:
    """One line in which a `|` does not end the cell, not even between backticks."""
    return " ".join(text.split()).replace("|", "\\|")


PAGES: dict[str, Callable[[], str]] = {
    "cli.md": commands_page,
    "errors.md": errors_page,
    "exit-status.md": statuses_page,
    "config.md": settings_page,
}


def main() -> int:
    """Writes the pages, or with `--check` says whether they are what would be written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    check = parser.parse_args().check
    stale = 0
    for name, page in PAGES.items():
        file, text = TARGET / name, page()
        if file.exists() and file.read_text(encoding="utf-8") == text:
            continue
        stale += 1
        print(f"docs/reference/{name} {'is not what the code makes' if check else 'written'}")
        if not check:
            TARGET.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
