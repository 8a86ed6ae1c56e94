"""What the same tokens would have cost on other models, and what that comparison leaves out.

The idea: each request is priced by itself, as of its own day, so that a tier for long requests
holds for exactly the long ones. The share read from a cache stays cached where the other
provider has a price for that, and is plain input where it has none. The invariants: a request
whose price is not known on either side is in neither sum of the comparison; a caveat that
holds is always part of the answer.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

import msgspec

from opencode_gate.catalog.arithmetic import uncached
from opencode_gate.catalog.prices import Priceable, PriceBook, Quote, quality_of
from opencode_gate.core.money import nano_usd
from opencode_gate.core.semconv import CostQuality, Operation
from opencode_gate.core.usage import TokenUsage, sum_known

_WORST_LAST = tuple(CostQuality)
_DAY_US = 86_400_000_000


class Flow(Priceable, Protocol):
    """A request with its tokens and what it did cost; the ledger's exchange record is one."""

    @property
    def cost_quality(self) -> CostQuality: ...  # noqa: D102


class OtherModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model to compare with; `context_tokens` is what fits into it, `None` where unknown."""

    provider_id: str
    model_id: str
    context_tokens: int | None = None

    @property
    def name(self) -> str:
        """`provider/model`."""
        return f"{self.provider_id}/{self.model_id}"


class Caveat(msgspec.Struct, frozen=True, kw_only=True):
    """Why an amount is not what it would really have been.

    Attributes:
        code: for programs: `no-cache-price`.
        text: for people, without the name of the model.
        requests: how many it concerns, `None` where it concerns all.
    """

    code: str
    text: str
    requests: int | None = None


GENERAL_CAVEATS = (
    Caveat(
        code="tokenizers-differ",
        text="another model counts the same text as more or fewer tokens",
    ),
    Caveat(
        code="reasoning-differs",
        text="another model thinks more or less, and takes other steps to the same end",
    ),
)
"""What holds for every comparison."""


class Sum(msgspec.Struct, frozen=True, kw_only=True):
    """What some requests cost, in nano-dollars; `None` where nothing is known."""

    requests: int = 0
    cost_nano_usd: int | None = None
    cost_quality: CostQuality = CostQuality.UNKNOWN
    unknown_cost_requests: int = 0

    def plus(self, cost_nano_usd: int | None, quality: CostQuality) -> "Sum":
        """With one more request; the quality is the worst of all parts."""
        qualities = [quality if cost_nano_usd is not None else CostQuality.UNKNOWN]
        if self.requests:
            qualities.append(self.cost_quality)
        return Sum(
            requests=self.requests + 1,
            cost_nano_usd=sum_known(self.cost_nano_usd, cost_nano_usd),
            cost_quality=max(qualities, key=_WORST_LAST.index),
            unknown_cost_requests=self.unknown_cost_requests + (cost_nano_usd is None),
        )


class Alternative(msgspec.Struct, frozen=True, kw_only=True):
    """The same tokens on another model.

    Attributes:
        compared_requests: those whose cost is known here and there.
        compared_cost_nano_usd: what these would have cost.
        compared_actual_nano_usd: what these did cost.
        price_sources: the books that priced them.
    """

    model: OtherModel
    total: Sum
    compared_requests: int
    compared_cost_nano_usd: int
    compared_actual_nano_usd: int
    price_sources: tuple[str, ...]
    caveats: tuple[Caveat, ...]


class WhatIf(msgspec.Struct, frozen=True, kw_only=True):
    """A comparison; token counts are sums, `None` where no request said any."""

    actual: Sum
    input_tokens: int | None
    cache_read_input_tokens: int | None
    output_tokens: int | None
    alternatives: tuple[Alternative, ...]
    caveats: tuple[Caveat, ...] = GENERAL_CAVEATS


def what_if(flows: Iterable[Flow], models: Sequence[OtherModel], book: PriceBook) -> WhatIf:
    """The comparison of what was with what it would have cost on each of `models`.

    Requests that nobody was charged for and that carry no tokens are passed over.
    """
    actual = Sum()
    tokens: tuple[int | None, int | None, int | None] = (None, None, None)
    reckonings = [_Reckoning(model, book) for model in models]
    for flow in flows:
        usage = flow.usage
        if flow.operation is not Operation.GENERATE or _is_nothing(flow):
            continue
        actual = actual.plus(flow.cost_nano_usd, flow.cost_quality)
        counts = (usage.input_tokens, usage.cache_read, usage.output)
        tokens = tuple(map(sum_known, tokens, counts))  # type: ignore[assignment]  # three each
        for reckoning in reckonings:
            reckoning.add(flow)
    return WhatIf(
        actual=actual,
        input_tokens=tokens[0],
        cache_read_input_tokens=tokens[1],
        output_tokens=tokens[2],
        alternatives=tuple(reckoning.outcome() for reckoning in reckonings),
    )


def _is_nothing(flow: Flow) -> bool:
    return flow.usage.is_empty and flow.cost_nano_usd is not None


class _Caching(msgspec.Struct, frozen=True, kw_only=True):
    reads: bool
    writes: bool


class _Reckoning(msgspec.Struct):
    """One model's sums while the requests pass."""

    model: OtherModel
    book: PriceBook
    total: Sum = msgspec.field(default_factory=Sum)
    compared: int = 0
    cost_nano_usd: int = 0
    actual_nano_usd: int = 0
    sources: set[str] = msgspec.field(default_factory=set)
    unpriced: int = 0
    too_long: int = 0
    not_cached: int = 0
    unread: int = 0
    unwritten: int = 0
    _caching: dict[int, _Caching] = msgspec.field(default_factory=dict)

    def add(self, flow: Flow) -> None:
        usage = flow.usage
        caching = self._caching_at(flow.started_at_us)
        quote = self._quote(flow, usage if caching.reads else uncached(usage))
        cost = nano_usd(quote.amount.usd) if quote is not None else None
        quality = (
            quality_of(quote.amount, flow.usage_quality)
            if quote is not None
            else CostQuality.UNKNOWN
        )
        self.total = self.total.plus(cost, quality)
        if quote is not None:
            self.sources.add(quote.source)
            self._note(usage, caching, is_free=quote.amount.is_free)
        self.unpriced += quote is None
        if cost is not None and flow.cost_nano_usd is not None:
            self.compared += 1
            self.cost_nano_usd += cost
            self.actual_nano_usd += flow.cost_nano_usd

    def outcome(self) -> Alternative:
        return Alternative(
            model=self.model,
            total=self.total,
            compared_requests=self.compared,
            compared_cost_nano_usd=self.cost_nano_usd,
            compared_actual_nano_usd=self.actual_nano_usd,
            price_sources=tuple(sorted(self.sources)),
            caveats=self._caveats(),
        )

    def _quote(self, flow: Flow, usage: TokenUsage) -> Quote | None:
        # Not the provider's raw usage: its service tier is none of the other provider's.
        return self.book.quote(
            self.model.provider_id, (self.model.model_id,), usage, at_us=flow.started_at_us
        )

    def _note(self, usage: TokenUsage, caching: _Caching, *, is_free: bool) -> None:
        read, limit = usage.cache_read, self.model.context_tokens
        size = usage.input_tokens
        self.too_long += limit is not None and size is not None and size > limit
        if is_free:
            return
        self.not_cached += bool(read) and not caching.reads
        self.unread += not read and caching.reads
        written = usage.cache_creation_input_tokens
        self.unwritten += bool(read) and not written and caching.writes

    def _caveats(self) -> tuple[Caveat, ...]:
        found = (
            Caveat(
                code="unknown-price",
                text="no price is known, or nothing was counted; not in its sum",
                requests=self.unpriced,
            ),
            Caveat(
                code="no-cache-price",
                text="no price for cached input: what was read from a cache counts as plain input",
                requests=self.not_cached,
            ),
            Caveat(
                code="no-cache-in-flow",
                text="nothing was read from a cache, and would perhaps have been there",
                requests=self.unread,
            ),
            Caveat(
                code="no-cache-writes-in-flow",
                text="writing to the cache costs extra there, and no writes were counted here",
                requests=self.unwritten,
            ),
            Caveat(
                code="too-long",
                text="longer than its context window, and would have been refused",
                requests=self.too_long,
            ),
        )
        return tuple(caveat for caveat in found if caveat.requests)

    def _caching_at(self, at_us: int) -> _Caching:
        day = at_us // _DAY_US
        if day not in self._caching:
            answer = self.book.explain(self.model.provider_id, self.model.model_id, at_us=at_us)
            price = answer.price if answer is not None else None
            self._caching[day] = _Caching(
                reads=price is not None and price.cache_read is not None,
                writes=price is not None and price.cache_write is not None,
            )
        return self._caching[day]
