"""What people are told when a rule has a say: every decision is put into words here.

The idea: a refusal is the one place where ogate speaks inside Opencode, so each sentence says
which rule of whom, the numbers, when that changes by itself, and the command that changes it.
The invariant: the words of a sentence are none that Opencode tries again on, so that only names
and amounts ever have to be broken up on their way (`wire.refusals.neutralise`).
"""

import math
import shlex

import msgspec

from opencode_gate.governance.decisions import Decision, Outcome
from opencode_gate.governance.policy import Budget, Owner, RateLimit
from opencode_gate.governance.windows import WindowSpan
from opencode_gate.governance.wording import (
    amount_text,
    budget_text,
    instant_text,
    owner_text,
    raise_command,
    round_amount,
    rules_command,
)


def budget_exceeded(
    owner: Owner,
    budget: Budget,
    span: WindowSpan,
    *,
    spent: int,
    reserved: int,
    needed: int,
    zone_name: str,
) -> Decision:
    """What is left of a budget is too little for the request."""
    unit = budget.unit
    left = max(0, budget.limit - spent - reserved)
    stands = f"({amount_text(spent, unit)} spent, {amount_text(reserved, unit)} reserved)"
    needs = f"this request needs up to {amount_text(needed, unit)}"
    if left:
        left_text = amount_text(left, unit, is_rounded_up=False)
        message = f"{budget_text(owner, budget)} has {left_text} left {stands}, and {needs}."
    elif spent >= budget.limit:
        message = f"{budget_text(owner, budget)} is spent {stands}; {needs}."
    else:
        message = f"{budget_text(owner, budget)} is spent or reserved {stands}; {needs}."
    return _budget_decision(
        owner,
        budget,
        span,
        outcome="shadow" if budget.mode == "shadow" else "deny",
        code="budget-exceeded",
        message=f"{message} {_reset_text(span, zone_name)}",
        spent=spent,
        reserved=reserved,
        needed=needed,
    )


def budget_held(
    owner: Owner,
    budget: Budget,
    span: WindowSpan,
    *,
    spent: int,
    reserved: int,
    needed: int,
    zone_name: str,
) -> Decision:
    """The request would fit, if requests that still run had less reserved."""
    exceeded = budget_exceeded(
        owner,
        budget,
        span,
        spent=spent,
        reserved=reserved,
        needed=needed,
        zone_name=zone_name,
    )
    return msgspec.structs.replace(
        exceeded,
        code="budget-held",
        message=(
            f"{exceeded.message} What requests that still run have reserved and do not use is "
            "free again when they have ended."
        ),
    )


def budget_warning(
    owner: Owner,
    budget: Budget,
    span: WindowSpan,
    *,
    percent: int,
    spent: int,
    reserved: int,
    zone_name: str,
) -> Decision:
    """A threshold of a budget was passed, or all of one that only warns."""
    return _budget_decision(
        owner,
        budget,
        span,
        outcome="warn",
        message=(
            f"{percent} % of {budget_text(owner, budget)} is used: "
            f"{amount_text(spent, budget.unit)} spent. {_reset_text(span, zone_name)}"
        ),
        spent=spent,
        reserved=reserved,
    )


def output_lowered(
    owner: Owner,
    budget: Budget,
    span: WindowSpan,
    *,
    spent: int,
    reserved: int,
    needed: int,
    limit_tokens: int,
) -> Decision:
    """The output limit of a request was lowered to what a budget has left."""
    left = max(0, budget.limit - spent - reserved)
    return _budget_decision(
        owner,
        budget,
        span,
        outcome="lower",
        message=(
            f"the answer may have {limit_tokens:,} tokens: {budget_text(owner, budget)} has "
            f"{amount_text(left, budget.unit, is_rounded_up=False)} left."
        ),
        spent=spent,
        reserved=reserved,
        needed=needed,
    )


def downgraded(
    owner: Owner,
    budget: Budget,
    span: WindowSpan,
    *,
    spent: int,
    reserved: int,
    needed: int,
    asked: str,
    taken: str,
    zone_name: str,
) -> Decision:
    """A cheaper model answers, since a budget has too little left for the one asked for."""
    return _budget_decision(
        owner,
        budget,
        span,
        outcome="downgrade",
        message=(
            f"{taken} answers instead of {asked}: {budget_text(owner, budget)} has too little "
            f"left ({amount_text(spent, budget.unit)} spent). {_reset_text(span, zone_name)}"
        ),
        spent=spent,
        reserved=reserved,
        needed=needed,
    )


def answer_stopped(
    owner: Owner, budget: Budget, span: WindowSpan, *, reserved: int, zone_name: str
) -> Decision:
    """An answer was cut, since it had used up the `reserved` that a budget had for it."""
    return _budget_decision(
        owner,
        budget,
        span,
        outcome="stop",
        code="budget-exceeded",
        message=(
            f"the answer was cut: it had used up the {amount_text(reserved, budget.unit)} that "
            f"{budget_text(owner, budget)} had for it. {_reset_text(span, zone_name)}"
        ),
        reserved=reserved,
    )


def rate_limited(
    owner: Owner,
    limit: RateLimit,
    *,
    outcome: Outcome = "deny",
    wait_s: float = math.inf,
    tokens: int | None = None,
    now_us: int | None = None,
) -> Decision:
    """A limit of requests, tokens or requests at once is reached.

    Args:
        outcome: `deny`, or `wait` where the request was held back for `wait_s`.
        wait_s: until it clears, endless where nobody can say.
        tokens: what the request counts for.
    """
    name = owner_text(owner)
    if limit.concurrent is not None:
        reached = f"{name} has as many requests running as it may: {limit.concurrent:,}"
    else:
        verb, noun = ("make", "request") if limit.measure == "requests" else ("use", "token")
        many = noun if limit.amount == 1 else f"{noun}s"
        reached = f"{name} may {verb} {limit.amount:,} {many} in any {limit.per}, and has"
    clears = ""
    if outcome == "wait":
        clears = f" The request waited {_wait_text(wait_s)}."
    elif not math.isinf(wait_s):
        clears = f" The next request fits in {_wait_text(wait_s)}."
    elif limit.concurrent is not None:
        clears = " The next one fits when one of them has ended."
    resets_at_us = None
    if now_us is not None and not math.isinf(wait_s):
        resets_at_us = now_us + math.ceil(wait_s * 1_000_000)
    return Decision(
        rule="rate",
        outcome="shadow" if outcome == "deny" and limit.mode == "shadow" else outcome,
        code="rate-limited" if outcome == "deny" else None,
        owner=str(owner),
        message=f"ogate: {reached}.{clears}",
        window=limit.per,
        unit="tokens" if limit.measure == "tokens" else None,
        limit=limit.amount,
        needed=tokens,
        resets_at_us=resets_at_us,
        command=rules_command(owner, _limit_change(limit)),
    )


def operation_denied(owner: Owner, what: str) -> Decision:
    """Under a hard budget, something was asked for that nobody counts; `what` names it."""
    return Decision(
        rule="operation",
        outcome="deny",
        code="operation-denied",
        owner=str(owner),
        message=(
            f"ogate: {owner_text(owner)} has a hard budget, and ogate cannot count what {what} "
            "costs. Model calls that it can count are let through, and so are listing models "
            "and counting tokens."
        ),
        command=rules_command(owner),
    )


def input_unbounded(owner: Owner, model: str) -> Decision:
    """Under a hard budget, nobody can say how much goes into a request to `provider/model`."""
    return Decision(
        rule="operation",
        outcome="deny",
        code="operation-denied",
        owner=str(owner),
        message=(
            f"ogate: {owner_text(owner)} has a hard budget, and nobody can say what this request "
            f"costs at most: it refers to what is not in it, and how much {model} takes in is "
            "not known."
        ),
        command=rules_command(owner),
    )


def price_unknown(owner: Owner, model: str) -> Decision:
    """Under a hard budget in money, `provider/model` has no known price."""
    setting = shlex.quote(f'prices."{model}".input')
    return Decision(
        rule="price",
        outcome="deny",
        code="unknown-price",
        owner=str(owner),
        message=(
            f"ogate: no price is known for {model}, and {owner_text(owner)} has a hard budget in "
            "dollars."
        ),
        command=f"ogate config set {setting} USD",
    )


def key_unknown() -> Decision:
    """No virtual key, or a wrong one; no word of whose."""
    return Decision(
        rule="key",
        outcome="deny",
        code="unknown-virtual-key",
        message="ogate: the request carries no virtual key of this gateway, or a wrong one.",
        command="ogate vkeys list",
    )


def key_disabled(name: str) -> Decision:
    """The virtual key is switched off."""
    return Decision(
        rule="key",
        outcome="deny",
        code="virtual-key-disabled",
        owner=f"vkey {name}",
        message=f"ogate: virtual key {name} is switched off.",
        command=f"ogate vkeys enable {shlex.quote(name)}",
    )


def key_expired(name: str, expired_at_us: int, zone_name: str = "UTC") -> Decision:
    """The virtual key has expired."""
    return Decision(
        rule="key",
        outcome="deny",
        code="virtual-key-expired",
        owner=f"vkey {name}",
        message=(
            f"ogate: virtual key {name} has expired: {instant_text(expired_at_us, zone_name)}."
        ),
        resets_at_us=None,
        command=f"ogate vkeys rotate {shlex.quote(name)}",
    )


def policy_unreadable(reason: str) -> Decision:
    """The rules cannot be read, so nobody is let through."""
    return Decision(
        rule="policy",
        outcome="deny",
        code="policy-unreadable",
        message=f"ogate: the rules cannot be read, so every request is refused: {reason}",
        command="ogate doctor",
    )


def ledger_locked(reason: str) -> Decision:
    """The ledger cannot be asked what is left, so nothing under a budget is let through."""
    return Decision(
        rule="policy",
        outcome="deny",
        code="ledger-locked",
        message=(
            "ogate: the ledger cannot be asked what is left of the budgets, so requests under "
            f"one are refused: {reason}"
        ),
        command="ogate doctor",
    )


def _budget_decision(
    owner: Owner,
    budget: Budget,
    span: WindowSpan,
    *,
    outcome: Outcome,
    message: str,
    code: str | None = None,
    spent: int | None = None,
    reserved: int | None = None,
    needed: int | None = None,
) -> Decision:
    return Decision(
        rule="budget",
        outcome=outcome,
        code=code,
        owner=str(owner),
        message=f"ogate: {message}",
        window=budget.window,
        unit=budget.unit,
        spent=spent,
        reserved=reserved,
        limit=budget.limit,
        needed=needed,
        resets_at_us=span.end_us,
        command=raise_command(owner, budget, needed=0 if needed is None else needed),
    )


def _reset_text(span: WindowSpan, zone_name: str) -> str:
    if span.end_us is None:
        return "It never begins anew."
    return f"It begins anew at {instant_text(span.end_us, zone_name)}."


def _limit_change(limit: RateLimit) -> str | None:
    """The options that double a limit; `None` for one that only a policy file can change."""
    if limit.per not in ("minute", None):
        return None
    option = {"requests": "rpm", "tokens": "tpm", "concurrent": "concurrent"}[limit.measure]
    return f"--{option} {round_amount(2 * limit.amount)}"


def _wait_text(wait_s: float) -> str:
    seconds = math.ceil(wait_s)
    if seconds < 120:
        return f"{seconds} s"
    minutes = -(-seconds // 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02} min"
