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
_MOST_READ_BYTES: Final = 32 * 1024 * 1024
"""Only the end of a longer log is read: some hours of work."""


def conversations_of_run(data_folder: Path, config_folder: str) -> frozenset[str] | None:
    """The conversations of the run that loaded its configuration from `config_folder`.

    `config_folder` is the last part of that folder's path, `data_folder` Opencode's own.
    """
    name = config_folder.encode()
    found: set[bytes] = set()
    is_known = False
    for log in _logs(data_folder / "log"):
        marks = _lines_with(name, log)
        if not marks:
            continue
        is_known = True
        runs = {run[1] for line in marks if (run := _RUN.search(line)) is not None}
        # Early versions write a file for each run, and its lines name none.
        line_of_run = rb"\brun=(?:" + rb"|".join(runs) + rb")\b[^\n]*?" if runs else b""
        found.update(re.findall(line_of_run + rb"\b(ses_\w+)", log))
    if not is_known:
        return None
    return frozenset(conversation.decode("ascii", "replace") for conversation in found)


def _lines_with(config_folder: bytes, log: bytes) -> list[bytes]:
    """The lines that say that a configuration was loaded from this folder."""
    mark = re.compile(rb"\bpath=.*[/\\]" + re.escape(config_folder) + rb"[/\\]")
    lines = []
    at = log.find(config_folder)
    while at >= 0:
        end = log.find(b"\n", at)
        end = len(log) if end < 0 else end
        line = log[log.rfind(b"\n", 0, at) + 1 : end]
        if mark.search(line):
            lines.append(line)
        at = log.find(config_folder, end)
    return lines


def _logs(folder: Path) -> Iterator[bytes]:
    """Each log that can be read."""
    for file in sorted(folder.glob("*.log")):
        try:
            yield _end_of(file)
        except OSError:
            continue


def _end_of(file: Path) -> bytes:
    with file.open("rb") as opened:
        size = opened.seek(0, 2)
        opened.seek(max(0, size - _MOST_READ_BYTES))
        return opened.read()
