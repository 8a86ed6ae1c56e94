"""What a rule decided about a request, as data that explains itself.

The invariant: every refusal, warning and change names the rule, its owner and, where there are
numbers, the numbers, and when and by which command it changes.
"""

from typing import Literal, TypeAlias

import msgspec

from opencode_gate.core.errors import PolicyDenied
from opencode_gate.governance.policy import Unit

Rule: TypeAlias = Literal[
    "key", "provider", "model", "operation", "rate", "budget", "price", "runaway", "policy"
]
Outcome: TypeAlias = Literal["deny", "warn", "shadow", "lower", "downgrade", "wait", "stop"]


class Decision(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One rule's say in one request.

    Amounts are nano-dollars or tokens, as `unit` says, or plain counts without one.

    Attributes:
        outcome: `shadow` would have been `deny`; `lower` lowered the output limit; `wait` held
            the request back; `stop` cut the answer.
        code: the error code of a refusal.
        owner: as people read it: `team core`.
        message: one sentence for people.
        needed: what the request was thought to need at most.
        resets_at_us: when the window begins anew, UTC microseconds.
        command: what to type to change it.
    """

    rule: Rule
    outcome: Outcome
    code: str | None = None
    owner: str | None = None
    message: str
    window: str | None = None
    unit: Unit | None = None
    spent: int | None = None
    reserved: int | None = None
    limit: int | None = None
    needed: int | None = None
    resets_at_us: int | None = None
    command: str | None = None


class Denied(PolicyDenied):
    """A rule refuses the request; `decision` says all about it.

    Attributes:
        http_status: 401 key, 403 provider, model or operation, 402 budget and what must not be
            tried again, 429 a limit that clears soon.
        retry_after_s: for 429, when to come back.
    """

    def __init__(
        self,
        decision: Decision,
        *,
        http_status: int,
        error_type: str = "permission_error",
        retry_after_s: int | None = None,
    ) -> None:
        assert decision.code is not None
        super().__init__(decision.code, decision.message, hint=decision.command)
        self.decision = decision
        self.http_status = http_status  # type: ignore[misc]
        self.error_type = error_type  # type: ignore[misc]
        self.retry_after_s = retry_after_s
