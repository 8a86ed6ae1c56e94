"""What token counts cost at given prices: exact decimals, no I/O.

The rules are those of `genai-prices`, so that the same prices give the same amount whoever
holds them: a count without a price of its own is charged as the kind it is a part of (cached
input as input, reasoning as output), and a request above a tier's threshold is priced with that
tier as a whole. The invariant: a missing count is not charged as zero but said (`is_exact`).
"""

from decimal import Decimal

import msgspec

from opencode_gate.catalog.rows import ModelPrice
from opencode_gate.core.usage import TokenUsage

_PER = Decimal(1_000_000)
_ZERO = Decimal(0)


class Amount(msgspec.Struct, frozen=True, kw_only=True):
    """A cost in USD.

    Attributes:
        is_exact: false where a count or a price had to be stood in for.
        is_free: nothing is charged for this model, however many tokens it was.
    """

    usd: Decimal
    is_exact: bool = True
    is_free: bool = False


def cost_of(usage: TokenUsage, price: ModelPrice) -> Amount | None:
    """The cost of one answer; `None` where a count lacks its price, or nothing was counted."""
    if price.is_free:
        return Amount(usd=_ZERO, is_free=True)
    if usage.is_empty:
        return None
    price = price_at(price, usage.input_tokens)
    input_usd = _input_cost(usage, price)
    output_usd = _output_cost(usage, price)
    if input_usd is None or output_usd is None:
        return None
    hour_is_stood_in = _count(usage.cache_write_1h) > 0 and price.cache_write_1h is None
    return Amount(
        usd=(input_usd + output_usd) / _PER + _rate(price.per_request),
        is_exact=is_complete(usage) and not hour_is_stood_in,
    )


def uncached(usage: TokenUsage) -> TokenUsage:
    """The same tokens as if there had been no prompt cache to read from or write to."""
    return msgspec.structs.replace(
        usage,
        input_uncached=usage.input_tokens,
        cache_read=None,
        cache_write_5m=None,
        cache_write_1h=None,
    )


def price_at(price: ModelPrice, input_tokens: int | None) -> ModelPrice:
    """The prices that hold for a request of that size."""
    for tier in reversed(price.tiers):
        if _count(input_tokens) > tier.above_input_tokens:
            return tier.price
    return price


def is_complete(usage: TokenUsage) -> bool:
    """Whether both what went in and what came out was counted."""
    return usage.input_tokens is not None and usage.output is not None


def _input_cost(usage: TokenUsage, price: ModelPrice) -> Decimal | None:
    uncached = _count(usage.input_uncached)
    audio = min(_count(usage.input_audio), uncached) if price.input_audio is not None else 0
    write_price = _first(price.cache_write, price.input)
    return _sum(
        (uncached - audio, price.input),
        (audio, price.input_audio),
        (_count(usage.cache_read), _first(price.cache_read, price.input)),
        (_count(usage.cache_write_5m), write_price),
        (_count(usage.cache_write_1h), _first(price.cache_write_1h, write_price)),
    )


def _output_cost(usage: TokenUsage, price: ModelPrice) -> Decimal | None:
    output = _count(usage.output)
    reasoning = min(_count(usage.reasoning), output) if price.reasoning is not None else 0
    audio = 0
    if price.output_audio is not None:
        audio = min(_count(usage.output_audio), output - reasoning)
    return _sum(
        (output - reasoning - audio, price.output),
        (reasoning, price.reasoning),
        (audio, price.output_audio),
    )


def _sum(*parts: tuple[int, Decimal | None]) -> Decimal | None:
    total = _ZERO
    for count, price in parts:
        if count == 0:
            continue
        if price is None:
            return None
        total += count * price
    return total


def _count(tokens: int | None) -> int:
    return tokens if tokens is not None else 0


def _rate(usd: Decimal | None) -> Decimal:
    return usd if usd is not None else _ZERO


def _first(*prices: Decimal | None) -> Decimal | None:
    return next((price for price in prices if price is not None), None)
