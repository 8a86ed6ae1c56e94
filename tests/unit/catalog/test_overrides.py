"""Which of the user's own prices holds when, and that nothing is added to what was written."""

from datetime import date
from decimal import Decimal

from opencode_gate.catalog.overrides import Overrides, price_on
from opencode_gate.catalog.rows import ModelPrice, PriceTier
from opencode_gate.config.settings import parse_settings

NOON_US = 1_795_262_400_000_000  # 2026-11-21T12:00:00Z
DAY_US = 86_400_000_000


def overrides(text: str) -> Overrides:
    return Overrides(parse_settings(text, source="f").prices)


def test_the_first_name_that_has_a_price_then_wins_and_all_models_come_last() -> None:
    own = overrides(
        """
        [prices."p/*"]
        input = 9
        [prices."p/asked"]
        input = 2
        [prices."p/served"]
        since = 2026-11-22
        input = 1
        """
    )
    names = ("served", "asked")
    today, tomorrow = (own.price("p", names, at_us=NOON_US + days * DAY_US) for days in (0, 1))
    assert (today.name, today.price.input) == ("p/asked", 2)
    assert (tomorrow.name, tomorrow.price.input) == ("p/served", 1)
    assert own.price("p", ("other",), at_us=NOON_US).price.input == 9
    assert own.price("q", names, at_us=NOON_US) is None


def test_a_day_is_the_days_of_utc_from_its_first_moment_to_its_last() -> None:
    own = overrides('[prices."p/m"]\nsince = 2026-11-21\nuntil = 2026-11-21\ninput = 1\n')
    midnight_us = NOON_US - DAY_US // 2
    found = [
        own.price("p", ("m",), at_us=moment) is not None
        for moment in (midnight_us - 1, midnight_us, midnight_us + DAY_US - 1, midnight_us + DAY_US)
    ]
    assert found == [False, True, True, False]


def test_a_tier_changes_what_it_says_and_keeps_the_rest() -> None:
    settings = parse_settings(
        """
        [prices."p/m"]
        input = 1
        output = 2
        cache_write = 3
        tiers = [
            {above_input_tokens = 500, input = 30},
            {above_input_tokens = 100, input = 10, cache_write = 7},
        ]
        """,
        source="f",
    )
    own = price_on(date(2026, 1, 1), "p/m", settings.prices)
    assert own is not None

    def rates(**changes: int) -> ModelPrice:
        plain = {"input": 1, "output": 2, "cache_write": 3, "cache_write_1h": 3, **changes}
        return ModelPrice(**{name: Decimal(rate) for name, rate in plain.items()})

    assert own.price.tiers == (
        PriceTier(above_input_tokens=100, price=rates(input=10, cache_write=7, cache_write_1h=7)),
        PriceTier(above_input_tokens=500, price=rates(input=30)),
    )
