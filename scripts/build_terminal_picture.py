#!/usr/bin/env python3
"""Draws docs/images/session.svg: a real session with the practice provider, as a terminal shows it.

Everything in the picture is real output: `ogate` and Opencode run in a terminal (tmux) with a
home of their own, the screen is read back with its colours, and rich draws it. Needs tmux, and
`ogate` and `opencode` on the PATH (or beside this Python, and in $OGATE_TEST_OPENCODE). Run it
when the summary's look has changed; the picture is not compared in the checks because times
and ids differ.

The invariant: nothing of this machine is in the picture; a folder or user name that slipped in
is an error.
"""

import argparse
import getpass
import io
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
COMMAND = 'ogate run --provider practice -- run "hello"'
COLUMNS, ROWS = 92, 60
"""At this width no word of the scripted answer is broken at the edge."""
PATIENCE_S = 120.0
SHOWN_HOME = "/home/you"


def main() -> int:
    """Runs the session and writes the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=REPOSITORY / "docs/images/session.svg")
    output: Path = parser.parse_args().output
    with tempfile.TemporaryDirectory(prefix="og", ignore_cleanup_errors=True) as scratch:
        screen = record(Path(scratch))
        screen = screen.replace(f"{scratch}/home", SHOWN_HOME)
        refuse_machine_names(screen, scratch)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(drawn(screen), encoding="utf-8")
    print(f"wrote {output.name}")
    return 0


def record(scratch: Path) -> str:
    """The screen with its colour codes after the command has ended."""
    home = scratch / "home"
    project = home / "my-repo"
    project.mkdir(parents=True)
    subprocess.run(["git", "init", "--quiet", "--initial-branch=main", project], check=True)
    environ = clean_environment(home)
    # The first start in a home sets up a database and says so; that is not a day of work.
    subprocess.run(
        ["ogate", "run", "--provider", "practice", "--", "run", "hello"],
        cwd=project, env=environ, check=True, capture_output=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    tmux = ["tmux", "-S", str(scratch / "tmux"), "-f", "/dev/null"]
    shell = ["env", r"PS1=\[\e[1;32m\]$\[\e[0m\] ", "bash", "--norc", "--noprofile"]
    size = ["-x", str(COLUMNS), "-y", str(ROWS)]
    subprocess.run(
        [*tmux, "new-session", "-d", *size, *shell], cwd=project, env=environ, check=True
    )
    try:
        wait_until(lambda: captured(tmux).strip() == "$")
        subprocess.run([*tmux, "send-keys", "-l", COMMAND], check=True)
        subprocess.run([*tmux, "send-keys", "Enter"], check=True)
        wait_until(lambda: captured(tmux).count("\n$") == 1)
        return captured(tmux, "-e").rstrip().rpartition("\n")[0].rstrip()
    finally:
        subprocess.run([*tmux, "kill-server"], check=False)


def clean_environment(home: Path) -> dict[str, str]:
    """Nothing of the user's but the PATH: no keys, no settings, no proxy."""
    beside = [Path(sys.executable).parent]
    if opencode := os.environ.get("OGATE_TEST_OPENCODE"):
        beside.append(Path(opencode).parent)
    path = os.pathsep.join([*map(str, beside), os.environ["PATH"]])
    for program in ("ogate", "opencode", "tmux", "git"):
        if shutil.which(program, path=path) is None:
            raise SystemExit(f"{program} is not on the PATH")
    return {
        "HOME": str(home),
        "PATH": path,
        "TERM": "xterm-256color",
        "COLORTERM": "truecolor",
        "LC_ALL": "C.UTF-8",
    }


def captured(tmux: list[str], *options: str) -> str:
    """What stands on the screen."""
    command = [*tmux, "capture-pane", "-p", *options]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def wait_until(holds: Callable[[], bool]) -> None:
    """Waits for the screen to look as expected."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        if time.monotonic() > deadline:
            raise SystemExit("the session did not end in time")
        time.sleep(0.1)


def refuse_machine_names(screen: str, scratch: str) -> None:
    """Stops where the screen names this machine."""
    names = {scratch, str(REPOSITORY), str(Path.home()), socket.gethostname(), getpass.getuser()}
    for name in names - {"/", ""}:
        if re.search(rf"(?<![\w/]){re.escape(name)}(?!\w)", screen):
            raise SystemExit(f"the picture would show {name!r}")


def drawn(screen: str) -> str:
    """The screen as SVG."""
    from rich.console import Console
    from rich.text import Text

    console = Console(
        record=True,
        width=COLUMNS,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
        legacy_windows=False,
    )
    console.print(Text.from_ansi(screen), soft_wrap=True)
    picture = console.export_svg(title="~/my-repo", unique_id="session")
    # No font is fetched from anywhere: the reader's own monospace font is used.
    picture = re.sub(r"\s*@font-face \{.*?\}", "", picture, flags=re.DOTALL)
    picture = picture.replace("Fira Code", "ui-monospace, Menlo, Consolas, DejaVu Sans Mono")
    return "\n".join(line.rstrip() for line in picture.splitlines()) + "\n"


if __name__ == "__main__":
    sys.exit(main())
