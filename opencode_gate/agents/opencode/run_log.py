"""Which conversations one process of Opencode had, by its own log.

Opencode's database does not say which process wrote a row, and a second Opencode in the same
folder looks the same there. Its log does: each line names the run, and one of the first names
the configuration file it loaded, which lies in a folder that only this session has. The
invariant: a log that is absent, off, or of another form gives `None`.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_RUN: Final = re.compile(rb"\brun=(\w+)")
_CONVERSATION: Final = re.compile(rb"\bses_\w+")
_MOST_READ_BYTES: Final = 32 * 1024 * 1024
"""Only the end of a longer log is read: some hours of work."""


def conversations_of_run(data_folder: Path, config_folder: str) -> frozenset[str] | None:
    """The conversations of the run that loaded its configuration from `config_folder`.

    `config_folder` is the last part of that folder's path, `data_folder` Opencode's own.
    """
    mark = re.compile(rb"\bpath=\S*[/\\]" + re.escape(config_folder.encode()) + rb"[/\\]")
    found: set[bytes] = set()
    is_known = False
    for lines in _logs(data_folder / "log"):
        # Early versions write a file for each run, and its lines name none.
        runs = {_run_of(line) for line in lines if mark.search(line)}
        is_known = is_known or bool(runs)
        for line in lines:
            if _run_of(line) in runs:
                found.update(_CONVERSATION.findall(line))
    if not is_known:
        return None
    return frozenset(name.decode("ascii", "replace") for name in found)


def _logs(folder: Path) -> Iterator[list[bytes]]:
    """The lines of each log that can be read."""
    for file in sorted(folder.glob("*.log")):
        try:
            yield _end_of(file).splitlines()
        except OSError:
            continue


def _run_of(line: bytes) -> bytes | None:
    found = _RUN.search(line)
    return None if found is None else found[1]


def _end_of(file: Path) -> bytes:
    with file.open("rb") as opened:
        size = opened.seek(0, 2)
        opened.seek(max(0, size - _MOST_READ_BYTES))
        return opened.read()
