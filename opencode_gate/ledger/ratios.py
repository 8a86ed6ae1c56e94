"""How far estimates were off, as sums: what the ledger keeps of it.

Apart from what learns and corrects by them, because every start opens the ledger and only the
gateway estimates.
"""

from typing import Literal, TypeAlias

import msgspec

Kind: TypeAlias = Literal["input_size", "output_text", "output_size"]
RatioKey: TypeAlias = tuple[str, str, Kind]
"""Provider, model as asked for, and kind of estimate."""

_ANSWERS_MIN = 3
_ESTIMATED_TOKENS_MIN = 200
_FACTOR_MIN, _FACTOR_MAX = 0.5, 2.0


class Ratio(msgspec.Struct, frozen=True):
    """Sums over answers whose counts the provider told."""

    estimated_tokens: int
    reported_tokens: int
    answers: int

    def __add__(self, other: "Ratio") -> "Ratio":
        return Ratio(
            self.estimated_tokens + other.estimated_tokens,
            self.reported_tokens + other.reported_tokens,
            self.answers + other.answers,
        )

    @property
    def factor(self) -> float:
        """What an estimate is multiplied with; 1 as long as too little is known."""
        if self.answers < _ANSWERS_MIN or self.estimated_tokens < _ESTIMATED_TOKENS_MIN:
            return 1.0
        return min(max(self.reported_tokens / self.estimated_tokens, _FACTOR_MIN), _FACTOR_MAX)
