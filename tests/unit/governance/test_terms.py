"""What budgets know of a model holds for as long as they hold it."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from opencode_gate.catalog.catalogue import open_catalogue
from opencode_gate.catalog.prices import PriceBook
from opencode_gate.config.paths import paths
from opencode_gate.config.settings import parse_settings
from opencode_gate.core.usage import TokenUsage
from opencode_gate.governance.request_case import TERMS_HOLD_S
from opencode_gate.governance.terms import terms_from
from opencode_gate.governance.worst_case import worst_case_nano_usd

HOUR_US = 3_600_000_000
CHANGING = """
[[prices."anthropic/claude-opus-5"]]
until = 2026-11-30
input = 1
output = 2

[[prices."anthropic/claude-opus-5"]]
since = 2026-12-01
input = 10
output = 20
"""


class At:
    """A clock that stands."""

    def __init__(self, text: str) -> None:
        moment = datetime.fromisoformat(text).replace(tzinfo=UTC)
        self.us = int(moment.timestamp()) * 1_000_000

    def now_us(self) -> int:
        return self.us

    def monotonic_s(self) -> float:
        return 0.0


def book(text: str = "") -> PriceBook:
    settings = parse_settings(text, source="f")
    return PriceBook(open_catalogue(paths(), settings, {}), settings)


@pytest.mark.parametrize(
    ("at", "input_usd"),
    [("2026-11-30T22:00", 1), ("2026-11-30T23:30", 10), ("2026-12-01T00:00", 10)],
)
def test_a_price_that_rises_within_the_hour_is_reserved_for_before(at, input_usd) -> None:
    price = terms_from(book(CHANGING), At(at))("anthropic", "claude-opus-5").price
    assert price is not None
    assert price.input == Decimal(input_usd)


def test_a_price_by_the_hour_of_the_day_bounds_what_is_charged_while_it_is_held() -> None:
    """Azure's DeepSeek R1 costs less at night (UTC), in genai-prices."""
    prices = book()
    usage = TokenUsage(input_uncached=10_000, cache_read=5_000, output=3_000)
    day = At("2026-11-21T00:00").us
    for quarter in range(96):
        clock = At("2026-11-21T00:00")
        clock.us = day + quarter * HOUR_US // 4
        price = terms_from(prices, clock)("azure", "deepseek-r1").price
        assert price is not None
        worst = worst_case_nano_usd(price, input_tokens=15_000, output_tokens=3_000)
        assert worst is not None
        for part in range(5):
            at_us = clock.us + part * int(TERMS_HOLD_S * 1_000_000) // 5
            quote = prices.quote("azure", ("deepseek-r1",), usage, at_us=at_us)
            assert quote is not None
            assert quote.amount.usd * 10**9 <= worst


@pytest.mark.parametrize(
    ("provider_id", "model_id"),
    [("kilo", "openrouter/auto"), ("llmgateway", "auto"), ("nano-gpt", "auto-model")],
)
def test_a_router_that_the_catalogue_calls_free_has_no_price(provider_id, model_id) -> None:
    """It bills what the model bills that it takes; under a hard budget that is refused."""
    prices = book()
    answer = prices.explain(provider_id, model_id)
    assert answer is not None and answer.price.is_free
    assert terms_from(prices)(provider_id, model_id).price is None


def test_what_is_free_is_free() -> None:
    price = terms_from(book())("kilo", "kilo-auto/free").price
    assert price is not None and price.is_free


def test_a_model_nobody_knows_has_nothing_that_is_known() -> None:
    terms = terms_from(book())("anthropic", "no-such-model-at-all")
    assert (terms.price, terms.context_tokens, terms.output_tokens) == (None, None, None)
    assert terms_from(book())("anthropic", None).price is None
