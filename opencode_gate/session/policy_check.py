"""What the rules would say to a request now, asked of the gateway's own engine.

The idea: the very objects that decide in a gateway decide here, over a ledger that is only looked
at: a lease is answered as the ledger would answer it, and not taken. The invariants: nothing is
written or reserved; nothing is waited for, so money that running requests hold counts as gone.
Requests per minute and the like are counted in a gateway's memory and cannot be known here.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec
from msgspec.structs import replace

from opencode_gate.catalog.prices import PriceBook
from opencode_gate.config.settings import RunawaySettings
from opencode_gate.core.clock import Clock
from opencode_gate.core.errors import PolicyDenied
from opencode_gate.core.semconv import Operation, WireFormat
from opencode_gate.governance.admission import Caller
from opencode_gate.governance.budgeting import Budgeting
from opencode_gate.governance.decisions import Decision, Denied
from opencode_gate.governance.governor import Governor
from opencode_gate.governance.grants import Ask, Grant
from opencode_gate.governance.pacing import Pacing
from opencode_gate.governance.policy import Owner, Policy, document_of
from opencode_gate.governance.prices import PriceRule
from opencode_gate.governance.rates import RateMeter
from opencode_gate.governance.request_case import Cases
from opencode_gate.governance.reservations import Reservations
from opencode_gate.governance.rulebook import Rulebook
from opencode_gate.governance.runaway import Runaway
from opencode_gate.governance.terms import terms_from
from opencode_gate.ledger.governance_store import (
    GovernanceStore,
    Lease,
    LeaseWish,
    PolicyDocument,
    Standing,
    WindowKey,
)
from opencode_gate.ledger.policy_mark import UNMARKED
from opencode_gate.session.policy_sense import OWNER_KINDS, owned
from opencode_gate.wire.facts import read_facts
from opencode_gate.wire.routes import Route

_ROUTE = Route(wire_format=WireFormat.OPENAI_CHAT, operation=Operation.GENERATE)
_WAIT_S = 1_000.0

LONGEST_PROMPT_TOKENS = 10_000_000
"""Longer than any model reads; a body of that length is made to ask about it."""

BYTES_PER_TOKEN = 4
"""Of a request, on the average: what `wire.estimates` takes for the chat format."""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A request that might be sent.

    Attributes:
        input_tokens: of its prompt.
        output_tokens: the limit it sets to its answer, `None` for none.
    """

    provider_id: str
    model_id: str
    input_tokens: int
    output_tokens: int | None = None
    session_id: str | None = None
    user: str | None = None
    virtual_key: str | None = None


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What would happen to it.

    Attributes:
        http_status: of the refusal, `None` where it would be sent.
        code: of the refusal.
        decisions: what the rules had to say, that of the refusal last.
        model_id: the model that would answer.
        output_limit_tokens: what its output limit would be lowered to.
        reserved_nano_usd: what it would cost at most, where a budget in dollars asks.
        uncounted: whose rate limits apply; how much of them is used is not known.
    """

    http_status: int | None = None
    code: str | None = None
    decisions: tuple[Decision, ...] = ()
    model_id: str
    output_limit_tokens: int | None = None
    reserved_nano_usd: int | None = None
    uncounted: tuple[Owner, ...] = ()

    @property
    def is_allowed(self) -> bool:
        """It would be sent."""
        return self.http_status is None


class OnlyLooking:
    """A `GovernanceStore` that answers as another and writes nothing to it.

    Args:
        policy: rules to answer with instead of those that are there.
    """

    def __init__(self, store: GovernanceStore, policy: Policy | None = None) -> None:
        self._store = store
        self._policy = policy

    def change_mark(self) -> int:
        """That of the ledger."""
        return self._store.change_mark()

    def policy_marks(self) -> Sequence[int]:
        """None: one look needs no help."""
        return UNMARKED

    def policy_revision(self) -> int:
        """That of the ledger."""
        return self._store.policy_revision()

    def policy(self) -> tuple[int, list[PolicyDocument]]:
        """The rules to answer with; those of sessions are always the ledger's."""
        revision, documents = self._store.policy()
        if self._policy is None:
            return revision, documents
        given = [
            PolicyDocument(kind, name, document_of(rules))
            for kind in OWNER_KINDS
            if kind != "session"
            for name, rules in owned(self._policy, kind).items()
        ]
        return revision, [one for one in documents if one.kind == "session"] + given

    def put_policy(self, changes: Iterable[PolicyDocument], *, operator: str, at_us: int) -> int:
        """Nothing is put."""
        return self._store.policy_revision()

    def lease(self, process_id: str, wishes: Sequence[LeaseWish]) -> list[Lease]:
        """What the ledger would lease."""
        latest = self._store.latest_windows(wish.key.budget_id for wish in wishes)
        keys = [
            wish.key._replace(
                window_start_us=max(wish.key.window_start_us, latest.get(wish.key.budget_id, 0))
            )
            for wish in wishes
        ]
        found = self._store.standings(keys)
        standings = [found.get(key, Standing()) for key in keys]
        fits = all(
            not wish.needed or one.spent + one.held + wish.needed <= wish.limit
            for one, wish in zip(standings, wishes, strict=True)
        )
        return [
            Lease(key, wish.needed if fits else 0, standing)
            for key, wish, standing in zip(keys, wishes, standings, strict=True)
        ]

    def give_back(self, process_id: str, amounts: Mapping[WindowKey, int]) -> None:
        """Nothing was taken."""

    def lease_holders(self) -> set[str]:
        """Those of the ledger."""
        return self._store.lease_holders()

    def standings(
        self, keys: Iterable[WindowKey], *, process_id: str | None = None
    ) -> dict[WindowKey, Standing]:
        """Those of the ledger."""
        return self._store.standings(keys, process_id=process_id)

    def latest_windows(self, budget_ids: Iterable[str]) -> dict[str, int]:
        """Those of the ledger."""
        return self._store.latest_windows(budget_ids)

    def close(self) -> None:
        """Lets go of the ledger."""
        self._store.close()


class _NoPatience:
    """A clock by which every wait is over at once."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._passed_s = 0.0

    def now_us(self) -> int:
        return self._clock.now_us()

    def monotonic_s(self) -> float:
        self._passed_s += _WAIT_S
        return self._passed_s


def verdict(
    question: Question,
    open_store: Callable[[], GovernanceStore],
    prices: PriceBook,
    *,
    clock: Clock,
    time_zone: str,
    refuses_unknown_prices: bool,
    policy: Policy | None = None,
) -> Verdict:
    """What the rules would say now.

    Args:
        open_store: opens the ledger's rules and budgets, in the thread that asks.
        time_zone: of the gateway, for owners that name none.
        refuses_unknown_prices: what the settings say about models without a price.
        policy: rules to try instead of those in force.

    Raises:
        LedgerError: the ledger cannot be read.
    """

    def looking() -> GovernanceStore:
        return OnlyLooking(open_store(), policy)

    impatient = _NoPatience(clock)
    rulebook = Rulebook(looking, zone=time_zone)
    reservations = Reservations(
        "", looking, clock=impatient, recover=lambda: None, hurry=lambda: None
    )
    governor = Governor(
        rulebook=rulebook,
        reservations=reservations,
        budgeting=Budgeting(
            reservations, rulebook.standings, Cases(terms_from(prices), impatient), impatient
        ),
        pacing=Pacing(RateMeter(), impatient),
        runaway=Runaway(RunawaySettings(mode="off"), impatient, lambda: None),
        count_text=lambda *_: 0,
        price_rule=PriceRule(prices.knows) if refuses_unknown_prices else None,
        clock=impatient,
    )
    ask, grant = _ask(question), Grant(exchange_id="")
    try:
        found = asyncio.run(_asked(governor, reservations, ask, grant))
        law = rulebook.law_for(ask.caller, 0.0) if found.code != "policy-unreadable" else None
    finally:
        rulebook.close()
    limits = () if law is None else law.limits
    return replace(found, uncounted=tuple(dict.fromkeys(owner for owner, _ in limits)))


async def _asked(governor: Governor, reservations: Reservations, ask: Ask, grant: Grant) -> Verdict:
    http_status, code, denial = None, None, None
    try:
        await governor.admit(ask, grant)
    except Denied as denied:
        http_status, code, denial = denied.http_status, denied.code, denied.decision
    except PolicyDenied as denied:
        http_status, code = denied.http_status, denied.code
        denial = Decision(
            rule="price",
            outcome="deny",
            code=denied.code,
            message=denied.message,
            command=denied.hint,
        )
    finally:
        reservations.stop()
    model_id = grant.model if grant.model is not None else ask.model
    assert model_id is not None
    return Verdict(
        http_status=http_status,
        code=code,
        decisions=(*grant.decisions, *(() if denial is None else (denial,))),
        model_id=model_id,
        output_limit_tokens=grant.output_limit_tokens,
        reserved_nano_usd=grant.reserved_cost_nano_usd,
    )


def _ask(question: Question) -> Ask:
    body = _body(question)
    return Ask(
        exchange_id="",
        caller=Caller(question.session_id or "", question.user, question.virtual_key, token=b""),
        provider_id=question.provider_id,
        route=_ROUTE,
        facts=read_facts(_ROUTE, body),
        body=body,
    )


def _body(question: Question) -> bytes:
    """A request with a prompt of so many tokens, as long as such requests are.

    The engine bounds the tokens of a prompt by its bytes, so the length is what matters.
    """
    request: dict[str, object] = {
        "model": question.model_id,
        "messages": [{"role": "user", "content": ""}],
    }
    if question.output_tokens is not None:
        request["max_completion_tokens"] = question.output_tokens
    bare = len(msgspec.json.encode(request))
    words = "x" * max(0, question.input_tokens * BYTES_PER_TOKEN - bare)
    request["messages"] = [{"role": "user", "content": words}]
    return msgspec.json.encode(request)
