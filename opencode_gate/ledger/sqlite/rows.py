"""Records as rows and back: the one place that knows the order of the columns.

The invariant: a record that was written reads back equal, but for its hashes.
"""

import json
from collections.abc import Sequence
from typing import Any

from opencode_gate.core.semconv import (
    ConversationKind,
    CostQuality,
    ExchangeStatus,
    Operation,
    UsageQuality,
    WireFormat,
)
from opencode_gate.core.usage import TokenUsage
from opencode_gate.ledger.records import Charge, ConversationRecord, ExchangeRecord, SessionRecord

SESSION_COLUMNS = (
    "id",
    "user",
    "agent",
    "agent_version",
    "directory",
    "project",
    "repository",
    "branch",
    '"commit"',
    "time_zone",
    "started_at_us",
    "ended_at_us",
    "exit_status",
)

CONVERSATION_COLUMNS = (
    "session_id",
    "id",
    "parent_id",
    "title",
    "kind",
    "agent_name",
    "directory",
)

USAGE_COLUMNS = (
    "input_uncached_tokens",
    "cache_read_input_tokens",
    "cache_write_5m_input_tokens",
    "cache_write_1h_input_tokens",
    "output_tokens",
    "reasoning_output_tokens",
    "input_audio_tokens",
    "output_audio_tokens",
)
"""The disjoint counts, in the order of the fields of `TokenUsage`."""

_BEFORE_USAGE = (
    "id",
    "session_id",
    "conversation_id",
    "parent_conversation_id",
    "kind",
    "operation",
    "wire_format",
    "provider_name",
    "credential_name",
    "request_model",
    "response_model",
    "streamed",
    "status",
    "http_status",
    "error_type",
    "denial",
    "attempts",
    "started_at_us",
    "queued_us",
    "time_to_first_chunk_us",
    "duration_us",
)

_AFTER_USAGE = (
    "usage_quality",
    "raw_usage",
    "reported_cost_nano_usd",
    "cost_nano_usd",
    "cost_quality",
    "price_source",
    "finish_reason",
    "repaired",
    "gateway_us",
    "priced_cost_nano_usd",
    "cache_saved_nano_usd",
    "superseded_cost_nano_usd",
    "superseded_price_source",
    "prompt_id",
    "mode",
    "tool_set",
    "tools_called",
    "virtual_key",
    "team",
    "customer",
    "reserved_cost_nano_usd",
    "output_limit_tokens",
    "downgraded_from",
    "decisions",
)

EXCHANGE_COLUMNS = _BEFORE_USAGE + USAGE_COLUMNS + _AFTER_USAGE
"""All of an exchange but its parts and charges, which have tables of their own, and the hashes,
which are in the audit trail alone."""

Row = Sequence[Any]


def session_row(session: SessionRecord) -> Row:
    """A session in the order of `SESSION_COLUMNS`."""
    return (
        session.id,
        session.user,
        session.agent,
        session.agent_version,
        session.directory,
        session.project,
        session.repository,
        session.branch,
        session.commit,
        session.time_zone,
        session.started_at_us,
        session.ended_at_us,
        session.exit_status,
    )


def session_of(row: Row) -> SessionRecord:
    """The session of a row in the order of `SESSION_COLUMNS`."""
    names = (name.strip('"') for name in SESSION_COLUMNS)
    return SessionRecord(**dict(zip(names, row, strict=True)))


def conversation_row(conversation: ConversationRecord) -> Row:
    """A conversation in the order of `CONVERSATION_COLUMNS`."""
    return (
        conversation.session_id,
        conversation.id,
        conversation.parent_id,
        conversation.title,
        conversation.kind.value,
        conversation.agent_name,
        conversation.directory,
    )


def conversation_of(row: Row) -> ConversationRecord:
    """The conversation of a row in the order of `CONVERSATION_COLUMNS`."""
    fields = dict(zip(CONVERSATION_COLUMNS, row, strict=True))
    return ConversationRecord(**{**fields, "kind": ConversationKind(fields["kind"])})


def exchange_row(exchange: ExchangeRecord) -> Row:
    """An exchange in the order of `EXCHANGE_COLUMNS`."""
    usage = exchange.usage
    return (
        exchange.id,
        exchange.session_id,
        exchange.conversation_id,
        exchange.parent_conversation_id,
        exchange.kind.value,
        exchange.operation.value,
        exchange.wire_format.value,
        exchange.provider_name,
        exchange.credential_name,
        exchange.request_model,
        exchange.response_model,
        exchange.streamed,
        exchange.status.value,
        exchange.http_status,
        exchange.error_type,
        exchange.denial,
        exchange.attempts,
        exchange.started_at_us,
        exchange.queued_us,
        exchange.time_to_first_chunk_us,
        exchange.duration_us,
        usage.input_uncached,
        usage.cache_read,
        usage.cache_write_5m,
        usage.cache_write_1h,
        usage.output,
        usage.reasoning,
        usage.input_audio,
        usage.output_audio,
        exchange.usage_quality.value,
        exchange.raw_usage,
        exchange.reported_cost_nano_usd,
        exchange.cost_nano_usd,
        exchange.cost_quality.value,
        exchange.price_source,
        exchange.finish_reason,
        exchange.repaired,
        exchange.gateway_us,
        exchange.priced_cost_nano_usd,
        exchange.cache_saved_nano_usd,
        exchange.superseded_cost_nano_usd,
        exchange.superseded_price_source,
        exchange.prompt_id,
        exchange.mode,
        exchange.tool_set,
        json.dumps(exchange.tools_called) if exchange.tools_called else None,
        exchange.virtual_key,
        exchange.team,
        exchange.customer,
        exchange.reserved_cost_nano_usd,
        exchange.output_limit_tokens,
        exchange.downgraded_from,
        exchange.decisions,
    )


def parts_row(exchange: ExchangeRecord) -> Row:
    """What an exchange was made of, in the order of the columns of `message_parts`."""
    return (exchange.started_at_us, exchange.id, exchange.parts)


def exchange_of(row: Row, parts: bytes | None = None, charges: str | None = None) -> ExchangeRecord:
    """The exchange of a row in the order of `EXCHANGE_COLUMNS`.

    Args:
        charges: a JSON list with the fields of each.
    """
    start, end = len(_BEFORE_USAGE), len(_BEFORE_USAGE) + len(USAGE_COLUMNS)
    fields = dict(zip(_BEFORE_USAGE, row[:start], strict=True))
    fields.update(zip(_AFTER_USAGE, row[end:], strict=True))
    fields.update(
        kind=ConversationKind(fields["kind"]),
        operation=Operation(fields["operation"]),
        wire_format=WireFormat(fields["wire_format"]),
        streamed=bool(fields["streamed"]),
        status=ExchangeStatus(fields["status"]),
        usage_quality=UsageQuality(fields["usage_quality"]),
        cost_quality=CostQuality(fields["cost_quality"]),
        usage=usage_of(row[start:end]),
        tools_called=tuple(json.loads(fields["tools_called"] or "[]")),
        parts=parts,
        charges=tuple(Charge(*charge) for charge in json.loads(charges or "[]")),
    )
    return ExchangeRecord(**fields)


def usage_of(counts: Row) -> TokenUsage:
    """The token counts in the order of `USAGE_COLUMNS`."""
    uncached, read, write_5m, write_1h, output, reasoning, audio_in, audio_out = counts
    return TokenUsage(
        input_uncached=uncached,
        cache_read=read,
        cache_write_5m=write_5m,
        cache_write_1h=write_1h,
        output=output,
        reasoning=reasoning,
        input_audio=audio_in,
        output_audio=audio_out,
    )
