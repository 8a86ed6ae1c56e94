"""What a request can cost at most, before it is sent.

The idea: every token that goes in is taken for the dearest kind it could turn out to be, every
one that comes out likewise, at the dearest tier a request of that size can reach. The
invariants, held against `catalog.arithmetic.cost_of` and against `genai-prices` by the tests: no
usage within the bounds costs more; what is not known is `None`, never a guess. All of it is
integers, and a model's prices are looked at once, since this is done for every request under a
budget.
"""

import math
from decimal import Decimal
from typing import NamedTuple, TypeAlias

import msgspec
from msgspec.structs import replace

from opencode_gate.catalog.arithmetic import price_at
from opencode_gate.catalog.rows import ModelPrice, PriceTier

HIDDEN_INPUT_TOKENS = 1_024
"""What a provider may add to the input that is not in the body.

Anthropic's instructions for tools are the largest known, up to 735 tokens:
https://docs.anthropic.com/en/docs/agents-and-tools/tool-use/overview#pricing
"""

UNLIMITED_TOKENS = 1 << 40
"""More output than any budget in money limits: it costs nothing."""

_PICO_PER_NANO = 1_000
_MILLION = 1_000_000
_CACHED_MAX = 1_024
_RATE_NAMES = tuple(name for name in ModelPrice.__struct_fields__ if name != "tiers")
_PLAIN_TIERS = frozenset(
    {None, "default", "standard", "standard_only", "flex", "batch", "on_demand"}
)
_DEAREST_TIER_PERCENT = 250
"""What the dearest service tier costs, in percent of the standard one.

The most that `genai-prices` knows for any model; the tests look for one that is dearer.
"""


class RequestRates(msgspec.Struct, frozen=True, kw_only=True):
    """What in a request decides about the rates it is charged at.

    Attributes:
        may_write_1h: it asks for a prompt cache that is kept for an hour.
        has_audio: audio goes in or is asked for.
        service_tier: `service_tier` as the client wrote it.
        speed: `speed` as the client wrote it, Anthropic's name for what is dearer and faster.
    """

    may_write_1h: bool = False
    has_audio: bool = False
    service_tier: str | None = None
    speed: str | None = None


PLAIN = RequestRates()


class Rate(NamedTuple):
    """Rates for a request with more input than `above_tokens`, in pico-dollars per token."""

    above_tokens: int
    input_pico_usd: int
    output_pico_usd: int
    request_pico_usd: int


Rates: TypeAlias = tuple[Rate, ...]
"""Of a model, for one kind of request: without any where it costs nothing."""

_compiled: dict[tuple[int, bool, bool, int], tuple[ModelPrice, Rates | None]] = {}


def worst_case_nano_usd(
    price: ModelPrice,
    *,
    input_tokens: int,
    output_tokens: int,
    rates: RequestRates = PLAIN,
) -> int | None:
    """The most a request can cost, in nano-dollars rounded up; `None` where a price is missing.

    Args:
        input_tokens: how many go in at most, cached or not.
        output_tokens: how many come out at most, all answers of the request together.
    """
    compiled = rates_of(price, rates)
    return None if compiled is None else most_nano_usd(compiled, input_tokens, output_tokens)


def output_that_fits(
    price: ModelPrice,
    *,
    input_tokens: int,
    available_nano_usd: int,
    rates: RequestRates = PLAIN,
) -> int:
    """How many tokens can come out for the worst case to be no more than what is available.

    0 where not even the input fits, or a price is missing; `UNLIMITED_TOKENS` where output is
    free.
    """
    compiled = rates_of(price, rates)
    return 0 if compiled is None else output_within(compiled, input_tokens, available_nano_usd)


def most_nano_usd(rates: Rates, input_tokens: int, output_tokens: int) -> int:
    """See `worst_case_nano_usd`."""
    most = 0
    for above, input_pico_usd, output_pico_usd, request_pico_usd in rates:
        if input_tokens > above:
            cost = input_tokens * input_pico_usd + output_tokens * output_pico_usd
            cost += request_pico_usd
            if cost > most:
                most = cost
    return -(-most // _PICO_PER_NANO)


def output_within(rates: Rates, input_tokens: int, available_nano_usd: int) -> int:
    """See `output_that_fits`."""
    fits = UNLIMITED_TOKENS
    for above, input_pico_usd, output_pico_usd, request_pico_usd in rates:
        if input_tokens > above:
            left = available_nano_usd * _PICO_PER_NANO - request_pico_usd
            left -= input_tokens * input_pico_usd
            if left < 0:
                return 0
            if output_pico_usd:
                fits = min(fits, left // output_pico_usd)
    return fits


def dearest(first: ModelPrice, second: ModelPrice) -> ModelPrice:
    """Prices that neither of two exceeds; what one of them does not know is not known."""
    if first == second:
        return first
    bounds = sorted({tier.above_input_tokens for tier in (*first.tiers, *second.tiers)})
    tiers = tuple(
        PriceTier(
            above_input_tokens=bound,
            price=_dearer(price_at(first, bound + 1), price_at(second, bound + 1)),
        )
        for bound in bounds
    )
    return replace(_dearer(first, second), tiers=tiers)


def _dearer(first: ModelPrice, second: ModelPrice) -> ModelPrice:
    """The higher price of each kind of token, without tiers."""
    higher = {}
    for name in _RATE_NAMES:
        known = [rate for one in (first, second) if (rate := getattr(one, name)) is not None]
        is_unknown = name in ("input", "output") and len(known) < 2
        higher[name] = None if is_unknown else max(known, default=None)
    return ModelPrice(**higher)  # type: ignore[arg-type]  # mypy takes every keyword for `tiers`


def input_bound(
    *, body_bytes: int, refers_elsewhere: bool, context_tokens: int | None
) -> int | None:
    """How many tokens can go in at most; `None` where nobody can say.

    No tokenizer makes more tokens of a text than it has bytes, and no model takes more than its
    context window.

    Args:
        refers_elsewhere: the prompt is not all in the body, or holds media: an image of few
            bytes can be many tokens.
        context_tokens: the model's window, `None` or 0 where it is not known.
    """
    if context_tokens is not None and context_tokens <= 0:
        context_tokens = None
    if refers_elsewhere:
        return context_tokens
    bound = body_bytes + HIDDEN_INPUT_TOKENS
    return bound if context_tokens is None else min(bound, context_tokens)


def rates_of(price: ModelPrice, rates: RequestRates = PLAIN) -> Rates | None:
    """What a model's prices are in the worst case; `None` where one is missing."""
    is_plain = rates.service_tier in _PLAIN_TIERS and rates.speed in _PLAIN_TIERS
    percent = 100 if is_plain else _DEAREST_TIER_PERCENT
    # By identity: to hash ten decimals would take longer than all the rest. The price is kept
    # beside its rates, so that no other comes to have its identity.
    key = (id(price), rates.may_write_1h, rates.has_audio, percent)
    found = _compiled.get(key)
    if found is not None:
        return found[1]
    if len(_compiled) >= _CACHED_MAX:
        _compiled.clear()
    compiled = _compile(price, rates, percent)
    _compiled[key] = (price, compiled)
    return compiled


def _compile(price: ModelPrice, rates: RequestRates, percent: int) -> Rates | None:
    if price.is_free:
        return ()
    compiled = []
    points = [(-1, price), *((tier.above_input_tokens, tier.price) for tier in price.tiers)]
    for above, point in points:
        if point.input is None or point.output is None:
            return None
        kinds_in = [point.input, point.cache_read, point.cache_write]
        kinds_out = [point.output, point.reasoning]
        if rates.may_write_1h:
            kinds_in.append(point.cache_write_1h)
        if rates.has_audio:
            kinds_in.append(point.input_audio)
            kinds_out.append(point.output_audio)
        compiled.append(
            Rate(
                above,
                _pico_usd(max(rate for rate in kinds_in if rate is not None), percent),
                _pico_usd(max(rate for rate in kinds_out if rate is not None), percent),
                0
                if point.per_request is None
                else _pico_usd(point.per_request * _MILLION, percent),
            )
        )
    return tuple(compiled)


def _pico_usd(usd_per_million: Decimal, percent: int) -> int:
    """So much of a rate in pico-dollars per token, rounded up."""
    return math.ceil(usd_per_million * _MILLION * percent / 100)
