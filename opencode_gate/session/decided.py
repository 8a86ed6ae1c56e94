"""What rules did to the requests of a session, counted from what is recorded with each.

The invariant: nothing is worked out again here; a decision is shown in the words it was made in.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from opencode_gate.core.semconv import ExchangeStatus
from opencode_gate.governance.decisions import Decision, Outcome
from opencode_gate.ledger.records import ExchangeRecord


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """Requests that were refused for one reason; `last` is what the last of them was told."""

    code: str
    requests: int
    last: Decision


class Replaced(msgspec.Struct, frozen=True, kw_only=True):
    """Requests in which a cheaper model was put in place; both as `provider/model`.

    Attributes:
        taken: as it called itself, `None` where it did not.
        last: why, in the words of the last of them; `None` if that cannot be read.
    """

    asked: str
    taken: str | None
    requests: int
    last: Decision | None = None


class Firing(msgspec.Struct, frozen=True, kw_only=True):
    """The runaway breaker warned about a request, or stopped it."""

    exchange_id: str
    decision: Decision


class Decided(msgspec.Struct, frozen=True, kw_only=True):
    """All of it.

    Attributes:
        lowered_requests: their output limit was lowered to what a budget had left.
        stopped_requests: their answer was cut when it had used up what was reserved.
        waited_us: how long requests were held back for a rate limit, together.
        shadow_requests: would have been refused, by rules that only record that.
        excess_nano_usd: what was billed beyond reservations.
    """

    refused: tuple[Refused, ...] = ()
    replaced: tuple[Replaced, ...] = ()
    firings: tuple[Firing, ...] = ()
    lowered_requests: int = 0
    stopped_requests: int = 0
    waited_requests: int = 0
    waited_us: int = 0
    shadow_requests: int = 0
    excess_requests: int = 0
    excess_nano_usd: int = 0


NOTHING_DECIDED: Final = Decided()

_decoder = msgspec.json.Decoder(tuple[Decision, ...])


def decisions_of(exchange: ExchangeRecord) -> tuple[Decision, ...]:
    """What rules had to say about a request; nothing where that cannot be read."""
    if exchange.decisions is None:
        return ()
    try:
        return _decoder.decode(exchange.decisions)
    except msgspec.DecodeError:
        return ()


def is_refused_by_rule(exchange: ExchangeRecord) -> bool:
    """Whether it is among the refused; other refusals are errors of whoever asked."""
    return any(one.outcome == "deny" for one in decisions_of(exchange))


def excess_of(exchange: ExchangeRecord) -> int:
    """What a request cost beyond its reservation, in nano-dollars."""
    reserved, cost = exchange.reserved_cost_nano_usd, exchange.cost_nano_usd
    return 0 if reserved is None or cost is None else max(0, cost - reserved)


def decided(exchanges: Sequence[ExchangeRecord]) -> Decided:
    """What rules did to some requests."""
    told = [(exchange, decisions_of(exchange)) for exchange in exchanges]
    waited = [exchange for exchange, some in told if _has(some, "wait")]
    excesses = [excess for exchange in exchanges if (excess := excess_of(exchange))]
    return Decided(
        refused=tuple(_refused(told)),
        replaced=tuple(_replaced(told)),
        firings=tuple(
            Firing(exchange_id=exchange.id, decision=one)
            for exchange, some in told
            for one in some
            if one.rule == "runaway"
        ),
        lowered_requests=sum(exchange.output_limit_tokens is not None for exchange in exchanges),
        stopped_requests=sum(_has(some, "stop") for _, some in told),
        waited_requests=len(waited),
        waited_us=sum(exchange.queued_us or 0 for exchange in waited),
        shadow_requests=sum(_has(some, "shadow") for _, some in told),
        excess_requests=len(excesses),
        excess_nano_usd=sum(excesses),
    )


_Told = Iterable[tuple[ExchangeRecord, tuple[Decision, ...]]]


def _refused(told: _Told) -> Iterable[Refused]:
    groups: dict[str, list[Decision]] = {}
    for exchange, some in told:
        if exchange.status is not ExchangeStatus.DENIED:
            continue
        denial = next((one for one in some if one.outcome == "deny"), None)
        if denial is not None:
            groups.setdefault(denial.code or exchange.denial or denial.rule, []).append(denial)
    for code, group in groups.items():
        yield Refused(code=code, requests=len(group), last=group[-1])


def _replaced(told: _Told) -> Iterable[Replaced]:
    groups: dict[tuple[str, str | None], list[Decision | None]] = {}
    for exchange, some in told:
        if exchange.downgraded_from is not None:
            taken = exchange.response_model
            pair = (
                f"{exchange.provider_name}/{exchange.downgraded_from}",
                None if taken is None else f"{exchange.provider_name}/{taken}",
            )
            why = next((one for one in some if one.outcome == "downgrade"), None)
            groups.setdefault(pair, []).append(why)
    for (asked, taken), group in groups.items():
        yield Replaced(asked=asked, taken=taken, requests=len(group), last=group[-1])


def _has(decisions: Iterable[Decision], outcome: Outcome) -> bool:
    return any(one.outcome == outcome for one in decisions)
