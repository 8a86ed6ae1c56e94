"""The prices of `genai-prices`: dated, tiered, by provider (https://github.com/pydantic/genai-prices).

The idea: its own arithmetic is used on its own data, so the amount is the one it would give.
Providers are looked up by exact id: its own search takes any id that contains `openai` for
OpenAI, which would price a server it knows nothing of. The invariant: no answer is `None`,
never an exception and never zero.

It is imported on first use, since that takes 0.2 s and 15 MB; on the gateway's path nobody waits
for it. A lookup that succeeded or failed is remembered, a failed one scans every model.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from opencode_gate.catalog.arithmetic import Amount, is_complete
from opencode_gate.catalog.rows import ModelPrice, PriceTier
from opencode_gate.core.usage import TokenUsage

if TYPE_CHECKING:
    from genai_prices import Usage
    from genai_prices.types import ModelInfo, Provider
    from genai_prices.types import ModelPrice as GenaiPrice

PROVIDER_IDS: dict[str, str] = {
    "amazon-bedrock": "aws",
    "azure-cognitive-services": "azure",
    "cloudflare-workers-ai": "cloudflare",
    "fireworks-ai": "fireworks",
    "google-vertex": "google",
    "google-vertex-anthropic": "google",
    "novita-ai": "novita",
    "togetherai": "together",
    "xai": "x-ai",
}
"""Its name for a provider, where it is not the catalogue's."""

_PRICE_KEYS = {
    "input": "input_mtok",
    "output": "output_mtok",
    "cache_read": "cache_read_mtok",
    "cache_write": "cache_write_mtok",
    "cache_write_1h": "cache_write_1h_mtok",
    "reasoning": "output_reasoning_mtok",
    "input_audio": "input_audio_mtok",
    "output_audio": "output_audio_mtok",
}


class GenaiBook:
    """Prices by provider and model as of a moment."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], tuple[Provider, ModelInfo] | None] = {}

    @property
    def version(self) -> str:
        """The version of the package, which is the only date its data has."""
        import genai_prices

        return str(genai_prices.__version__)

    def cost_of(
        self,
        provider_id: str,
        model_id: str,
        usage: TokenUsage,
        *,
        at_us: int,
        raw_usage: str | None = None,
    ) -> Amount | None:
        """What the book says an answer cost, `None` where it has no price.

        Args:
            at_us: when it was asked for, UTC microseconds.
            raw_usage: the provider's own usage object, for its service tier and searches.
        """
        found = self._find(provider_id, model_id)
        if found is None or usage.is_empty:
            return None
        provider, model = found
        context, searches = _context(raw_usage)

        def total(counts: "Usage") -> Decimal:
            calculation = model.calc_price(
                counts,
                provider,
                genai_request_timestamp=_moment(at_us),
                price_context=context if context else None,
            )
            return calculation.total_price

        try:
            usd = total(_usage(usage, searches))
            return Amount(
                usd=usd, is_exact=is_complete(usage), is_free=usd == 0 and bool(usage.input_tokens)
            )
        except ValueError:
            # A breakdown it cannot place, such as audio beside cached input without their overlap.
            try:
                return Amount(usd=total(_usage(_without_parts(usage), searches)), is_exact=False)
            except ValueError:
                return None

    def price(self, provider_id: str, model_id: str, *, at_us: int) -> ModelPrice | None:
        """The prices themselves, for display; `None` where the book has none."""
        found = self._find(provider_id, model_id)
        return _model_price(found[1].get_prices(_moment(at_us))) if found is not None else None

    def _find(self, provider_id: str, model_id: str) -> "tuple[Provider, ModelInfo] | None":
        key = (provider_id, model_id)
        if key not in self._found:
            self._found[key] = self._look_up(provider_id, model_id)
        return self._found[key]

    def _look_up(self, provider_id: str, model_id: str) -> "tuple[Provider, ModelInfo] | None":
        from genai_prices.data_snapshot import get_snapshot

        snapshot = get_snapshot()
        wanted = PROVIDER_IDS.get(provider_id, provider_id)
        provider = next((one for one in snapshot.providers if one.id == wanted), None)
        if provider is None:
            return None
        model = provider.find_model(model_id, all_providers=snapshot.providers)
        return (provider, model) if model is not None else None


def _usage(usage: TokenUsage, web_searches: int | None) -> "Usage":
    from genai_prices import Usage

    return Usage(
        input_tokens=usage.input_tokens,
        cache_read_tokens=usage.cache_read,
        cache_write_tokens=usage.cache_creation_input_tokens,
        cache_write_5m_tokens=usage.cache_write_5m,
        cache_write_1h_tokens=usage.cache_write_1h,
        output_tokens=usage.output,
        output_reasoning_tokens=usage.reasoning,
        input_audio_tokens=usage.input_audio,
        output_audio_tokens=usage.output_audio,
        web_searches=web_searches,
    )


def _without_parts(usage: TokenUsage) -> TokenUsage:
    return TokenUsage(
        input_uncached=usage.input_uncached,
        cache_read=usage.cache_read,
        cache_write_5m=usage.cache_write_5m,
        cache_write_1h=usage.cache_write_1h,
        output=usage.output,
    )


def _context(raw_usage: str | None) -> tuple[dict[str, str], int | None]:
    """The variant a request was served as, and its searches, from the provider's usage object."""
    try:
        raw: Any = json.loads(raw_usage) if raw_usage else None
    except ValueError:
        raw = None
    if not isinstance(raw, Mapping):
        return {}, None
    context = {
        key: value for key in ("service_tier", "speed") if isinstance(value := raw.get(key), str)
    }
    if context.get("service_tier") == "batch":
        context["processing"] = "batch"
    tools = raw.get("server_tool_use")
    searches = tools.get("web_search_requests") if isinstance(tools, Mapping) else None
    return context, searches if isinstance(searches, int) and searches >= 0 else None


def _moment(at_us: int) -> datetime:
    return datetime.fromtimestamp(at_us / 1_000_000, tz=UTC)


def _model_price(price: "GenaiPrice") -> ModelPrice:
    bounds = sorted(
        {
            tier.start
            for key in _PRICE_KEYS.values()
            for tier in getattr(getattr(price, key), "tiers", ())
        }
    )
    tiers = tuple(
        PriceTier(above_input_tokens=bound, price=_flat_price(price, bound)) for bound in bounds
    )
    return replace(_flat_price(price, None), tiers=tiers)


def _flat_price(price: "GenaiPrice", bound: int | None) -> ModelPrice:
    return ModelPrice(
        **{  # type: ignore[arg-type]  # mypy takes every keyword for `tiers`
            name: _rate(getattr(price, key), bound) for name, key in _PRICE_KEYS.items()
        }
    )


def _rate(rate: Any, bound: int | None) -> Decimal | None:
    if rate is None or isinstance(rate, Decimal):
        return rate
    current: Decimal = rate.base
    for tier in rate.tiers:
        if bound is not None and tier.start <= bound:
            current = tier.price
    return current
