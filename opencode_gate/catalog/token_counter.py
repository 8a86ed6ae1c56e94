"""The tokens of a text as a model would have cut it.

The invariant: the work is bounded, however long the text, by looking at even samples of it; and
whatever is wrong with the vocabulary on disk, there is a count.
"""

import logging
import re
from collections.abc import Iterable

from opencode_gate.catalog.token_families import CLASSES, SCRIPTS, Family, family_of
from opencode_gate.catalog.vocabulary import Vocabulary

SAMPLED_CHARS = 16_384
_SAMPLES = 8
_CHARS_PER_TOKEN = 4.0
# fmt: off
_ENGLISH = frozenset((
    "a", "an", "and", "are", "as", "be", "by", "can", "for", "from", "have", "i", "if", "it",
    "not", "or", "that", "the", "this", "to", "we", "when", "which", "will", "with", "you",
))
# fmt: on
_ENGLISH_SHARE = 0.08
"""Prose with fewer of these words is in another language; code has few too, but many signs."""
_SIGNS_SHARE = 0.6
_SCRIPT = re.compile("|".join(f"(?P<{name}>[{ranges}])" for name, ranges in SCRIPTS))

_logger = logging.getLogger(__name__)


class TokenCounter:
    """Counts; opens its vocabulary when there is something to count. For one thread."""

    def __init__(self) -> None:
        self._vocabulary: Vocabulary | None = None
        self._is_missing = False

    def count(self, text: str, model: str | None) -> int:
        """The tokens of `text` by the vocabulary of a model's family, or near them."""
        if not text:
            return 0
        vocabulary = self._opened()
        if vocabulary is None:
            return -int(-len(text) // _CHARS_PER_TOKEN)
        sample = _sample(text)
        family = family_of(model)
        tokens = (
            vocabulary.count(sample)
            if family.is_exact
            else _converted(vocabulary.counts(sample), family)
        )
        return max(1, round(tokens * len(text) / len(sample)))

    def _opened(self) -> Vocabulary | None:
        if self._vocabulary is None and not self._is_missing:
            try:
                self._vocabulary = Vocabulary()
            except OSError as error:
                _logger.warning("output is counted by its length: %s", error)
                self._is_missing = True
        return self._vocabulary


def _sample(text: str) -> str:
    if len(text) <= SAMPLED_CHARS:
        return text
    size = SAMPLED_CHARS // _SAMPLES
    step = (len(text) - size) // (_SAMPLES - 1)
    return "".join(text[at * step : at * step + size] for at in range(_SAMPLES))


def _converted(pieces: Iterable[tuple[str, int]], family: Family) -> float:
    counts = tokens_by_class(pieces).values()
    return sum(count * ratio for count, ratio in zip(counts, family.ratios, strict=True))


def tokens_by_class(pieces: Iterable[tuple[str, int]]) -> dict[str, int]:
    """The tokens of a text by what they stand for, in the order of `CLASSES`."""
    tokens = dict.fromkeys(CLASSES, 0)
    word_tokens = words = english = signs = 0
    for piece, count in pieces:
        kind = _class_of(piece)
        tokens[kind] += count
        if kind == "ascii":
            word = piece.strip()
            if word.isalpha():
                words += 1
                word_tokens += count
                english += word.lower() in _ENGLISH
            else:
                signs += 1
    if english < _ENGLISH_SHARE * words and signs < _SIGNS_SHARE * words:
        tokens["ascii"] -= word_tokens
        tokens["foreign"] += word_tokens
    return tokens


def _class_of(piece: str) -> str:
    if piece.isascii():
        if piece.isspace():
            return "space"
        return "digits" if piece.isdigit() else "ascii"
    script = _SCRIPT.search(piece)
    return "other" if script is None or script.lastgroup is None else script.lastgroup
