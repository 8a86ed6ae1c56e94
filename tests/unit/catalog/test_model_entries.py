"""A model's row: limits of 0 are unknown, prices are exact, tiers inherit what they do not say."""

from decimal import Decimal

from opencode_gate.catalog.model_entries import described_model, model_row, price_of
from opencode_gate.catalog.rows import ModelPrice
from opencode_gate.config.settings import ModelSettings


def test_a_limit_of_zero_is_unknown_and_a_price_of_zero_is_free() -> None:
    row = model_row(
        "p", "m", {"limit": {"context": 0, "output": 5}, "cost": {"input": 0, "output": 0}}
    )
    assert (row.context_tokens, row.output_tokens) == (None, 5)
    assert row.price is not None
    assert row.price.is_free


def test_an_entry_that_says_nothing_is_a_row_all_the_same() -> None:
    row = model_row("p", "m", {})
    assert (row.name, row.price, row.tool_call, row.context_tokens) == ("m", None, None, None)


def test_a_price_is_the_decimal_that_was_written() -> None:
    price = price_of({"input": 0.1, "output": 0.07, "cache_read": 0.0125})
    assert price == ModelPrice(
        input=Decimal("0.1"), output=Decimal("0.07"), cache_read=Decimal("0.0125")
    )


def test_no_price_is_unknown_and_not_free() -> None:
    assert price_of(None) is None
    assert price_of({}) is None
    assert price_of({"cache_read": 1}) is None


def test_tiers_are_sorted_and_keep_what_they_do_not_change() -> None:
    price = price_of(
        {
            "input": 1,
            "output": 2,
            "cache_read": 0.5,
            "context_over_200k": {"input": 99, "output": 99},
            "tiers": [
                {"input": 5, "output": 6, "tier": {"type": "context", "size": 128000}},
                {"input": 3, "tier": {"type": "context", "size": 32000}},
                {"input": 7, "tier": {"type": "something else", "size": 1}},
            ],
        }
    )
    assert price is not None
    assert [tier.above_input_tokens for tier in price.tiers] == [32000, 128000]
    assert price.tiers[0].price == ModelPrice(
        input=Decimal(3), output=Decimal(2), cache_read=Decimal("0.5")
    )
    assert price.tiers[1].price.output == 6


def test_the_older_long_context_price_counts_where_there_are_no_tiers() -> None:
    price = price_of({"input": 1, "output": 2, "context_over_200k": {"input": 3, "output": 4}})
    assert price is not None
    assert price.tiers[0].above_input_tokens == 200_000
    assert price.tiers[0].price.input == 3
    assert not price.is_free


def test_a_model_in_the_users_words_is_written_back_in_models_devs() -> None:
    row = described_model("mine", "m", ModelSettings(context=32_000, tool_call=False))
    assert row.raw["limit"] == {"context": 32_000}
    assert row.raw["tool_call"] is False
    assert "cost" not in row.raw
    assert described_model("mine", "m", ModelSettings()).tool_call is True


def test_a_known_model_keeps_what_the_user_did_not_say() -> None:
    known = {
        "id": "m",
        "name": "Known",
        "tool_call": False,
        "limit": {"context": 10, "output": 4},
        "cost": {"input": 1, "output": 2},
    }
    row = described_model("p", "m", ModelSettings(context=99), known=known)
    assert (row.context_tokens, row.output_tokens, row.tool_call) == (99, 4, False)
    assert (row.name, row.raw["cost"]) == ("Known", {"input": 1, "output": 2})


def test_a_price_of_the_users_belongs_to_the_model_it_describes() -> None:
    price = ModelPrice(input=Decimal(1), output=Decimal(2), cache_write=Decimal(3))
    assert described_model("mine", "m", ModelSettings(), price=price).price is price
