"""The budget step: a request's worst case, reserved from every budget above it or from none.

The order: what cannot be priced or metered is refused under a hard budget; the whole worst case
is reserved, waiting a while for requests that still run; else the output limit is lowered to what
fits, if that is worth sending; else a budget that says so swaps the model; else it is a refusal.
The invariant: what is sent can cost no more than is reserved, within the limits a provider
honours.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence

import msgspec

from opencode_gate.catalog.rows import ModelPrice
from opencode_gate.core.clock import Clock
from opencode_gate.core.errors import LedgerError
from opencode_gate.core.semconv import Operation
from opencode_gate.governance import sentences
from opencode_gate.governance.decisions import Decision, Denied
from opencode_gate.governance.grants import Ask, Grant, Reserved
from opencode_gate.governance.policy import DOWNGRADE, Owner, Unit
from opencode_gate.governance.reservations import Held, Need, Reservations, Short
from opencode_gate.governance.rulebook import Law, OwnedBudget
from opencode_gate.governance.windows import WindowSpan, window_of
from opencode_gate.governance.worst_case import (
    RequestRates,
    input_bound,
    output_that_fits,
    worst_case_nano_usd,
)
from opencode_gate.ledger.governance_store import Standing, WindowKey
from opencode_gate.ledger.records import Charge
from opencode_gate.wire.estimates import estimated_tokens
from opencode_gate.wire.output_limits import smallest_sensible
from opencode_gate.wire.references import has_audio, may_write_1h, refers_elsewhere

HELD_WAIT_S = 60.0
"""How long a request waits for others to be settled; Opencode waits 300 s for headers."""

OUTPUT_LIMIT_TOKENS = 32_000
"""What is asked of a model of which nobody says how much it may answer with."""

TERMS_HOLD_S = 3600.0
TERMS_REMEMBERED = 512


class ModelTerms(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a model: its price, and the limits its provider keeps; `None` unknown."""

    price: ModelPrice | None = None
    context_tokens: int | None = None
    output_tokens: int | None = None


TermsOf = Callable[[str, str | None], ModelTerms]
Standings = Callable[[Sequence[WindowKey]], Mapping[WindowKey, Standing]]


class _Placed(msgspec.Struct, frozen=True):
    """A budget in the window of this moment."""

    owned: OwnedBudget
    span: WindowSpan

    @property
    def key(self) -> WindowKey:
        return WindowKey(self.owned.id, self.span.start_us)

    @property
    def unit(self) -> Unit:
        return self.owned.budget.unit


class _Case(msgspec.Struct, kw_only=True):
    """A request as it could be sent: with this model and this much output.

    Attributes:
        name: `provider/model`.
        terms: of its model, and of those a router might take instead.
        input_tokens: what it can be at most, `None` where nobody can say.
        output_tokens: of one answer; there are `choices` of them.
        floor_tokens: with less output it is not worth sending.
        must_limit: neither client nor model sets a limit to the answer.
    """

    name: str
    terms: tuple[ModelTerms, ...]
    rates: RequestRates
    input_tokens: int | None
    output_tokens: int
    choices: int
    floor_tokens: int
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
        costs = [
            None
            if terms.price is None
            else worst_case_nano_usd(
                terms.price,
                input_tokens=self.input_tokens,
                output_tokens=output_tokens,
                rates=self.rates,
            )
            for terms in self.terms
        ]
        known = [cost for cost in costs if cost is not None]
        if len(known) < len(costs):
            raise Denied(sentences.price_unknown(owner, self.name), http_status=403)
        return max(known)

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


class Budgeting:
    """Reserves for requests; `standings` reads how budgets stand without waiting."""

    def __init__(
        self, reservations: Reservations, standings: Standings, terms_of: TermsOf, clock: Clock
    ) -> None:
        self._reservations = reservations
        self._standings = standings
        self._terms_of = terms_of
        self._terms: dict[tuple[str, str | None], tuple[float, ModelTerms]] = {}
        self._clock = clock

    async def reserve(self, law: Law, ask: Ask, grant: Grant) -> None:
        """Fills `grant` with what the request is charged to.

        Raises:
            Denied: it does not fit, or what it would cost cannot be said.
        """
        hard = [one for one in law.budgets if one.budget.is_hard]
        if not ask.is_generation:
            if hard and ask.route.operation is Operation.OTHER:
                raise _uncounted(hard[0].owner, "this request")
            return
        assert ask.facts is not None
        if hard and ask.facts.is_background:
            raise _uncounted(hard[0].owner, "an answer in the background")
        now_us = self._clock.now_us()
        placed = [_Placed(one, window_of(one.budget, now_us, one.zone)) for one in law.budgets]
        enforced = [one for one in placed if one.owned.budget.is_hard]
        case = await self._case(ask, ask.model)
        while enforced:
            refused = await self._reserved(enforced, case, ask, grant)
            if refused is None:
                break
            short, answer = refused
            model = _cheaper(short, ask, grant)
            if model is None:
                raise _refusal(short, answer)
            grant.decisions.append(_swapped(short, answer, ask, model))
            grant.model, grant.downgraded_from = model, ask.model
            enforced = [one for one in enforced if one is not short]
            case = await self._case(ask, model)
        self._note_soft([one for one in placed if one not in enforced], case, grant)

    async def _reserved(
        self, enforced: Sequence[_Placed], case: _Case, ask: Ask, grant: Grant
    ) -> tuple[_Placed, Short] | None:
        """Reserves, with less output if need be; else the budget that has too little."""
        lowered: Decision | None = None
        give_up_s = self._clock.monotonic_s() + HELD_WAIT_S
        while True:
            needs = [
                Need(one.key, one.owned.budget.limit, case.amount(one.unit, one.owned.owner))
                for one in enforced
            ]
            wait_s = max(0.0, give_up_s - self._clock.monotonic_s())
            try:
                answer = await self._reservations.reserve(needs, wait_s=wait_s)
            except LedgerError as error:
                raise Denied(sentences.ledger_locked(error.message), http_status=403) from error
            if isinstance(answer, Held):
                _fill(grant, enforced, needs, case, answer)
                assert ask.facts is not None
                seen = estimated_tokens(ask.facts.input_bytes, ask.route.wire_format)
                grant.output_allowed_tokens = _output_allowed(case, grant.reserved, seen)
                if lowered is not None:
                    grant.decisions.append(lowered)
                if lowered is not None or case.must_limit:
                    grant.output_limit_tokens = case.output_tokens
                return None
            short = next(one for one in enforced if one.key == answer.need.key)
            room = answer.free if wait_s <= 0.0 else answer.need.limit - answer.standing.spent
            fits = case.output_for(short.unit, room)
            if not case.floor_tokens <= fits < case.output_tokens:
                return short, answer
            case.output_tokens = fits
            lowered = sentences.output_lowered(
                short.owned.owner,
                short.owned.budget,
                short.span,
                spent=answer.standing.spent,
                reserved=answer.standing.held,
                needed=answer.need.amount,
                limit_tokens=fits,
            )

    def _note_soft(self, soft: Sequence[_Placed], case: _Case, grant: Grant) -> None:
        """Charges the request to budgets that refuse nothing, and says which would have."""
        if not soft:
            return
        grant.charges += tuple(Charge(*one.key, one.unit, 0) for one in soft)
        try:
            standings = self._standings([one.key for one in soft])
        except LedgerError as error:
            raise Denied(sentences.ledger_locked(error.message), http_status=403) from error
        for one in soft:
            standing = standings.get(one.key, Standing())
            if one.owned.budget.mode == "shadow":
                try:
                    needed = case.amount(one.unit, one.owned.owner)
                except Denied as denied:
                    shadow = msgspec.structs.replace(denied.decision, outcome="shadow")
                    grant.decisions.append(shadow)
                    continue
                if standing.spent + standing.held + needed > one.owned.budget.limit:
                    grant.decisions.append(_exceeded(one, standing, needed))
            elif one.owned.budget.at_end == "warn" and standing.spent >= one.owned.budget.limit:
                grant.decisions.append(_warning(one, standing))

    async def _case(self, ask: Ask, model: str | None) -> _Case:
        facts = ask.facts
        assert facts is not None
        models = (model, *(facts.fallback_models if model == ask.model else ()))
        terms = tuple([await self._known(ask.provider_id, one) for one in models])
        own = terms[0].output_tokens
        limits = [
            tokens for tokens in (facts.max_output_tokens, own) if tokens is not None and tokens > 0
        ]
        contexts = [one.context_tokens for one in terms]
        return _Case(
            name=f"{ask.provider_id}/{model}",
            terms=terms,
            rates=RequestRates(
                may_write_1h=may_write_1h(ask.body),
                service_tier=facts.service_tier if facts.speed is None else facts.speed,
                has_audio=has_audio(ask.body),
            ),
            input_tokens=input_bound(
                body_bytes=len(ask.body),
                refers_elsewhere=refers_elsewhere(ask.route, ask.body),
                context_tokens=None
                if None in contexts
                else max(tokens for tokens in contexts if tokens is not None),
            ),
            output_tokens=min(limits) if limits else OUTPUT_LIMIT_TOKENS,
            choices=facts.choices,
            floor_tokens=smallest_sensible(ask.route, facts),
            must_limit=not limits,
        )

    async def _known(self, provider_id: str, model: str | None) -> ModelTerms:
        """What is known of a model; looking it up takes long the first time."""
        key = (provider_id, model)
        now_s = self._clock.monotonic_s()
        known = self._terms.get(key)
        if known is not None and now_s < known[0]:
            return known[1]
        terms = await asyncio.to_thread(self._terms_of, provider_id, model)
        if len(self._terms) >= TERMS_REMEMBERED:
            self._terms.clear()
        self._terms[key] = (now_s + TERMS_HOLD_S, terms)
        return terms


def _fill(
    grant: Grant, enforced: Sequence[_Placed], needs: Sequence[Need], case: _Case, held: Held
) -> None:
    grant.held = held
    grant.charges = tuple(
        Charge(*key, one.unit, amount)
        for one, (key, amount) in zip(enforced, held.amounts, strict=True)
    )
    for one, need in zip(enforced, needs, strict=True):
        if one.unit == "usd":
            grant.reserved_cost_nano_usd = need.amount
    grant.reserved = tuple(
        Reserved(one.owned, one.span, need.amount)
        for one, need in zip(enforced, needs, strict=True)
    )


def _output_allowed(case: _Case, reserved: Sequence[Reserved], input_tokens: int) -> int:
    """How much output the reservation pays for, now that less input is known of."""
    fits = [
        case.output_for(one.owned.budget.unit, one.amount, input_tokens=input_tokens)
        for one in reserved
    ]
    return max(case.output_tokens, min(fits)) * case.choices


def _cheaper(short: _Placed, ask: Ask, grant: Grant) -> str | None:
    """The model a budget swaps to at its end; `None` where it refuses."""
    at_end = short.owned.budget.at_end
    if not at_end.startswith(DOWNGRADE):
        return None
    model = at_end.removeprefix(DOWNGRADE).removeprefix(f"{ask.provider_id}/")
    return None if model in (grant.model, ask.model) else model


def _swapped(short: _Placed, answer: Short, ask: Ask, model: str) -> Decision:
    return sentences.downgraded(
        short.owned.owner,
        short.owned.budget,
        short.span,
        spent=answer.standing.spent,
        reserved=answer.standing.held,
        needed=answer.need.amount,
        asked=f"{ask.provider_id}/{ask.model}",
        taken=f"{ask.provider_id}/{model}",
        zone_name=short.owned.zone,
    )


def _refusal(short: _Placed, answer: Short) -> Denied:
    say = sentences.budget_held if answer.can_wait else sentences.budget_exceeded
    decision = say(
        short.owned.owner,
        short.owned.budget,
        short.span,
        spent=answer.standing.spent,
        reserved=answer.standing.held,
        needed=answer.need.amount,
        zone_name=short.owned.zone,
    )
    return Denied(decision, http_status=402, error_type="insufficient_quota")


def _uncounted(owner: Owner, what: str) -> Denied:
    return Denied(sentences.operation_denied(owner, what), http_status=403)


def _exceeded(one: _Placed, standing: Standing, needed: int) -> Decision:
    return sentences.budget_exceeded(
        one.owned.owner,
        one.owned.budget,
        one.span,
        spent=standing.spent,
        reserved=standing.held,
        needed=needed,
        zone_name=one.owned.zone,
    )


def _warning(one: _Placed, standing: Standing) -> Decision:
    limit = one.owned.budget.limit
    return sentences.budget_warning(
        one.owned.owner,
        one.owned.budget,
        one.span,
        percent=100 * standing.spent // limit if limit else 100,
        spent=standing.spent,
        reserved=standing.held,
        zone_name=one.owned.zone,
    )
