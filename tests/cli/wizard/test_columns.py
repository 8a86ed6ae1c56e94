"""One line per provider and model, at every width."""

from decimal import Decimal

import pytest
from prompt_toolkit.utils import get_cwidth

from opencode_gate.cli.wizard.columns import (
    context_text,
    model_heading,
    model_line,
    model_summary,
    price_text,
    provider_heading,
    provider_line,
)
from opencode_gate.cli.wizard.terminal import Fragments, fit, key_line
from opencode_gate.session.options import ModelOption
from tests.support.wizard_driver import PROVIDERS, many_models


def text_of(fragments: Fragments) -> str:
    return "".join(piece[1] for piece in fragments)


@pytest.mark.parametrize("width", [40, 60, 80, 99, 100, 132, 200])
def test_lines_fit_and_stand_under_their_headings(width: int) -> None:
    """No line is wider than the screen, and all lines of a list are equally long."""
    models = [text_of(model_line(model, width - 2)) for model in many_models(40)]
    assert {get_cwidth(line) + 2 for line in models} == {get_cwidth(text_of(model_heading(width)))}
    assert get_cwidth(models[0]) + 2 <= max(width, 47)
    providers = [text_of(provider_line(option, width - 2)) for option in PROVIDERS]
    wide = {get_cwidth(line) + 2 for line in providers}
    assert wide == {get_cwidth(text_of(provider_heading(width)))}
    assert wide.pop() <= width


@pytest.mark.parametrize(
    ("usd", "text"),
    [
        (None, "?"),
        (Decimal(0), "free"),
        (Decimal(3), "3.00"),
        (Decimal("0.075"), "0.075"),
        (Decimal("0.0375"), "0.0375"),
        (Decimal("1.5"), "1.50"),
        (Decimal(100), "100.00"),
        (Decimal("0.00001"), "<0.0001"),
    ],
)
def test_prices_are_exact_and_unknown_is_not_free(usd: Decimal | None, text: str) -> None:
    """Two decimals, or up to four where they are needed."""
    assert price_text(usd) == text


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        (None, "?"),
        (512, "512"),
        (8192, "8k"),
        (200_000, "200k"),
        (999_999, "1M"),
        (1_048_576, "1M"),
        (1_500_000, "1.5M"),
    ],
)
def test_context_windows_are_short(tokens: int | None, text: str) -> None:
    """Thousands and millions."""
    assert context_text(tokens) == text


def test_unknown_price_is_said_on_the_last_screen() -> None:
    """Half-known prices keep the known half."""
    model = ModelOption(id="m", name="M", context_tokens=200_000)
    assert model_summary(model) == "200k context · price unknown"
    half = ModelOption(id="m", name="M", input_usd_per_million=Decimal(3))
    assert model_summary(half) == "$3.00 in, ? out per million"
    free = ModelOption(
        id="m", name="M", input_usd_per_million=Decimal(0), output_usd_per_million=Decimal(0)
    )
    assert model_summary(free) == "free"


def test_fit_counts_cells_not_characters() -> None:
    """Wide characters take two cells."""
    assert fit("模型一二三", 6) == "模型… "
    assert fit("abc", 5, right=True) == "  abc"
    assert fit("abcdef", 4) == "abc…"


def test_key_line_drops_the_least_needed_keys_first() -> None:
    """A narrow screen still says how to choose and go back."""
    keys = ["enter choose", "esc back", "ctrl-c quit"]
    assert key_line(keys, 80) == " enter choose · esc back · ctrl-c quit"
    assert key_line(keys, 25) == " enter choose · esc back"
