"""The rows of the ledger as values: a session, an exchange, a conversation.

Times are UTC microseconds, money is integer nano-dollars, ids are ULIDs (conversations keep
the agent's own id). `None` is unknown and never stands for zero.
"""

from typing import NamedTuple

import msgspec

from opencode_gate.core.semconv import (
    ConversationKind,
    CostQuality,
    ExchangeStatus,
    Operation,
    UsageQuality,
    WireFormat,
)
from opencode_gate.core.usage import NOTHING_KNOWN, TokenUsage, sum_known

USAGE_CONTRADICTS = "usage_contradicts"
"""The `error_type` of a whole answer whose counts, by its provider, do not fit it."""

_LARGEST = (1 << 63) - 1


class SessionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One run of an agent, as of its launch; `ended_at_us` and `exit_status` come at its end."""

    id: str
    user: str
    agent: str
    agent_version: str | None
    directory: str
    project: str
    repository: str | None = None
    branch: str | None = None
    commit: str | None = None
    time_zone: str = "UTC"
    started_at_us: int
    ended_at_us: int | None = None
    exit_status: int | None = None


class ConversationRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A thread inside the agent; `id` is the agent's own (`ses_…`), `directory` where it worked."""

    id: str
    session_id: str
    parent_id: str | None = None
    title: str | None = None
    kind: ConversationKind = ConversationKind.MAIN
    agent_name: str | None = None
    directory: str | None = None


class Charge(msgspec.Struct, frozen=True, array_like=True):
    """A budget that an exchange is charged to, in the window in which it was admitted.

    Attributes:
        window_start_us: 0 for a window that never begins anew.
        unit: `usd` (amounts in nano-dollars) or `tokens`.
        reserved: the worst case that was reserved for it; 0 where the budget only counts.
    """

    budget_id: str
    window_start_us: int
    unit: str
    reserved: int


class ExchangeRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One client request and its answer.

    A `msgspec.Struct` where its neighbours are dataclasses: two are made and written for every
    request, and a frozen dataclass of this many fields takes twenty times as long.

    Attributes:
        conversation_id: the agent's conversation, `None` where the request named none.
        kind: what the request was for inside the conversation (a title call belongs to the
            conversation it names, but is counted apart).
        provider_name: the routed provider's id.
        credential_name: which of the provider's keys paid, `None` where it has no name.
        request_model: as the client asked; `response_model` as the provider answered.
        http_status: what the client received, `None` if nothing was sent.
        error_type: low-cardinality reason of a failure (`connect`, `http_429`, `no_terminal`).
        attempts: upstream tries, 0 for a request that was denied.
        queued_us: from the request's last byte to the first upstream try.
        time_to_first_chunk_us: from the request's last byte to the first content for the client.
        raw_usage: the provider's usage object as it came (JSON text), with the service tier and
            the cost that some tell beside it.
        reported_cost_nano_usd: what the provider said it costs, kept beside the priced amount.
        cost_nano_usd: the amount counted; `None` when unknown.
        price_source: which book priced it, with its version (`genai-prices 0.2.3`).
        denial: for `denied`, the error code.
        gateway_us: the part of the time that was the gateway's own.
        priced_cost_nano_usd: what the price book says, also where a reported amount counts.
        cache_saved_nano_usd: by how much the price book's amount is below that of the same tokens
            without a prompt cache; negative where writing to it cost more than reading saved.
            `None` where it is unknown or nothing was cached.
        superseded_cost_nano_usd: the amount first counted, where it was priced anew since.
        superseded_price_source: what priced that amount, `none` if nothing did; `None` if the
            exchange was never priced anew.
        prompt_id: the agent's id of the message the user typed.
        mode: the agent's mode of that turn (`plan`, `build`).
        tool_set: hash of the tools offered; their names and sizes are kept apart, once.
        tools_called: names of the tools the answer called.
        parts: what the request was made of, by `wire.prompt_parts`; never text.
        virtual_key: the name of the key of this gateway that asked; `team` and `customer` are
            those it belonged to then.
        charges: the budgets it counts against.
        reserved_cost_nano_usd: its worst case, reserved before it was sent; `None` where no hard
            budget in money was above it. What it cost above that is what a provider billed
            beyond the limits it was given.
        output_limit_tokens: what the output limit of the request was lowered to.
        downgraded_from: the model that was asked for, where a rule put a cheaper one in its place.
        decisions: what rules had to say, a JSON list of `governance.decisions.Decision`.
        request_hash: keyed hash of the request's body, and `answer_hash` of what was delivered;
            hexadecimal digits, for the audit trail.
    """

    id: str
    session_id: str
    conversation_id: str | None = None
    parent_conversation_id: str | None = None
    kind: ConversationKind = ConversationKind.MAIN
    operation: Operation
    wire_format: WireFormat
    provider_name: str
    credential_name: str | None = None
    request_model: str | None = None
    response_model: str | None = None
    streamed: bool = False
    status: ExchangeStatus
    http_status: int | None = None
    error_type: str | None = None
    denial: str | None = None
    attempts: int = 0
    started_at_us: int
    queued_us: int | None = None
    time_to_first_chunk_us: int | None = None
    duration_us: int | None = None
    usage: TokenUsage = NOTHING_KNOWN
    usage_quality: UsageQuality = UsageQuality.UNKNOWN
    raw_usage: str | None = None
    reported_cost_nano_usd: int | None = None
    cost_nano_usd: int | None = None
    cost_quality: CostQuality = CostQuality.UNKNOWN
    price_source: str | None = None
    finish_reason: str | None = None
    repaired: str | None = None
    gateway_us: int | None = None
    priced_cost_nano_usd: int | None = None
    cache_saved_nano_usd: int | None = None
    superseded_cost_nano_usd: int | None = None
    superseded_price_source: str | None = None
    prompt_id: str | None = None
    mode: str | None = None
    tool_set: str | None = None
    tools_called: tuple[str, ...] = ()
    parts: bytes | None = None
    virtual_key: str | None = None
    team: str | None = None
    customer: str | None = None
    charges: tuple[Charge, ...] = ()
    reserved_cost_nano_usd: int | None = None
    output_limit_tokens: int | None = None
    downgraded_from: str | None = None
    decisions: str | None = None
    request_hash: str | None = None
    answer_hash: str | None = None


def charged(record: ExchangeRecord, charge: Charge) -> int:
    """What an exchange takes from a budget; where nobody knows, all that was reserved.

    An estimate of ours takes no more than that either: within the limits it was sent with, the
    request could not cost more. An answer that may have been longer than what was seen of it
    takes all.
    """
    if record.cost_nano_usd == 0 and record.usage.is_empty:
        return 0
    if charge.unit == "usd":
        amount = record.cost_nano_usd
        is_estimate = record.cost_quality is CostQuality.ESTIMATED
    else:
        amount = sum_known(record.usage.input_tokens, record.usage.output)
        is_estimate = record.usage_quality is not UsageQuality.REPORTED
    if amount is None:
        return charge.reserved
    if not is_estimate or not charge.reserved:
        return max(0, amount)
    return charge.reserved if _may_have_been_longer(record) else min(amount, charge.reserved)


def _may_have_been_longer(record: ExchangeRecord) -> bool:
    """True for an answer of which nothing could be read, and for a plain one that was not had
    whole though it may be there: unlike a stream, a provider writes it to the end and bills it.
    """
    if record.status is ExchangeStatus.COMPLETED:
        return record.http_status == 200 and not record.usage.output
    return not record.streamed and (
        record.status in (ExchangeStatus.CLIENT_DISCONNECTED, ExchangeStatus.INTERRUPTED)
        # It had begun, came too late, or was none that could be passed on.
        or record.http_status == 200
        or record.error_type in ("timeout", "protocol")
    )


def within_reservation(record: ExchangeRecord) -> ExchangeRecord:
    """A priced exchange; an estimate of ours says no more than the request could cost."""
    cost, reserved = record.cost_nano_usd, record.reserved_cost_nano_usd
    if cost is None or reserved is None or cost <= reserved:
        return record
    if record.cost_quality is not CostQuality.ESTIMATED:
        return record
    return msgspec.structs.replace(record, cost_nano_usd=reserved)


class Taken(NamedTuple):
    """What an exchange took from a budget, of what was reserved for it."""

    budget_id: str
    window_start_us: int
    reserved: int
    amount: int


class FoldedExchange(msgspec.Struct, frozen=True, array_like=True):
    """What who admitted an exchange has to know of its end, once it is in the ledger.

    Attributes:
        tokens: that went in and came out; `None` where neither is known.
    """

    id: str
    session_id: str
    taken: tuple[Taken, ...]
    tokens: int | None
    cost_nano_usd: int | None


def folded_exchange(record: ExchangeRecord) -> FoldedExchange:
    """An exchange as the ledger has charged it; amounts beyond 64 bits are the largest number."""
    taken = tuple(
        Taken(
            charge.budget_id,
            charge.window_start_us,
            charge.reserved,
            min(charged(record, charge), _LARGEST),
        )
        for charge in record.charges
    )
    tokens, cost = sum_known(record.usage.input_tokens, record.usage.output), record.cost_nano_usd
    return FoldedExchange(
        record.id,
        record.session_id,
        taken,
        None if tokens is None else min(tokens, _LARGEST),
        None if cost is None else min(cost, _LARGEST),
    )


class Annotation(msgspec.Struct, frozen=True, kw_only=True):
    """What the agent's own records tell of an exchange afterwards; `None` adds nothing.

    Attributes:
        conversation_id: for an exchange that named none; one that is known stays.
    """

    exchange_id: str
    prompt_id: str | None = None
    mode: str | None = None
    kind: ConversationKind | None = None
    conversation_id: str | None = None


class ToolUse(msgspec.Struct, frozen=True, kw_only=True):
    """How often one set of tools was offered to one model in one session.

    `tool_set` is `None` where no tools were; `usage` are the sums of what is known.
    """

    session_id: str
    tool_set: str | None
    wire_format: WireFormat
    provider_name: str
    request_model: str | None
    response_model: str | None
    requests: int
    usage: TokenUsage


class Repricing(NamedTuple):
    """The id of an exchange, its new amount in nano-dollars, and what comes with it."""

    id: str
    cost_nano_usd: int | None
    cost_quality: CostQuality
    price_source: str | None
    cache_saved_nano_usd: int | None = None
