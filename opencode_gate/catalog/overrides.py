"""The user's own prices, by model and day.

The invariant: what the user wrote is the price and the whole price of that day; nothing is
filled in from another book.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal

import msgspec

from opencode_gate.catalog.rows import ModelPrice, PriceTier
from opencode_gate.config.price_settings import PriceSettings, PriceTierSettings

_RATES = tuple(
    name for name in ModelPrice.__struct_fields__ if name not in ("per_request", "tiers")
)


class OwnPrice(msgspec.Struct, frozen=True, kw_only=True):
    """A price of the user's and the days (UTC) it holds, `None` without end.

    Attributes:
        name: what it stands under: `provider/model`, or `provider/*`.
    """

    name: str
    price: ModelPrice
    since: date | None
    until: date | None


def price_on(
    day: date, name: str, prices: Mapping[str, Sequence[PriceSettings]]
) -> OwnPrice | None:
    """The price under a name that holds on a day (UTC), `None` where none does."""
    for entry in prices.get(name, ()):
        if entry.holds_on(day):
            return OwnPrice(name=name, price=_price(entry), since=entry.since, until=entry.until)
    return None


class Overrides:
    """All prices of the user's; each is read once."""

    def __init__(self, prices: Mapping[str, Sequence[PriceSettings]]) -> None:
        self._prices = prices
        self._found: dict[tuple[str, date], OwnPrice | None] = {}

    def price(self, provider_id: str, models: Iterable[str], *, at_us: int) -> OwnPrice | None:
        """The price of the first of these names that has one then, or of `provider/*`.

        Args:
            at_us: the moment that counts, UTC microseconds.
        """
        if not self._prices:
            return None
        day = datetime.fromtimestamp(at_us / 1_000_000, tz=UTC).date()
        found = (self._on(f"{provider_id}/{model}", day) for model in (*models, "*"))
        return next((own for own in found if own is not None), None)

    def _on(self, name: str, day: date) -> OwnPrice | None:
        key = (name, day)
        if key not in self._found:
            self._found[key] = price_on(day, name, self._prices)
        return self._found[key]


def _price(said: PriceSettings) -> ModelPrice:
    base = _rates(said)
    tiers = sorted(said.tiers, key=lambda tier: tier.above_input_tokens)
    return _model_price(
        base,
        tuple(
            PriceTier(
                above_input_tokens=tier.above_input_tokens,
                price=_model_price(base | _rates(tier)),
            )
            for tier in tiers
        ),
    )


def _rates(said: PriceSettings | PriceTierSettings) -> dict[str, Decimal]:
    return {name: rate for name in _RATES if (rate := getattr(said, name)) is not None}


def _model_price(rates: Mapping[str, Decimal], tiers: tuple[PriceTier, ...] = ()) -> ModelPrice:
    """A price in the user's words; an hour of cache costs what five minutes do, if not said."""
    write = rates.get("cache_write", rates.get("input"))
    hour = {"cache_write_1h": rates.get("cache_write_1h", write)}
    return ModelPrice(**{**rates, **hour}, tiers=tiers)
