"""Which book prices an exchange, and that the amount is the one that book would give."""

import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import genai_prices
import pytest
from genai_prices import Usage, calc_price
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import StartDateConstraint
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from opencode_gate.catalog.catalogue import open_catalogue
from opencode_gate.catalog.genai_book import PROVIDER_IDS
from opencode_gate.catalog.model_entries import model_row
from opencode_gate.catalog.prices import PriceBook
from opencode_gate.config.paths import paths
from opencode_gate.config.settings import parse_settings
from opencode_gate.core.money import nano_usd
from opencode_gate.core.semconv import CostQuality, Operation, UsageQuality
from opencode_gate.core.usage import TokenUsage
from opencode_gate.ledger.records import ExchangeRecord
from tests.support.ledger_records import an_exchange

ODD = TokenUsage(
    input_uncached=1_237,
    cache_read=40_009,
    cache_write_5m=811,
    cache_write_1h=53,
    output=1_931,
    reasoning=607,
)
AT = datetime(2026, 11, 21, 12, tzinfo=UTC)


def book(text: str = "", **extra_models) -> PriceBook:
    settings = parse_settings(text, source="f")
    return PriceBook(open_catalogue(paths(), settings, {}), settings, **extra_models)


def exchange(provider_id: str, model_id: str | None, **changes) -> ExchangeRecord:
    fields = {
        "provider_name": provider_id,
        "request_model": model_id,
        "response_model": None,
        "usage": ODD,
        "started_at_us": int(AT.timestamp()) * 1_000_000,
        "cost_nano_usd": None,
        "cost_quality": CostQuality.UNKNOWN,
        "price_source": None,
    }
    return an_exchange(**{**fields, **changes})


def theirs(
    provider_id: str, model_id: str, usage: TokenUsage = ODD, *, at: datetime = AT, **context
) -> int:
    calculation = calc_price(
        Usage(
            input_tokens=usage.input_tokens,
            cache_read_tokens=usage.cache_read,
            cache_write_tokens=usage.cache_creation_input_tokens,
            cache_write_5m_tokens=usage.cache_write_5m,
            cache_write_1h_tokens=usage.cache_write_1h,
            output_tokens=usage.output,
            output_reasoning_tokens=usage.reasoning,
        ),
        model_id,
        provider_id=provider_id,
        genai_request_timestamp=at,
        price_context=context or None,
    )
    return nano_usd(calculation.total_price)


@pytest.mark.parametrize(
    ("ours", "genai", "model_id"),
    [
        ("anthropic", "anthropic", "claude-sonnet-4-5"),
        ("anthropic", "anthropic", "claude-opus-5"),
        ("openai", "openai", "gpt-5.6"),
        ("google", "google", "gemini-2.5-pro"),
        ("xai", "x-ai", "grok-4"),
        ("openrouter", "openrouter", "anthropic/claude-sonnet-4.5"),
        ("togetherai", "together", "deepseek-ai/DeepSeek-V4.1-Flash"),
        ("azure-cognitive-services", "azure", "gpt-5"),
    ],
)
def test_the_cost_is_the_one_genai_prices_gives(ours, genai, model_id) -> None:
    priced = book().price(exchange(ours, model_id))
    assert priced.cost_nano_usd == theirs(genai, model_id) > 0
    assert priced.cost_quality is CostQuality.PRICED
    assert priced.price_source == f"genai-prices {genai_prices.__version__}"


def test_every_priced_model_of_a_shared_provider_costs_the_same_in_both() -> None:
    ours = book()
    by_genai_id = {
        genai: own for own, genai in PROVIDER_IDS.items() if not own.startswith("google")
    }
    checked = 0
    for provider in get_snapshot().providers:
        own = by_genai_id.get(provider.id, provider.id)
        for model in provider.models:
            if provider.id not in ("anthropic", "openai", "google", "x-ai", "groq", "mistral"):
                continue
            rates = model.get_prices(AT)
            if rates.input_mtok is None or rates.output_mtok is None:
                continue
            try:
                expected = theirs(provider.id, model.id)
            except (LookupError, ValueError):
                continue
            assert ours.price(exchange(own, model.id)).cost_nano_usd == expected, model.id
            checked += 1
    assert checked > 200


@pytest.mark.parametrize(
    ("provider_id", "model_id"), [("groq", "whisper-large-v3"), ("google", "gemma-4-31b-it")]
)
def test_an_entry_without_a_price_for_what_was_counted_is_no_price_of_zero(
    provider_id, model_id
) -> None:
    """genai-prices adds up what it has; of what it does not have, it says nothing."""
    assert theirs(provider_id, model_id) == 0
    assert book().price(exchange(provider_id, model_id)).cost_nano_usd is None
    assert book().explain(provider_id, model_id) is None


PRICED_MODELS = [
    (provider.id, model.id)
    for provider in get_snapshot().providers
    if provider.id in ("anthropic", "openai", "deepseek", "mistral", "groq")
    for model in provider.models
    if provider.find_model(model.id) is model
    and model.get_prices(AT).input_mtok
    and model.get_prices(AT).output_mtok
]
SHARED_BOOK: list[PriceBook] = []


@st.composite
def flows(draw: st.DrawFn) -> TokenUsage:
    """What a provider may report: long and short, any share of it cached, some of it thought."""
    counts = st.integers(min_value=0, max_value=700_000)
    output = draw(st.integers(min_value=0, max_value=100_000))
    return TokenUsage(
        input_uncached=draw(counts),
        cache_read=draw(st.none() | counts),
        cache_write_5m=draw(st.none() | counts),
        cache_write_1h=draw(st.none() | counts),
        output=output,
        reasoning=draw(st.none() | st.integers(min_value=0, max_value=output)),
    )


@hypothesis_settings(max_examples=250, deadline=None)
@given(
    model=st.sampled_from(PRICED_MODELS),
    usage=flows(),
    moment=st.datetimes(datetime(2024, 1, 1), datetime(2027, 12, 31), timezones=st.just(UTC)),
)
def test_any_flow_on_any_day_costs_what_genai_prices_says(model, usage, moment) -> None:
    """Long context, both cache writes, days on which prices changed, hours of the day."""
    if not SHARED_BOOK:
        SHARED_BOOK.append(book())
    moment = moment.replace(microsecond=0)
    priced = SHARED_BOOK[0].price(
        exchange(*model, usage=usage, started_at_us=int(moment.timestamp()) * 1_000_000)
    )
    assert priced.cost_nano_usd == theirs(*model, usage, at=moment)
    assert priced.priced_cost_nano_usd == priced.cost_nano_usd


def test_a_long_context_reprices_the_whole_request() -> None:
    short = TokenUsage(input_uncached=272_000, output=10)
    long = TokenUsage(input_uncached=272_001, output=10)
    priced = [
        book().price(exchange("openai", "gpt-5.6", usage=usage)).cost_nano_usd
        for usage in (short, long)
    ]
    assert priced == [theirs("openai", "gpt-5.6", short), theirs("openai", "gpt-5.6", long)]
    assert priced[1] > 1.9 * priced[0]


def test_the_price_is_the_one_of_the_day_of_the_request() -> None:
    before = datetime(2026, 8, 1, tzinfo=UTC)
    old = book().price(
        exchange("openai", "gpt-5.6", started_at_us=int(before.timestamp()) * 1_000_000)
    )
    assert old.cost_nano_usd > theirs("openai", "gpt-5.6")


def test_a_service_tier_and_searches_in_the_raw_usage_count() -> None:
    plain = book().price(exchange("openai", "gpt-5"))
    flex = book().price(exchange("openai", "gpt-5", raw_usage=json.dumps({"service_tier": "flex"})))
    assert flex.cost_nano_usd == theirs("openai", "gpt-5", service_tier="flex")
    assert flex.cost_nano_usd < plain.cost_nano_usd
    searched = {"server_tool_use": {"web_search_requests": 3}}
    found = book().price(exchange("anthropic", "claude-opus-5", raw_usage=json.dumps(searched)))
    assert found.cost_nano_usd == theirs("anthropic", "claude-opus-5") + 30_000_000


@pytest.mark.parametrize("raw", ["", "{", "[1]", '{"service_tier": 3, "server_tool_use": []}'])
def test_a_raw_usage_nobody_understands_changes_nothing(raw) -> None:
    priced = book().price(exchange("openai", "gpt-5", raw_usage=raw))
    assert priced.cost_nano_usd == theirs("openai", "gpt-5")


def test_the_model_that_answered_is_priced_and_the_one_asked_for_stands_in() -> None:
    served = book().price(exchange("openai", "gpt-5", response_model="gpt-5-nano-2025-08-07"))
    assert served.cost_nano_usd == theirs("openai", "gpt-5-nano")
    unnamed = book().price(exchange("openai", "gpt-5", response_model="engine-7"))
    assert unnamed.cost_nano_usd == theirs("openai", "gpt-5")


def test_the_catalogue_prices_what_genai_prices_does_not_know() -> None:
    priced = book().price(
        exchange(
            "zenmux",
            "anthropic/claude-sonnet-4.5",
            usage=TokenUsage(input_uncached=1000, output=10),
        )
    )
    assert priced.cost_nano_usd == nano_usd((Decimal(1000) * 3 + 10 * 15) / 1_000_000)
    assert priced.price_source == "catalogue 2026-09-28"


def test_the_users_price_beats_both_books() -> None:
    text = (
        '[prices."openai/gpt-5"]\ninput = 1\noutput = 2\n[prices."zenmux/*"]\ninput=0\noutput=0\n'
    )
    priced = book(text).price(
        exchange("openai", "gpt-5", usage=TokenUsage(input_uncached=7, cache_write_1h=3, output=5))
    )
    assert (priced.cost_nano_usd, priced.price_source) == (20_000, "config.toml")
    assert priced.cost_quality is CostQuality.PRICED
    assert book(text).price(exchange("zenmux", "whatever")).cost_nano_usd == 0


def test_half_a_price_of_the_users_is_unknown_and_not_another_books() -> None:
    priced = book('[prices."openai/gpt-5"]\ninput = 1\n').price(exchange("openai", "gpt-5"))
    assert priced.cost_nano_usd is None
    assert priced.cost_quality is CostQuality.UNKNOWN


@pytest.mark.parametrize(
    ("provider_id", "model_id"),
    [("openai", "no-such-model-xyz"), ("nobody", "gpt-5"), ("wallaby", "x"), ("openai", None)],
)
def test_an_unknown_price_is_never_zero(provider_id, model_id) -> None:
    priced = book().price(exchange(provider_id, model_id))
    assert priced.cost_nano_usd is None
    assert priced.cost_quality is CostQuality.UNKNOWN
    assert priced.price_source is None


@pytest.mark.parametrize("provider_id", ["together", "my-openai", "avian", "gemini-proxy"])
def test_a_server_of_the_users_is_never_priced_by_the_sound_of_its_name(provider_id) -> None:
    text = f'[providers.{provider_id}]\nbase_url="http://h/v1"\n[providers.{provider_id}.models.gpt-5]\n'
    for model_id in ("gpt-5", "gemini-2.5-pro", "deepseek-ai/DeepSeek-V3.1"):
        assert book(text).price(exchange(provider_id, model_id)).cost_nano_usd is None


def test_what_the_provider_says_it_cost_wins_and_the_books_word_stays_beside_it() -> None:
    priced = book().price(exchange("openai", "gpt-5", reported_cost_nano_usd=77))
    assert (priced.cost_nano_usd, priced.cost_quality) == (77, CostQuality.REPORTED)
    assert priced.price_source == "provider"
    assert priced.priced_cost_nano_usd == theirs("openai", "gpt-5")
    unlisted = book().price(exchange("openai", "no-such-model-xyz", reported_cost_nano_usd=77))
    assert (unlisted.cost_nano_usd, unlisted.priced_cost_nano_usd) == (77, None)
    zero = book().price(exchange("openai", "gpt-5", reported_cost_nano_usd=0))
    assert (zero.cost_nano_usd, zero.cost_quality) == (0, CostQuality.REPORTED)


@pytest.mark.parametrize("quality", [UsageQuality.ESTIMATED, UsageQuality.UNKNOWN])
def test_estimated_tokens_make_an_estimated_cost(quality) -> None:
    priced = book().price(exchange("openai", "gpt-5", usage_quality=quality))
    assert priced.cost_nano_usd == theirs("openai", "gpt-5")
    assert priced.cost_quality is CostQuality.ESTIMATED


def test_input_alone_makes_an_estimated_cost() -> None:
    priced = book().price(exchange("openai", "gpt-5", usage=TokenUsage(input_uncached=1000)))
    assert priced.cost_nano_usd == 1_250_000
    assert priced.cost_quality is CostQuality.ESTIMATED


def test_no_count_at_all_is_an_unknown_cost() -> None:
    assert book().price(exchange("openai", "gpt-5", usage=TokenUsage())).cost_nano_usd is None


def test_a_free_model_costs_nothing_and_that_is_known() -> None:
    for usage, quality in ((ODD, UsageQuality.REPORTED), (TokenUsage(), UsageQuality.UNKNOWN)):
        priced = book().price(
            exchange("opencode", "big-pickle", usage=usage, usage_quality=quality)
        )
        assert (priced.cost_nano_usd, priced.cost_quality) == (0, CostQuality.PRICED)


def test_the_practice_model_is_free_and_says_it_is_scripted() -> None:
    priced = book().price(exchange("practice", "scripted"))
    assert (priced.cost_nano_usd, priced.cost_quality) == (0, CostQuality.PRICED)
    assert priced.price_source == "scripted, free"


def test_an_amount_somebody_wrote_is_left_alone() -> None:
    record = exchange("openai", "gpt-5", cost_nano_usd=0, price_source="not billed")
    assert book().price(record) is record


@pytest.mark.parametrize(
    "operation", [Operation.COUNT_TOKENS, Operation.LIST_MODELS, Operation.OTHER]
)
def test_only_generation_is_priced(operation) -> None:
    record = exchange("openai", "gpt-5", operation=operation)
    assert book().price(record).cost_nano_usd is None


def test_audio_beside_a_cache_is_priced_without_the_breakdown_and_called_estimated() -> None:
    usage = TokenUsage(input_uncached=1000, cache_read=500, output=10, input_audio=300)
    priced = book().price(exchange("google", "gemini-2.5-flash", usage=usage))
    assert priced.cost_nano_usd is not None
    assert priced.cost_quality is CostQuality.ESTIMATED


def test_a_model_of_the_agents_own_configuration_has_the_price_it_states() -> None:
    row = model_row("theirs", "m", {"cost": {"input": 1, "output": 2}})
    priced = book(extra_models={"theirs": {"m": row}}).price(
        exchange("theirs", "m", usage=TokenUsage(input_uncached=10, output=10))
    )
    assert (priced.cost_nano_usd, priced.price_source) == (30_000, "Opencode's configuration")


def test_an_explanation_names_the_prices_and_their_book() -> None:
    answer = book().explain("openai", "gpt-5.6", at_us=int(AT.timestamp()) * 1_000_000)
    assert answer is not None
    assert answer.source.startswith("genai-prices")
    assert (answer.price.input, answer.price.tiers[0].price.input) == (4, 8)
    assert answer.price.tiers[0].above_input_tokens == 272_000
    assert book().explain("openai", "no-such-model-xyz") is None


def test_an_explanation_says_from_when_to_when_its_prices_hold() -> None:
    """The days on which genai-prices has another price for a model, told by its own dates."""
    told = book()
    checked = 0
    for provider in get_snapshot().providers:
        if provider.id != "openai":
            continue
        for model in provider.models:
            starts = [
                one.constraint.start_date
                for one in (model.prices if isinstance(model.prices, list) else [])
                if isinstance(one.constraint, StartDateConstraint)
            ]
            if starts != sorted(set(starts)) or not model.get_prices(AT).input_mtok:
                continue
            for start in starts:
                noon = datetime(start.year, start.month, start.day, 12, tzinfo=UTC)
                on, before = (
                    told.explain(
                        "openai", model.id, at_us=int((noon - back).timestamp()) * 1_000_000
                    )
                    for back in (timedelta(), timedelta(days=1))
                )
                if on is None or before is None:
                    continue
                assert on.since == start
                assert before.until == start - timedelta(days=1)
                checked += 1
    assert checked > 3


def test_every_book_that_knows_a_model_is_heard_and_the_first_is_used() -> None:
    text = '[prices."openai/gpt-5"]\ninput = 1\noutput = 2\nsince = 2026-11-01\n'
    answers = list(book(text).answers("openai", "gpt-5", at_us=int(AT.timestamp()) * 1_000_000))
    assert [one.source.split()[0] for one in answers] == [
        "config.toml",
        "genai-prices",
        "catalogue",
    ]
    assert (answers[0].since, answers[0].until) == (date(2026, 11, 1), None)
    assert answers[0].note == '[prices."openai/gpt-5"]'
    assert answers[1].address is not None
    assert (
        book(text).explain("openai", "gpt-5", at_us=int(AT.timestamp()) * 1_000_000) == (answers[0])
    )


def test_a_price_of_the_users_holds_on_its_days_and_the_books_on_all_others() -> None:
    text = """
        [[prices."openai/gpt-5"]]
        until = 2026-10-31
        input = 1
        output = 2
        [[prices."openai/gpt-5"]]
        since = 2026-11-20
        until = 2026-11-21
        input = 3
        output = 4
        [[prices."openai/gpt-5".tiers]]
        above_input_tokens = 1000
        output = 9
    """
    usage = TokenUsage(input_uncached=1000, output=1000)
    long = TokenUsage(input_uncached=1001, output=1000)

    def cost(moment: datetime, counted: TokenUsage = usage) -> int | None:
        at_us = int(moment.timestamp()) * 1_000_000
        return (
            book(text)
            .price(exchange("openai", "gpt-5", usage=counted, started_at_us=at_us))
            .cost_nano_usd
        )

    assert cost(datetime(2026, 10, 31, 23, 59, tzinfo=UTC)) == 3_000_000
    assert cost(datetime(2026, 11, 1, tzinfo=UTC)) == theirs("openai", "gpt-5", usage)
    assert cost(datetime(2026, 11, 20, tzinfo=UTC)) == 7_000_000
    assert cost(datetime(2026, 11, 20, tzinfo=UTC), long) == 1001 * 3000 + 1000 * 9000
    assert cost(datetime(2026, 11, 22, tzinfo=UTC)) == theirs("openai", "gpt-5", usage)


def test_the_users_price_of_a_model_of_their_own_is_not_taken_for_the_catalogues_as_well() -> None:
    """On other days than its own nobody knows a price."""
    prices = book(
        """
        [providers.work]
        base_url = "https://work.example/v1"
        wire = "openai-chat"
        [providers.work.models.m]
        [prices."work/m"]
        since = 2026-11-01
        input = 3
        output = 15
        """
    )
    sources = [answer.source for answer in prices.answers("work", "m")]
    before = prices.price(exchange("work", "m", started_at_us=1_700_000_000_000_000))
    assert sources == ["config.toml"]
    assert (before.cost_nano_usd, before.cost_quality) == (None, CostQuality.UNKNOWN)
    assert prices.price(exchange("work", "m")).price_source == "config.toml"


def test_each_name_in_the_table_leads_to_a_provider_of_both() -> None:
    catalogue = open_catalogue(paths(), parse_settings("", source="f"), {})
    ids = {provider.id for provider in get_snapshot().providers}
    for own, genai in PROVIDER_IDS.items():
        assert own in catalogue.providers()
        assert genai in ids
