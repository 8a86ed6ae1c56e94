"""A file of numbers that several processes of one machine map, change under a lock, and share.

The idea: what many ask of before each request must be had in microseconds, so it is memory, and
a lock that costs two system calls. The file is cut into blocks of one size, each with a key. The
invariants: the kernel lets go of the lock when its holder dies; a holder that dies in the middle
of a change is seen by the next (`epoch`), who then makes good what is derived; a block that was
handed out is backed by the disk, so that a full one is an error here and no broken mapping later.
"""

import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from opencode_gate.ledger.locks import lock, unlock

WORD_BYTES = 8
_IS_CHANGING, _EPOCH, _CHANGES, _USED, _RECLAIMED = range(5)
_HEAD_WORDS = 512

Key = tuple[int, int]
"""Two words, not both 0."""


class SharedBlocks:
    """The blocks of one file. For one thread; what is read or changed, is so `with` it.

    Attributes:
        numbers: the whole file as signed 64-bit numbers; the first two of a block are its key.
        times: the same file as floating-point numbers.
    """

    __slots__ = ("_blocks", "_descriptor", "_map", "_words", "numbers", "times")

    def __init__(self, file: Path, *, words: int, blocks: int) -> None:
        """Opens the file, or makes it (0600).

        Raises:
            OSError: it cannot be made.
        """
        self._words = words
        self._blocks = blocks
        size_bytes = WORD_BYTES * (_HEAD_WORDS + words * blocks)
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
        self._descriptor = os.open(file, flags, 0o600)
        lock(self._descriptor)
        try:
            if os.fstat(self._descriptor).st_size < size_bytes:
                self._back(0, _HEAD_WORDS)
                # Holes up to the end: only what is handed out takes room.
                os.truncate(self._descriptor, size_bytes)
            self._map = mmap.mmap(self._descriptor, size_bytes)
        finally:
            unlock(self._descriptor)
        self.numbers = memoryview(self._map).cast("q")
        self.times = memoryview(self._map).cast("d")

    def __enter__(self) -> "SharedBlocks":
        """Waits until no other process is within, which takes microseconds."""
        lock(self._descriptor)
        numbers = self.numbers
        if numbers[_IS_CHANGING]:
            numbers[_EPOCH] += 1
        numbers[_IS_CHANGING] = 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Lets others in; what failed half-way is for the next to make good."""
        if kind is None:
            self.numbers[_IS_CHANGING] = 0
        unlock(self._descriptor)

    @property
    def epoch(self) -> int:
        """Differs from before if somebody has died or failed within a change since."""
        return self.numbers[_EPOCH]

    @property
    def reclaimed(self) -> int:
        """Differs from before if blocks were taken from their keys since."""
        return self.numbers[_RECLAIMED]

    @property
    def changes(self) -> int:
        """How often `tell` was called by all processes. May be asked at any time."""
        return self.numbers[_CHANGES]

    def tell(self) -> None:
        """Something has changed that others wait for."""
        self.numbers[_CHANGES] += 1

    def all(self) -> Iterator[int]:
        """Where each block begins that has a key."""
        numbers, words = self.numbers, self._words
        for at in range(_HEAD_WORDS, _HEAD_WORDS + numbers[_USED] * words, words):
            if numbers[at] or numbers[at + 1]:
                yield at

    def find(self, key: Key) -> int | None:
        """Where the block of a key begins; `None` if it has none."""
        numbers = self.numbers
        return next((at for at in self.all() if (numbers[at], numbers[at + 1]) == key), None)

    def has(self, at: int, key: Key) -> bool:
        """Whether a block is still that of a key."""
        return self.numbers[at] == key[0] and self.numbers[at + 1] == key[1]

    def hand_out(self) -> int | None:
        """A block without a key, as it was left or zero; `None` if there is no more.

        It is the caller's once its key is written, which is to be done last.

        Raises:
            OSError: the disk is full.
        """
        numbers, words = self.numbers, self._words
        used = numbers[_USED]
        for at in range(_HEAD_WORDS, _HEAD_WORDS + used * words, words):
            if not numbers[at] and not numbers[at + 1]:
                return at
        if used == self._blocks:
            return None
        at = _HEAD_WORDS + used * words
        self._back(at, words)
        numbers[_USED] = used + 1
        return at

    def reclaim(self, at: int) -> None:
        """Takes a block from its key."""
        self.numbers[_RECLAIMED] += 1
        self.numbers[at] = self.numbers[at + 1] = 0

    def close(self) -> None:
        """Lets go of the file."""
        self.numbers.release()
        self.times.release()
        self._map.close()
        os.close(self._descriptor)

    def _back(self, at: int, words: int) -> None:
        """Has the disk give room for a part of the file, as zeros."""
        os.lseek(self._descriptor, at * WORD_BYTES, os.SEEK_SET)
        left = bytes(words * WORD_BYTES)
        while left:
            left = left[os.write(self._descriptor, left) :]
