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
from collections.abc import Iterable
from pathlib import Path

import pytest

from opencode_gate.cli import registry
from tests.support import launcher

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


# How many modules each moment of a session has loaded, Python's own included, with a little room
# for what another Python version splits up. A number is raised only together with the reason.
MOST_UNTIL_THE_AGENT = 214
MOST_OF_OURS_UNTIL_THE_AGENT = 90
MOST_AFTER_THE_AGENT = 0
MOST_OF_A_GATEWAY = 365
MOST_OF_A_FOLDING_CHILD = 205

_PARSERS = {"argparse", "click", "dataclasses", "inspect", "rich", "typer", "typing_extensions"}
_UNTIL_THE_AGENT = {
    *_HEAVY,
    *_PARSERS,
    "hashlib",
    "logging",
    "opencode_gate.catalog.prices",
    "opencode_gate.credentials.vault",
    "opencode_gate.gateway",
    "opencode_gate.governance",
    "opencode_gate.session.summary",
    "opencode_gate.wire",
    "tomllib",
    "zipfile",
    "zoneinfo",
}
_IN_NO_GATEWAY = {
    "genai_prices",
    "httpx",
    "keyring",
    "opencode_gate.cli",
    "opencode_gate.session",
    "prompt_toolkit",
    "pydantic",
    "questionary",
    "rich",
    "tomlkit",
    "typer",
    "uvicorn",
}

_SESSION = """
import json, subprocess, sys, threading
from opencode_gate.cli.main import main
moments = {}

class Watched(subprocess.Popen):
    def __init__(self, command, **options):
        self.is_agent = "opencode_gate.server" not in command
        if self.is_agent:
            moments["agent"] = sorted(sys.modules)
        super().__init__(command, **options)

    def wait(self, timeout=None):
        status = super().wait(timeout)
        if self.is_agent:
            for one in threading.enumerate():
                if one.name == "meanwhile":
                    one.join()
            moments["ended"] = sorted(sys.modules)
        return status

subprocess.Popen = Watched
moments["status"] = main(sys.argv[1:])
moments["all"] = sorted(sys.modules)
sys.stdout.write("\\n" + json.dumps(moments))
"""

_NOTES = """
import os, sys
_file = open(os.path.join(os.environ["IMPORTS"], str(os.getpid())), "w", buffering=1)
_file.write(" ".join(sys.orig_argv) + "\\n")
sys.addaudithook(lambda event, of: _file.write(of[0] + "\\n") if event == "import" else None)
"""


def _packages(names: Iterable[str]) -> set[str]:
    """The modules, and the packages they are in."""
    return {
        ".".join(parts[:end])
        for parts in (name.split(".") for name in names)
        for end in range(1, len(parts) + 1)
    }


@pytest.fixture
def moments(tmp_path: Path) -> dict[str, set[str]]:
    """What a session has loaded: when its agent starts, when that has ended, and at its own end."""
    program = launcher.install_stub(tmp_path / "stub")
    line = ["run", "--no-input", "--provider", "practice", "--", "run", "hello"]
    done = subprocess.run(
        [sys.executable, "-c", _SESSION, *line],
        env={**os.environ, "OGATE_RUN_AGENT_PATH": str(program), "PYTHONPATH": ""},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.pop("status") == 0, done.stderr
    return {moment: set(names) for moment, names in found.items()}


def test_a_session_loads_little_until_its_agent_starts(moments) -> None:
    """A person waits for all of it."""
    loaded = moments["agent"]
    assert sorted(loaded & _UNTIL_THE_AGENT) == []
    assert len(loaded) <= MOST_UNTIL_THE_AGENT
    ours = [name for name in loaded if name.startswith("opencode_gate")]
    assert len(ours) <= MOST_OF_OURS_UNTIL_THE_AGENT


def test_the_end_of_a_session_has_its_modules_ready(moments) -> None:
    """They are loaded while the agent runs, and nothing that only a terminal needs."""
    assert len(moments["all"] - moments["ended"]) <= MOST_AFTER_THE_AGENT
    assert sorted(moments["all"] & {"rich", "typer", *_NETWORK}) == []


def test_a_gateway_and_its_folding_child_load_nothing_of_the_command_line(tmp_path) -> None:
    """Both are started with every session; its first request waits for the first of them."""
    notes = tmp_path / "notes"
    notes.mkdir()
    (tmp_path / "sitecustomize.py").write_text(_NOTES, encoding="utf-8")
    done = launcher.run(
        tmp_path,
        *("run", "--no-input", "--provider", "practice", "--", "run", "ask"),
        IMPORTS=str(notes),
        PYTHONPATH=f"{tmp_path}{os.pathsep}{Path(__file__).parents[2]}",
    )
    assert done.returncode == 0, done.stderr
    (gateway,) = _noted(notes, "opencode_gate.server")
    (child,) = _noted(notes, "fold")
    assert sorted(_packages(gateway) & _IN_NO_GATEWAY) == []
    assert len(gateway) <= MOST_OF_A_GATEWAY
    assert sorted(_packages(child) & {*_IN_NO_GATEWAY, "asyncio", "httptools", "uvloop"}) == []
    assert len(child) <= MOST_OF_A_FOLDING_CHILD


def _noted(folder: Path, last_word: str) -> list[set[str]]:
    """What the processes have imported whose command line ends so."""
    files = [file.read_text(encoding="utf-8").splitlines() for file in folder.iterdir()]
    return [set(names[1:]) for names in files if names[0].split()[-1] == last_word]
