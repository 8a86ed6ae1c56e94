"""Whether a request may be sent, in the order the rules are asked.

key known and active → provider and model allowed → a known price → does the agent run away →
rate limits → budgets. The invariants: a key that is switched off learns nothing else; every rule
that has a say leaves a decision that explains itself; what cannot be decided is refused.
"""

import asyncio
import contextlib
import logging
from collections.abc import Sequence

import msgspec

from opencode_gate.core.clock import Clock
from opencode_gate.core.errors import GateError
from opencode_gate.core.semconv import Operation
from opencode_gate.governance import sentences
from opencode_gate.governance.admission import Caller
from opencode_gate.governance.budgeting import Budgeting
from opencode_gate.governance.decisions import Decision, Denied
from opencode_gate.governance.grants import Ask, Conversation, Grant
from opencode_gate.governance.models_allowed import check_models
from opencode_gate.governance.pacing import Pacing
from opencode_gate.governance.prices import PriceRule
from opencode_gate.governance.reservations import Reservations
from opencode_gate.governance.rulebook import Law, Rulebook
from opencode_gate.governance.runaway import Runaway
from opencode_gate.governance.stopping import CountText, RunningOutput
from opencode_gate.ledger.governance_store import WindowKey
from opencode_gate.ledger.records import ExchangeRecord, FoldedExchange
from opencode_gate.wire.facts import named_model
from opencode_gate.wire.meter import ExchangeMeter

STOPPED_FOR_S = 120.0
"""How long a conversation whose answer was cut is refused; Opencode gives up after 75 s."""

_logger = logging.getLogger(__name__)


class Stopped(msgspec.Struct, frozen=True):
    """A conversation whose answer was cut, until when, and under which rules."""

    decision: Decision
    until_s: float
    revision: int


class Governor:
    """Asks the rules about requests, and settles what they granted. For one event loop."""

    def __init__(
        self,
        *,
        rulebook: Rulebook,
        reservations: Reservations,
        budgeting: Budgeting,
        pacing: Pacing,
        runaway: Runaway,
        count_text: CountText,
        price_rule: PriceRule | None,
        clock: Clock,
    ) -> None:
        self._rulebook = rulebook
        self._reservations = reservations
        self._budgeting = budgeting
        self._pacing = pacing
        self._runaway = runaway
        self._count_text = count_text
        self._price_rule = price_rule
        self._clock = clock
        self._stopped: dict[Conversation, Stopped] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    async def admit(self, ask: Ask, grant: Grant) -> None:
        """Lets a request pass, with what `grant` says of it.

        Raises:
            Denied: a rule says no, or fails.
            PolicyDenied: its model has no known price, and the settings refuse such models.
        """
        try:
            await self._ask_rules(ask, grant)
        except GateError:
            raise
        except Exception as error:
            # A rule that does not hold for whatever reason must not let anything pass, and what
            # is no refusal would be tried again.
            _logger.exception("the rules could not be asked about exchange %s", ask.exchange_id)
            reason = f"one of them failed ({type(error).__name__})"
            raise Denied(sentences.policy_unreadable(reason), http_status=403) from error

    def put_down_to(self, caller: Caller, grant: Grant) -> None:
        """Says whose request it is that is refused before any rule was asked."""
        grant.virtual_key = caller.virtual_key
        with contextlib.suppress(Denied):
            law = self._rulebook.law_for(caller)
            grant.team, grant.customer = law.team, law.customer

    async def _ask_rules(self, ask: Ask, grant: Grant) -> None:
        law = self._rulebook.law_for(ask.caller)
        if not law.is_empty:
            grant.conversation, grant.revision = ask.conversation, law.revision
            self._check_key(law, ask, grant)
            if law.models:
                _check_models(law, ask.provider_id, _models_of(ask), grant)
            if self._stopped:
                self._check_stopped(law, ask)
        if ask.is_generation:
            self._check_price(ask, ask.model)
            self._check_runaway(ask, grant)
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        if law.limits:
            await self._pacing.admit(law, ask, grant)
        if law.budgets:
            await self._budgeting.reserve(law, ask, grant)
        if grant.model is not None:
            # What a budget puts in place is held to the same rules.
            _check_models(law, ask.provider_id, (grant.model,), grant)
            self._check_price(ask, grant.model)

    def is_used_up(self, grant: Grant, meter: ExchangeMeter) -> bool:
        """True once an answer has used up what is reserved for it; then it is cut."""
        allowance = grant.allowance
        if allowance is None:
            return False
        if grant.running is None:
            grant.running = RunningOutput(allowance.output_tokens(), grant.model, self._count_text)
        if not grant.running.is_used_up(meter):
            return False
        decision = allowance.stop()
        grant.decisions.append(decision)
        if grant.conversation is not None:
            # The agent asks again at once, and would only be cut again.
            now_s = self._clock.monotonic_s()
            self._stopped = {
                id: stopped for id, stopped in self._stopped.items() if stopped.until_s > now_s
            }
            self._stopped[grant.conversation] = Stopped(
                decision, now_s + STOPPED_FOR_S, grant.revision
            )
        return True

    def ended(self, grant: Grant, record: ExchangeRecord) -> None:
        """An exchange is over; what was never sent is released at once."""
        self._runaway.ended(record)
        was_sent = record.attempts > 0
        if grant.held.amounts and not was_sent:
            self._reservations.release(grant.held)
        if grant.ticket is not None:
            self._pacing.ended(grant, was_sent=was_sent)

    def folded(self, exchanges: Sequence[FoldedExchange]) -> None:
        """The ledger has charged exchanges. May be called from any thread."""
        loop = self._loop
        if loop is not None:
            # A loop that has ended waits for nothing any more.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._settle, exchanges)

    def _settle(self, exchanges: Sequence[FoldedExchange]) -> None:
        self._reservations.settle(
            (WindowKey(budget_id, start_us), reserved, amount)
            for exchange in exchanges
            for budget_id, start_us, reserved, amount in exchange.taken
        )
        self._pacing.settle([(exchange.id, exchange.tokens) for exchange in exchanges])
        for exchange in exchanges:
            if exchange.cost_nano_usd:
                self._runaway.spent(exchange.session_id, exchange.cost_nano_usd)

    def _check_price(self, ask: Ask, model: str | None) -> None:
        if self._price_rule is not None:
            self._price_rule.check(ask.provider_id, model)

    def _check_runaway(self, ask: Ask, grant: Grant) -> None:
        decision = self._runaway.check(ask)
        if decision is None:
            return
        if decision.outcome == "deny":
            raise Denied(decision, http_status=402, error_type="insufficient_quota")
        grant.decisions.append(decision)

    def _check_key(self, law: Law, ask: Ask, grant: Grant) -> None:
        name = ask.caller.virtual_key
        if name is None:
            return
        grant.virtual_key, grant.team, grant.customer = name, law.team, law.customer
        if law.key is None:
            raise Denied(
                sentences.key_unknown(), http_status=401, error_type="authentication_error"
            )
        if not law.key.active:
            decision = sentences.key_disabled(name)
        elif law.expires_at_us is not None and law.expires_at_us <= self._clock.now_us():
            decision = sentences.key_expired(name, law.expires_at_us)
        else:
            return
        raise Denied(decision, http_status=401, error_type="authentication_error")

    def _check_stopped(self, law: Law, ask: Ask) -> None:
        """Refuses a conversation whose answer was cut, until its rules have changed."""
        conversation = ask.conversation
        if conversation is None or not ask.is_generation:
            return
        stopped = self._stopped.get(conversation)
        if stopped is None:
            return
        if stopped.revision != law.revision or stopped.until_s < self._clock.monotonic_s():
            del self._stopped[conversation]
            return
        decision = msgspec.structs.replace(stopped.decision, outcome="deny")
        raise Denied(decision, http_status=402, error_type="insufficient_quota")


def _models_of(ask: Ask) -> tuple[str | None, ...]:
    """Every model that might answer, also where nothing is counted; `None` for one not named."""
    if ask.facts is not None:
        return (ask.model, *ask.facts.fallback_models)
    if not ask.body or _is_listing(ask):
        return ()
    # Path and body may both name one, and only the provider knows which of them it takes.
    named = {ask.route.model, named_model(ask.body)} - {None}
    return tuple(named) if named else (None,)


def _check_models(law: Law, provider_id: str, models: Sequence[str | None], grant: Grant) -> None:
    for owner, rules in law.models:
        for model in models:
            decision = check_models(owner, rules, provider_id, model)
            if decision is None:
                continue
            if decision.outcome == "deny":
                raise Denied(decision, http_status=403)
            grant.decisions.append(decision)


def _is_listing(ask: Ask) -> bool:
    return ask.route.operation is Operation.LIST_MODELS
