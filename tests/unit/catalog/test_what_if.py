"""The same tokens on other models: priced request by request, and honest about what is left out."""

from datetime import UTC, datetime

import pytest
from genai_prices import Usage, calc_price
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from opencode_gate.catalog.arithmetic import uncached
from opencode_gate.catalog.catalogue import open_catalogue
from opencode_gate.catalog.prices import PriceBook
from opencode_gate.catalog.what_if import Alternative, OtherModel, WhatIf, what_if
from opencode_gate.config.paths import paths
from opencode_gate.config.settings import parse_settings
from opencode_gate.core.money import nano_usd
from opencode_gate.core.semconv import CostQuality, Operation, UsageQuality
from opencode_gate.core.usage import TokenUsage
from opencode_gate.ledger.records import ExchangeRecord
from tests.support.ledger_records import an_exchange

AT = datetime(2026, 11, 21, 12, tzinfo=UTC)
OWN = """
    [prices."openai/caching"]
    input = 10
    cache_read = 1
    cache_write = 12
    output = 20
    [prices."openai/reading"]
    input = 10
    cache_read = 1
    output = 20
    [prices."openai/plain"]
    input = 10
    output = 20
    [prices."openai/half"]
    input = 10
    [prices."openai/free"]
    input = 0
    output = 0
    [prices."openai/tiered"]
    input = 10
    output = 20
    cache_read = 1
    tiers = {above_input_tokens = 1000, input = 100, cache_read = 10, output = 200}
"""
FLOW = TokenUsage(
    input_uncached=100, cache_read=800, cache_write_5m=50, cache_write_1h=50, output=10
)


def book(text: str = OWN) -> PriceBook:
    settings = parse_settings(text, source="f")
    return PriceBook(open_catalogue(paths(), settings, {}), settings)


def flow(usage: TokenUsage = FLOW, **changes) -> ExchangeRecord:
    fields = {
        "provider_name": "anthropic",
        "request_model": "claude-sonnet-4-5",
        "response_model": None,
        "usage": usage,
        "started_at_us": int(AT.timestamp()) * 1_000_000,
        "cost_nano_usd": 1_000_000,
    }
    return an_exchange(**{**fields, **changes})


def on(model: str, *flows: ExchangeRecord, **facts) -> Alternative:
    return compared(model, *flows, **facts).alternatives[0]


def compared(model: str, *flows: ExchangeRecord, **facts) -> WhatIf:
    provider_id, _, model_id = model.partition("/")
    other = OtherModel(provider_id=provider_id, model_id=model_id, **facts)
    return what_if(flows, [other], book())


def codes(alternative: Alternative) -> dict[str, int | None]:
    return {caveat.code: caveat.requests for caveat in alternative.caveats}


@pytest.mark.parametrize(
    ("model", "cost_nano_usd"),
    [
        ("openai/caching", 100 * 10_000 + 800 * 1_000 + 100 * 12_000 + 10 * 20_000),
        ("openai/reading", 200 * 10_000 + 800 * 1_000 + 10 * 20_000),
        ("openai/plain", 1000 * 10_000 + 10 * 20_000),
        ("openai/free", 0),
    ],
)
def test_the_cached_share_stays_cached_where_that_provider_has_a_price_for_it(
    model, cost_nano_usd
) -> None:
    assert on(model, flow()).total.cost_nano_usd == cost_nano_usd


def test_a_cache_that_only_writes_is_no_cache() -> None:
    text = '[prices."openai/odd"]\ninput = 10\ncache_write = 99\noutput = 20\n'
    found = what_if([flow()], [OtherModel(provider_id="openai", model_id="odd")], book(text))
    assert found.alternatives[0].total.cost_nano_usd == 1000 * 10_000 + 10 * 20_000


def test_a_tier_holds_for_the_requests_that_are_long_and_not_for_their_sum() -> None:
    short, long = (
        flow(TokenUsage(input_uncached=size, cache_read=0, output=0)) for size in (900, 1001)
    )
    assert on("openai/tiered", short, short).total.cost_nano_usd == 1800 * 10_000
    assert on("openai/tiered", short, long).total.cost_nano_usd == 900 * 10_000 + 1001 * 100_000


def test_an_unknown_price_is_unknown_and_in_neither_sum_of_the_comparison() -> None:
    """What was not priced there, or has no known cost here, would make the ratio a lie."""
    known, unknown = flow(), flow(cost_nano_usd=None, cost_quality=CostQuality.UNKNOWN)
    nowhere = on("openai/no-such-model-xyz", known, unknown)
    assert (nowhere.total.cost_nano_usd, nowhere.total.unknown_cost_requests) == (None, 2)
    assert (nowhere.compared_requests, codes(nowhere)) == (0, {"unknown-price": 2})
    plain = on("openai/plain", known, unknown)
    assert plain.total.cost_nano_usd == 2 * (1000 * 10_000 + 10 * 20_000)
    assert plain.compared_requests == 1
    assert plain.compared_actual_nano_usd == 1_000_000
    assert plain.compared_cost_nano_usd == 1000 * 10_000 + 10 * 20_000
    assert on("openai/half", known).total.cost_nano_usd is None


def test_what_is_left_out_is_said() -> None:
    never_cached = flow(TokenUsage(input_uncached=1000, output=10))
    read_only = flow(TokenUsage(input_uncached=200, cache_read=800, output=10))
    assert codes(on("openai/plain", flow(), never_cached)) == {"no-cache-price": 1}
    assert codes(on("openai/caching", flow(), never_cached, read_only)) == {
        "no-cache-in-flow": 1,
        "no-cache-writes-in-flow": 1,
    }
    assert codes(on("openai/reading", read_only)) == {}
    assert codes(on("openai/free", flow(), never_cached)) == {}
    assert codes(on("openai/plain", never_cached, context_tokens=999)) == {"too-long": 1}
    assert codes(on("openai/plain", never_cached, context_tokens=1000)) == {}
    assert [caveat.code for caveat in compared("openai/plain", flow()).caveats] == [
        "tokenizers-differ",
        "reasoning-differs",
    ]


def test_estimated_tokens_make_an_estimated_comparison() -> None:
    cut = flow(usage_quality=UsageQuality.ESTIMATED)
    assert on("openai/plain", flow()).total.cost_quality is CostQuality.PRICED
    assert on("openai/plain", flow(), cut).total.cost_quality is CostQuality.ESTIMATED
    unknown = on("openai/plain", flow(), flow(TokenUsage(), cost_nano_usd=None))
    assert (unknown.total.cost_quality, unknown.total.unknown_cost_requests) == (
        CostQuality.UNKNOWN,
        1,
    )


def test_what_nobody_was_charged_for_is_not_compared() -> None:
    found = compared(
        "openai/plain",
        flow(operation=Operation.COUNT_TOKENS),
        flow(TokenUsage(), cost_nano_usd=0, price_source="not billed"),
    )
    assert (found.actual.requests, found.alternatives[0].total.requests) == (0, 0)
    assert found.alternatives[0].total.cost_nano_usd is None


def test_the_service_tier_of_one_provider_is_none_of_the_others() -> None:
    plain = on("openai/gpt-5", flow())
    flex = on("openai/gpt-5", flow(raw_usage='{"service_tier": "flex"}'))
    assert flex.total == plain.total
    assert plain.price_sources[0].startswith("genai-prices ")


def test_the_sums_of_the_flow_itself_are_part_of_the_answer() -> None:
    found = compared("openai/plain", flow(), flow(cost_nano_usd=None))
    assert (found.input_tokens, found.cache_read_input_tokens, found.output_tokens) == (
        2000,
        1600,
        20,
    )
    assert (found.actual.requests, found.actual.cost_nano_usd) == (2, 1_000_000)
    assert found.actual.unknown_cost_requests == 1


MODELS = [
    ("anthropic", "claude-opus-5"),
    ("anthropic", "claude-sonnet-4-5"),
    ("openai", "gpt-5.6"),
    ("openai", "gpt-5-mini"),
    ("deepseek", "deepseek-v4-pro"),
    ("mistral", "mistral-large-latest"),
    ("groq", "openai/gpt-oss-120b"),
]
SHARED_BOOK: list[PriceBook] = []


@st.composite
def flows(draw: st.DrawFn) -> ExchangeRecord:
    counts = st.integers(min_value=0, max_value=300_000)
    output = draw(counts)
    moment = draw(st.datetimes(datetime(2025, 1, 1), datetime(2027, 6, 1), timezones=st.just(UTC)))
    return flow(
        TokenUsage(
            input_uncached=draw(counts),
            cache_read=draw(st.none() | counts),
            cache_write_5m=draw(st.none() | counts),
            output=output,
            reasoning=draw(st.none() | st.integers(min_value=0, max_value=output)),
        ),
        started_at_us=int(moment.timestamp()) * 1_000_000,
    )


@hypothesis_settings(max_examples=120, deadline=None)
@given(model=st.sampled_from(MODELS), taken=st.lists(flows(), min_size=1, max_size=4))
def test_it_is_the_sum_of_what_genai_prices_says_of_each_request(model, taken) -> None:
    """As of each request's day; without the cache where the model has no price for it."""
    if not SHARED_BOOK:
        SHARED_BOOK.append(book(""))
    provider_id, model_id = model
    other = OtherModel(provider_id=provider_id, model_id=model_id)
    expected = 0
    for record in taken:
        moment = datetime.fromtimestamp(record.started_at_us / 1e6, tz=UTC)

        def theirs(usage: TokenUsage, moment: datetime = moment):
            return calc_price(
                Usage(
                    input_tokens=usage.input_tokens,
                    cache_read_tokens=usage.cache_read,
                    cache_write_tokens=usage.cache_creation_input_tokens,
                    cache_write_5m_tokens=usage.cache_write_5m,
                    output_tokens=usage.output,
                    output_reasoning_tokens=usage.reasoning,
                ),
                model_id,
                provider_id=provider_id,
                genai_request_timestamp=moment,
            )

        priced = theirs(record.usage)
        if priced.model_price.cache_read_mtok is None:
            priced = theirs(uncached(record.usage))
        expected += nano_usd(priced.total_price)
    found = what_if(taken, [other], SHARED_BOOK[0]).alternatives[0]
    assert found.total.cost_nano_usd == expected
    assert found.total.requests == len(taken)
