"""The price book as commands use it: the user's settings over the catalogue, opened once."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opencode_gate.catalog.prices import PriceBook
    from opencode_gate.catalog.rows import ModelPrice
    from opencode_gate.ledger.records import ExchangeRecord


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


def price_of(book: "PriceBook", exchange: "ExchangeRecord") -> "ModelPrice | None":
    """The prices that held for an exchange, `None` where no book has them."""
    for model in (exchange.response_model, exchange.request_model):
        answer = (
            book.explain(exchange.provider_name, model, at_us=exchange.started_at_us)
            if model
            else None
        )
        if answer is not None:
            return answer.price
    return None
