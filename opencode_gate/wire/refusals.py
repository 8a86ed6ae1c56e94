"""Refusals in the shape each client expects, and free of words that make Opencode try again.

The idea: Opencode shows exactly `error.message` when an error comes in the native envelope of
the wire format, and decides about a retry by regular expressions over the *whole* body. So a
final refusal carries no id and none of those words or digit runs: each is broken by U+2060
WORD JOINER, which no terminal shows. The invariant: `refusal_body` with a final status never
matches `RETRY_PATTERN` or `OVERFLOW_PATTERN`.
"""

import re

import msgspec

from opencode_gate.core.semconv import WireFormat

WORD_JOINER = "\u2060"

RETRY_PATTERN = re.compile(
    r"429|500|502|503|504|524"
    r"|rate increased too quickly|rate limit|rate-limit|rate_limit|too many requests"
    r"|overloaded|service unavailable|service_unavailable|service-unavailable"
    r"|internal error|internal_error|internal server error"
    r"|server error|server_error|server-error"
    r"|provider returned error|provider_returned_error|provider-returned-error"
    r"|terminated|fetch failed|failed to fetch|network[-_\s]error|upstream connect"
    r"|connection error|connection refused|connection lost|socket connection was closed"
    r"|socket hang up|reset before headers|getaddrinfo|enotfound|eai_again"
    r"|econnrefused|econnreset|etimedout"
    r"|^timeout$"
    r"|\b(?:request|response|connection|network|stream|read) (?:timeout|timed out|time out)\b"
    r"|try your request again|retry your request|resource exhausted|resource_exhausted"
    r"|\btry again (?:later|in\b)|\b(?:currently|temporarily) at capacity\b"
    r"|too_many_requests|exhausted|unavailable",
    re.IGNORECASE,
)
"""What Opencode 1.18 retries on, wherever it stands in an error body (its `SessionRetry`)."""

OVERFLOW_PATTERN = re.compile(
    r"prompt is too long|request_too_large|input is too long for requested model"
    r"|exceeds the context window"
    r"|exceeds (?:the )?(?:model'?s )?maximum context length(?: of [\d,]+ tokens?|\s*\([\d,]+\))"
    r"|input token count.*exceeds the maximum|tokens in request more than max tokens allowed"
    r"|maximum prompt length is \d+|reduce the length of the messages"
    r"|maximum context length is \d+ tokens"
    r"|exceeds (?:the )?maximum allowed input length of [\d,]+ tokens?"
    r"|input \(\d+ tokens\) is longer than the model'?s context length \(\d+ tokens\)"
    r"|exceeds the limit of \d+|exceeds the available context size"
    r"|greater than the context length|context window exceeds limit"
    r"|exceeded model token limit|context[_ ]length[_ ]exceeded|request entity too large"
    r"|context length is only \d+ tokens|input length.*exceeds.*context length"
    r"|prompt too long; exceeded (?:max )?context length"
    r"|too large for model with \d+ maximum context length"
    r"|prompt has [\d,]+ tokens?, but the configured context size is [\d,]+ tokens?"
    r"|model_context_window_exceeded|too many tokens|token limit exceeded",
    re.IGNORECASE,
)
"""What Opencode 1.18 takes for a full context; it then starts a paid compaction."""

_FORBIDDEN = re.compile(
    f"(?=(?:{RETRY_PATTERN.pattern}|{OVERFLOW_PATTERN.pattern})).", re.IGNORECASE | re.DOTALL
)
"""The first character of each match, overlapping ones too."""

_TRANSIENT_STATUSES = frozenset({408, 409, 425, 429})

_GOOGLE_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    402: "FAILED_PRECONDITION",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
"""https://cloud.google.com/apis/design/errors#handling_errors"""


def refusal_body(
    wire_format: WireFormat, *, http_status: int, message: str, error_type: str, code: str
) -> bytes:
    """The JSON body of an error answer in the native envelope of `wire_format`.

    A status that is final (a 4xx other than 408, 409, 425 and 429) has its texts neutralised.
    An unknown format gets OpenAI's shape.
    """
    if is_final(http_status):
        message, error_type, code = map(neutralise, (message, error_type, code))
    envelope: dict[str, object]
    if wire_format is WireFormat.ANTHROPIC_MESSAGES:
        envelope = {"type": "error", "error": {"type": error_type, "message": message}}
    elif wire_format is WireFormat.GEMINI_GENERATE:
        status = _GOOGLE_STATUS.get(http_status, "FAILED_PRECONDITION")
        envelope = {"error": {"code": http_status, "message": message, "status": status}}
    else:
        envelope = {"error": {"message": message, "type": error_type, "param": None, "code": code}}
    return msgspec.json.encode(envelope)


def is_final(http_status: int) -> bool:
    """True when the client is meant to stop and show the message, not to try again."""
    return 400 <= http_status < 500 and http_status not in _TRANSIENT_STATUSES


def neutralise(text: str) -> str:
    """`text` with every word and digit run broken that Opencode would retry or compact on.

    Looks the same on a screen. For final refusals only: elsewhere a retry is what is wanted.
    """
    return _FORBIDDEN.sub(lambda match: match[0] + WORD_JOINER, text)
