"""What a prompt cache saved: the difference of two amounts of one book, and nothing guessed."""

from decimal import Decimal

import pytest

from opencode_gate.catalog.catalogue import open_catalogue
from opencode_gate.catalog.prices import PriceBook
from opencode_gate.config.paths import paths
from opencode_gate.config.settings import parse_settings
from opencode_gate.core.usage import TokenUsage
from tests.support.ledger_records import an_exchange

PRICES = """
[prices]
"acme/m" = {input = 3, output = 15, cache_read = 0.3, cache_write = 3.75}
"acme/free" = {input = 0, output = 0}
"""


def saved(usage: TokenUsage, *, model: str = "m", reported: int | None = None) -> int | None:
    settings = parse_settings(PRICES, source="test")
    book = PriceBook(open_catalogue(paths(), settings, {}), settings)
    record = an_exchange(
        provider_name="acme",
        request_model=model,
        response_model=model,
        usage=usage,
        cost_nano_usd=None,
        reported_cost_nano_usd=reported,
    )
    return book.price(record).cache_saved_nano_usd


def nano(tokens: int, usd_per_million: str) -> int:
    return round(tokens * Decimal(usd_per_million) * 1000)


def test_reading_from_the_cache_saves_the_difference_of_the_prices() -> None:
    usage = TokenUsage(input_uncached=1000, cache_read=90_000, output=500, reasoning=100)
    assert saved(usage) == nano(90_000, "2.7")


def test_writing_to_it_costs() -> None:
    """A first request writes and reads nothing: that is a loss until it is read."""
    assert saved(TokenUsage(input_uncached=5, cache_write_5m=10_000, output=1)) == -nano(
        10_000, "0.75"
    )
    both = TokenUsage(input_uncached=5, cache_read=20_000, cache_write_5m=10_000, output=1)
    assert saved(both) == nano(20_000, "2.7") - nano(10_000, "0.75")


def test_a_cost_that_the_provider_reported_does_not_hide_it() -> None:
    """It is a matter of prices alone."""
    usage = TokenUsage(input_uncached=1000, cache_read=90_000, output=500)
    assert saved(usage, reported=7) == nano(90_000, "2.7")


def test_a_free_model_saves_nothing() -> None:
    assert saved(TokenUsage(input_uncached=5, cache_read=10_000, output=1), model="free") == 0


@pytest.mark.parametrize(
    ("usage", "model"),
    [
        (TokenUsage(input_uncached=5, cache_read=0, output=1), "m"),
        (TokenUsage(input_uncached=5, output=1), "m"),
        (TokenUsage(), "m"),
        (TokenUsage(input_uncached=5, cache_read=10_000, output=1), "unpriced"),
    ],
)
def test_without_a_cache_or_a_price_nothing_is_said(usage: TokenUsage, model: str) -> None:
    assert saved(usage, model=model) is None


def test_a_long_request_is_compared_within_its_own_tier() -> None:
    """Cached or not, the request is as long: genai-prices prices both with the same tier."""
    settings = parse_settings("", source="test")
    book = PriceBook(open_catalogue(paths(), settings, {}), settings)
    usage = TokenUsage(input_uncached=1000, cache_read=250_000, output=10)
    record = an_exchange(
        provider_name="google",
        request_model="gemini-2.5-pro",
        response_model=None,
        usage=usage,
        cost_nano_usd=None,
    )
    answer = book.explain("google", "gemini-2.5-pro", at_us=record.started_at_us)
    assert answer is not None
    [tier] = answer.price.tiers
    assert tier.price.input is not None
    assert tier.price.cache_read is not None
    expected = round(250_000 * (tier.price.input - tier.price.cache_read) * 1000)
    assert book.price(record).cache_saved_nano_usd == expected
