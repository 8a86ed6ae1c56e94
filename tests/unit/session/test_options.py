"""Order of providers and models, and the proposed small model."""

from decimal import Decimal

from opencode_gate.catalog.rows import ModelPrice, ModelRow
from opencode_gate.session.options import (
    ModelOption,
    ProviderGroup,
    ProviderOption,
    model_options,
    order_providers,
    propose_small_model,
)


def provider(provider_id: str, group: ProviderGroup) -> ProviderOption:
    return ProviderOption(id=provider_id, name=provider_id.title(), group=group)


def row(model_id: str, **facts: object) -> ModelRow:
    return ModelRow(provider_id="p", id=model_id, name=model_id, **facts)  # type: ignore[arg-type]


def test_usable_providers_come_first_in_the_designed_order() -> None:
    """Key found, local, free, practice, all others; known names before the alphabet."""
    options = [
        provider("abacus", ProviderGroup.OTHER),
        provider("practice", ProviderGroup.PRACTICE),
        provider("bedrock", ProviderGroup.UNSUPPORTED),
        provider("openai", ProviderGroup.OTHER),
        provider("opencode", ProviderGroup.FREE),
        provider("ollama", ProviderGroup.LOCAL),
        provider("zebra", ProviderGroup.READY),
    ]
    assert [option.id for option in order_providers(options)] == [
        "zebra",
        "ollama",
        "opencode",
        "practice",
        "openai",
        "abacus",
        "bedrock",
    ]


def test_last_used_model_is_on_top_then_the_newest() -> None:
    """Age decides. Deprecated ones are not there: Opencode would not know them."""
    rows = [
        row("old", release_date="2024-01-01"),
        row("gone", release_date="2026-09-01", status="deprecated"),
        row("undated"),
        row("new", release_date="2026-05-01"),
        row("mine", release_date="2023-01-01"),
    ]
    options = model_options(rows, last_used="mine")
    assert [option.id for option in options] == ["mine", "new", "old", "undated"]
    assert [option.is_last_used for option in options] == [True, False, False, False]


def test_models_that_cannot_work_come_later_and_those_that_cannot_write_not_at_all() -> None:
    """No tools: behind the others. Speech or pictures alone: left out. Unknown: kept."""
    rows = [
        row("speech", raw={"modalities": {"output": ["audio"]}}, release_date="2026-09-01"),
        row("talker", tool_call=False, release_date="2026-08-01"),
        row("both", tool_call=True, raw={"modalities": {"output": ["text", "image"]}}),
        row("unknown", raw={"modalities": {}}),
    ]
    assert [option.id for option in model_options(rows)] == ["both", "unknown", "talker"]


def test_unknown_price_stays_unknown_and_free_stays_zero() -> None:
    """A model without a price is not free."""
    unknown, free = model_options(
        [row("a"), row("b", price=ModelPrice(input=Decimal(0), output=Decimal(0)))]
    )
    assert unknown.input_usd_per_million is None
    assert free.input_usd_per_million == 0


def model(model_id: str, family: str | None, date: str) -> ModelOption:
    return ModelOption(id=model_id, name=model_id, family=family, release_date=date)


def test_small_model_is_the_newest_of_the_first_family_present() -> None:
    """Opencode's own rule: gemini-flash, then gpt-nano, then claude-haiku, newest of it."""
    haiku = model("haiku-5", "claude-haiku", "2026-08-01")
    old_nano = model("nano-4", "gpt-nano", "2025-01-01")
    new_nano = model("nano-5", "gpt-nano", "2026-01-01")
    flash = model("flash", "gemini-flash", "2024-01-01")
    main = model("main", "claude-opus", "2026-09-01")
    assert propose_small_model([main, haiku, old_nano, new_nano, flash]) == "flash"
    assert propose_small_model([main, haiku, new_nano, old_nano]) == "nano-5"
    assert propose_small_model([main, haiku]) == "haiku-5"


def test_no_small_model_is_invented() -> None:
    """Other families are never proposed."""
    assert propose_small_model([model("main", "claude-opus", "2026-01-01")]) is None
