"""Token counts where nobody reported any: from sizes, and always marked as estimated.

The invariant: an estimate is made only for a count that is missing or known to be unfinished;
a reported zero stays zero.
"""

from opencode_gate.core.semconv import WireFormat

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
