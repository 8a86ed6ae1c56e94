"""The prices of `genai-prices`: dated, tiered, by provider (https://github.com/pydantic/genai-prices).

The idea: its own arithmetic is used on its own data, so the amount is the one it would give.
Providers are looked up by exact id: its own search takes any id that contains `openai` for
OpenAI, which would price a server it knows nothing of. The invariant: no answer is `None`,
never an exception and never zero; an entry without any price, of which it has some, is no answer.

It is imported on first use, since that takes 0.2 s and 15 MB; on the gateway's path nobody waits
for it. A lookup that succeeded or failed is remembered, a failed one scans every model.
"""

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from opencode_gate.catalog.arithmetic import Amount, is_complete
from opencode_gate.catalog.rows import ModelPrice, PriceTier
from opencode_gate.core.usage import TokenUsage

if TYPE_CHECKING:
    from genai_prices import Usage
    from genai_prices.types import ConditionalPrice, ModelInfo, Provider
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
    "per_request": "requests_kcount",
}
_PER_THOUSAND = ("per_request",)
"""Those it gives for a thousand and not for a million; ours are for one."""


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """The prices of a model at a moment, and what the book says of them.

    Attributes:
        since: the first day (UTC) of these prices, `None` where it has no date.
        until: the last day (UTC), `None` where no change is known.
        hours: the hours of the day (UTC) they hold, where they change within a day.
        variants: other rates it has, used where the provider says that it served one of them.
        comment: what its authors remark.
        address: the page of the provider they are from.
    """

    price: ModelPrice
    since: date | None = None
    until: date | None = None
    hours: str | None = None
    variants: tuple[str, ...] = ()
    comment: str | None = None
    address: str | None = None


NAMES_REMEMBERED = 4096
"""Clients name the models, so without a bound they could fill the memory of a gateway."""


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
        if not _has_prices_for(usage, model.get_prices(_moment(at_us))):
            return None
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

    def terms(self, provider_id: str, model_id: str, *, at_us: int) -> Terms | None:
        """The prices themselves, to be explained; `None` where the book has none."""
        found = self._find(provider_id, model_id)
        if found is None:
            return None
        provider, model = found
        moment = _moment(at_us)
        price = _model_price(model.get_prices(moment))
        if price.input is None and price.output is None:
            return None
        names = (value for variant in model.price_variants or () for value in variant.when.values())
        return replace(
            _days(model.prices if isinstance(model.prices, list) else [], moment, price),
            variants=tuple(sorted(set(names) - {"default"})),
            comment=model.price_comments,
            address=next(iter(provider.pricing_urls or ()), None),
        )

    def _find(self, provider_id: str, model_id: str) -> "tuple[Provider, ModelInfo] | None":
        key = (provider_id, model_id)
        if key not in self._found:
            if len(self._found) >= NAMES_REMEMBERED:
                self._found.clear()
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


def _has_prices_for(usage: TokenUsage, price: "GenaiPrice") -> bool:
    """Whether what was counted has a price: the book leaves out what it does not know."""
    names = [name for name, rate in vars(price).items() if rate is not None]
    has_input = any(name.startswith(("input_", "cache_")) for name in names)
    has_output = any(name.startswith("output_") for name in names)
    return (has_input or not usage.input_tokens) and (has_output or not usage.output)


def _days(prices: "list[ConditionalPrice]", moment: datetime, price: ModelPrice) -> Terms:
    """The days and hours of the prices that hold at a moment; the last active ones do."""
    from genai_prices.types import StartDateConstraint, TimeOfDateConstraint

    since = hours = None
    for conditional in reversed(prices):
        constraint = conditional.constraint
        if constraint is not None and not constraint.active(moment):
            continue
        if isinstance(constraint, StartDateConstraint):
            since = constraint.start_date
        elif isinstance(constraint, TimeOfDateConstraint):
            hours = f"{constraint.start_time:%H:%M}-{constraint.end_time:%H:%M} UTC"
        break
    later = [
        one.constraint.start_date
        for one in prices
        if isinstance(one.constraint, StartDateConstraint)
        and one.constraint.start_date > moment.date()
    ]
    until = min(later) - timedelta(days=1) if later else None
    return Terms(price=price, since=since, until=until, hours=hours)


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
            name: _rate(getattr(price, key), bound, 1000 if name in _PER_THOUSAND else 1)
            for name, key in _PRICE_KEYS.items()
        }
    )


def _rate(rate: Any, bound: int | None, units: int) -> Decimal | None:
    if rate is None:
        return None
    if isinstance(rate, Decimal):
        return rate / units
    current: Decimal = rate.base
    for tier in rate.tiers:
        if bound is not None and tier.start <= bound:
            current = tier.price
    return current / units
