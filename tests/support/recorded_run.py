"""What Opencode recorded of a run, and the exchanges beside it, for tests; times in ms.

Every time counts from the beginning of the run.
"""

from decimal import Decimal
from typing import Any

from opencode_gate.agents.opencode.run_record import (
    AgentFigures,
    RecordedConversation,
    RecordedPrompt,
    RecordedTurn,
)
from opencode_gate.core.semconv import CostQuality, ExchangeStatus
from opencode_gate.core.usage import TokenUsage
from opencode_gate.ledger.records import ExchangeRecord
from tests.support.ledger_records import NOON_US, an_exchange

PRICE_NANO_USD = 1_000
"""What every token costs, on both sides."""


def at_us(ms: int) -> int:
    """A time of the run."""
    return NOON_US + ms * 1000


def figures(
    tokens: tuple[int, int] | None, *, price_nano_usd: int = PRICE_NANO_USD
) -> AgentFigures:
    """Opencode's count of so many tokens in and out; `None` for an answer it did not count."""
    input_tokens, output_tokens = (0, 0) if tokens is None else tokens
    cost_nano_usd = (input_tokens + output_tokens) * PRICE_NANO_USD
    return AgentFigures(
        usage=TokenUsage(input_uncached=input_tokens, cache_read=0, output=output_tokens),
        cost_usd=Decimal(cost_nano_usd).scaleb(-9),
    )


def conversation(id: str, **changes: Any) -> RecordedConversation:
    """A main conversation of this process that keeps no running total."""
    fields: dict[str, Any] = {
        "id": id,
        "parent_id": None,
        "title": f"Title of {id}",
        "directory": "/p",
        "agent_name": "build",
        "is_given": True,
        "is_new": True,
        "row": None,
    }
    return RecordedConversation(**{**fields, **changes})


def prompt(id: str, conversation_id: str, ms: int, **changes: Any) -> RecordedPrompt:
    """Something a person typed in build mode."""
    fields: dict[str, Any] = {
        "id": id,
        "conversation_id": conversation_id,
        "agent_name": "build",
        "created_at_us": at_us(ms),
        "is_typed": True,
    }
    return RecordedPrompt(**{**fields, **changes})


def turn(
    id: str,
    conversation_id: str,
    begin_ms: int,
    end_ms: int | None,
    tokens: tuple[int, int] | None,
    **changes: Any,
) -> RecordedTurn:
    """An answer with these tokens in and out; `None` for one that was not counted."""
    fields: dict[str, Any] = {
        "id": id,
        "conversation_id": conversation_id,
        "prompt_id": None,
        "agent_name": "build",
        "is_compaction": False,
        "provider_id": "acme",
        "model_id": "big",
        "started_at_us": at_us(begin_ms),
        "ended_at_us": None if end_ms is None else at_us(end_ms),
        "figures": figures(tokens),
        "is_answer": tokens is not None,
        "error_name": None,
    }
    return RecordedTurn(**{**fields, **changes})


def exchange(
    id: str,
    conversation_id: str | None,
    ms: int,
    tokens: tuple[int, int] | None,
    *,
    length_ms: int = 10,
    **changes: Any,
) -> ExchangeRecord:
    """A completed exchange with these tokens in and out, or a refused one with none."""
    fields: dict[str, Any] = {
        "id": id,
        "conversation_id": conversation_id,
        "provider_name": "acme",
        "request_model": "big",
        "started_at_us": at_us(ms),
        "duration_us": length_ms * 1000,
        "cost_quality": CostQuality.PRICED,
    }
    if tokens is None:
        fields |= {
            "status": ExchangeStatus.UPSTREAM_ERROR,
            "http_status": 503,
            "usage": TokenUsage(),
            "cost_nano_usd": 0,
        }
    else:
        fields |= {
            "usage": TokenUsage(input_uncached=tokens[0], output=tokens[1]),
            "cost_nano_usd": sum(tokens) * PRICE_NANO_USD,
        }
    return an_exchange(**{**fields, **changes})
