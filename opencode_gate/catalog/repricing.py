"""What a corrected price book changes in amounts that were counted before.

The idea: an exchange is priced again as of its own day, and the outcome compared. The
invariants: what a provider reported goes on counting, only the book's word beside it changes;
a known amount never becomes unknown; an amount that is no book's (`not billed`) is left alone,
and so is an estimate that was held to its reservation, unless it was less.

The catalogue and the agent's configuration have no dates: their prices are those of today, and
may not be those of the exchange's day. So they give an amount where there was none, or where the
user took a price of their own back, but they never replace another book's.
"""

from typing import Protocol, TypeVar

import msgspec

from opencode_gate.catalog.prices import (
    AGENT_SOURCE,
    OVERRIDE_SOURCE,
    Priceable,
    PriceBook,
)
from opencode_gate.core.semconv import CostQuality
from opencode_gate.core.usage import sum_known

_DATED = ("genai-prices ", OVERRIDE_SOURCE)
_UNDATED = ("catalogue ", AGENT_SOURCE)


class Repriceable(Priceable, Protocol):
    """What a record must say to be priced again; the ledger's exchange record does."""

    @property
    def id(self) -> str: ...  # noqa: D102
    @property
    def cost_quality(self) -> CostQuality: ...  # noqa: D102
    @property
    def price_source(self) -> str | None: ...  # noqa: D102
    @property
    def priced_cost_nano_usd(self) -> int | None: ...  # noqa: D102
    @property
    def cache_saved_nano_usd(self) -> int | None: ...  # noqa: D102
    @property
    def reserved_cost_nano_usd(self) -> int | None: ...  # noqa: D102


Record = TypeVar("Record", bound=Repriceable)


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A new amount for an exchange, in nano-dollars.

    Attributes:
        cache_saved_nano_usd: what the prompt cache saved at the new prices.
        is_beside_reported: it is the book's word beside a reported cost, which goes on counting.
    """

    exchange_id: str
    provider_name: str
    request_model: str | None
    old_cost_nano_usd: int | None
    old_source: str | None
    cost_nano_usd: int
    cost_quality: CostQuality
    price_source: str | None
    cache_saved_nano_usd: int | None
    is_beside_reported: bool = False


def change_of(record: Repriceable, book: PriceBook) -> Change | None:
    """What the book says differently of an exchange now; `None` where nothing changes."""
    if record.reported_cost_nano_usd is not None:
        return _beside_reported(record, book)
    if not _is_of_a_book(record):
        return None
    priced = _priced_anew(record, book)
    if priced.cost_nano_usd is None or not _may_replace(priced, record):
        return None
    before = (record.cost_nano_usd, record.cost_quality)
    if before == (priced.cost_nano_usd, priced.cost_quality):
        return None
    held_nano_usd = _held_nano_usd(record)
    if held_nano_usd is not None and priced.cost_nano_usd > held_nano_usd:
        return None
    return Change(
        exchange_id=record.id,
        provider_name=record.provider_name,
        request_model=record.request_model,
        old_cost_nano_usd=record.cost_nano_usd,
        old_source=record.price_source,
        cost_nano_usd=priced.cost_nano_usd,
        cost_quality=priced.cost_quality,
        price_source=priced.price_source,
        cache_saved_nano_usd=priced.cache_saved_nano_usd,
    )


class ModelChanges(msgspec.Struct, kw_only=True):
    """What changes for one model: exchanges, sums in nano-dollars before and after.

    Attributes:
        old_unknown: how many of them had no known cost.
    """

    provider_name: str
    request_model: str | None
    changed: int = 0
    old_cost_nano_usd: int | None = None
    old_unknown: int = 0
    new_cost_nano_usd: int = 0
    sources: set[str] = msgspec.field(default_factory=set)


class Tally:
    """Changes summed as they come, since a ledger may hold more than fits into memory."""

    def __init__(self) -> None:
        self.beside_reported = 0
        self._rows: dict[tuple[str, str | None], ModelChanges] = {}

    def add(self, change: Change) -> None:
        """Counts one change; what stands beside a reported cost changes no sum."""
        if change.is_beside_reported:
            self.beside_reported += 1
            return
        key = (change.provider_name, change.request_model)
        if key not in self._rows:
            self._rows[key] = ModelChanges(provider_name=key[0], request_model=key[1])
        row = self._rows[key]
        row.changed += 1
        row.old_cost_nano_usd = sum_known(row.old_cost_nano_usd, change.old_cost_nano_usd)
        row.old_unknown += change.old_cost_nano_usd is None
        row.new_cost_nano_usd += change.cost_nano_usd
        if change.price_source is not None:
            row.sources.add(change.price_source)

    def rows(self) -> list[ModelChanges]:
        """The sums per model, the largest difference first."""
        return sorted(self._rows.values(), key=_difference, reverse=True)


def _difference(row: ModelChanges) -> int:
    old = row.old_cost_nano_usd if row.old_cost_nano_usd is not None else 0
    return abs(row.new_cost_nano_usd - old)


def _beside_reported(record: Repriceable, book: PriceBook) -> Change | None:
    priced = _priced_anew(record, book)
    amount = priced.priced_cost_nano_usd
    if amount is None or amount == record.priced_cost_nano_usd:
        return None
    return Change(
        exchange_id=record.id,
        provider_name=record.provider_name,
        request_model=record.request_model,
        old_cost_nano_usd=record.priced_cost_nano_usd,
        old_source=None,
        cost_nano_usd=amount,
        cost_quality=record.cost_quality,
        price_source=record.price_source,
        cache_saved_nano_usd=priced.cache_saved_nano_usd,
        is_beside_reported=True,
    )


def _priced_anew(record: Record, book: PriceBook) -> Record:
    unpriced = record.__replace__(
        cost_nano_usd=None, cost_quality=CostQuality.UNKNOWN, price_source=None
    )
    return book.price(unpriced)


def _is_of_a_book(record: Repriceable) -> bool:
    source = record.price_source
    if source is None:
        return record.cost_nano_usd is None
    return source.startswith((*_DATED, *_UNDATED))


def _held_nano_usd(record: Repriceable) -> int | None:
    """The reservation that counted, where the tokens were estimated to more than it."""
    is_estimate = record.cost_quality is CostQuality.ESTIMATED
    is_held = is_estimate and record.cost_nano_usd == record.reserved_cost_nano_usd
    return record.reserved_cost_nano_usd if is_held else None


def _may_replace(new: Repriceable, old: Repriceable) -> bool:
    if new.price_source is not None and new.price_source.startswith(_DATED):
        return True
    return old.price_source is None or old.price_source == OVERRIDE_SOURCE
