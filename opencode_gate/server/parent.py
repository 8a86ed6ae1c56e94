"""The conversation with the launcher, over the standard streams of this process.

The invariant: stdout carries messages of `protocol` and nothing else; whatever a library prints
goes to stderr, which is a log in the run folder.
"""

import contextlib
import os
import sys
from typing import Any

from opencode_gate.server.protocol import packed, unpacked

_CHUNK = 65536


class Parent:
    """Reads the launcher's messages without buffering beyond this object, and answers."""

    __slots__ = ("_down", "_pending", "_up")

    def __init__(self) -> None:
        self._down = os.dup(sys.stdin.fileno())
        self._up = os.dup(sys.stdout.fileno())
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        self._pending = b""

    def hear(self) -> Any:
        """The next message; `None` when the launcher is gone. Blocks."""
        while b"\n" not in self._pending:
            chunk = os.read(self._down, _CHUNK)
            if not chunk:
                return None
            self._pending += chunk
        line, _, self._pending = self._pending.partition(b"\n")
        return unpacked(line)

    def say(self, message: object) -> None:
        """One message up; if the launcher is gone there is nobody to tell."""
        with contextlib.suppress(OSError):
            os.write(self._up, packed(message))
