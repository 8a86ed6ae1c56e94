"""What the rules are asked, and what they grant.

The invariant: a grant is settled once: with the charge of its exchange, or by `Governor.ended`
where nothing was ever sent.
"""

from typing import Protocol, TypeAlias

import msgspec

from opencode_gate.governance.admission import Caller
from opencode_gate.governance.decisions import Decision
from opencode_gate.governance.rates import Ticket
from opencode_gate.governance.stopping import RunningOutput
from opencode_gate.governance.watched import Watched
from opencode_gate.ledger.records import Charge
from opencode_gate.wire.facts import RequestFacts
from opencode_gate.wire.routes import Route

Conversation: TypeAlias = tuple[str, str]
"""A session and, in the agent's own words, a conversation in it: two agents may use one name."""


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One request, as the rules look at it. `facts` is `None` where nothing is generated."""

    exchange_id: str
    caller: Caller
    provider_id: str
    route: Route
    facts: RequestFacts | None
    body: bytes
    conversation_id: str | None = None

    @property
    def model(self) -> str | None:
        """The model it asks for."""
        return self.route.model if self.facts is None else self.facts.request_model

    @property
    def conversation(self) -> Conversation | None:
        """The conversation it belongs to, `None` where it names none."""
        if self.conversation_id is None:
            return None
        return self.caller.session_id, self.conversation_id

    @property
    def is_generation(self) -> bool:
        """True for a request that costs tokens we count."""
        return self.facts is not None


class Allowance(Protocol):
    """What is reserved for an answer."""

    def output_tokens(self) -> int:
        """How much output is paid for."""
        ...

    def stop(self) -> Decision:
        """Says that the answer was cut."""
        ...


class Grant(msgspec.Struct):
    """Leave to send a request, filled in as the rules are asked one after the other.

    Attributes:
        output_limit_tokens: the output limit to write into the request, `None` to leave it.
        model: the model to put in place of the one asked for.
        downgraded_from: the one asked for then.
        charges: the budgets it counts against, with what is reserved.
        reserved_cost_nano_usd: its worst case in money.
        allowance: how much output is paid for, `None` for any amount.
        decisions: what rules had to say, though they let it pass.
        ask: what it was granted to, where any rule has a say, under rules of that `revision`.
        watched: the conversation, for which its end says something.
    """

    exchange_id: str
    virtual_key: str | None = None
    team: str | None = None
    customer: str | None = None
    output_limit_tokens: int | None = None
    model: str | None = None
    downgraded_from: str | None = None
    charges: tuple[Charge, ...] = ()
    reserved_cost_nano_usd: int | None = None
    allowance: Allowance | None = None
    decisions: list[Decision] = []
    ask: Ask | None = None
    revision: int = 0
    running: RunningOutput | None = None
    ticket: Ticket | None = None
    watched: Watched | None = None

    @property
    def decisions_text(self) -> str | None:
        """The decisions as the ledger keeps them."""
        return msgspec.json.encode(self.decisions).decode() if self.decisions else None
