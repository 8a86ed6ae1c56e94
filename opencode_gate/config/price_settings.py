"""Prices of the user's own: of a model, or of all models of a provider, for all time or for days.

The idea: what is written under one name is one table, or several tables that each hold for a
span of days (`since`, `until`). The invariant: at most one of them holds on any day, so that no
order between them has to be known.
"""

from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import ClassVar

import msgspec

from opencode_gate.config.toml_shape import Check, ShapeProblem


def _tiers_problem(tiers: "Sequence[PriceTierSettings]") -> str | None:
    bounds = [tier.above_input_tokens for tier in tiers]
    if any(bound < 1 for bound in bounds):
        return "has a tier above_input_tokens less than 1"
    return (
        "has two tiers above the same number of tokens" if len(set(bounds)) < len(bounds) else None
    )


class PriceTierSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a whole request costs whose input is longer; what is not said here stays as it is.

    Written below its price: `[[prices."PROVIDER/MODEL".tiers]]`. The longest one that fits counts.

    Attributes:
        above_input_tokens: holds for requests with more input than this, cached input included.
        input: as in the price itself, and so are all the others.
        output: as above.
        cache_read: as above.
        cache_write: as above.
        cache_write_1h: as above.
        reasoning: as above.
        input_audio: as above.
        output_audio: as above.
    """

    above_input_tokens: int
    input: Decimal | None = None
    output: Decimal | None = None
    cache_read: Decimal | None = None
    cache_write: Decimal | None = None
    cache_write_1h: Decimal | None = None
    reasoning: Decimal | None = None
    input_audio: Decimal | None = None
    output_audio: Decimal | None = None


class PriceSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Your own price of a model, in USD per million tokens; it beats every other source.

    `PROVIDER/*` is every model of a provider that has no price of its own here. A price that
    changes is written several times, as `[[prices."PROVIDER/MODEL"]]`, each with its days; on
    days that none of them names, the other sources count. A request that needs a price you did
    not give has an unknown cost, not a free one.

    Attributes:
        since: the first day (UTC) it holds, as `2026-11-01`; from ever on otherwise.
        until: the last day (UTC) it holds; for ever otherwise.
        input: input that was not cached.
        output: output, reasoning included unless it has a price of its own.
        cache_read: input read from the provider's cache; the price of input otherwise.
        cache_write: input written to the cache; the price of input otherwise.
        cache_write_1h: input written to the one-hour cache; `cache_write` otherwise.
        reasoning: reasoning tokens, where they cost something else than output.
        input_audio: audio input, where it costs something else.
        output_audio: audio output, where it costs something else.
        tiers: prices of long requests.
    """

    since: date | None = None
    until: date | None = None
    input: Decimal | None = None
    output: Decimal | None = None
    cache_read: Decimal | None = None
    cache_write: Decimal | None = None
    cache_write_1h: Decimal | None = None
    reasoning: Decimal | None = None
    input_audio: Decimal | None = None
    output_audio: Decimal | None = None
    tiers: tuple[PriceTierSettings, ...] = ()

    CHECKS: ClassVar[Mapping[str, Check]] = {"tiers": _tiers_problem}

    def holds_on(self, day: date) -> bool:
        """Whether it is the price of that day (UTC)."""
        return _first_day(self) <= day <= _last_day(self)


def price_key_problem(model: str) -> str | None:
    """What is wrong with the name a price stands under, or `None`."""
    provider_id, slash, model_id = model.partition("/")
    if provider_id and slash and model_id:
        return None
    return f'is written [prices."provider/model"], not {model!r}'


def check_prices(prices: Mapping[str, Sequence[PriceSettings]]) -> None:
    """Refuses days that end before they begin, and two prices for one day.

    Raises:
        ShapeProblem: with the path below `prices`.
    """
    for model, entries in prices.items():
        for number, entry in enumerate(entries):
            place = (model, number) if len(entries) > 1 else (model,)
            if _last_day(entry) < _first_day(entry):
                raise ShapeProblem(
                    (*place, "until"), f"is {entry.until}, before it begins on {entry.since}"
                )
            earlier = next((one for one in entries[:number] if _overlap(one, entry)), None)
            if earlier is not None:
                raise ShapeProblem(
                    place,
                    f"holds on {max(_first_day(one) for one in (earlier, entry)):%Y-%m-%d},"
                    " and so does another price above it",
                    hint="give them `since` and `until` (the last day) so that they do not meet",
                )


def _first_day(entry: PriceSettings) -> date:
    return entry.since if entry.since is not None else date.min


def _last_day(entry: PriceSettings) -> date:
    return entry.until if entry.until is not None else date.max


def _overlap(one: PriceSettings, other: PriceSettings) -> bool:
    return _first_day(one) <= _last_day(other) and _first_day(other) <= _last_day(one)
