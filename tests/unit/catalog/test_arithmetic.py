"""What tokens cost at given prices, checked by hand and against genai-prices' own arithmetic."""

from decimal import Decimal

import pytest
from genai_prices import Usage
from genai_prices.types import ModelPrice as GenaiPrice
from genai_prices.types import Tier, TieredPrices
from hypothesis import given, settings
from hypothesis import strategies as st

from opencode_gate.catalog.arithmetic import Amount, cost_of
from opencode_gate.catalog.rows import ModelPrice, PriceTier
from opencode_gate.core.usage import TokenUsage

FULL = ModelPrice(
    input=Decimal("3"),
    output=Decimal("15"),
    cache_read=Decimal("0.3"),
    cache_write=Decimal("3.75"),
    cache_write_1h=Decimal("6"),
    reasoning=Decimal("20"),
    input_audio=Decimal("40"),
    output_audio=Decimal("80"),
)


def test_each_kind_of_token_has_its_own_price() -> None:
    usage = TokenUsage(
        input_uncached=1003,
        cache_read=2011,
        cache_write_5m=307,
        cache_write_1h=41,
        output=509,
        reasoning=101,
        input_audio=7,
        output_audio=11,
    )
    millionths = (
        Decimal(996 * 3 + 7 * 40)
        + Decimal(2011) * Decimal("0.3")
        + Decimal(307) * Decimal("3.75")
        + Decimal(41 * 6)
        + Decimal((509 - 101 - 11) * 15 + 101 * 20 + 11 * 80)
    )
    assert cost_of(usage, FULL) == Amount(usd=millionths / 1_000_000)


def test_a_kind_without_a_price_is_charged_as_what_it_is_a_part_of() -> None:
    usage = TokenUsage(input_uncached=10, cache_read=20, cache_write_5m=30, output=40, reasoning=15)
    price = ModelPrice(input=Decimal(1), output=Decimal(2))
    assert cost_of(usage, price) == Amount(usd=Decimal(60 + 80) / 1_000_000)


def test_a_missing_count_makes_the_amount_inexact_and_none_at_all_unknown() -> None:
    price = ModelPrice(input=Decimal(1), output=Decimal(2))
    only_input = cost_of(TokenUsage(input_uncached=10), price)
    assert only_input == Amount(usd=Decimal(10) / 1_000_000, is_exact=False)
    assert cost_of(TokenUsage(), price) is None


def test_zero_tokens_are_a_count() -> None:
    price = ModelPrice(input=Decimal(1), output=Decimal(2))
    assert cost_of(TokenUsage(input_uncached=0, output=0), price) == Amount(usd=Decimal(0))


def test_a_missing_price_is_unknown_unless_nothing_needs_it() -> None:
    price = ModelPrice(input=Decimal(1))
    assert cost_of(TokenUsage(input_uncached=10, output=1), price) is None
    assert cost_of(TokenUsage(input_uncached=10, output=0), price) is not None


def test_an_hour_of_cache_at_the_price_of_five_minutes_is_called_inexact() -> None:
    price = ModelPrice(input=Decimal(1), output=Decimal(2), cache_write=Decimal(4))
    amount = cost_of(TokenUsage(input_uncached=0, cache_write_1h=10, output=0), price)
    assert amount == Amount(usd=Decimal(40) / 1_000_000, is_exact=False)


@pytest.mark.parametrize(
    ("input_tokens", "rate"), [(200_000, 1), (200_001, 2), (500_000, 2), (500_001, 5)]
)
def test_a_tier_prices_the_whole_request_and_begins_above_its_bound(input_tokens, rate) -> None:
    price = ModelPrice(
        input=Decimal(1),
        output=Decimal(0),
        tiers=(
            PriceTier(
                above_input_tokens=200_000, price=ModelPrice(input=Decimal(2), output=Decimal(0))
            ),
            PriceTier(
                above_input_tokens=500_000, price=ModelPrice(input=Decimal(5), output=Decimal(0))
            ),
        ),
    )
    usage = TokenUsage(input_uncached=input_tokens - 7, cache_read=7, output=0)
    amount = cost_of(usage, price)
    assert amount is not None
    assert amount.usd == Decimal(input_tokens * rate) / 1_000_000


def test_a_free_model_is_free_whatever_was_counted() -> None:
    free = ModelPrice(input=Decimal(0), output=Decimal(0), cache_read=Decimal(0))
    for usage in (TokenUsage(), TokenUsage(input_uncached=5), TokenUsage(cache_write_1h=1)):
        assert cost_of(usage, free) == Amount(usd=Decimal(0), is_free=True)


prices = st.decimals(min_value=0, max_value=500, places=4)
counts = st.integers(min_value=0, max_value=3_000_000)
maybe_prices = st.none() | prices


@st.composite
def usages(draw: st.DrawFn) -> TokenUsage:
    output = draw(counts)
    return TokenUsage(
        input_uncached=draw(counts),
        cache_read=draw(counts),
        cache_write_5m=draw(counts),
        cache_write_1h=draw(counts),
        output=output,
        reasoning=draw(st.integers(min_value=0, max_value=output)),
    )


@settings(max_examples=200, deadline=None)
@given(
    usage=usages(),
    base=st.fixed_dictionaries(
        {
            "input": prices,
            "output": prices,
            "cache_read": maybe_prices,
            "cache_write": prices,
            "cache_write_1h": maybe_prices,
            "reasoning": maybe_prices,
        }
    ),
    factor=prices,
    bound=st.integers(min_value=1, max_value=6_000_000),
)
def test_it_agrees_with_genai_prices_on_any_prices_and_counts(usage, base, factor, bound) -> None:
    above = {name: None if rate is None else rate + factor for name, rate in base.items()}
    ours = ModelPrice(
        **base, tiers=(PriceTier(above_input_tokens=bound, price=ModelPrice(**above)),)
    )
    keys = {
        "input": "input_mtok",
        "output": "output_mtok",
        "cache_read": "cache_read_mtok",
        "cache_write": "cache_write_mtok",
        "cache_write_1h": "cache_write_1h_mtok",
        "reasoning": "output_reasoning_mtok",
    }
    theirs = GenaiPrice(
        **{
            keys[name]: TieredPrices(base=rate, tiers=[Tier(start=bound, price=above[name])])
            for name, rate in base.items()
            if rate is not None
        }
    ).calc_price(
        Usage(
            input_tokens=usage.input_tokens,
            cache_read_tokens=usage.cache_read,
            cache_write_tokens=usage.cache_creation_input_tokens,
            cache_write_5m_tokens=usage.cache_write_5m,
            cache_write_1h_tokens=usage.cache_write_1h,
            output_tokens=usage.output,
            output_reasoning_tokens=usage.reasoning,
        )
    )
    amount = cost_of(usage, ours)
    assert amount is not None
    assert amount.usd == theirs["total_price"]
