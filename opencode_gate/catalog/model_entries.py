"""One entry of the catalogue as a `ModelRow`, and back from the user's few words about a model.

The invariant: a limit of 0 in the catalogue means "not said" and becomes `None`; a price of 0 is
a price. Prices are read as the decimal number that was written, never through binary floats.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from msgspec.structs import replace

from opencode_gate.catalog.rows import ModelPrice, ModelRow, PriceTier
from opencode_gate.config.settings import ModelSettings

_PRICES = (
    "input",
    "output",
    "cache_read",
    "cache_write",
    "reasoning",
    "input_audio",
    "output_audio",
)


def model_row(provider_id: str, model_id: str, raw: Mapping[str, Any]) -> ModelRow:
    """A row from an entry in the shape of models.dev, complete or not."""
    limit = raw.get("limit") or {}
    own = raw.get("provider") or {}
    return ModelRow(
        provider_id=provider_id,
        id=model_id,
        name=str(raw.get("name", model_id)),
        family=raw.get("family"),
        release_date=raw.get("release_date"),
        context_tokens=_limit(limit.get("context")),
        output_tokens=_limit(limit.get("output")),
        tool_call=raw.get("tool_call"),
        reasoning=raw.get("reasoning"),
        npm=own.get("npm"),
        status=raw.get("status"),
        price=price_of(raw.get("cost")),
        raw=dict(raw),
    )


def described_model(
    provider_id: str,
    model_id: str,
    said: ModelSettings,
    *,
    known: Mapping[str, Any] | None = None,
    price: ModelPrice | None = None,
) -> ModelRow:
    """A row for a model the user named, with `raw` in the shape of models.dev.

    What was not said about calling tools is taken as yes: without it an agent is of no use.

    Args:
        known: the catalogue's entry of the same name, which keeps what was not said.
        price: the price the user gave it.
    """
    raw: dict[str, Any] = {
        "id": model_id,
        "name": model_id,
        "tool_call": True,
        "reasoning": False,
        "modalities": {"input": ["text"], "output": ["text"]},
        **(known or {}),
    }
    words = {"name": said.name, "tool_call": said.tool_call, "reasoning": said.reasoning}
    raw |= {key: value for key, value in words.items() if value is not None}
    limits = {"context": said.context, "output": said.output}
    limits = {key: value for key, value in limits.items() if value is not None}
    if limits:
        raw["limit"] = {**raw.get("limit", {}), **limits}
    row = model_row(provider_id, model_id, raw)
    return row if price is None else replace(row, price=price)


def price_of(cost: Mapping[str, Any] | None) -> ModelPrice | None:
    """The prices of an entry's `cost`, USD per million tokens; `None` where it has none."""
    if not cost or (cost.get("input") is None and cost.get("output") is None):
        return None
    return replace(_flat_price(_amounts(cost)), tiers=_tiers(cost))


def _flat_price(amounts: Mapping[str, Decimal]) -> ModelPrice:
    return ModelPrice(**{key: amounts.get(key) for key in _PRICES})  # type: ignore[arg-type]  # mypy takes every keyword for `tiers`


def _amounts(cost: Mapping[str, Any]) -> dict[str, Decimal]:
    return {
        key: Decimal(str(cost[key]))
        for key in _PRICES
        if isinstance(cost.get(key), int | float | Decimal)
    }


def _tiers(cost: Mapping[str, Any]) -> tuple[PriceTier, ...]:
    """`tiers`, or the older `context_over_200k` where there are none, lowest threshold first.

    A tier says only what changes; what it does not say keeps the price of the base.
    """
    base = _amounts(cost)
    found: dict[int, dict[str, Decimal]] = {}
    for tier in cost.get("tiers") or ():
        bound = tier.get("tier") or {}
        if bound.get("type") == "context" and isinstance(bound.get("size"), int):
            found[bound["size"]] = base | _amounts(tier)
    older = cost.get("context_over_200k")
    if not found and older:
        found[200_000] = base | _amounts(older)
    return tuple(
        PriceTier(above_input_tokens=size, price=_flat_price(found[size])) for size in sorted(found)
    )


def _limit(tokens: object) -> int | None:
    return tokens if isinstance(tokens, int) and tokens > 0 else None
