"""Whether a request may be sent, in the order the rules are asked.

key known and active → provider and model allowed → a known price → does the agent run away →
rate limits → budgets. The invariants: a key that is switched off learns nothing else; every rule
that has a say leaves a decision that explains itself; what cannot be decided is refused.
"""

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Sequence
from typing import Any

import msgspec

from opencode_gate.core.clock import Clock
from opencode_gate.core.errors import GateError
from opencode_gate.core.semconv import Operation
from opencode_gate.governance import sentences
from opencode_gate.governance.admission import Caller
from opencode_gate.governance.budgeting import Budgeting
from opencode_gate.governance.decisions import Decision, Denied
from opencode_gate.governance.grants import Ask, Conversation, Grant
from opencode_gate.governance.models_allowed import NAME_CHARS_MAX, check_models
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

STOPPED_MAX = 4_096
PASSED_MAX = 16
"""So many models are remembered of each caller: more than any agent uses."""
SETTLED_AT_ONCE = 256

_NOTHING = (0, 0)

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
        self._now_s = clock.monotonic_s
        self._stopped: dict[Conversation, Stopped] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    async def admit(self, ask: Ask, grant: Grant) -> None:
        """Lets a request pass, with what `grant` says of it.

        Raises:
            Denied: a rule says no, or fails.
            PolicyDenied: its model has no known price, and the settings refuse such models.
        """
        rest = self.decide(ask, grant)
        if rest is not None:
            await rest

    def decide(self, ask: Ask, grant: Grant) -> Coroutine[Any, Any, None] | None:
        """As `admit`, at once where nothing has to be waited for; else what is to be awaited."""
        try:
            now_s = self._now_s()
            law = self._rulebook.law_for(ask.caller, now_s)
            if not law.is_empty:
                self._check_who(law, ask, grant)
            if ask.facts is not None:
                if self._price_rule is not None:
                    self._price_rule.check(ask.provider_id, ask.model)
                said = self._runaway.check(ask, grant, now_s)
                if said is not None:
                    _take_note(said, grant)
            if self._loop is None:
                self._loop = asyncio.get_running_loop()
            return None if law.is_empty else self._take(law, ask, grant, now_s)
        except GateError:
            raise
        except Exception as error:
            raise _failed(ask, error) from error

    def put_down_to(self, caller: Caller, grant: Grant) -> None:
        """Says whose request it is that is refused before any rule was asked."""
        grant.virtual_key = caller.virtual_key
        with contextlib.suppress(Denied):
            law = self._rulebook.law_for(caller, self._now_s())
            grant.team, grant.customer = law.team, law.customer

    def _check_who(self, law: Law, ask: Ask, grant: Grant) -> None:
        """Whether this caller may ask for this model at all, or now."""
        grant.ask, grant.revision = ask, law.revision
        if law.names_key:
            self._check_key(law, ask, grant)
        if law.models:
            facts = ask.facts
            if (
                facts is None
                or facts.fallback_models
                or (ask.provider_id, facts.request_model) not in law.passed
            ):
                models = _models_of(ask)
                if not _check_models(law, ask.provider_id, models, grant) and len(models) == 1:
                    _remember_passed(law, ask.provider_id, models[0])
        if self._stopped:
            self._check_stopped(law, ask)

    def _take(
        self, law: Law, ask: Ask, grant: Grant, now_s: float
    ) -> Coroutine[Any, Any, None] | None:
        """Counts the request against limits and budgets."""
        if law.limits and not self._pacing.admit_now(law, ask, grant, now_s):
            return self._rest(law, ask, grant, is_paced=False)
        if law.budgets and not self._budgeting.reserve_now(law, ask, grant, now_s):
            return self._rest(law, ask, grant, is_paced=True)
        return None

    async def _rest(self, law: Law, ask: Ask, grant: Grant, *, is_paced: bool) -> None:
        """What is left to be asked where something has to be waited for."""
        try:
            if not is_paced:
                await self._pacing.admit(law, ask, grant)
            if law.budgets:
                await self._budgeting.reserve(law, ask, grant)
            if grant.model is not None:
                # What a budget puts in place is held to the same rules.
                _check_models(law, ask.provider_id, (grant.model,), grant)
                if self._price_rule is not None:
                    self._price_rule.check(ask.provider_id, grant.model)
        except GateError:
            raise
        except Exception as error:
            raise _failed(ask, error) from error

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
        conversation = None if grant.ask is None else grant.ask.conversation
        if conversation is not None:
            # The agent asks again at once, and would only be cut again.
            now_s = self._now_s()
            self._stopped = {
                id: stopped for id, stopped in self._stopped.items() if stopped.until_s > now_s
            }
            if len(self._stopped) >= STOPPED_MAX:
                del self._stopped[next(iter(self._stopped))]
            self._stopped[conversation] = Stopped(decision, now_s + STOPPED_FOR_S, grant.revision)
        return True

    def ended(self, grant: Grant, record: ExchangeRecord) -> None:
        """An exchange is over; what was never sent is released at once."""
        if record.attempts:
            if grant.watched is not None:
                self._runaway.ended(grant.watched, record)
        elif grant.charges:
            self._reservations.release(
                (WindowKey(one.budget_id, one.window_start_us), one.reserved)
                for one in grant.charges
                if one.reserved
            )
        if grant.ticket is not None:
            self._pacing.ended(grant, was_sent=record.attempts > 0)

    def folded(self, exchanges: Sequence[FoldedExchange]) -> None:
        """The ledger has charged exchanges. May be called from any thread."""
        loop = self._loop
        if loop is None or not exchanges:
            return
        try:
            is_here = asyncio.get_running_loop() is loop
        except RuntimeError:
            is_here = False
        if is_here:
            self._settle(loop, exchanges)
            return
        # A loop that has ended waits for nothing any more.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(self._settle, loop, exchanges)

    def _settle(self, loop: asyncio.AbstractEventLoop, exchanges: Sequence[FoldedExchange]) -> None:
        """Takes note of what exchanges came to; where they are many, in several turns."""
        if len(exchanges) > SETTLED_AT_ONCE:
            loop.call_soon(self._settle, loop, exchanges[SETTLED_AT_ONCE:])
            exchanges = exchanges[:SETTLED_AT_ONCE]
        charges: dict[WindowKey, tuple[int, int]] = {}
        spent: dict[str, int] = {}
        for exchange in exchanges:
            for budget_id, start_us, reserved, amount in exchange.taken:
                if reserved:
                    key = WindowKey(budget_id, start_us)
                    before = charges.get(key, _NOTHING)
                    taken = amount if amount < reserved else reserved
                    charges[key] = before[0] + reserved, before[1] + taken
            cost = exchange.cost_nano_usd
            if cost:
                spent[exchange.session_id] = spent.get(exchange.session_id, 0) + cost
        if charges:
            self._reservations.settle([(key, *sums) for key, sums in charges.items()])
        if self._pacing.is_waiting_for_tokens:
            self._pacing.settle([(exchange.id, exchange.tokens) for exchange in exchanges])
        for session_id, cost_nano_usd in spent.items():
            self._runaway.spent(session_id, cost_nano_usd)

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
        if not ask.is_generation:
            return
        conversation = ask.conversation
        if conversation is None:
            return
        stopped = self._stopped.get(conversation)
        if stopped is None:
            return
        if stopped.revision != law.revision or stopped.until_s < self._now_s():
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


def _check_models(law: Law, provider_id: str, models: Sequence[str | None], grant: Grant) -> bool:
    """Whether a rule had anything to say of them."""
    is_said = False
    for owner, rules in law.models:
        for model in models:
            decision = check_models(owner, rules, provider_id, model)
            if decision is None:
                continue
            if decision.outcome == "deny":
                raise Denied(decision, http_status=403)
            grant.decisions.append(decision)
            is_said = True
    return is_said


def _remember_passed(law: Law, provider_id: str, model: str | None) -> None:
    """Nothing is said against a model as long as this law holds."""
    if model is None or len(model) <= NAME_CHARS_MAX:
        if len(law.passed) >= PASSED_MAX:
            law.passed.clear()
        law.passed.add((provider_id, model))


def _take_note(decision: Decision, grant: Grant) -> None:
    """What the conduct of an agent has come to.

    Raises:
        Denied: it is stopped.
    """
    if decision.outcome == "deny":
        raise Denied(decision, http_status=402, error_type="insufficient_quota")
    grant.decisions.append(decision)


def _failed(ask: Ask, error: Exception) -> Denied:
    # A rule that does not hold for whatever reason must not let anything pass, and what is no
    # refusal would be tried again.
    _logger.exception("the rules could not be asked about exchange %s", ask.exchange_id)
    reason = f"one of them failed ({type(error).__name__})"
    return Denied(sentences.policy_unreadable(reason), http_status=403)


def _is_listing(ask: Ask) -> bool:
    return ask.route.operation is Operation.LIST_MODELS
