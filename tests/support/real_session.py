"""A person with a home and a project who uses `ogate` with the real Opencode.

The test's own environment has been emptied by then (see the root `conftest`); `HOME` and
`OGATE_HOME` are the test's.
"""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from opencode_gate.core.semconv import ExchangeStatus, Operation
from opencode_gate.ledger.records import ExchangeRecord
from tests.support.launcher import children_of, ledger
from tests.support.real_opencode import opencode_program

PATIENCE_S = 60.0
RUN_TIMEOUT_S = 100.0
_PATH = os.environ.get("PATH", os.defpath)
_MARK = "OGATES_TEST_PERSON"
"""Tells the processes a person has started from all others."""


@dataclass(slots=True)
class Person:
    """Someone at a terminal, in a project folder."""

    root: Path
    environ: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for folder in (self.project, self.temporary):
            folder.mkdir()
        (self.project / "notes.txt").write_text("Buy milk.\n", encoding="utf-8")

    @property
    def home(self) -> Path:
        return Path(os.environ["HOME"])

    @property
    def project(self) -> Path:
        return self.root / "project"

    @property
    def temporary(self) -> Path:
        return self.root / "tmp"

    @property
    def auth_file(self) -> Path:
        return self.home / ".local/share/opencode/auth.json"

    @property
    def opencode_config(self) -> Path:
        return self.home / ".config/opencode/opencode.json"

    def write(self, file: Path, value: object) -> Path:
        """A file with `value` as JSON, or as it is if it is text."""
        file.parent.mkdir(parents=True, exist_ok=True)
        text = value if isinstance(value, str) else json.dumps(value)
        file.write_text(text, encoding="utf-8")
        return file

    def shell_environ(self, **more: str) -> dict[str, str]:
        """What this person's shell exports: both programs on PATH, and nothing that phones home."""
        programs = self.root / "programs"
        if not programs.exists():
            programs.mkdir()
            (programs / "opencode").symlink_to(Path(opencode_program()).resolve())
            ogate = programs / "ogate"
            ogate.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m opencode_gate.cli.main "$@"\n')
            ogate.chmod(0o755)
        return {
            **os.environ,
            "PATH": f"{programs}:{_PATH}",
            "PWD": str(self.project),
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "TMPDIR": str(self.temporary),
            _MARK: str(self.root),
            "OGATE_CATALOG_REFRESH": "false",
            "OPENCODE_DISABLE_AUTOUPDATE": "1",
            "OPENCODE_DISABLE_MODELS_FETCH": "1",
            "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
            "NPM_CONFIG_OFFLINE": "true",
            **self.environ,
            **more,
        }

    def call(
        self, *command: str, stdin: str | None = None, timeout_s: float = RUN_TIMEOUT_S, **more: str
    ) -> subprocess.CompletedProcess[str]:
        """Runs a program to its end in the project."""
        return subprocess.run(
            command,
            cwd=self.project,
            env=self.shell_environ(**more),
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def ogate(
        self, *arguments: str, stdin: str | None = None, **more: str
    ) -> subprocess.CompletedProcess[str]:
        return self.call(
            sys.executable, "-m", "opencode_gate.cli.main", *arguments, stdin=stdin, **more
        )

    def configure(self, *arguments: str) -> None:
        """An `ogate` command that has to succeed."""
        done = self.ogate(*arguments)
        assert done.returncode == 0, done.stderr

    def add_server(self, provider_id: str, wire: str, base_url: str, *models: str) -> None:
        """Tells `ogate` of a server without a key."""
        listed = [word for model in models for word in ("--model", model)]
        self.configure(
            *("providers", "add", provider_id, "--base-url", base_url, "--wire", wire),
            *("--no-key", *listed),
        )

    def prompt(
        self, text: str, *options: str, model: str | None = None, **more: str
    ) -> subprocess.CompletedProcess[str]:
        """`ogate run -- run TEXT`, never asking."""
        chosen = () if model is None else ("-m", model)
        return self.ogate("run", "--no-input", "--", "run", *chosen, *options, text, **more)

    @contextlib.contextmanager
    def started(self, *arguments: str, **more: str) -> Iterator[subprocess.Popen[str]]:
        """`ogate` while it runs; nothing of its process group survives the block."""
        process = subprocess.Popen(
            [sys.executable, "-m", "opencode_gate.cli.main", *arguments],
            cwd=self.project,
            env=self.shell_environ(**more),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def process_ids_of(person: Person) -> list[int]:
    """Every process that person's commands have started and that is still there."""
    mark = f"{_MARK}={person.root}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdigit() and mark in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


def command_line(pid: int) -> str:
    """A process's arguments; empty once it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def generations() -> list[ExchangeRecord]:
    """The generation calls of the last session that were not refused, oldest first."""
    return [
        record
        for record in ledger().exchanges
        if record.operation is Operation.GENERATE and record.status is not ExchangeStatus.DENIED
    ]


def until(condition: Callable[[], object], what: str = "it") -> None:
    """Waits for something another process does."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.05)


def launcher_in(shell_pid: int) -> int:
    """The `ogate run` that a shell is running."""
    for child in children_of(shell_pid):
        if b"opencode_gate.cli.main" in Path(f"/proc/{child}/cmdline").read_bytes():
            return child
    raise AssertionError(f"shell {shell_pid} runs no ogate")


def opencode_of(launcher_pid: int) -> int:
    """The Opencode process of a running launcher."""
    for child in children_of(launcher_pid):
        if b"opencode_gate.server" not in Path(f"/proc/{child}/cmdline").read_bytes():
            return child
    raise AssertionError(f"process {launcher_pid} has no agent")


def query(database: Path, sql: str) -> list[tuple[object, ...]]:
    """Rows of a SQLite file that others may have open."""
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return connection.execute(sql).fetchall()
