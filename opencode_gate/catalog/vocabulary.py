"""Text counted in tokens of o200k_base, the vocabulary of OpenAI's models since GPT-4o.

The idea: byte pair encoding as tiktoken does it (https://github.com/openai/tiktoken), over a
vocabulary that is looked up where it lies, in a mapped file, so that nothing is parsed and next
to nothing is held in memory. That makes it slow, milliseconds for a page, which is why it is for
a thread that nobody waits for. The invariant: nothing is fetched.

The file (`scripts/build_vocabulary.py` makes it) holds, in little-endian numbers of 32 bits: how
many tokens n and slots m there are; n + 1 offsets; m slots of a hash table (CRC-32, the next slot
where one is taken), each a rank and one or 0 for nothing; the tokens by rank; and four character
classes, each behind its length: upper-case letters, lower-case letters, letters, numbers.
"""

import mmap
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

_NUMBER = struct.Struct("<I")
_PAIR = struct.Struct("<II")
_OFFSETS_AT = 8
_FILE = Path(__file__).parent / "data" / "o200k.bin"
_WORDS_REMEMBERED = 4096
_LONGEST_PIECE_BYTES = 512
"""Merging takes the square of the length; a longer run without a break is cut."""


class Vocabulary:
    """A vocabulary on disk. For one thread.

    Raises:
        OSError: the file cannot be read.
    """

    def __init__(self, file: Path = _FILE) -> None:
        with file.open("rb") as opened:
            self._map = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        count, self._slots = _PAIR.unpack_from(self._map)
        self._slots_at = _OFFSETS_AT + 4 * (count + 1)
        self._tokens_at = self._slots_at + 4 * self._slots
        (self._tokens_length,) = _NUMBER.unpack_from(self._map, self._slots_at - 4)
        self._pieces = re.compile(_pattern(*self._classes())).findall
        self._cost: Callable[[bytes], int] = lru_cache(_WORDS_REMEMBERED)(self._merged)

    def counts(self, text: str) -> Iterator[tuple[str, int]]:
        """The pieces of `text` with their tokens; what looks like a special token is text."""
        cost = self._cost
        for piece in self._pieces(text):
            data = piece.encode("utf-8", "surrogatepass")
            yield (
                piece,
                sum(
                    cost(data[start : start + _LONGEST_PIECE_BYTES])
                    for start in range(0, len(data), _LONGEST_PIECE_BYTES)
                ),
            )

    def count(self, text: str) -> int:
        """The tokens of `text`."""
        return sum(tokens for _, tokens in self.counts(text))

    def _merged(self, piece: bytes) -> int:
        """How many tokens are left of a piece when no two of them merge into a third."""
        if len(piece) == 1 or self._rank(piece) is not None:
            return 1
        parts = [piece[at : at + 1] for at in range(len(piece))]
        ranks = [self._rank(parts[at] + parts[at + 1]) for at in range(len(parts) - 1)]
        while True:
            best = min((rank for rank in ranks if rank is not None), default=None)
            if best is None:
                return len(parts)
            at = ranks.index(best)
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
            del ranks[at]
            if at < len(ranks):
                ranks[at] = self._rank(parts[at] + parts[at + 1])
            if at > 0:
                ranks[at - 1] = self._rank(parts[at - 1] + parts[at])

    def _rank(self, token: bytes) -> int | None:
        """The rank of a token, `None` where there is no such token."""
        data, slots = self._map, self._slots
        at = zlib.crc32(token) % slots
        while True:
            (entry,) = _NUMBER.unpack_from(data, self._slots_at + 4 * at)
            if entry == 0:
                return None
            start, end = _PAIR.unpack_from(data, _OFFSETS_AT - 4 + 4 * entry)
            if data[self._tokens_at + start : self._tokens_at + end] == token:
                return int(entry) - 1
            at = (at + 1) % slots

    def _classes(self) -> list[str]:
        at = self._tokens_at + self._tokens_length
        classes = []
        while at < len(self._map):
            (length,) = _NUMBER.unpack_from(self._map, at)
            classes.append(self._map[at + 4 : at + 4 + length].decode())
            at += 4 + length
        return classes


def _pattern(upper: str, lower: str, letter: str, number: str) -> str:
    """How o200k_base cuts text before it merges, in terms that `re` knows."""
    ending = r"(?:'(?:[sStTmMdDſ]|[rR][eE]|[vV][eE]|[lL][lL]))?"
    return "|".join(
        (
            rf"[^\r\n{letter}{number}]?[{upper}]*[{lower}]+{ending}",
            rf"[^\r\n{letter}{number}]?[{upper}]+[{lower}]*{ending}",
            rf"[{number}]{{1,3}}",
            rf" ?[^\s{letter}{number}]+[\r\n/]*",
            r"\s*[\r\n]+",
            r"\s+(?!\S)",
            r"\s+",
        )
    )
