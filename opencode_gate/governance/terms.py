"""What is known of models, as budgets ask for it.

The invariant: as long as it is held, no answer of the model is charged at higher prices, also
where they change with the day or the hour.
"""

import re

from opencode_gate.catalog.prices import PriceBook
from opencode_gate.catalog.rows import ModelPrice
from opencode_gate.core.clock import Clock, SystemClock
from opencode_gate.governance.request_case import TERMS_HOLD_S, ModelTerms, TermsOf
from opencode_gate.governance.worst_case import dearest

_ROUTER = re.compile(r"(?:^|[/_-])(?:auto|router|bodybuilder|pareto-code)(?:$|[/_-])")
"""Names of models that stand for any other (https://openrouter.ai/docs/features/model-routing)."""


def terms_from(prices: PriceBook, clock: Clock | None = None) -> TermsOf:
    """What budgets ask of a model: its price of now, and the limits the catalogue knows."""
    time = SystemClock() if clock is None else clock

    def price_of(provider_id: str, model_id: str) -> ModelPrice | None:
        now_us = time.now_us()
        until_us = now_us + int(TERMS_HOLD_S * 1_000_000)
        first = prices.explain(provider_id, model_id, at_us=now_us)
        last = prices.explain(provider_id, model_id, at_us=until_us)
        if first is None or last is None:
            return None
        price = dearest(first.price, last.price)
        # The catalogue writes 0 for what costs as much as whichever model is taken.
        is_router = price.is_free and _ROUTER.search(model_id) and "free" not in model_id
        return None if is_router else price

    def terms_of(provider_id: str, model_id: str | None) -> ModelTerms:
        if model_id is None:
            return ModelTerms()
        row = prices.model(provider_id, model_id)
        price = price_of(provider_id, model_id)
        points = () if price is None else (price, *(tier.price for tier in price.tiers))
        return ModelTerms(
            price=price,
            charges_for_1h=any(point.cache_write_1h is not None for point in points),
            context_tokens=None if row is None else row.context_tokens,
            output_tokens=None if row is None else row.output_tokens,
        )

    return terms_of
