"""The time until a program that takes over the screen has drawn a text on it.

The program gets a terminal of its own (a pseudo-terminal) that answers the questions programs ask
terminals, so that none of them waits for an answer in vain. POSIX only.
"""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

PATIENCE_S = 60.0
_COLUMNS, _ROWS = 120, 40
_CONTROLS = re.compile(
    rb"\x1b(?:\][^\x07\x1b]*(?:\x07|\x1b\\)|[P_^][^\x1b]*\x1b\\|\[[0-?]*[ -/]*[@-~]|.)"
)
_ANSWERS = {
    b"\x1b[c": b"\x1b[?62;22c",
    b"\x1b[0c": b"\x1b[?62;22c",
    b"\x1b[6n": b"\x1b[1;1R",
    b"\x1b[5n": b"\x1b[0n",
    b"\x1b[?u": b"\x1b[?0u",
    b"\x1b[14t": b"\x1b[4;800;1200t",
    b"\x1b]10;?\x07": b"\x1b]10;rgb:ffff/ffff/ffff\x07",
    b"\x1b]11;?\x07": b"\x1b]11;rgb:0000/0000/0000\x07",
    b"\x1b]4;0;?\x07": b"\x1b]4;0;rgb:0000/0000/0000\x07",
}
"""What a plain xterm says to the questions: what are you, where is the cursor, which colours."""


def time_until_drawn(
    command: Sequence[str], environ: Mapping[str, str], folder: Path, text: str
) -> float:
    """Seconds from the execution of `command` until `text` has been written to its screen.

    The program is then ended as by closing its window.

    Raises:
        SystemExit: it ended before, or took longer than a minute.
    """
    started_s = time.perf_counter()
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, _COLUMNS, 0, 0))
        os.execvpe(command[0], list(command), {**environ, "TERM": "xterm-256color"})
    try:
        seen = b""
        while text.encode() not in _CONTROLS.sub(b"", seen):
            left_s = started_s + PATIENCE_S - time.perf_counter()
            if left_s <= 0 or not select.select([terminal], [], [], left_s)[0]:
                raise SystemExit(f"{command} drew no {text!r}: {seen[-500:]!r}")
            try:
                part = os.read(terminal, 65_536)
            except OSError as error:
                raise SystemExit(f"{command} ended: {seen[-500:]!r}") from error
            seen += part
            for question, answer in _ANSWERS.items():
                if question in part:
                    os.write(terminal, answer)
        return time.perf_counter() - started_s
    finally:
        _end(pid, terminal)


def _end(pid: int, terminal: int) -> None:
    """Hangs up, and waits until all of it is gone, so that the next one has the machine alone."""
    os.kill(pid, signal.SIGHUP)
    give_up_s = time.perf_counter() + 10.0
    while True:
        # Somebody has to read what is still written, or the writer waits for ever.
        if select.select([terminal], [], [], 0.02)[0]:
            try:
                os.read(terminal, 65_536)
            except OSError:
                break
        if time.perf_counter() > give_up_s:
            os.kill(pid, signal.SIGKILL)
            break
    os.close(terminal)
    os.waitpid(pid, 0)
