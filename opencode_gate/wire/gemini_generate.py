"""Gemini generateContent: https://ai.google.dev/api/generate-content.

`promptTokenCount` includes cached tokens; `thoughtsTokenCount` comes on top of
`candidatesTokenCount`; `toolUsePromptTokenCount` is input on top of the prompt. A stream has no
terminal marker beyond `finishReason`, and Opencode drops an error inside a stream silently.
"""

from typing import Any

import msgspec

from opencode_gate.core.usage import TokenUsage, sum_known
from opencode_gate.wire.counts import (
    Counts,
    CountsReader,
    Tokens,
    Usages,
    remainder,
    token_count,
)
from opencode_gate.wire.decoding import NOT_DECODED, Lenient
from opencode_gate.wire.formats import ABSENT, Edit, Tally, UsageReading, short_error_type

_KNOWN_FINISHES = frozenset(
    {
        "STOP",
        "MAX_TOKENS",
        "IMAGE_SAFETY",
        "RECITATION",
        "SAFETY",
        "BLOCKLIST",
        "PROHIBITED_CONTENT",
        "SPII",
        "MALFORMED_FUNCTION_CALL",
    }
)


class _FunctionCall(msgspec.Struct, gc=False):
    name: Any = None
    args: msgspec.Raw = ABSENT


class _Part(msgspec.Struct, rename="camel"):
    text: Any = None
    thought: Any = None
    thought_signature: Any = None
    function_call: _FunctionCall | None = None
    inline_data: msgspec.Raw = ABSENT


class _Content(msgspec.Struct):
    parts: list[_Part] | None = None


class _Candidate(msgspec.Struct, rename="camel"):
    content: _Content | None = None
    finish_reason: Any = None


class _PromptFeedback(msgspec.Struct, rename="camel"):
    block_reason: Any = None


class _Answer(msgspec.Struct, rename="camel"):
    candidates: list[_Candidate] | None = None
    usage_metadata: msgspec.Raw = ABSENT
    model_version: Any = None
    prompt_feedback: _PromptFeedback | None = None
    error: Any = None
    cost: Any = None


class _MoreText(msgspec.Struct, rename="camel", gc=False):
    text: str
    thought: bool | None = None
    thought_signature: None = None
    function_call: None = None
    inline_data: None = None


class _OnlyContent(msgspec.Struct, gc=False):
    parts: tuple[_MoreText]


class _OnlyCandidate(msgspec.Struct, rename="camel", gc=False):
    content: _OnlyContent
    finish_reason: None = None


class _MoreContent(msgspec.Struct, rename="camel", gc=False):
    """Nearly every event; whatever it has beyond a piece of text does not fit in here."""

    candidates: tuple[_OnlyCandidate]
    usage_metadata: msgspec.Raw = ABSENT
    model_version: str | None = None
    prompt_feedback: None = None
    error: None = None


class _Counts(Counts, rename="camel"):
    prompt_token_count: Tokens = None
    cached_content_token_count: Tokens = None
    candidates_token_count: Tokens = None
    thoughts_token_count: Tokens = None
    tool_use_prompt_token_count: Tokens = None
    prompt_tokens_details: Any = None
    candidates_tokens_details: Any = None


_answers = Lenient(_Answer)
_more_content = msgspec.json.Decoder(_MoreContent).decode
_counts_reader = CountsReader(_Counts)
_answer_lists = Lenient(list[_Answer])


class GeminiGenerate:
    """Reads one generated answer."""

    __slots__ = ("_block_reason", "tally", "usages")

    def __init__(self) -> None:
        self.tally = Tally()
        self.usages = Usages(_counts_reader)
        self._block_reason: str | None = None

    def event(self, data: bytes) -> Edit | None:
        """Reads one event: each is a whole answer with a piece of the content."""
        try:
            more = _more_content(data)
        except NOT_DECODED:
            self._read(_answers.decode(data))
            return None
        tally = self.tally
        part = more.candidates[0].content.parts[0]
        if more.model_version:
            tally.response_model = more.model_version
        if more.usage_metadata is not ABSENT:
            self.usages.take(more.usage_metadata)
        if part.text:
            tally.text.write(part.text)
            tally.has_content = True
        if part.thought:
            tally.hides_reasoning = True
        return None

    def body(self, data: bytes) -> None:
        """Reads an answer that was not streamed, or the array `streamGenerateContent` gives
        without `alt=sse`.
        """
        if data.lstrip().startswith(b"["):
            for answer in _answer_lists.decode(data):
                self._read(answer)
        else:
            self._read(_answers.decode(data))

    def usage(self) -> UsageReading:
        """The usage with thoughts in the output and tool-use prompts in the input."""
        seen = self.usages.counts()
        cache_read = seen.cached_content_token_count
        uncached, contradicts = remainder(seen.prompt_token_count, cache_read)
        thoughts = seen.thoughts_token_count
        usage = TokenUsage(
            input_uncached=sum_known(uncached, seen.tool_use_prompt_token_count),
            cache_read=cache_read,
            output=sum_known(seen.candidates_token_count, thoughts),
            reasoning=thoughts,
            input_audio=_audio(seen.prompt_tokens_details),
            output_audio=_audio(seen.candidates_tokens_details),
        )
        return UsageReading(usage, contradicts, seen.reported_cost_usd())

    def last_event(self) -> bytes:
        """A finish reason the client knows, where the upstream ended with another one."""
        tally = self.tally
        if tally.error_type is not None or not tally.is_ended:
            return b""
        if tally.finish_reason in _KNOWN_FINISHES:
            return b""
        # A blocked prompt comes without any candidate; clients only look at candidates.
        supplied = "STOP" if tally.finish_reason is not None else "SAFETY"
        tally.repair(tally.finish_reason or self._block_reason, supplied)
        candidate = {
            "content": {"parts": [], "role": "model"},
            "finishReason": supplied,
            "index": 0,
        }
        return b"data: " + msgspec.json.encode({"candidates": [candidate]}) + b"\n\n"

    @property
    def is_complete(self) -> bool:
        """A finish reason or a blocked prompt, and no error."""
        return self.tally.is_ended and self.tally.error_type is None

    def _read(self, answer: _Answer) -> None:
        tally = self.tally
        if isinstance(answer.model_version, str) and answer.model_version:
            tally.response_model = answer.model_version
        if answer.error is not None:
            details = answer.error if isinstance(answer.error, dict) else {}
            tally.error_type = short_error_type(details.get("status"))
        if answer.prompt_feedback is not None and answer.prompt_feedback.block_reason is not None:
            self._block_reason = str(answer.prompt_feedback.block_reason)
            tally.is_ended = True
        if answer.usage_metadata is not ABSENT:
            self.usages.take(answer.usage_metadata)
        if answer.cost is not None:
            self.usages.take_beside(None, answer.cost)
        if answer.candidates:
            candidate = answer.candidates[0]
            if candidate.content is not None:
                self._deliver(candidate.content.parts or ())
            if candidate.finish_reason is not None:
                tally.finish_reason = str(candidate.finish_reason)
                tally.is_ended = True

    def _deliver(self, parts: "list[_Part] | tuple[()]") -> None:
        tally = self.tally
        for part in parts:
            if part.text:
                tally.deliver(part.text)
            if part.thought or part.thought_signature is not None:
                tally.hides_reasoning = True
            if part.function_call is not None:
                tally.call(part.function_call.name)
                tally.deliver(part.function_call.name)
                tally.deliver(bytes(part.function_call.args).decode("utf-8", "replace"))
            if part.inline_data is not ABSENT:
                tally.has_content = True


def _audio(details: object) -> int | None:
    """The audio tokens among the counts by modality."""
    if not isinstance(details, list):
        return None
    return sum_known(
        *(
            token_count(item.get("tokenCount"))
            for item in details
            if isinstance(item, dict) and item.get("modality") == "AUDIO"
        )
    )
