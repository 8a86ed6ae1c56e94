"""A request as it could be sent, and what that takes from budgets at most.

The idea: what a request may cost depends on its bytes, on its model and on how much may be
answered; all of that is gathered once, and then asked about as often as budgets need. The
invariant: what nobody can say is refused, never guessed.
"""

import asyncio
from collections.abc import Callable

import msgspec

from opencode_gate.catalog.rows import ModelPrice
from opencode_gate.core.clock import Clock
from opencode_gate.governance import sentences
from opencode_gate.governance.decisions import Denied
from opencode_gate.governance.grants import Ask
from opencode_gate.governance.policy import Owner, Unit
from opencode_gate.governance.worst_case import (
    RequestRates,
    input_bound,
    output_that_fits,
    worst_case_nano_usd,
)
from opencode_gate.wire.output_limits import smallest_sensible
from opencode_gate.wire.references import may_write_1h, read_references

OUTPUT_LIMIT_TOKENS = 32_000
"""What is asked of a model of which nobody says how much it may answer with."""

TERMS_HOLD_S = 3600.0
TERMS_REMEMBERED = 512


class ModelTerms(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a model: its price, and the limits its provider keeps; `None` unknown.

    `charges_for_1h`: a prompt cache that is kept for an hour has a price of its own.
    """

    price: ModelPrice | None = None
    charges_for_1h: bool = False
    context_tokens: int | None = None
    output_tokens: int | None = None


TermsOf = Callable[[str, str | None], ModelTerms]


class Case(msgspec.Struct, kw_only=True):
    """A request as it could be sent: with this model and this much output.

    Attributes:
        name: `provider/model`.
        terms: of its model, and of those a router might take instead.
        input_tokens: what it can be at most, `None` where nobody can say.
        output_tokens: of one answer; there are `choices` of them.
        floor_tokens: with less output it is not worth sending.
        must_limit: its limit has to be written into the request: nobody sets one, or the client
            one above what the model is known to answer with.
    """

    name: str
    terms: tuple[ModelTerms, ...]
    rates: RequestRates
    input_tokens: int | None
    output_tokens: int
    choices: int
    floor_tokens: int
    has_provider_tools: bool
    must_limit: bool

    def amount(self, unit: Unit, owner: Owner) -> int:
        """What it may take at most, in nano-dollars or tokens.

        Raises:
            Denied: nobody can say.
        """
        if self.input_tokens is None:
            raise Denied(sentences.input_unbounded(owner, self.name), http_status=403)
        output_tokens = self.output_tokens * self.choices
        if unit == "tokens":
            return self.input_tokens + output_tokens
        most = 0
        for terms in self.terms:
            cost = None
            if terms.price is not None:
                cost = worst_case_nano_usd(
                    terms.price,
                    input_tokens=self.input_tokens,
                    output_tokens=output_tokens,
                    rates=self.rates,
                )
            if cost is None:
                raise Denied(sentences.price_unknown(owner, self.name), http_status=403)
            most = max(most, cost)
        return most

    def output_for(self, unit: Unit, amount: int, *, input_tokens: int | None = None) -> int:
        """How much output one answer may have for the whole to take no more than `amount`."""
        read = self.input_tokens if input_tokens is None else input_tokens
        assert read is not None
        if unit == "tokens":
            return max(0, amount - read) // self.choices
        fits = [
            output_that_fits(
                terms.price, input_tokens=read, available_nano_usd=amount, rates=self.rates
            )
            for terms in self.terms
            if terms.price is not None
        ]
        return min(fits) // self.choices


class Cases:
    """Makes cases of requests; what is known of a model is looked up once an hour."""

    def __init__(self, terms_of: TermsOf, clock: Clock) -> None:
        self._terms_of = terms_of
        self._clock = clock
        self._terms: dict[tuple[str, str | None], tuple[float, ModelTerms]] = {}

    async def of(self, ask: Ask, model: str | None) -> Case:
        """The case of a request that is sent to `model`."""
        facts = ask.facts
        assert facts is not None
        terms: tuple[ModelTerms, ...] = (await self._known(ask.provider_id, model),)
        if facts.fallback_models and model == ask.model:
            terms += tuple(
                [await self._known(ask.provider_id, one) for one in facts.fallback_models]
            )
        references = read_references(ask.route, ask.body, facts)
        contexts = [one.context_tokens for one in terms]
        known = [tokens for tokens in contexts if tokens is not None]
        output_tokens = _least(facts.max_output_tokens, terms[0].output_tokens)
        return Case(
            name=f"{ask.provider_id}/{model}",
            terms=terms,
            rates=RequestRates(
                may_write_1h=any(one.charges_for_1h for one in terms) and may_write_1h(ask.body),
                service_tier=facts.service_tier if facts.speed is None else facts.speed,
                has_audio=references.has_audio,
            ),
            input_tokens=input_bound(
                body_bytes=len(ask.body),
                refers_elsewhere=references.refers_elsewhere,
                context_tokens=max(known) if len(known) == len(contexts) else None,
            ),
            output_tokens=OUTPUT_LIMIT_TOKENS if output_tokens is None else output_tokens,
            choices=facts.choices,
            floor_tokens=smallest_sensible(ask.route, facts),
            has_provider_tools=references.has_provider_tools,
            must_limit=output_tokens is None
            or (facts.max_output_tokens is not None and facts.max_output_tokens > output_tokens),
        )

    async def _known(self, provider_id: str, model: str | None) -> ModelTerms:
        key = (provider_id, model)
        now_s = self._clock.monotonic_s()
        known = self._terms.get(key)
        if known is not None and now_s < known[0]:
            return known[1]
        # Prices are read from files the first time.
        terms = await asyncio.to_thread(self._terms_of, provider_id, model)
        if len(self._terms) >= TERMS_REMEMBERED:
            self._terms.clear()
        self._terms[key] = (now_s + TERMS_HOLD_S, terms)
        return terms


def _least(asked: int | None, possible: int | None) -> int | None:
    """The lower of two limits that are above 0; `None` where there is neither."""
    limits = [tokens for tokens in (asked, possible) if tokens is not None and tokens > 0]
    return min(limits, default=None)
