"""Whether an answer that is still running has used up what was reserved for it.

A provider that keeps to the output limit never gets there. The idea: characters are looked at
after every chunk, which costs nothing; tokens are only counted once there could be enough of
them, and then by what has come since. The invariant: an answer is stopped on what has been
counted or told, never on a guess from its length.
"""

from collections.abc import Callable

import msgspec

from opencode_gate.wire.meter import ExchangeMeter

BUDGET_STOP = "budget_stop"
"""The `error_type` of an answer that was cut here."""

CountText = Callable[[str, str | None], int]

_TOKENS_PER_CHAR = 3
"""More than any common vocabulary makes of one character."""
_COUNT_EVERY_CHARS = 512
_COUNTS = 64


class RunningOutput(msgspec.Struct):
    """The output of one answer against what the reservation pays for.

    Attributes:
        allowed_tokens: how much output it pays for.
        next_chars: with fewer characters than that there is nothing to look at.
    """

    allowed_tokens: int
    model: str | None
    count_text: CountText
    next_chars: int = -1
    _counted_chars: int = 0
    _tokens: int = 0

    def is_used_up(self, meter: ExchangeMeter) -> bool:
        """True once there is more of it than is paid for."""
        chars = meter.delivered_chars
        if self.next_chars < 0:
            self.next_chars = self.allowed_tokens // _TOKENS_PER_CHAR
        if chars < self.next_chars:
            return False
        delivered = meter.delivered()
        if delivered is None:
            return False
        told = delivered.seen.output
        if told is not None and told > self.allowed_tokens:
            return True
        new_chars = delivered.chars - self._counted_chars
        if new_chars > 0:
            self._tokens += self.count_text(delivered.text[-new_chars:], self.model)
            self._counted_chars = delivered.chars
        self.next_chars = chars + max(_COUNT_EVERY_CHARS, self.allowed_tokens // _COUNTS)
        return self._tokens > self.allowed_tokens
