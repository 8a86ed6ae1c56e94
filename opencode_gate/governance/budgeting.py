"""The budget step: a request's worst case, reserved from every budget above it or from none.

The order: what cannot be priced or metered is refused under a hard budget; the whole worst case
is reserved, waiting a while for requests that still run; else the output limit is lowered to what
fits, if that is worth sending; else a budget that says so swaps the model; else it is a refusal.
The invariant: what is sent can cost no more than is reserved, within the limits a provider
honours.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import msgspec

from opencode_gate.core.clock import Clock
from opencode_gate.core.errors import LedgerError
from opencode_gate.core.semconv import Operation
from opencode_gate.governance import sentences
from opencode_gate.governance.admission import Caller
from opencode_gate.governance.decisions import Decision, Denied
from opencode_gate.governance.grants import Ask, Grant
from opencode_gate.governance.policy import DOWNGRADE, Owner, Unit
from opencode_gate.governance.request_case import Case, Cases
from opencode_gate.governance.reservations import Held, Need, Place, Reservations, Short
from opencode_gate.governance.rulebook import CALLERS_REMEMBERED, Counting, Law, OwnedBudget
from opencode_gate.governance.windows import WindowSpan, later, window_of
from opencode_gate.ledger.governance_store import Standing, WindowKey
from opencode_gate.ledger.records import Charge
from opencode_gate.wire.estimates import estimated_tokens

HELD_WAIT_S = 60.0
"""How long a request waits for others to be settled; Opencode waits 300 s for headers."""

Standings = Callable[[Sequence[WindowKey]], Mapping[WindowKey, Counting]]


class _Placed(Place):
    """A budget in the window of this moment."""

    owned: OwnedBudget
    span: WindowSpan


class _InForce(msgspec.Struct, frozen=True):
    """The budgets of a law while none of their windows changes.

    Attributes:
        since_us: the first moment it holds for, `until_us` the first it no longer does.
        enforced: those that refuse, `soft` those that only count.
        counts_usd: one of those that refuse is in money.
    """

    law: Law
    since_us: int
    until_us: float
    enforced: tuple[_Placed, ...]
    soft: tuple[_Placed, ...]
    counts_usd: bool


class Allowance(msgspec.Struct, frozen=True):
    """What is reserved for an answer, by `charges`, and so how long it may become."""

    case: Case
    places: tuple[_Placed, ...]
    charges: tuple[Charge, ...]

    def output_tokens(self) -> int:
        """How much output is paid for, as less went in than it could have been."""
        case = self.case
        seen_tokens = estimated_tokens(case.facts.input_bytes, case.route.wire_format)
        fits = [
            case.output_for(one.unit, charge.reserved, input_tokens=seen_tokens)
            for one, charge in zip(self.places, self.charges, strict=True)
        ]
        return max(case.output_tokens, min(fits)) * case.choices

    def stop(self) -> Decision:
        """Says that the answer was cut."""
        one = self.places[0]
        return sentences.answer_stopped(
            one.owned.owner,
            one.owned.budget,
            one.span,
            reserved=self.charges[0].reserved,
            zone_name=one.owned.zone,
        )


class Budgeting:
    """Reserves for requests; `standings` reads how budgets stand without waiting."""

    def __init__(
        self, reservations: Reservations, standings: Standings, cases: Cases, clock: Clock
    ) -> None:
        self._reservations = reservations
        self._standings = standings
        self._cases = cases
        self._clock = clock
        self._in_force: dict[Caller, _InForce] = {}

    def reserve_now(self, law: Law, ask: Ask, grant: Grant, now_s: float) -> bool:
        """Fills `grant` for what fits as it came, without waiting; else changes nothing.

        Raises:
            Denied: the ledger cannot be asked.
        """
        facts = ask.facts
        if facts is None:
            return False
        in_force = self._budgets_now(law, ask.caller)
        enforced = in_force.enforced
        case = self._cases.now(ask, facts, now_s)
        if case is None:
            return False
        if enforced:
            tokens = case.most_tokens()
            nano_usd = case.most_nano_usd() if in_force.counts_usd else 0
            if tokens is None or nano_usd is None or case.has_provider_tools:
                return False
            if facts.is_background:
                return False
            charges = self._reservations.take_now(enforced, nano_usd, tokens, now_s)
            if charges is None:
                return False
            grant.charges, grant.allowance = charges, Allowance(case, enforced, charges)
            if in_force.counts_usd:
                grant.reserved_cost_nano_usd = nano_usd
            if case.must_limit:
                grant.output_limit_tokens = case.output_tokens
        if in_force.soft:
            self._note_soft(in_force.soft, case, grant)
        return True

    async def reserve(self, law: Law, ask: Ask, grant: Grant) -> None:
        """Fills `grant` with what the request is charged to.

        Raises:
            Denied: it does not fit, or what it would cost cannot be said.
        """
        in_force = self._budgets_now(law, ask.caller)
        enforced, soft = in_force.enforced, in_force.soft
        if enforced:
            _check_countable(enforced[0].owned.owner, ask)
        if not ask.is_generation:
            return
        assert ask.facts is not None
        case = await self._cases.of(ask, ask.model)
        if enforced and case.has_provider_tools:
            raise _uncounted(enforced[0].owned.owner, "tools that the provider runs itself")
        while enforced:
            refused = await self._reserved(enforced, in_force.until_us, case, ask, grant)
            if refused is None:
                break
            if grant.model is None and self._clock.now_us() >= in_force.until_us:
                # While it waited, a window has begun in which nothing is spent yet.
                in_force = self._budgets_now(law, ask.caller)
                enforced, soft = in_force.enforced, in_force.soft
                case = await self._cases.of(ask, ask.model)
                continue
            short, answer = refused
            model = _at_the_end(short, ask)
            if model is None:
                raise _refusal(short, answer)
            if model != (grant.model or ask.model) or ask.facts.fallback_models:
                grant.decisions.append(_swapped(short, answer, ask, model))
                grant.model, grant.downgraded_from = model, ask.model
            enforced = tuple(one for one in enforced if one is not short)
            soft += (short,)
            case = await self._cases.of(ask, model)
        if soft:
            self._note_soft(soft, case, grant)

    def _budgets_now(self, law: Law, caller: Caller) -> _InForce:
        """The budgets of a caller in their windows, placed anew only when one begins."""
        now_us = self._clock.now_us()
        found = self._in_force.get(caller)
        if found is not None and found.law is law and found.since_us <= now_us < found.until_us:
            return found
        placed = []
        for owned in law.budgets:
            span = window_of(owned.budget, now_us, owned.zone)
            key = WindowKey(owned.id, span.start_us)
            account = self._reservations.account(key)
            budget = owned.budget
            placed.append(_Placed(key, budget.unit, budget.limit, account, owned, span))
        ends_us = [one.span.end_us for one in placed if one.span.end_us is not None]
        enforced = tuple([one for one in placed if one.owned.budget.is_hard])
        found = _InForce(
            law,
            max(one.span.start_us for one in placed),
            min(ends_us, default=math.inf),
            enforced,
            tuple([one for one in placed if not one.owned.budget.is_hard]),
            any(one.unit == "usd" for one in enforced),
        )
        if len(self._in_force) >= CALLERS_REMEMBERED:
            self._in_force.clear()
        self._in_force[caller] = found
        return found

    async def _reserved(
        self,
        enforced: tuple[_Placed, ...],
        until_us: float,
        case: Case,
        ask: Ask,
        grant: Grant,
    ) -> tuple[_Placed, Short] | None:
        """Reserves, with less output if need be; else the budget that has too little.

        Once `until_us` has come these are not their windows any more, and nothing is lowered.
        """
        lowered: Decision | None = None
        give_up_s = self._clock.monotonic_s() + HELD_WAIT_S
        while True:
            needs = _needs(enforced, case)
            wait_s = max(0.0, give_up_s - self._clock.monotonic_s())
            try:
                answer = await self._reservations.reserve(needs, wait_s=wait_s)
            except LedgerError as error:
                raise Denied(sentences.ledger_locked(error.message), http_status=403) from error
            if isinstance(answer, Held):
                self._fill(grant, enforced, case, answer)
                if lowered is not None:
                    grant.decisions.append(lowered)
                if lowered is not None or case.must_limit:
                    grant.output_limit_tokens = case.output_tokens
                return None
            short = next(one for one in enforced if one.key == answer.need.key)
            # What could wait has waited as long as it may; then only what is free counts.
            is_late = answer.can_wait or wait_s <= 0.0
            room = answer.free if is_late else answer.need.limit - answer.standing.spent
            fits = case.output_for(short.unit, room)
            is_past = self._clock.now_us() >= until_us
            if is_past or not case.floor_tokens <= fits < case.output_tokens:
                return short, answer
            case.output_tokens = fits
            lowered = _said(
                sentences.output_lowered,
                short,
                answer.standing,
                needed=answer.need.amount,
                limit_tokens=fits,
            )

    def _fill(self, grant: Grant, enforced: tuple[_Placed, ...], case: Case, held: Held) -> None:
        charges = []
        for one, (key, amount) in zip(enforced, held.amounts, strict=True):
            charges.append(Charge(key.budget_id, key.window_start_us, one.unit, amount))
            if one.unit == "usd":
                grant.reserved_cost_nano_usd = amount
            # The next request reserves from what has been leased for this one.
            one.account = self._reservations.account(one.key)
        grant.charges = tuple(charges)
        grant.allowance = Allowance(case, enforced, grant.charges)

    def _note_soft(self, soft: Sequence[_Placed], case: Case, grant: Grant) -> None:
        """Charges the request to budgets that refuse nothing, and says which would have."""
        try:
            standings = self._standings([one.key for one in soft])
        except LedgerError as error:
            raise Denied(sentences.ledger_locked(error.message), http_status=403) from error
        for one in soft:
            key, standing = standings[one.key]
            grant.charges += (Charge(*key, one.unit, 0),)
            if key != one.key:
                span = later(one.span, key.window_start_us)
                one = msgspec.structs.replace(one, key=key, span=span)
            if one.owned.budget.mode == "shadow":
                try:
                    needed = case.amount(one.unit, one.owned.owner)
                except Denied as denied:
                    shadow = msgspec.structs.replace(denied.decision, outcome="shadow")
                    grant.decisions.append(shadow)
                    continue
                if standing.spent + standing.held + needed > one.limit:
                    exceeded = _said(
                        sentences.budget_exceeded,
                        one,
                        standing,
                        needed=needed,
                        zone_name=one.owned.zone,
                    )
                    grant.decisions.append(exceeded)
            elif one.owned.budget.at_end == "warn" and standing.spent >= one.limit:
                grant.decisions.append(_warning(one, standing))


def _needs(enforced: Sequence[_Placed], case: Case) -> list[Need]:
    amounts: dict[Unit, int] = {}
    needs = []
    for one in enforced:
        amount = amounts.get(one.unit)
        if amount is None:
            amount = amounts[one.unit] = case.amount(one.unit, one.owned.owner)
        needs.append(Need(one.key, one.limit, amount))
    return needs


def _at_the_end(short: _Placed, ask: Ask) -> str | None:
    """The model a budget still lets answer at its end; `None` where it refuses."""
    at_end = short.owned.budget.at_end
    if not at_end.startswith(DOWNGRADE):
        return None
    return at_end.removeprefix(DOWNGRADE).removeprefix(f"{ask.provider_id}/")


def _swapped(short: _Placed, answer: Short, ask: Ask, model: str) -> Decision:
    return _said(
        sentences.downgraded,
        short,
        answer.standing,
        needed=answer.need.amount,
        asked=f"{ask.provider_id}/{ask.model}",
        taken=f"{ask.provider_id}/{model}",
        zone_name=short.owned.zone,
    )


def _refusal(short: _Placed, answer: Short) -> Denied:
    decision = _said(
        sentences.budget_held if answer.can_wait else sentences.budget_exceeded,
        short,
        answer.standing,
        needed=answer.need.amount,
        zone_name=short.owned.zone,
    )
    return Denied(decision, http_status=402, error_type="insufficient_quota")


def _check_countable(owner: Owner, ask: Ask) -> None:
    """Refuses what nobody could say the cost of."""
    if ask.facts is not None and ask.facts.is_background:
        raise _uncounted(owner, "an answer in the background")
    if not ask.is_generation and ask.route.operation is Operation.OTHER:
        raise _uncounted(owner, "this request")


def _uncounted(owner: Owner, what: str) -> Denied:
    return Denied(sentences.operation_denied(owner, what), http_status=403)


def _warning(one: _Placed, standing: Standing) -> Decision:
    return _said(
        sentences.budget_warning,
        one,
        standing,
        percent=100 * standing.spent // one.limit if one.limit else 100,
        zone_name=one.owned.zone,
    )


def _said(
    sentence: Callable[..., Decision], one: _Placed, standing: Standing, **more: object
) -> Decision:
    """A sentence about a budget and how it stands."""
    return sentence(
        one.owned.owner,
        one.owned.budget,
        one.span,
        spent=standing.spent,
        reserved=standing.held,
        **more,
    )
