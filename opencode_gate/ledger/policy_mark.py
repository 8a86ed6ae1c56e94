"""A number beside the ledger that says to all processes at once that a rule has changed.

SQLite says so too, but for every asking it takes and drops locks on files; this is one read of
memory that processes share (docs/decisions/0017-a-mark-of-the-rules-in-shared-memory.md). The
idea: who changes the rules makes the number odd before the change is committed, and afterwards,
with the ledger's write lock, even and higher than ever. So a number that is even, and the same as
when the rules were read, means that they hold. The invariant: whoever dies in between leaves it
odd, which means that the ledger has to be asked. The number means nothing from one start to the
next, and a file that is lost is made anew.
"""

import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

UNMARKED: Final[Sequence[int]] = (1,)
"""Where there is no such number: the ledger has always to be asked."""

_BYTES = 8
_MOST = (1 << 64) - 1


def mark_file(ledger_file: Path) -> Path:
    """Where the number of a ledger is."""
    return ledger_file.with_suffix(".policy-mark")


class PolicyMark:
    """The number of one ledger, made if there is none; `numbers` has it alone, always as it is now.

    Raises:
        OSError: its file cannot be made or mapped.
    """

    __slots__ = ("numbers",)

    def __init__(self, ledger_file: Path) -> None:
        flags = os.O_CREAT | os.O_RDWR | os.O_APPEND | getattr(os, "O_BINARY", 0)
        descriptor = os.open(mark_file(ledger_file), flags, 0o600)
        try:
            if os.fstat(descriptor).st_size < _BYTES:
                # Behind what another process may have put there meanwhile, never over it.
                os.write(descriptor, bytes(_BYTES))
            self.numbers = memoryview(mmap.mmap(descriptor, _BYTES)).cast("Q")
        finally:
            os.close(descriptor)

    def changing(self) -> None:
        """Before a change of rules is committed, with the ledger's write lock."""
        self.numbers[0] |= 1

    def changed(self) -> None:
        """After it is committed or not, with the ledger's write lock."""
        self.numbers[0] = ((self.numbers[0] | 1) + 1) & _MOST
