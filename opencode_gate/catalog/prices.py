"""What an exchange cost: the provider's own word, else the user's price, genai-prices, catalogue.

The idea: the sources stand in one order, and the first that has an answer gives it, with its
name and version kept beside the amount. The invariants: an unknown price is `None`, never
zero; what was paid for tokens that were estimated is called estimated; an amount that somebody
has already written into the record is left alone; where the provider's own word counts, what the
books say is kept beside it.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Protocol, Self, TypeVar

import msgspec

from opencode_gate.catalog.arithmetic import Amount, cost_of, uncached
from opencode_gate.catalog.catalogue import Catalogue
from opencode_gate.catalog.genai_book import NAMES_REMEMBERED, GenaiBook
from opencode_gate.catalog.model_entries import model_row
from opencode_gate.catalog.overrides import Overrides
from opencode_gate.catalog.practice import PRACTICE_ID
from opencode_gate.catalog.rows import ModelPrice, ModelRow
from opencode_gate.config.settings import Settings
from opencode_gate.core.errors import UsageError
from opencode_gate.core.money import nano_usd
from opencode_gate.core.semconv import CostQuality, Operation, UsageQuality
from opencode_gate.core.usage import TokenUsage

REPORTED_SOURCE = "provider"
OVERRIDE_SOURCE = "config.toml"
AGENT_SOURCE = "Opencode's configuration"
PRACTICE_SOURCE = "scripted, free"


class Priceable(Protocol):
    """What a record must say to be priced; the ledger's exchange record does."""

    @property
    def operation(self) -> Operation: ...  # noqa: D102
    @property
    def provider_name(self) -> str: ...  # noqa: D102
    @property
    def request_model(self) -> str | None: ...  # noqa: D102
    @property
    def response_model(self) -> str | None: ...  # noqa: D102
    @property
    def started_at_us(self) -> int: ...  # noqa: D102
    @property
    def usage(self) -> TokenUsage: ...  # noqa: D102
    @property
    def usage_quality(self) -> UsageQuality: ...  # noqa: D102
    @property
    def raw_usage(self) -> str | None: ...  # noqa: D102
    @property
    def reported_cost_nano_usd(self) -> int | None: ...  # noqa: D102
    @property
    def cost_nano_usd(self) -> int | None: ...  # noqa: D102
    def __replace__(self, **changes: Any) -> Self: ...


Record = TypeVar("Record", bound=Priceable)


class PriceAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Prices of a model, USD per million tokens, and which book they are from.

    Attributes:
        source: the book with its version or date.
        since: the first day (UTC) they hold, `None` where the book does not say.
        until: the last day (UTC), `None` where no end is known.
        hours: the hours of the day they hold, where they change within a day.
        variants: names of other rates the book has: `batch`, `flex`.
        note: a remark of the book's, or where in `config.toml` the price stands.
        address: the provider's page they were read from.
    """

    price: ModelPrice
    source: str
    since: date | None = None
    until: date | None = None
    hours: str | None = None
    variants: tuple[str, ...] = ()
    note: str | None = None
    address: str | None = None


class Quote(msgspec.Struct, frozen=True, kw_only=True):
    """What a book says some tokens cost."""

    amount: Amount
    source: str


class PriceBook:
    """Prices records; one per process, its lookups are remembered."""

    def __init__(
        self,
        catalogue: Catalogue,
        settings: Settings,
        extra_models: Mapping[str, Mapping[str, ModelRow]] = MappingProxyType({}),
    ) -> None:
        """A book over the catalogue.

        Args:
            extra_models: models by provider the catalogue does not have, as the agent's own
                configuration describes them.
        """
        self._catalogue = catalogue
        self._overrides = Overrides(settings.prices)
        self._extra_models = extra_models
        self._genai = GenaiBook()
        self._listed: dict[tuple[str, str], ModelPrice | None] = {}

    @property
    def catalogue(self) -> Catalogue:
        """The catalogue it is a book over."""
        return self._catalogue

    def price(self, record: Record) -> Record:
        """The record with its cost, cost quality and price source filled in.

        Only generation is priced: listing models and counting tokens is not charged for, and
        what else goes through is not known well enough.
        """
        if record.cost_nano_usd is not None or record.operation is not Operation.GENERATE:
            return record
        quote = self.quote(
            record.provider_name,
            _models_of(record),
            record.usage,
            at_us=record.started_at_us,
            raw_usage=record.raw_usage,
        )
        priced_nano_usd = nano_usd(quote.amount.usd) if quote is not None else None
        record = self._with_saving(record, priced_nano_usd)
        if record.reported_cost_nano_usd is not None:
            return _with_cost(
                record,
                record.reported_cost_nano_usd,
                CostQuality.REPORTED,
                REPORTED_SOURCE,
                priced_nano_usd=priced_nano_usd,
            )
        if quote is None:
            return _with_cost(record, None, CostQuality.UNKNOWN, None, priced_nano_usd=None)
        return _with_cost(
            record,
            priced_nano_usd,
            quality_of(quote.amount, record.usage_quality),
            quote.source,
            priced_nano_usd=priced_nano_usd,
        )

    def quote(
        self,
        provider_id: str,
        models: Sequence[str],
        usage: TokenUsage,
        *,
        at_us: int,
        raw_usage: str | None = None,
    ) -> Quote | None:
        """What the first book that has an answer says these tokens cost, `None` if none has.

        Args:
            models: names to look for; each book is asked for the first, then for the next.
            at_us: when they were used, UTC microseconds.
            raw_usage: the provider's usage object, where that provider counted them.
        """
        if provider_id == PRACTICE_ID:
            return Quote(amount=Amount(usd=Decimal(0), is_free=True), source=PRACTICE_SOURCE)
        own = self._overrides.price(provider_id, models, at_us=at_us)
        if own is not None:
            amount = cost_of(usage, own.price)
            return Quote(amount=amount, source=OVERRIDE_SOURCE) if amount is not None else None
        for model_id in models if self._is_catalogued(provider_id) else ():
            amount = self._genai.cost_of(
                provider_id, model_id, usage, at_us=at_us, raw_usage=raw_usage
            )
            if amount is not None:
                return Quote(amount=amount, source=self._genai_source())
        for model_id in models:
            listed = self._listed_price(provider_id, model_id)
            amount = cost_of(usage, listed) if listed is not None else None
            if amount is not None:
                return Quote(amount=amount, source=self._listed_source(provider_id, model_id))
        return None

    def _with_saving(self, record: Record, priced_nano_usd: int | None) -> Record:
        """The record with what its prompt cache saved, where it used one."""
        usage = record.usage
        saved_nano_usd = None
        if priced_nano_usd is not None and (usage.cache_read or usage.cache_creation_input_tokens):
            plain = self.quote(
                record.provider_name,
                _models_of(record),
                uncached(usage),
                at_us=record.started_at_us,
                raw_usage=record.raw_usage,
            )
            if plain is not None:
                saved_nano_usd = nano_usd(plain.amount.usd) - priced_nano_usd
        return record.__replace__(cache_saved_nano_usd=saved_nano_usd)

    def explain(
        self, provider_id: str, model_id: str, *, at_us: int | None = None
    ) -> PriceAnswer | None:
        """The prices that would be used for a model now, `None` where there are none."""
        return next(self.answers(provider_id, model_id, at_us=at_us), None)

    def answers(
        self, provider_id: str, model_id: str, *, at_us: int | None = None
    ) -> Iterator[PriceAnswer]:
        """What each book says of a model, now if not told; the first answer is the one used."""
        if provider_id == PRACTICE_ID:
            yield PriceAnswer(
                price=ModelPrice(input=Decimal(0), output=Decimal(0)), source=PRACTICE_SOURCE
            )
            return
        moment_us = at_us if at_us is not None else time.time_ns() // 1000
        own = self._overrides.price(provider_id, (model_id,), at_us=moment_us)
        if own is not None:
            yield PriceAnswer(
                price=own.price,
                source=OVERRIDE_SOURCE,
                since=own.since,
                until=own.until,
                note=f'[prices."{own.name}"]',
            )
        if self._is_catalogued(provider_id):
            terms = self._genai.terms(provider_id, model_id, at_us=moment_us)
            if terms is not None:
                yield PriceAnswer(
                    price=terms.price,
                    source=self._genai_source(),
                    since=terms.since,
                    until=terms.until,
                    hours=terms.hours,
                    variants=terms.variants,
                    note=terms.comment,
                    address=terms.address,
                )
        listed = self._listed_price(provider_id, model_id)
        if listed is not None:
            yield PriceAnswer(price=listed, source=self._listed_source(provider_id, model_id))

    def model(self, provider_id: str, model_id: str) -> ModelRow | None:
        """What is known of a model beside its price, `None` if nothing."""
        row = self._extra_models.get(provider_id, {}).get(model_id)
        return self._catalogue_models(provider_id).get(model_id) if row is None else row

    def knows(self, provider_id: str, model_id: str | None) -> bool:
        """Whether an answer of that model could be priced."""
        if provider_id == PRACTICE_ID:
            return True
        return model_id is not None and self.explain(provider_id, model_id) is not None

    def listed(self, row: ModelRow) -> PriceAnswer | None:
        """The list price of a model: the user's or the catalogue's, without genai-prices."""
        own = self._overrides.price(row.provider_id, (row.id,), at_us=time.time_ns() // 1000)
        if own is not None:
            return PriceAnswer(price=own.price, source=OVERRIDE_SOURCE)
        if row.price is None:
            return None
        source = self._listed_source(row.provider_id, row.id)
        return PriceAnswer(price=row.price, source=source)

    def _listed_price(self, provider_id: str, model_id: str) -> ModelPrice | None:
        key = (provider_id, model_id)
        if key not in self._listed:
            if len(self._listed) >= NAMES_REMEMBERED:
                self._listed.clear()
            self._listed[key] = self._stated_price(provider_id, model_id)
        return self._listed[key]

    def _stated_price(self, provider_id: str, model_id: str) -> ModelPrice | None:
        extra = self._extra_models.get(provider_id, {}).get(model_id)
        if extra is not None:
            return extra.price
        row = self._catalogue_models(provider_id).get(model_id)
        # The row of a model that the user described has the user's own price of today, too.
        return None if row is None else model_row(provider_id, model_id, row.raw).price

    def _is_catalogued(self, provider_id: str) -> bool:
        """Whether the id means what the world means by it, and not a server the user named so."""
        row = self._catalogue.providers().get(provider_id)
        return row is not None and row.source == "catalogue"

    def _catalogue_models(self, provider_id: str) -> Mapping[str, ModelRow]:
        try:
            return self._catalogue.models(provider_id)
        except UsageError:
            return {}

    def _genai_source(self) -> str:
        return f"genai-prices {self._genai.version}"

    def _listed_source(self, provider_id: str, model_id: str) -> str:
        if model_id in self._extra_models.get(provider_id, {}):
            return AGENT_SOURCE
        return f"catalogue {self._catalogue.date}"


def quality_of(amount: Amount, usage_quality: UsageQuality) -> CostQuality:
    """How much an amount is worth that was priced from counts of that quality."""
    is_firm = amount.is_free or (amount.is_exact and usage_quality is UsageQuality.REPORTED)
    return CostQuality.PRICED if is_firm else CostQuality.ESTIMATED


def _models_of(record: Priceable) -> tuple[str, ...]:
    """The names to look a price up by: what was served, then what was asked for."""
    names = (record.response_model, record.request_model)
    return tuple(dict.fromkeys(name for name in names if name))


def _with_cost(
    record: Record,
    cost_nano_usd: int | None,
    quality: CostQuality,
    source: str | None,
    *,
    priced_nano_usd: int | None,
) -> Record:
    return record.__replace__(
        cost_nano_usd=cost_nano_usd,
        cost_quality=quality,
        price_source=source,
        priced_cost_nano_usd=priced_nano_usd,
    )
