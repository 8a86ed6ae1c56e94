"""Token counts of one exchange, kept disjoint; the inclusive OpenTelemetry names are sums.

The invariant: `None` means the provider did not say, 0 means it said zero, and the two are
never confused. Nothing here replaces a missing count by a guess.
"""

import msgspec


class TokenUsage(msgspec.Struct, frozen=True, kw_only=True):
    """Disjoint token counts; `reasoning` is a part of `output`, the audio counts parts of theirs.

    `input_uncached`, `cache_read`, `cache_write_5m` and `cache_write_1h` add up to the input.

    A struct, as are all values that are made for every request: the `__init__` of a frozen
    dataclass takes ten times as long.
    """

    input_uncached: int | None = None
    cache_read: int | None = None
    cache_write_5m: int | None = None
    cache_write_1h: int | None = None
    output: int | None = None
    reasoning: int | None = None
    input_audio: int | None = None
    output_audio: int | None = None

    @property
    def input_tokens(self) -> int | None:
        """All input, cached or not (`gen_ai.usage.input_tokens`); `None` if no part is known."""
        return sum_known(
            self.input_uncached, self.cache_read, self.cache_write_5m, self.cache_write_1h
        )

    @property
    def cache_creation_input_tokens(self) -> int | None:
        """Input written to the provider's prompt cache, both tiers."""
        return sum_known(self.cache_write_5m, self.cache_write_1h)

    @property
    def is_empty(self) -> bool:
        """True when no count at all is known."""
        return self == NOTHING_KNOWN


NOTHING_KNOWN = TokenUsage()


def sum_known(*counts: int | None) -> int | None:
    """The sum of the counts that are known, or `None` when none is."""
    known = [count for count in counts if count is not None]
    return sum(known) if known else None
