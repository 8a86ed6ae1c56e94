"""Nothing within the bounds of a request costs more than its worst case, whoever reckons it."""

import json
import random
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from genai_prices.data_snapshot import get_snapshot
from hypothesis import assume, given
from hypothesis import strategies as st

from opencode_gate.catalog.arithmetic import cost_of
from opencode_gate.catalog.catalogue import open_catalogue
from opencode_gate.catalog.genai_book import GenaiBook
from opencode_gate.catalog.prices import PriceBook
from opencode_gate.catalog.rows import ModelPrice, PriceTier
from opencode_gate.config.paths import paths
from opencode_gate.config.settings import parse_settings
from opencode_gate.core.money import nano_usd
from opencode_gate.core.usage import TokenUsage
from opencode_gate.governance import worst_case
from opencode_gate.governance.worst_case import (
    HIDDEN_INPUT_TOKENS,
    UNLIMITED_TOKENS,
    RequestRates,
    dearest,
    input_bound,
    output_that_fits,
    worst_case_nano_usd,
)

AT_US = int(datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()) * 1_000_000
SONNET = ModelPrice(
    input=Decimal(3),
    output=Decimal(15),
    cache_read=Decimal("0.3"),
    cache_write=Decimal("3.75"),
    cache_write_1h=Decimal(6),
)
ANY = RequestRates(may_write_1h=True, has_audio=True)

amounts = st.decimals(0, 1000, places=7) | st.sampled_from([Decimal(0), Decimal("0.0375")])
maybe = st.none() | amounts
points = st.fixed_dictionaries(
    {
        "input": amounts,
        "output": amounts,
        "cache_read": maybe,
        "cache_write": maybe,
        "cache_write_1h": maybe,
        "reasoning": maybe,
        "input_audio": maybe,
        "output_audio": maybe,
        "per_request": st.none() | st.decimals(0, 1, places=4),
    }
)
tiers = st.lists(st.tuples(st.integers(0, 1_000), points), max_size=3, unique_by=lambda t: t[0])


@st.composite
def prices(draw) -> ModelPrice:
    later = sorted(draw(tiers), key=lambda tier: tier[0])
    return ModelPrice(
        **draw(points),
        tiers=tuple(
            PriceTier(above_input_tokens=above, price=ModelPrice(**point)) for above, point in later
        ),
    )


@st.composite
def usages(draw, largest: int = 1_500) -> TokenUsage:
    """Counts as a provider may report them, also partly, and parts larger than the whole."""
    count = st.none() | st.integers(0, largest)
    names = ("input_uncached", "cache_read", "cache_write_5m", "cache_write_1h", "output")
    parts = ("reasoning", "input_audio", "output_audio")
    return TokenUsage(**{name: draw(count) for name in (*names, *parts)})


def sizes_of(usage: TokenUsage) -> dict[str, int]:
    return {"input_tokens": usage.input_tokens or 0, "output_tokens": usage.output or 0}


@given(price=prices(), usage=usages(), more=st.integers(0, 500))
def test_no_usage_within_the_bounds_costs_more(price, usage, more) -> None:
    amount = cost_of(usage, price)
    assume(amount is not None)
    sizes = {name: size + more for name, size in sizes_of(usage).items()}
    worst = worst_case_nano_usd(price, **sizes, rates=ANY)
    assert worst is not None
    assert nano_usd(amount.usd) <= worst


@given(price=prices(), usage=usages())
def test_what_a_request_did_not_ask_for_need_not_be_paid_for(price, usage) -> None:
    """No hour of cache and no audio: a smaller worst case, and still one."""
    usage = TokenUsage(
        input_uncached=usage.input_uncached,
        cache_read=usage.cache_read,
        cache_write_5m=usage.cache_write_5m,
        output=usage.output,
        reasoning=usage.reasoning,
    )
    amount = cost_of(usage, price)
    assume(amount is not None)
    worst = worst_case_nano_usd(price, **sizes_of(usage))
    assert worst is not None
    assert nano_usd(amount.usd) <= worst <= worst_case_nano_usd(price, **sizes_of(usage), rates=ANY)


def test_the_worst_case_is_not_more_than_it_has_to_be() -> None:
    sizes = {"input_tokens": 1_000, "output_tokens": 100}
    assert worst_case_nano_usd(SONNET, **sizes) == 1_000 * 3_750 + 100 * 15_000
    dear = worst_case_nano_usd(SONNET, **sizes, rates=RequestRates(may_write_1h=True))
    assert dear == 1_000 * 6_000 + 100 * 15_000
    plain = RequestRates(service_tier="flex", speed="standard")
    assert worst_case_nano_usd(SONNET, **sizes, rates=plain) == worst_case_nano_usd(SONNET, **sizes)


def test_fractions_of_a_nano_dollar_are_rounded_up_once() -> None:
    price = ModelPrice(input=Decimal("0.0375"), output=Decimal("0.0001"))
    worst = worst_case_nano_usd(price, input_tokens=1, output_tokens=1)
    assert worst == 38  # 37.5 and 0.1
    assert worst_case_nano_usd(price, input_tokens=1_000, output_tokens=0) == 37_500


def test_a_tier_counts_from_the_first_request_that_can_reach_it() -> None:
    long = ModelPrice(input=Decimal(6), output=Decimal(30))
    tier = PriceTier(above_input_tokens=200_000, price=long)
    price = ModelPrice(input=Decimal(3), output=Decimal(15), tiers=(tier,))
    assert worst_case_nano_usd(price, input_tokens=200_000, output_tokens=0) == 600_000_000
    assert worst_case_nano_usd(price, input_tokens=200_001, output_tokens=0) == 1_200_006_000


@pytest.mark.parametrize("missing", ["input", "output"])
def test_a_missing_price_is_unknown_in_any_tier(missing) -> None:
    holed = ModelPrice(**{"input": Decimal(1), "output": Decimal(1), missing: None})
    whole = ModelPrice(
        input=Decimal(1),
        output=Decimal(1),
        tiers=(PriceTier(above_input_tokens=10, price=holed),),
    )
    for price in (holed, whole, ModelPrice()):
        assert worst_case_nano_usd(price, input_tokens=1, output_tokens=1) is None
        assert output_that_fits(price, input_tokens=1, available_nano_usd=10**12) == 0


def test_what_is_free_costs_nothing_and_limits_nothing() -> None:
    free = ModelPrice(input=Decimal(0), output=Decimal(0))
    assert worst_case_nano_usd(free, input_tokens=10**9, output_tokens=10**9) == 0
    fits = output_that_fits(free, input_tokens=10**9, available_nano_usd=0)
    assert fits == UNLIMITED_TOKENS


@given(
    price=prices(),
    input_tokens=st.integers(0, 2_000),
    available=st.integers(0, 5 * 10**9),
    rates=st.builds(
        RequestRates,
        may_write_1h=st.booleans(),
        has_audio=st.booleans(),
        service_tier=st.sampled_from([None, "priority", "flex"]),
    ),
)
def test_the_output_that_fits_is_the_most_that_does(price, input_tokens, available, rates) -> None:
    fits = output_that_fits(
        price, input_tokens=input_tokens, available_nano_usd=available, rates=rates
    )

    def worst(output_tokens: int) -> int:
        found = worst_case_nano_usd(
            price, input_tokens=input_tokens, output_tokens=output_tokens, rates=rates
        )
        assert found is not None
        return found

    if fits:
        assert worst(fits) <= available
    else:
        assert worst(1) > available
    if fits < UNLIMITED_TOKENS:
        assert worst(fits + 1) > available


@given(
    first=prices(),
    second=prices(),
    input_tokens=st.integers(0, 1_500),
    output_tokens=st.integers(0, 1_500),
    rates=st.sampled_from([ANY, RequestRates()]),
)
def test_the_dearest_of_two_prices_bounds_both(
    first, second, input_tokens, output_tokens, rates
) -> None:
    """A price that changes while it is held is reserved for as the higher one."""

    def worst(price: ModelPrice) -> int | None:
        return worst_case_nano_usd(
            price, input_tokens=input_tokens, output_tokens=output_tokens, rates=rates
        )

    assert worst(dearest(first, second)) >= max(worst(first), worst(second))
    assert dearest(first, first) is first


def test_the_dearest_of_two_prices_is_unknown_where_one_is() -> None:
    whole = ModelPrice(input=Decimal(1), output=Decimal(1))
    for holed in (ModelPrice(input=Decimal(1)), ModelPrice(output=Decimal(1))):
        for price in (dearest(whole, holed), dearest(holed, whole)):
            assert worst_case_nano_usd(price, input_tokens=1, output_tokens=1) is None


def test_prices_are_told_apart_by_what_they_are_and_not_by_where_they_lie() -> None:
    """A price that is no more must not lend its rates to one that took its place."""
    for cents in range(3 * worst_case._CACHED_MAX):
        price = ModelPrice(input=Decimal(cents), output=Decimal(1))
        assert worst_case_nano_usd(price, input_tokens=1, output_tokens=0) == cents * 1_000
    assert len(worst_case._compiled) <= worst_case._CACHED_MAX


def test_input_is_bounded_by_the_body_and_by_the_window() -> None:
    def bound(body_bytes: int, context_tokens: int | None, *, elsewhere: bool = False):
        return input_bound(
            body_bytes=body_bytes, refers_elsewhere=elsewhere, context_tokens=context_tokens
        )

    assert bound(5_000, 200_000) == 5_000 + HIDDEN_INPUT_TOKENS
    assert bound(5_000, None) == 5_000 + HIDDEN_INPUT_TOKENS
    assert bound(900_000, 200_000) == 200_000
    assert bound(5_000, 200_000, elsewhere=True) == 200_000
    assert bound(5_000, None, elsewhere=True) is None
    # What the catalogue writes for a window it does not know.
    assert bound(5_000, 0) == 5_000 + HIDDEN_INPUT_TOKENS
    assert bound(5_000, 0, elsewhere=True) is None


# --- against the real books ------------------------------------------------------------------


def real_usages(chance: random.Random, largest: int) -> TokenUsage:
    """A usage as providers report it: parts no larger than their whole."""
    kinds = [chance.choice([None, 0, chance.randrange(largest)]) for _ in range(4)]
    output = chance.choice([0, chance.randrange(largest)])
    return TokenUsage(
        input_uncached=chance.randrange(largest),
        cache_read=kinds[0],
        cache_write_5m=kinds[1],
        cache_write_1h=kinds[2],
        output=output,
        reasoning=chance.choice([None, 0, chance.randint(0, output)]),
    )


def with_audio(chance: random.Random, usage: TokenUsage) -> TokenUsage:
    return TokenUsage(
        input_uncached=usage.input_uncached,
        output=usage.output,
        input_audio=chance.randint(0, usage.input_uncached or 0),
        output_audio=chance.randint(0, usage.output or 0),
    )


SERVED_AS = [
    {},
    {"service_tier": "flex"},
    {"service_tier": "priority"},
    {"service_tier": "fast"},
    {"speed": "fast"},
]


def catalogue_ids() -> dict[str, str]:
    from opencode_gate.catalog.genai_book import PROVIDER_IDS

    return {theirs: ours for ours, theirs in PROVIDER_IDS.items()}


@pytest.mark.parametrize("served_as", SERVED_AS, ids=str)
def test_no_answer_of_any_model_in_genai_prices_costs_more(served_as) -> None:
    """Every model it has, by its own arithmetic, tiers and dearer service tiers included."""
    genai = GenaiBook()
    chance = random.Random(5)
    ours = catalogue_ids()
    looked_at = 0
    rates = RequestRates(may_write_1h=True, **served_as)
    sound = RequestRates(may_write_1h=True, has_audio=True, **served_as)
    for provider in get_snapshot().providers:
        provider_id = ours.get(provider.id, provider.id)
        for model in provider.models:
            terms = genai.terms(provider_id, model.id, at_us=AT_US)
            if terms is None or terms.price.input is None or terms.price.output is None:
                continue
            for largest in (50, 9_000, 400_000):
                plain = real_usages(chance, largest)
                for usage, asked in ((plain, rates), (with_audio(chance, plain), sound)):
                    amount = genai.cost_of(
                        provider_id, model.id, usage, at_us=AT_US, raw_usage=json.dumps(served_as)
                    )
                    if amount is None:
                        continue
                    worst = worst_case_nano_usd(terms.price, **sizes_of(usage), rates=asked)
                    assert worst is not None
                    assert nano_usd(amount.usd) <= worst, (provider.id, model.id, usage)
                    looked_at += 1
    assert looked_at > 5_000


def test_no_answer_of_a_catalogued_model_is_charged_more_than_its_worst_case() -> None:
    """As the ledger charges it, whichever book the price is from."""
    settings = parse_settings("", source="f")
    catalogue = open_catalogue(paths(), settings, {})
    book = PriceBook(catalogue, settings)
    chance = random.Random(7)
    looked_at = 0
    for provider_id in ("anthropic", "openai", "google", "xai", "openrouter", "deepseek", "groq"):
        for model_id in catalogue.models(provider_id):
            answer = book.explain(provider_id, model_id, at_us=AT_US)
            if answer is None:
                continue
            for largest in (1_000, 300_000):
                usage = real_usages(chance, largest)
                quote = book.quote(provider_id, (model_id,), usage, at_us=AT_US)
                worst = worst_case_nano_usd(
                    answer.price, **sizes_of(usage), rates=RequestRates(may_write_1h=True)
                )
                if quote is None or worst is None:
                    continue
                assert nano_usd(quote.amount.usd) <= worst, (provider_id, model_id, usage)
                looked_at += 1
    assert looked_at > 500


def test_models_that_charge_for_each_request_are_reserved_for() -> None:
    genai = GenaiBook()
    terms = genai.terms("perplexity", "sonar-pro", at_us=AT_US)
    assert terms is not None and terms.price.per_request is not None
    usage = TokenUsage(input_uncached=10, output=10)
    amount = genai.cost_of("perplexity", "sonar-pro", usage, at_us=AT_US)
    assert amount is not None
    assert nano_usd(amount.usd) <= worst_case_nano_usd(terms.price, **sizes_of(usage))
    assert cost_of(usage, terms.price).usd == amount.usd
