"""What may change in an amount that was counted before, and what never does."""

from datetime import UTC, datetime

import pytest

from opencode_gate.catalog.catalogue import open_catalogue
from opencode_gate.catalog.prices import PriceBook
from opencode_gate.catalog.repricing import Change, Tally, change_of
from opencode_gate.config.paths import paths
from opencode_gate.config.settings import parse_settings
from opencode_gate.core.semconv import CostQuality, Operation, UsageQuality
from opencode_gate.core.usage import TokenUsage
from opencode_gate.ledger.records import ExchangeRecord
from tests.support.ledger_records import an_exchange

DAY_US = 86_400_000_000
NOON_US = int(datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()) * 1_000_000
OWN = '[prices."openai/gpt-5"]\ninput = 1\noutput = 2\n'


def book(text: str = "") -> PriceBook:
    settings = parse_settings(text, source="f")
    return PriceBook(open_catalogue(paths(), settings, {}), settings)


def exchange(**changes) -> ExchangeRecord:
    fields = {
        "provider_name": "openai",
        "request_model": "gpt-5",
        "response_model": None,
        "started_at_us": NOON_US,
        "usage": TokenUsage(input_uncached=1000, output=1000),
        "cost_nano_usd": 11_250_000,
        "price_source": "genai-prices 0.2.3",
    }
    return an_exchange(**{**fields, **changes})


def test_a_correct_amount_stays() -> None:
    record = book().price(exchange(cost_nano_usd=None, cost_quality=CostQuality.UNKNOWN))
    assert change_of(record, book()) is None


def test_a_price_of_the_users_changes_what_a_book_said_on_the_days_it_holds() -> None:
    text = OWN + "since = 2026-11-21\n"
    record = exchange()
    assert change_of(record, book(text)) == Change(
        exchange_id=record.id,
        provider_name="openai",
        request_model="gpt-5",
        old_cost_nano_usd=11_250_000,
        old_source="genai-prices 0.2.3",
        cost_nano_usd=3_000_000,
        cost_quality=CostQuality.PRICED,
        price_source="config.toml",
        cache_saved_nano_usd=None,
    )
    assert change_of(exchange(started_at_us=NOON_US - DAY_US), book(text)) is None


def test_what_the_cache_saved_is_reckoned_anew_with_the_price() -> None:
    """A summary must not set off new costs against old savings."""
    usage = TokenUsage(input_uncached=1000, cache_read=1_000_000, output=10)
    text = OWN + "cache_read = 0.25\n"
    change = change_of(exchange(usage=usage, cache_saved_nano_usd=7), book(text))
    assert change is not None
    assert change.cache_saved_nano_usd == 1_000_000 * 750


def test_an_unknown_cost_becomes_known() -> None:
    unknown = exchange(cost_nano_usd=None, cost_quality=CostQuality.UNKNOWN, price_source=None)
    change = change_of(unknown, book(OWN))
    assert change is not None
    assert (change.old_cost_nano_usd, change.cost_nano_usd) == (None, 3_000_000)


def test_estimated_tokens_stay_estimated() -> None:
    record = exchange(usage_quality=UsageQuality.ESTIMATED, cost_quality=CostQuality.ESTIMATED)
    change = change_of(record, book(OWN))
    assert change is not None
    assert change.cost_quality is CostQuality.ESTIMATED


def test_an_estimate_that_was_held_to_its_reservation_is_not_raised_beyond_it() -> None:
    """The reservation counted, and the request could not cost more; it can have cost less."""
    held = exchange(
        usage_quality=UsageQuality.ESTIMATED,
        cost_quality=CostQuality.ESTIMATED,
        cost_nano_usd=9_000_000,
        priced_cost_nano_usd=11_250_000,
        reserved_cost_nano_usd=9_000_000,
    )
    assert change_of(held, book()) is None
    change = change_of(held, book(OWN))
    assert change is not None
    assert change.cost_nano_usd == 3_000_000


def test_what_the_provider_reported_goes_on_counting() -> None:
    record = exchange(
        reported_cost_nano_usd=77,
        cost_nano_usd=77,
        cost_quality=CostQuality.REPORTED,
        price_source="provider",
        priced_cost_nano_usd=11_250_000,
    )
    change = change_of(record, book(OWN))
    assert change is not None
    assert change.is_beside_reported
    assert (change.old_cost_nano_usd, change.cost_nano_usd) == (11_250_000, 3_000_000)
    assert (change.cost_quality, change.price_source) == (CostQuality.REPORTED, "provider")
    assert change_of(record, book()) is None
    tally = Tally()
    tally.add(change)
    assert (tally.rows(), tally.beside_reported) == ([], 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"cost_nano_usd": 0, "price_source": "not billed"},
        {"cost_nano_usd": 0, "price_source": "scripted, free"},
        {"operation": Operation.COUNT_TOKENS, "cost_nano_usd": None, "price_source": None},
    ],
)
def test_an_amount_that_is_no_books_is_left_alone(changes) -> None:
    assert change_of(exchange(**changes), book(OWN)) is None


def test_a_known_amount_never_becomes_unknown() -> None:
    for source in ("config.toml", "genai-prices 0.2.3", "catalogue 2026-01-01"):
        record = exchange(request_model="no-such-model-xyz", price_source=source)
        assert change_of(record, book()) is None


@pytest.mark.parametrize(
    ("source", "changes"),
    [
        ("catalogue 2026-01-01", False),
        ("genai-prices 0.0.1", False),
        ("Opencode's configuration", False),
        ("config.toml", True),
    ],
)
def test_the_catalogues_price_of_today_replaces_no_other_books_price_of_its_day(
    source, changes
) -> None:
    """The catalogue does not say since when it holds."""
    record = exchange(
        provider_name="zenmux", request_model="anthropic/claude-sonnet-4.5", price_source=source
    )
    assert (change_of(record, book()) is not None) is changes
    unknown = exchange(
        provider_name="zenmux",
        request_model="anthropic/claude-sonnet-4.5",
        cost_nano_usd=None,
        cost_quality=CostQuality.UNKNOWN,
        price_source=None,
    )
    assert change_of(unknown, book()) is not None


def test_changes_are_summed_per_model_and_unknown_old_amounts_counted_apart() -> None:
    text = OWN + '[prices."openai/gpt-5-mini"]\ninput = 100\noutput = 100\n'
    unknown = {"cost_nano_usd": None, "cost_quality": CostQuality.UNKNOWN, "price_source": None}
    records = [
        exchange(),
        exchange(**unknown),
        exchange(request_model="gpt-5-mini", **unknown),
    ]
    tally = Tally()
    for record in records:
        change = change_of(record, book(text))
        assert change is not None
        tally.add(change)
    mini, five = tally.rows()
    assert (mini.request_model, mini.changed, mini.old_cost_nano_usd) == ("gpt-5-mini", 1, None)
    assert (mini.new_cost_nano_usd, mini.old_unknown) == (200_000_000, 1)
    assert (five.changed, five.old_cost_nano_usd, five.old_unknown) == (2, 11_250_000, 1)
    assert (five.new_cost_nano_usd, five.sources) == (6_000_000, {"config.toml"})
