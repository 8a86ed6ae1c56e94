"""What a start of `ogate` may load, by line of the command line.

Please read: start-up time is lost one innocent import at a time. A module-level import, an
annotation that is not under `TYPE_CHECKING`, or a default value is enough to load a library of
100 ms for everybody who only presses Tab. If a test here fails, move the new import into the
function that needs it; do not add the module to the allowed ones.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from opencode_gate.cli import registry

_NETWORK = {"asyncio", "httpcore", "httptools", "httpx", "ssl", "uvloop"}
_HEAVY = {
    *_NETWORK,
    "cryptography",
    "genai_prices",
    "importlib.metadata",
    "keyring",
    "prompt_toolkit",
    "pydantic",
    "questionary",
    "tomlkit",
    "truststore",
}
_ALL_COMMANDS = {entry.module for entry in registry.COMMANDS.values()}

LINES = [
    # The version and the completion of values never see Typer.
    (["--version"], {*_HEAVY, *_ALL_COMMANDS, "rich", "typer", "sqlite3", "dataclasses"}),
    (
        ["__complete", "model", "an"],
        {*_HEAVY, *_ALL_COMMANDS, "rich", "typer", "sqlite3", "opencode_gate.catalog"},
    ),
    # Help of the whole program imports no command.
    (["--help"], {*_HEAVY, *_ALL_COMMANDS, "rich", "sqlite3", "platformdirs"}),
    (
        ["run", "--help"],
        {
            *_HEAVY,
            *(_ALL_COMMANDS - {registry.COMMANDS["run"].module}),
            "rich",
            "sqlite3",
            "opencode_gate.catalog.catalogue",
        },
    ),
    (["usage", "--help"], {*_HEAVY, "rich", "sqlite3"}),
    # A table needs Rich only on a terminal.
    (["usage", "--today"], {*_HEAVY, "rich", "opencode_gate.session", "opencode_gate.catalog"}),
    (["sessions", "list"], {*_HEAVY, "rich", "opencode_gate.catalog"}),
    (["logs", "list"], {*_HEAVY, "rich", "opencode_gate.session", "opencode_gate.catalog"}),
    (["usage", "--short"], {*_HEAVY, "rich", "opencode_gate.session", "opencode_gate.catalog"}),
    (["usage", "--today", "--json"], {*_HEAVY, "rich", "opencode_gate.catalog"}),
    (["sessions", "list", "--json"], {*_HEAVY, "rich", "opencode_gate.catalog"}),
    (["keys", "list", "--json"], _HEAVY),
]

_PROBE = """
import json, sys
from opencode_gate.cli.main import main
status = main(sys.argv[1:])
sys.stdout.flush()
print("\\n" + json.dumps({"status": status, "modules": sorted(sys.modules)}))
"""


def _loaded(line: list[str]) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", _PROBE, *line],
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["status"] == 0, done.stderr
    return set(found["modules"])


@pytest.mark.parametrize(
    ("line", "forbidden"), LINES, ids=lambda part: " ".join(part) if isinstance(part, list) else ""
)
def test_a_line_loads_nothing_it_does_not_need(line, forbidden) -> None:
    """See the module's docstring before changing anything here."""
    loaded = _loaded(line)
    assert sorted(loaded & forbidden) == []


def test_the_version_loads_next_to_nothing() -> None:
    """Only the package and the entry point, beside what Python itself loads."""
    ours = {name for name in _loaded(["--version"]) if name.startswith("opencode_gate")}
    assert ours == {"opencode_gate", "opencode_gate.cli", "opencode_gate.cli.main"}


def test_the_package_version_is_the_one_of_its_metadata() -> None:
    """It is spelled out in the package because reading the metadata costs 20 ms."""
    from importlib.metadata import version

    import opencode_gate

    assert version("opencode-gate") == opencode_gate.__version__
    assert "dynamic" in (Path(__file__).parent.parent.parent / "pyproject.toml").read_text()
