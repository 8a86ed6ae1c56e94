"""Ledger records with plausible defaults, and random ones that touch every field."""

import random
from decimal import Decimal
from typing import Any

import msgspec

from opencode_gate.core.ids import new_ulid
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

NOON_US = 1_795_262_400_000_000  # 2026-11-21T12:00:00Z


def a_session(**changes: Any) -> SessionRecord:
    """A session that runs."""
    fields: dict[str, Any] = {
        "id": new_ulid(),
        "user": "ada",
        "agent": "opencode",
        "agent_version": "1.18.33",
        "directory": "/home/ada/engine",
        "project": "engine",
        "repository": "git@example.org:ada/engine.git",
        "branch": "main",
        "commit": "0123abc",
        "time_zone": "Europe/Berlin",
        "started_at_us": NOON_US,
    }
    return SessionRecord(**{**fields, **changes})


def a_conversation(session_id: str, **changes: Any) -> ConversationRecord:
    """A main conversation."""
    fields: dict[str, Any] = {"id": "ses_1", "session_id": session_id, "title": "Fix the loom"}
    return ConversationRecord(**{**fields, **changes})


def an_exchange(**changes: Any) -> ExchangeRecord:
    """A completed and priced generation call."""
    fields: dict[str, Any] = {
        "id": new_ulid(),
        "session_id": "01SESSION",
        "conversation_id": "ses_1",
        "operation": Operation.GENERATE,
        "wire_format": WireFormat.OPENAI_CHAT,
        "provider_name": "practice",
        "request_model": "scripted",
        "response_model": "scripted",
        "streamed": True,
        "status": ExchangeStatus.COMPLETED,
        "http_status": 200,
        "attempts": 1,
        "started_at_us": NOON_US,
        "duration_us": 1_500_000,
        "usage": TokenUsage(input_uncached=101, cache_read=13, output=17, reasoning=3),
        "usage_quality": UsageQuality.REPORTED,
        "cost_nano_usd": 1_234_567,
        "cost_quality": CostQuality.PRICED,
        "price_source": "genai-prices 0.2.3",
    }
    return ExchangeRecord(**{**fields, **changes})


def an_open_exchange(**changes: Any) -> ExchangeRecord:
    """An exchange as it stands before anything is sent upstream."""
    fields: dict[str, Any] = {
        "status": ExchangeStatus.OPEN,
        "http_status": None,
        "response_model": None,
        "duration_us": None,
        "usage": TokenUsage(),
        "usage_quality": UsageQuality.UNKNOWN,
        "cost_nano_usd": None,
        "cost_quality": CostQuality.UNKNOWN,
        "price_source": None,
    }
    return an_exchange(**{**fields, **changes})


def a_charge(**changes: Any) -> tuple[Charge]:
    """A charge to a team's month, as an exchange carries it."""
    fields: dict[str, Any] = {"unit": "usd", "window_start_us": NOON_US, "reserved": 2_000_000}
    fields |= changes
    fields.setdefault("budget_id", f"team:core/month/{fields['unit']}")
    return (Charge(**fields),)


def random_exchange(chance: random.Random, **changes: Any) -> ExchangeRecord:
    """Any exchange: every field takes all its values, unknown ones included."""

    def maybe(value: Any) -> Any:
        return value if chance.random() < 0.6 else None

    def count() -> int | None:
        return maybe(chance.choice((0, 1, chance.randrange(10**6))))

    cost = maybe(chance.randrange(10**10))
    fields: dict[str, Any] = {
        "id": new_ulid(),
        "session_id": chance.choice(("01S1", "01S2", "01S3")),
        "conversation_id": maybe("ses_a"),
        "parent_conversation_id": maybe("ses_p"),
        "kind": chance.choice(list(ConversationKind)),
        "operation": chance.choice(list(Operation)),
        "wire_format": chance.choice(list(WireFormat)),
        "provider_name": chance.choice(("openai", "anthropic", "übung")),
        "credential_name": maybe(chance.choice(("work", "home"))),
        "request_model": maybe(chance.choice(("m-1", "m-2", "org/m:3"))),
        "response_model": maybe("m-1-2026"),
        "streamed": chance.random() < 0.5,
        "status": chance.choice(list(ExchangeStatus)),
        "http_status": maybe(chance.choice((200, 400, 401, 429, 500))),
        "error_type": maybe("connect"),
        "denial": maybe("no-route"),
        "attempts": chance.randrange(4),
        "started_at_us": NOON_US + chance.randrange(-(10**13), 10**13),
        "queued_us": count(),
        "time_to_first_chunk_us": count(),
        "duration_us": count(),
        "usage": TokenUsage(
            input_uncached=count(),
            cache_read=count(),
            cache_write_5m=count(),
            cache_write_1h=count(),
            output=count(),
            reasoning=count(),
            input_audio=count(),
            output_audio=count(),
        )
        if chance.random() < 0.7
        else TokenUsage(),
        "usage_quality": chance.choice(list(UsageQuality)),
        "raw_usage": maybe('{"prompt_tokens": 1, "x": "…"}'),
        "reported_cost_nano_usd": count(),
        "cost_nano_usd": cost,
        "cost_quality": chance.choice(list(CostQuality)) if cost is not None else "unknown",
        "price_source": maybe("book 1"),
        "finish_reason": maybe("stop"),
        "repaired": maybe("finish"),
        "gateway_us": count(),
        "priced_cost_nano_usd": count(),
        "cache_saved_nano_usd": maybe(chance.randrange(-(10**6), 10**9)),
        "superseded_cost_nano_usd": count(),
        "superseded_price_source": maybe("none"),
        "prompt_id": maybe("msg_1"),
        "mode": maybe(chance.choice(("plan", "build"))),
        "tool_set": maybe("0a1b"),
        "tools_called": chance.choice(((), ("glob",), ("read", "read", "übung__x"))),
        "virtual_key": maybe(chance.choice(("ci", "ada's"))),
        "team": maybe(chance.choice(("core", "übung"))),
        "customer": maybe("acme"),
        "reserved_cost_nano_usd": count(),
        "output_limit_tokens": count(),
        "downgraded_from": maybe("m-9"),
        "decisions": maybe('[{"rule":"budget","outcome":"warn","message":"half of it"}]'),
        "parts": maybe(chance.randbytes(12 * chance.randrange(1, 5))),
    }
    fields["cost_quality"] = CostQuality(fields["cost_quality"])
    return ExchangeRecord(**{**fields, **changes})


def priced_at(cost_usd: str):
    """A price book with one price."""

    def price(exchange: ExchangeRecord) -> ExchangeRecord:
        return msgspec.structs.replace(
            exchange,
            cost_nano_usd=int(Decimal(cost_usd) * 10**9),
            cost_quality=CostQuality.PRICED,
            price_source="test",
        )

    return price
