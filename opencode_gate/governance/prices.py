"""Whether a model that has no known price may be used.

The invariant: where the user forbade it, a request whose cost could not be said is not sent.
"""

from collections.abc import Callable

from opencode_gate.core.errors import PolicyDenied
from opencode_gate.governance.models_allowed import NAME_CHARS_MAX

MODELS_REMEMBERED = 1_024


class UnknownPrice(PolicyDenied):
    """No book has a price for the model, and the settings refuse such models."""


class PriceRule:
    """`on_unknown_price` as a rule; a model once found priced is not looked up again."""

    def __init__(self, is_priced: Callable[[str, str | None], bool]) -> None:
        self._is_priced = is_priced
        self._allowed: set[tuple[str, str | None]] = set()

    def check(self, provider_id: str, model_id: str | None) -> None:
        """Lets a priced model pass.

        Raises:
            UnknownPrice: it has no price.
        """
        if (provider_id, model_id) in self._allowed:
            return
        if not self._is_priced(provider_id, model_id):
            raise UnknownPrice(
                "unknown-price",
                f"no price is known for {provider_id}/{model_id}, and on_unknown_price is block",
                hint=f"ogate config set 'prices.\"{provider_id}/{model_id}\".input' USD",
            )
        if len(self._allowed) >= MODELS_REMEMBERED:
            # A price may hold for any name, and names are what clients make up.
            self._allowed.clear()
        if model_id is None or len(model_id) <= NAME_CHARS_MAX:
            self._allowed.add((provider_id, model_id))
