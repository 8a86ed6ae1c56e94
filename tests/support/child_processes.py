"""A module of the tests run as a process of its own, to be talked to and killed."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE, Popen

ROOT = Path(__file__).parents[2]


@contextmanager
def process_of(module: str, *arguments: object) -> Iterator[Popen[bytes]]:
    """A process of a module, ended for certain at the end."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    with Popen(command, stdin=PIPE, stdout=PIPE, cwd=ROOT) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def hang_ups_ignored() -> Iterator[None]:
    """Children that are started inside the block begin with SIGHUP ignored, as under `nohup`."""
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, former)


def say(*words: object) -> None:
    """A line to whoever started this process, at once."""
    print(*words, flush=True)
