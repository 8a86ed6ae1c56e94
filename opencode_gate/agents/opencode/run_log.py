"""Which conversations one process of Opencode had, by its own log.

Opencode's database does not say which process wrote a row, and a second Opencode in the same
folder looks the same there. Its log does: each line names the run, and one of the first names
the configuration file it loaded, which lies in a folder that only this session has. The
invariant: a log that is absent, off, or of another form gives `None`.
"""

import re
from pathlib import Path
from typing import Final

_RUN: Final = re.compile(rb"\brun=(\w+)")
_CONVERSATION: Final = re.compile(rb"\b(?:session\.id|sessionID|id)=(ses_\w+)")
_MOST_READ_BYTES: Final = 32 * 1024 * 1024
"""Only the end of a longer log is read: some hours of work."""


def conversations_of_run(data_folder: Path, config_folder: str) -> frozenset[str] | None:
    """The conversations of the run that loaded its configuration from `config_folder`.

    `config_folder` is the last part of that folder's path, `data_folder` Opencode's own.
    """
    mark = re.compile(rb"\bpath=\S*[/\\]" + re.escape(config_folder.encode()) + rb"[/\\]")
    try:
        lines = _end_of(data_folder / "log" / "opencode.log").splitlines()
    except OSError:
        return None
    runs = {run for line in lines if mark.search(line) and (run := _run_of(line)) is not None}
    if not runs:
        return None
    return frozenset(
        found.decode("ascii", "replace")
        for line in lines
        if _run_of(line) in runs
        for found in _CONVERSATION.findall(line)
    )


def _run_of(line: bytes) -> bytes | None:
    found = _RUN.search(line)
    return None if found is None else found[1]


def _end_of(file: Path) -> bytes:
    with file.open("rb") as opened:
        size = opened.seek(0, 2)
        opened.seek(max(0, size - _MOST_READ_BYTES))
        return opened.read()
