"""The price book as commands use it: the user's settings over the catalogue, opened once."""

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opencode_gate.catalog.prices import PriceBook
    from opencode_gate.catalog.rows import ModelPrice


def price_book() -> "PriceBook":
    """The book in force.

    Raises:
        ConfigError: the settings cannot be read.
    """
    from opencode_gate.catalog.catalogue import open_catalogue
    from opencode_gate.catalog.prices import PriceBook
    from opencode_gate.config.paths import paths
    from opencode_gate.config.settings import load_settings

    settings = load_settings(paths(), os.environ)
    return PriceBook(open_catalogue(paths(), settings), settings)


def price_of(
    book: "PriceBook", provider_name: str, models: "Iterable[str | None]", *, at_us: int
) -> "ModelPrice | None":
    """The prices of the first of some names of a model that has any; `None` if none has."""
    answers = (
        book.explain(provider_name, model, at_us=at_us) for model in models if model is not None
    )
    return next((answer.price for answer in answers if answer is not None), None)
