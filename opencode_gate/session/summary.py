"""The account of one session, made from the ledger.

The invariant: every figure is a sum over rows of the ledger or is left out; what never passed
the gateway is named as such and never added in.
"""

import statistics
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

import msgspec

from opencode_gate.core.semconv import ConversationKind, ExchangeStatus, Operation
from opencode_gate.core.usage import sum_known
from opencode_gate.governance.standing import BudgetStanding
from opencode_gate.ledger.records import (
    USAGE_CONTRADICTS,
    ConversationRecord,
    ExchangeRecord,
    SessionRecord,
)
from opencode_gate.ledger.store import Store
from opencode_gate.ledger.totals import Totals, total_of
from opencode_gate.session.decided import NOTHING_DECIDED, Decided, decided, is_refused_by_rule
from opencode_gate.session.reconciliation import Bypass

Key = TypeVar("Key", bound=Hashable)

_SHORTEST_FLOW_US = 100_000


class ModelTotals(msgspec.Struct, frozen=True, kw_only=True):
    """What one model did; `response_model` is the one it last answered as."""

    provider_name: str
    request_model: str | None
    response_model: str | None
    totals: Totals


class ConversationTotals(msgspec.Struct, frozen=True, kw_only=True):
    """What one conversation did; its title calls are an entry of their own, of kind `title`."""

    record: ConversationRecord
    totals: Totals


class Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """How often something went wrong; what a rule refused is no error.

    `contradicted` are whole answers whose counts, by their provider, do not fit them: for one no
    output though text came.
    """

    retries: int = 0
    failovers: int = 0
    interrupted: int = 0
    errors: int = 0
    contradicted: int = 0


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """How fast answers came, in seconds and output tokens a second; `None` if none streamed.

    `gateway_us_p50` is the median of the gateway's own time per call, without the provider's and
    without what rules had it wait; `None` where no call has one.
    """

    time_to_first_chunk_s_p50: float | None = None
    time_to_first_chunk_s_p95: float | None = None
    output_tokens_per_s: float | None = None
    gateway_us_p50: float | None = None


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """One session's account.

    `cache_saved_nano_usd` is negative where writing to prompt caches cost more than reading from
    them saved, and `None` where nothing is known of it; `cache_unknown_requests` read from one
    and have no price.
    """

    session: SessionRecord
    totals: Totals
    models: tuple[ModelTotals, ...] = ()
    conversations: tuple[ConversationTotals, ...] = ()
    trouble: Trouble = Trouble()
    timing: Timing = Timing()
    hidden: tuple[str, ...] = ()
    bypass: tuple[Bypass, ...] = ()
    resume: str | None = None
    check: str | None = None
    cache_saved_nano_usd: int | None = None
    cache_unknown_requests: int = 0
    budgets: tuple[BudgetStanding, ...] = ()
    decided: Decided = NOTHING_DECIDED


def summarise(
    store: Store,
    session_id: str,
    *,
    hidden: tuple[str, ...] = (),
    bypass: tuple[Bypass, ...] = (),
    resume: str | None = None,
    check: str | None = None,
    budgets: tuple[BudgetStanding, ...] = (),
) -> Summary:
    """The account of a session, by id, unique prefix, or `last`.

    Raises:
        UsageError: there is no such session.
    """
    session = store.session(session_id)
    exchanges = store.exchanges(session.id)
    known = {record.id: record for record in store.conversations(session.id)}
    return Summary(
        session=session,
        totals=total_of(exchanges),
        models=tuple(_models(exchanges)),
        conversations=tuple(_conversations(session.id, exchanges, known)),
        trouble=_trouble(exchanges),
        timing=_timing(exchanges),
        hidden=hidden,
        bypass=bypass,
        resume=resume,
        check=check,
        cache_saved_nano_usd=sum_known(*(record.cache_saved_nano_usd for record in exchanges)),
        cache_unknown_requests=sum(
            bool(record.usage.cache_read) and record.cache_saved_nano_usd is None
            for record in exchanges
        ),
        budgets=budgets,
        decided=decided(exchanges),
    )


def _models(exchanges: Sequence[ExchangeRecord]) -> Iterable[ModelTotals]:
    generated = [record for record in exchanges if record.operation is Operation.GENERATE]
    groups = _grouped(generated, lambda record: (record.provider_name, record.request_model))
    entries = [
        ModelTotals(
            provider_name=provider_name,
            request_model=request_model,
            response_model=next(
                (record.response_model for record in reversed(group) if record.response_model), None
            ),
            totals=total_of(group),
        )
        for (provider_name, request_model), group in groups.items()
    ]
    return sorted((entry for entry in entries if entry.totals.requests), key=_dearest_first)


def _conversations(
    session_id: str,
    exchanges: Sequence[ExchangeRecord],
    known: dict[str, ConversationRecord],
) -> Iterable[ConversationTotals]:
    named = [record for record in exchanges if record.conversation_id is not None]
    for (conversation_id, kind), group in _grouped(
        named, lambda record: (record.conversation_id, record.kind)
    ).items():
        assert conversation_id is not None
        record = known.get(conversation_id)
        yield ConversationTotals(
            record=ConversationRecord(
                id=conversation_id,
                session_id=session_id,
                parent_id=group[0].parent_conversation_id if record is None else record.parent_id,
                title=None if record is None else record.title,
                kind=kind,
                agent_name=None if record is None else record.agent_name,
            ),
            totals=total_of(group),
        )
    loose = [record for record in exchanges if record.conversation_id is None]
    if any(record.operation is Operation.GENERATE for record in loose):
        yield ConversationTotals(
            record=ConversationRecord(
                id="", session_id=session_id, kind=ConversationKind.OTHER, title=None
            ),
            totals=total_of(loose),
        )


def _trouble(exchanges: Sequence[ExchangeRecord]) -> Trouble:
    interrupted = (ExchangeStatus.CLIENT_DISCONNECTED, ExchangeStatus.INTERRUPTED)
    return Trouble(
        retries=sum(max(record.attempts - 1, 0) for record in exchanges),
        interrupted=sum(record.status in interrupted for record in exchanges),
        errors=sum(
            record.status is ExchangeStatus.UPSTREAM_ERROR
            or (record.status is ExchangeStatus.DENIED and not is_refused_by_rule(record))
            for record in exchanges
        ),
        contradicted=sum(record.error_type == USAGE_CONTRADICTS for record in exchanges),
    )


def _timing(exchanges: Sequence[ExchangeRecord]) -> Timing:
    own_us = [record.gateway_us for record in exchanges if record.gateway_us is not None]
    gateway_us_p50 = statistics.median(own_us) if own_us else None
    streamed = [
        record
        for record in exchanges
        if record.streamed and record.time_to_first_chunk_us is not None
    ]
    if not streamed:
        return Timing(gateway_us_p50=gateway_us_p50)
    waits_s = sorted((record.time_to_first_chunk_us or 0) / 1e6 for record in streamed)
    flowing = [
        (record.usage.output, record.duration_us - (record.time_to_first_chunk_us or 0))
        for record in streamed
        if record.usage.output is not None and record.duration_us is not None
    ]
    # An answer that came all at once says nothing about a speed.
    flowing = [flow for flow in flowing if flow[1] >= _SHORTEST_FLOW_US]
    flow_s = sum(duration_us for _, duration_us in flowing) / 1e6
    return Timing(
        time_to_first_chunk_s_p50=statistics.median(waits_s),
        time_to_first_chunk_s_p95=waits_s[min(len(waits_s) - 1, round(0.95 * len(waits_s)))],
        output_tokens_per_s=sum(output for output, _ in flowing) / flow_s if flow_s > 0 else None,
        gateway_us_p50=gateway_us_p50,
    )


def _grouped(
    records: Iterable[ExchangeRecord], key: Callable[[ExchangeRecord], Key]
) -> dict[Key, list[ExchangeRecord]]:
    groups: dict[Key, list[ExchangeRecord]] = {}
    for record in records:
        groups.setdefault(key(record), []).append(record)
    return groups


def _dearest_first(entry: ModelTotals) -> tuple[int, int]:
    cost = entry.totals.cost_nano_usd
    return (-1 if cost is None else -cost, -entry.totals.requests)
