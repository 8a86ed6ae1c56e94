"""`ogate run` as a process, with a stand-in for Opencode on its PATH."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from opencode_gate.config.paths import paths
from opencode_gate.ledger.records import ExchangeRecord, SessionRecord
from opencode_gate.ledger.sqlite import open_store

STUB = Path(__file__).with_name("stub_opencode.py")


@dataclass(frozen=True)
class Ledger:
    """What a finished run left."""

    session: SessionRecord
    exchanges: list[ExchangeRecord]


def ledger() -> Ledger:
    """The last session and its exchanges."""
    store = open_store(paths().ledger_file)
    try:
        session = store.session("last")
        return Ledger(session, store.exchanges(session.id))
    finally:
        store.close()


def install_stub(folder: Path, target: Path = STUB) -> Path:
    """Puts an `opencode` on a PATH folder."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "opencode"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{target}" "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    return program


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    """The test's own environment with the stand-in first on PATH."""
    program = install_stub(tmp_path / "bin")
    return {
        **os.environ,
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "PWD": str(tmp_path / "project"),
        **more,
    }


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "opencode_gate.cli.main", *arguments]


def run(
    tmp_path: Path, *arguments: str, stdin: str | None = None, **more: str
) -> subprocess.CompletedProcess[str]:
    """Runs `ogate` to its end in a project folder."""
    folder = tmp_path / "project"
    folder.mkdir(exist_ok=True)
    return subprocess.run(
        command(*arguments),
        cwd=folder,
        env=environment(tmp_path, **more),
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@contextlib.contextmanager
def started(tmp_path: Path, *arguments: str, **more: str) -> Iterator[subprocess.Popen[str]]:
    """`ogate` while it runs, in a process group of its own; nothing survives the block."""
    folder = tmp_path / "project"
    folder.mkdir(exist_ok=True)
    process = subprocess.Popen(
        command(*arguments),
        cwd=folder,
        env=environment(tmp_path, **more),
        stdin=subprocess.PIPE,
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


def children_of(pid: int) -> list[int]:
    """The direct children of a process, whichever of its threads started them."""
    lists = [
        (thread / "children").read_text(encoding="ascii")
        for thread in Path(f"/proc/{pid}/task").iterdir()
    ]
    return [int(child) for listed in lists for child in listed.split()]


def gateway_of(launcher_pid: int) -> int:
    """The gateway process of a running launcher."""
    for child in children_of(launcher_pid):
        if b"opencode_gate.server" in Path(f"/proc/{child}/cmdline").read_bytes():
            return child
    raise AssertionError(f"process {launcher_pid} has no gateway")


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
