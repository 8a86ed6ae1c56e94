"""Token counts where nobody reported any: from sizes, and always marked as estimated.

The idea: what is known at once is a size, and a size gives an estimate at once; the folding
thread counts what was delivered and puts a better one in its place. The invariant: an estimate
is made only for a count that is missing or known to be unfinished; a reported zero stays zero.
"""

import re
from collections.abc import Iterator

import msgspec

from opencode_gate.core.semconv import UsageQuality, WireFormat
from opencode_gate.wire.decoding import NOT_DECODED

_CHARS_PER_TOKEN: dict[WireFormat, float] = {
    WireFormat.ANTHROPIC_MESSAGES: 3.5,
    WireFormat.GEMINI_GENERATE: 4.0,
    WireFormat.OPENAI_CHAT: 4.0,
    WireFormat.OPENAI_RESPONSES: 4.0,
    WireFormat.UNKNOWN: 4.0,
}
"""Characters a token of English text and code (vendors say 3.5 to 4; the format stands for the
model family, which is not known better here)."""


def estimated_tokens(length: int, wire_format: WireFormat) -> int:
    """The tokens of `length` characters of text or bytes of a request body, rounded up."""
    return -int(-length // _CHARS_PER_TOKEN[wire_format])


_HIDES_REASONING = re.compile(
    r"(?:^|/)(?:o[1-9](?:-|$)|gpt-5|codex|grok-[4-9]|gemini-(?:2\.5|[3-9]))"
)
"""OpenAI (https://platform.openai.com/docs/guides/reasoning), xAI and Google bill reasoning that
no stream shows, or only a summary of it."""


_TEXTS = re.compile(
    rb'"(?:text|content|thinking|reasoning|reasoning_content|refusal|arguments)"'
    rb'\s*:\s*"((?:[^"\\]|\\.)*)'
)


def texts_of_a_part(body: bytes) -> Iterator[str]:
    """The texts in the part of a plain answer that came before it was cut."""
    for match in _TEXTS.finditer(body):
        try:
            yield msgspec.json.decode(b'"' + match[1] + b'"', type=str)
        except NOT_DECODED:
            yield match[1].decode("utf-8", "replace")


def quality_of_estimate(model: str | None, *, is_reasoning_hidden: bool) -> UsageQuality:
    """What to call the counts of an answer that was cut before the provider told its own."""
    if is_reasoning_hidden or hides_reasoning(model):
        return UsageQuality.LOWER_BOUND
    return UsageQuality.ESTIMATED


def hides_reasoning(model: str | None) -> bool:
    """Whether a model is known to think where nobody sees it."""
    return model is not None and _HIDES_REASONING.search(model.lower()) is not None
