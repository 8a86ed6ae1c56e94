"""Every closed set of names that reaches a row, a JSON document or the wire, spelled once.

Token and model names follow the OpenTelemetry GenAI semantic conventions
(https://opentelemetry.io/docs/specs/semconv/gen-ai/). The values are stored in the ledger, so
a member may be added but never renamed.
"""

from enum import StrEnum


class WireFormat(StrEnum):
    """The shape of the bytes a client and a provider exchange."""

    OPENAI_CHAT = "openai-chat"
    OPENAI_RESPONSES = "openai-responses"
    ANTHROPIC_MESSAGES = "anthropic"
    GEMINI_GENERATE = "gemini"
    UNKNOWN = "unknown"


class Operation(StrEnum):
    """What a request asks for; only `GENERATE` counts as a request in totals."""

    GENERATE = "generate"
    COUNT_TOKENS = "count_tokens"
    LIST_MODELS = "list_models"
    OTHER = "other"


class ExchangeStatus(StrEnum):
    """How an exchange ended. `OPEN` exists only until its end is folded into the ledger."""

    OPEN = "open"
    COMPLETED = "completed"
    CLIENT_DISCONNECTED = "client_disconnected"
    UPSTREAM_ERROR = "upstream_error"
    INTERRUPTED = "interrupted"
    DENIED = "denied"


class UsageQuality(StrEnum):
    """Where token counts come from, best first.

    `LOWER_BOUND` is an estimate of an answer that was cut and whose model also thinks where
    nobody sees it: what was seen is counted, and there was more.
    """

    REPORTED = "reported"
    ESTIMATED = "estimated"
    LOWER_BOUND = "lower_bound"
    UNKNOWN = "unknown"


class CostQuality(StrEnum):
    """Where an amount comes from, best first; a total has the worst quality of its parts."""

    REPORTED = "reported"
    PRICED = "priced"
    ESTIMATED = "estimated"
    UNKNOWN = "unknown"


class ConversationKind(StrEnum):
    """What a thread inside the agent is for."""

    MAIN = "main"
    SUBAGENT = "subagent"
    TITLE = "title"
    COMPACTION = "compaction"
    OTHER = "other"
