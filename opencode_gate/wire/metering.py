"""What the meter found of one answer, and what is estimated where it did not find it.

The invariant: an estimate never takes the place of a count the provider has told to its end.
"""

from decimal import Decimal

import msgspec

from opencode_gate.core.semconv import UsageQuality, WireFormat
from opencode_gate.core.usage import NOTHING_KNOWN, TokenUsage
from opencode_gate.wire.estimates import estimated_tokens, quality_of_estimate
from opencode_gate.wire.facts import RequestFacts


class Metering(msgspec.Struct, frozen=True, kw_only=True):
    """What one answer came to, as far as it was seen.

    Attributes:
        usage_quality: `REPORTED` when the provider's final counts were read, `ESTIMATED` when
            the answer or the reading of it was cut short of them, `UNKNOWN` without any.
        raw_usage: the provider's usage object, JSON text; several are laid over each other,
            and the service tier and the cost that some tell beside it stand in it.
        finish_reason: the provider's own, also where another one was supplied.
        delivered_text_chars: characters of text, reasoning and tool arguments passed on.
        hides_reasoning: the model also thought where nobody sees it.
        tools_called: the names of the tools the client is asked to run, each once.
        error_type: a short name of an error inside the answer.
        repaired: what was mended for the client, `None` if the bytes are the upstream's own.
        contradicts: the counts contradict each other or what was delivered.
    """

    usage: TokenUsage = NOTHING_KNOWN
    usage_quality: UsageQuality = UsageQuality.UNKNOWN
    raw_usage: str | None = None
    response_model: str | None = None
    finish_reason: str | None = None
    reported_cost_usd: Decimal | None = None
    delivered_text_chars: int = 0
    hides_reasoning: bool = False
    tools_called: tuple[str, ...] = ()
    error_type: str | None = None
    repaired: str | None = None
    contradicts: bool = False
    wire_format: WireFormat = WireFormat.UNKNOWN


class Delivered(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer's output can be counted from; in memory only, and only until it is.

    Attributes:
        text: of text, reasoning and tool arguments; the end of it, where it is very much.
        chars: how many characters it was in all.
        seen: the counts the provider has told, final or not.
        hides_reasoning: the model also thought where nobody sees it.
    """

    text: str
    chars: int
    seen: TokenUsage
    hides_reasoning: bool = False


def estimated(metering: Metering, facts: RequestFacts) -> Metering:
    """`metering` with what is missing or unfinished estimated; final counts stay as they are.

    For answers that cost money: a request the provider refused has no tokens to estimate.
    """
    if metering.usage_quality is UsageQuality.REPORTED:
        return metering
    usage = metering.usage
    if usage.input_tokens is None:
        uncached = estimated_tokens(facts.input_bytes, metering.wire_format)
        usage = msgspec.structs.replace(usage, input_uncached=uncached)
    delivered = estimated_tokens(metering.delivered_text_chars, metering.wire_format)
    if usage.output is None or usage.output < delivered:
        usage = msgspec.structs.replace(usage, output=delivered)
    quality = quality_of_estimate(facts.request_model, is_reasoning_hidden=metering.hides_reasoning)
    return msgspec.structs.replace(metering, usage=usage, usage_quality=quality)
