"""Makes the packaged vocabulary that output of unknown size is counted with.

    python scripts/build_vocabulary.py o200k_base.tiktoken opencode_gate/catalog/data/o200k.bin

The source is the file that tiktoken loads (https://github.com/openai/tiktoken, MIT); its hash is
checked against the one tiktoken checks. The result is read without being parsed: see
`opencode_gate/catalog/vocabulary.py` for its layout.
"""

import argparse
import base64
import hashlib
import struct
import sys
import unicodedata
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path

SHA256 = "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"
SLOTS = 1 << 19
UPPER = ("Lu", "Lt", "Lm", "Lo", "Mn", "Mc", "Me")
LOWER = ("Ll", "Lm", "Lo", "Mn", "Mc", "Me")
LETTER = ("Lu", "Ll", "Lt", "Lm", "Lo")
NUMBER = ("Nd", "Nl", "No")


def _ranges(categories: Collection[str]) -> Iterator[tuple[int, int]]:
    """The runs of code points of these categories."""
    start = None
    for code in range(sys.maxunicode + 2):
        is_in = code <= sys.maxunicode and unicodedata.category(chr(code)) in categories
        if is_in and start is None:
            start = code
        elif not is_in and start is not None:
            yield start, code - 1
            start = None


def _escaped(code: int) -> str:
    return f"\\U{code:08x}"


def _class_of(categories: Collection[str]) -> bytes:
    """What stands between the brackets of a regular expression for these categories."""
    return "".join(
        _escaped(first) if first == last else f"{_escaped(first)}-{_escaped(last)}"
        for first, last in _ranges(categories)
    ).encode()


def _vocabulary(source: bytes) -> dict[bytes, int]:
    if hashlib.sha256(source).hexdigest() != SHA256:
        raise SystemExit("this is not the vocabulary that tiktoken loads")
    lines = (line.split() for line in source.splitlines() if line)
    return {base64.b64decode(token): int(rank) for token, rank in lines}


def packed(source: bytes) -> bytes:
    """The packaged form of a vocabulary."""
    vocabulary = _vocabulary(source)
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    if [vocabulary[token] for token in tokens] != list(range(len(tokens))):
        raise SystemExit("the ranks have gaps")
    offsets = [0]
    for token in tokens:
        offsets.append(offsets[-1] + len(token))
    classes = [_class_of(categories) for categories in (UPPER, LOWER, LETTER, NUMBER)]
    return b"".join(
        (
            struct.pack("<II", len(tokens), SLOTS),
            struct.pack(f"<{len(offsets)}I", *offsets),
            struct.pack(f"<{SLOTS}I", *_slots(tokens)),
            *tokens,
            *(struct.pack("<I", len(text)) + text for text in classes),
        )
    )


def _slots(tokens: list[bytes]) -> list[int]:
    """A hash table with open addressing: the rank of a token and one, 0 for nothing."""
    slots = [0] * SLOTS
    for rank, token in enumerate(tokens):
        at = zlib.crc32(token) % SLOTS
        while slots[at]:
            at = (at + 1) % SLOTS
        slots[at] = rank + 1
    return slots


def main() -> None:
    """Reads one file, writes the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    arguments.target.write_bytes(packed(arguments.source.read_bytes()))


if __name__ == "__main__":
    main()
