"""The price book of a session: the catalogue's, with what the agent's configuration states."""

from collections.abc import Mapping
from typing import Any

from opencode_gate.catalog.catalogue import open_catalogue
from opencode_gate.catalog.model_entries import model_row
from opencode_gate.catalog.prices import PriceBook
from opencode_gate.config.paths import Paths
from opencode_gate.config.settings import Settings


def price_book(
    costs: Mapping[str, Mapping[str, Any]], paths: Paths, settings: Settings
) -> PriceBook:
    """The book that a gateway and its folding process both go by.

    Args:
        costs: by provider and model, stated prices in the shape of models.dev.
    """
    stated = {
        provider_id: {
            model_id: model_row(provider_id, model_id, {"cost": cost})
            for model_id, cost in models.items()
        }
        for provider_id, models in costs.items()
    }
    return PriceBook(open_catalogue(paths, settings), settings, stated)
