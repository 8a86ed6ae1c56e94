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
from opencode_gate.governance.models_allowed import NAME_CHARS_MAX
from opencode_gate.governance.policy import Owner, Unit
from opencode_gate.governance.worst_case import (
    PLAIN,
    Rate,
    Rates,
    RequestRates,
    input_bound,
    most_nano_usd,
    output_within,
    rates_of,
)
from opencode_gate.wire.facts import RequestFacts
from opencode_gate.wire.output_limits import smallest_sensible
from opencode_gate.wire.references import may_write_1h, read_references
from opencode_gate.wire.routes import Route

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


class Tariff(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a model, and of those a router might take instead, made ready to count.

    Attributes:
        name: `provider/model`.
        until_s: when it has to be looked up again.
        context_tokens: the widest window of them, `None` where one is not known.
        output_tokens: how much the model answers with at most, `None` where nobody knows.
        rates: of all of them for an ordinary request, `None` where a price is not known.
    """

    name: str
    terms: tuple[ModelTerms, ...]
    until_s: float
    context_tokens: int | None
    output_tokens: int | None
    charges_for_1h: bool
    rates: Rates | None


class Case(msgspec.Struct):
    """A request as it could be sent: with this model and this much output.

    Attributes:
        name: `provider/model`.
        rates: of the model, and of those a router might take instead; `None` where a price is
            not known.
        input_tokens: what it can be at most, `None` where nobody can say.
        output_tokens: of one answer; there are `choices` of them.
        must_limit: its limit has to be written into the request: nobody sets one, or the client
            one above what the model is known to answer with.
    """

    name: str
    rates: Rates | None
    input_tokens: int | None
    output_tokens: int
    choices: int
    has_provider_tools: bool
    must_limit: bool
    route: Route
    facts: RequestFacts

    @property
    def floor_tokens(self) -> int:
        """With less output it is not worth sending."""
        return smallest_sensible(self.route, self.facts)

    def most_tokens(self) -> int | None:
        """How many tokens it may take at most, `None` where nobody can say."""
        if self.input_tokens is None:
            return None
        return self.input_tokens + self.output_tokens * self.choices

    def most_nano_usd(self) -> int | None:
        """What it may cost at most, `None` where nobody can say."""
        if self.rates is None or self.input_tokens is None:
            return None
        return most_nano_usd(self.rates, self.input_tokens, self.output_tokens * self.choices)

    def amount(self, unit: Unit, owner: Owner) -> int:
        """What it may take at most, in nano-dollars or tokens.

        Raises:
            Denied: nobody can say.
        """
        if self.input_tokens is None:
            raise Denied(sentences.input_unbounded(owner, self.name), http_status=403)
        amount = self.most_tokens() if unit == "tokens" else self.most_nano_usd()
        if amount is None:
            raise Denied(sentences.price_unknown(owner, self.name), http_status=403)
        return amount

    def output_for(self, unit: Unit, amount: int, *, input_tokens: int | None = None) -> int:
        """How much output one answer may have for the whole to take no more than `amount`."""
        read = self.input_tokens if input_tokens is None else input_tokens
        assert read is not None
        if unit == "tokens":
            return max(0, amount - read) // self.choices
        assert self.rates is not None
        return output_within(self.rates, read, amount) // self.choices


class Cases:
    """Makes cases of requests; what is known of a model is looked up once an hour."""

    def __init__(self, terms_of: TermsOf, clock: Clock) -> None:
        self._terms_of = terms_of
        self._clock = clock
        self._tariffs: dict[tuple[str, str | None], Tariff] = {}

    def now(self, ask: Ask, facts: RequestFacts, now_s: float) -> Case | None:
        """The case of a request as it came; `None` where something has to be looked up first."""
        tariff = self._tariffs.get((ask.provider_id, facts.request_model))
        if tariff is None or now_s >= tariff.until_s or facts.fallback_models:
            return None
        return _case(ask, facts, tariff)

    async def of(self, ask: Ask, model: str | None) -> Case:
        """The case of a request that is sent to `model`."""
        facts = ask.facts
        assert facts is not None
        tariff = await self._known(ask.provider_id, model)
        if facts.fallback_models and model == ask.model:
            others = [await self._known(ask.provider_id, one) for one in facts.fallback_models]
            terms = tuple([terms for one in (tariff, *others) for terms in one.terms])
            tariff = _tariff(tariff.name, terms, tariff.until_s)
        return _case(ask, facts, tariff)

    async def _known(self, provider_id: str, model: str | None) -> Tariff:
        key = (provider_id, model)
        now_s = self._clock.monotonic_s()
        known = self._tariffs.get(key)
        if known is not None and now_s < known.until_s:
            return known
        # Prices are read from files the first time.
        terms = await asyncio.to_thread(self._terms_of, provider_id, model)
        tariff = _tariff(f"{provider_id}/{model}", (terms,), now_s + TERMS_HOLD_S)
        if model is None or len(model) <= NAME_CHARS_MAX:
            if len(self._tariffs) >= TERMS_REMEMBERED:
                self._tariffs.clear()
            self._tariffs[key] = tariff
        return tariff


def _tariff(name: str, terms: tuple[ModelTerms, ...], until_s: float) -> Tariff:
    contexts = [one.context_tokens for one in terms]
    known = [tokens for tokens in contexts if tokens is not None and tokens > 0]
    output_tokens = terms[0].output_tokens
    return Tariff(
        name=name,
        terms=terms,
        until_s=until_s,
        context_tokens=max(known) if len(known) == len(contexts) else None,
        output_tokens=output_tokens if output_tokens is not None and output_tokens > 0 else None,
        charges_for_1h=any(one.charges_for_1h for one in terms),
        rates=_rates(terms, PLAIN),
    )


def _rates(terms: tuple[ModelTerms, ...], rates: RequestRates) -> Rates | None:
    """The rates of several models: the dearest of them all is the worst case."""
    found: list[Rate] = []
    for one in terms:
        its = None if one.price is None else rates_of(one.price, rates)
        if its is None:
            return None
        found += its
    return tuple(found)


def _case(ask: Ask, facts: RequestFacts, tariff: Tariff) -> Case:
    """What can go in and come out at most, and what that costs."""
    body = ask.body
    references = read_references(ask.route, body, facts)
    refers_elsewhere, has_audio, has_provider_tools, _ = references
    rates = tariff.rates
    writes_1h = tariff.charges_for_1h and may_write_1h(body, references)
    if has_audio or writes_1h or facts.service_tier is not None or facts.speed is not None:
        rates = _rates(
            tariff.terms,
            RequestRates(
                may_write_1h=writes_1h,
                has_audio=has_audio,
                service_tier=facts.service_tier,
                speed=facts.speed,
            ),
        )
    # An answer is as long as the client asks for, or as the model can.
    output_tokens, can_be = facts.max_output_tokens, tariff.output_tokens
    must_limit = False
    if output_tokens is None or output_tokens <= 0:
        must_limit = can_be is None
        output_tokens = OUTPUT_LIMIT_TOKENS if can_be is None else can_be
    elif can_be is not None and output_tokens > can_be:
        must_limit, output_tokens = True, can_be
    return Case(
        tariff.name,
        rates,
        input_bound(
            body_bytes=len(body),
            refers_elsewhere=refers_elsewhere,
            context_tokens=tariff.context_tokens,
        ),
        output_tokens,
        facts.choices,
        has_provider_tools,
        must_limit,
        ask.route,
        facts,
    )
