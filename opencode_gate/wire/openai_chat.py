"""OpenAI chat completions: https://platform.openai.com/docs/api-reference/chat.

`prompt_tokens` includes cached tokens and cache writes, `completion_tokens` includes reasoning.
The stream ends with `[DONE]`; the last finish reason that is not null counts, and Opencode
re-sends the turn for ever when it does not know it.
"""

from typing import Any, Literal

import msgspec

from opencode_gate.core.usage import TokenUsage
from opencode_gate.wire.counts import Counts, CountsReader, Tokens, Usages, remainder
from opencode_gate.wire.decoding import NOT_DECODED, Lenient
from opencode_gate.wire.formats import (
    ABSENT,
    DONE,
    DROP,
    Edit,
    Tally,
    UsageReading,
    short_error_type,
)

_TOOL_FINISHES = frozenset({"tool_calls", "function_call"})
_KNOWN_FINISHES = frozenset({"stop", "length", "content_filter"})
_FAILED_FINISHES = frozenset({"error", "network_error", "insufficient_system_resource"})
"""The upstream says that it broke, which is not an end of the turn."""
_SYNONYMS = {
    "max_tokens": "length",
    "model_length": "length",
    "MAX_TOKENS": "length",
    "safety": "content_filter",
    "SAFETY": "content_filter",
}


class _Delta(msgspec.Struct, gc=False):
    """What a choice says, whole or in part."""

    content: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    refusal: Any = None
    tool_calls: Any = None
    images: Any = None
    """OpenRouter: https://openrouter.ai/docs/features/multimodal/image-generation"""


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    message: _Delta | None = None
    finish_reason: Any = None
    usage: msgspec.Raw = ABSENT
    """Moonshot's place for it: https://platform.moonshot.ai/docs/api/chat"""


class _Groq(msgspec.Struct):
    usage: msgspec.Raw = ABSENT


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: msgspec.Raw = ABSENT
    x_groq: _Groq | None = None
    error: Any = None
    model: Any = None
    service_tier: Any = None
    cost: Any = None


class _Frame(msgspec.Struct):
    """What a chunk of ours repeats from the upstream's."""

    id: Any = None
    created: Any = None
    model: Any = None


class _MoreArguments(msgspec.Struct, gc=False):
    arguments: str
    name: Literal[""] | None = None


class _MoreOfACall(msgspec.Struct, gc=False):
    function: _MoreArguments


class _MoreText(msgspec.Struct, gc=False):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: tuple[_MoreOfACall] | None = None
    refusal: None = None
    images: None = None


class _OnlyChoice(msgspec.Struct, gc=False):
    delta: _MoreText
    finish_reason: None = None
    usage: None = None


class _MoreContent(msgspec.Struct, gc=False):
    """Nearly every chunk: whatever it has beyond a piece of content does not fit in here."""

    choices: tuple[_OnlyChoice]
    usage: None = None
    x_groq: None = None
    error: None = None


class _Text(msgspec.Struct, gc=False):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: None = None
    refusal: None = None
    images: None = None


class _OnlyAnswer(msgspec.Struct, gc=False):
    message: _Text
    finish_reason: str | None = None
    usage: None = None


class _TextAnswer(msgspec.Struct, gc=False):
    """A completion that was not streamed, of one text."""

    choices: tuple[_OnlyAnswer]
    model: str | None = None
    usage: msgspec.Raw = ABSENT
    service_tier: Literal["default"] | None = None
    cost: None = None
    x_groq: None = None
    error: None = None


class _PromptDetails(msgspec.Struct):
    cached_tokens: Tokens = None
    cache_write_tokens: Tokens = None
    cache_creation_input_tokens: Tokens = None
    """Alibaba: https://www.alibabacloud.com/help/en/model-studio/context-cache"""
    audio_tokens: Tokens = None


class _CompletionDetails(msgspec.Struct):
    reasoning_tokens: Tokens = None
    audio_tokens: Tokens = None


class _Counts(Counts):
    prompt_tokens: Tokens = None
    completion_tokens: Tokens = None
    total_tokens: Tokens = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None
    prompt_cache_hit_tokens: Tokens = None
    """DeepSeek: https://api-docs.deepseek.com/guides/kv_cache"""
    cached_tokens: Tokens = None
    """Moonshot: https://platform.moonshot.ai/docs/api/chat"""
    num_cached_tokens: Tokens = None
    """Mistral: https://docs.mistral.ai/api"""
    prompt_token_details: _PromptDetails | None = None
    """Mistral too"""


_chunks = Lenient(_Chunk)
_frames = Lenient(_Frame)
_more_content = msgspec.json.Decoder(_MoreContent).decode
_text_answers = msgspec.json.Decoder(_TextAnswer).decode
_counts_reader = CountsReader(_Counts)
_NO_PROMPT_DETAILS = _PromptDetails()
_NO_COMPLETION_DETAILS = _CompletionDetails()


class OpenAIChat:
    """Reads one chat completion; `drops_usage` takes out the chunk the client did not ask for."""

    __slots__ = ("_drops_usage", "_last", "tally", "usages")

    def __init__(self, *, drops_usage: bool) -> None:
        self.tally = Tally()
        self.usages = Usages(_counts_reader)
        self._drops_usage = drops_usage
        self._last = b"{}"

    def event(self, data: bytes) -> Edit | None:
        """Reads one chunk, or the `[DONE]` before which a missing finish reason is supplied."""
        tally = self.tally
        if tally.response_model is not None:
            try:
                delta = _more_content(data).choices[0].delta
            except NOT_DECODED:
                return self._event(data)
            self._last = data
            content = delta.content
            if content:
                tally.text.write(content)
                tally.has_content = True
            reasoning = delta.reasoning_content or delta.reasoning
            if reasoning:
                tally.deliver(reasoning)
            if delta.tool_calls is not None:
                tally.has_tool_call = tally.has_content = True
                tally.text.write(delta.tool_calls[0].function.arguments)
            return None
        return self._event(data)

    def _event(self, data: bytes) -> Edit | None:
        if data.startswith(DONE):
            return self._done()
        chunk = _chunks.decode(data)
        has_usage = self._read(chunk)
        if chunk.choices:
            self._last = data
            delta = chunk.choices[0].delta
            if delta is not None:
                self._deliver(delta)
        elif has_usage and self._drops_usage and chunk.error is None:
            return DROP
        return None

    def body(self, data: bytes) -> None:
        """Reads a completion that was not streamed."""
        tally = self.tally
        try:
            answer = _text_answers(data)
        except NOT_DECODED:
            self._read_whole(_chunks.decode(data))
        else:
            if answer.model and tally.response_model is None:
                tally.response_model = answer.model
            if answer.usage is not ABSENT:
                self.usages.take(answer.usage)
            choice = answer.choices[0]
            if choice.finish_reason is not None:
                tally.finish_reason = choice.finish_reason
            tally.deliver(choice.message.content)
            tally.deliver(choice.message.reasoning_content or choice.message.reasoning)
        tally.is_ended = True

    def _read_whole(self, chunk: _Chunk) -> None:
        self._read(chunk)
        for choice in chunk.choices or ():
            if choice.message is not None:
                self._deliver(choice.message)

    def usage(self) -> UsageReading:
        """The usage, with cached tokens and cache writes taken out of the inclusive prompt."""
        seen = self.usages.counts()
        prompt = seen.prompt_tokens_details or _NO_PROMPT_DETAILS
        completion = seen.completion_tokens_details or _NO_COMPLETION_DETAILS
        cache_read = prompt.cached_tokens
        if cache_read is None:
            cache_read = _cached_elsewhere(seen)
        written = prompt.cache_write_tokens
        if written is None:
            written = prompt.cache_creation_input_tokens
        uncached, contradicts = remainder(seen.prompt_tokens, cache_read, written)
        usage = TokenUsage(
            input_uncached=uncached,
            cache_read=cache_read,
            cache_write_5m=written,
            output=_output(seen, completion.reasoning_tokens),
            reasoning=completion.reasoning_tokens,
            input_audio=prompt.audio_tokens,
            output_audio=completion.audio_tokens,
        )
        return UsageReading(usage, contradicts, seen.reported_cost_usd())

    def last_event(self) -> bytes:
        """Nothing: what is missing is put before `[DONE]`."""
        return b""

    @property
    def is_complete(self) -> bool:
        """`[DONE]`, an error of the upstream's own, or a finish reason the client knows.

        The last because some servers never send `[DONE]`.
        """
        tally = self.tally
        if tally.error_type is not None:
            return True
        if tally.finish_reason in _FAILED_FINISHES:
            return False
        return tally.is_ended or (tally.finish_reason is not None and self._mended() is None)

    def _read(self, chunk: _Chunk) -> bool:
        """Everything but the content; True when the chunk carries usage."""
        tally = self.tally
        if tally.response_model is None and isinstance(chunk.model, str) and chunk.model:
            tally.response_model = chunk.model
        if chunk.error is not None:
            details = chunk.error if isinstance(chunk.error, dict) else {}
            tally.error_type = short_error_type(details.get("type"), details.get("code"))
        has_usage = chunk.usage is not ABSENT and self.usages.take(chunk.usage)
        if chunk.service_tier is not None or chunk.cost is not None:
            self.usages.take_beside(chunk.service_tier, chunk.cost)
        if chunk.x_groq is not None and not has_usage:
            has_usage = self.usages.take(chunk.x_groq.usage)
        if chunk.choices:
            choice = chunk.choices[0]
            if choice.finish_reason is not None:
                tally.finish_reason = str(choice.finish_reason)
            if choice.usage is not ABSENT and not has_usage:
                has_usage = self.usages.take(choice.usage)
        return has_usage

    def _deliver(self, delta: _Delta) -> None:
        tally = self.tally
        content = delta.content
        if content:
            if isinstance(content, list):
                for part in content:
                    tally.deliver(_part_text(part))
            else:
                tally.deliver(content)
        reasoning = delta.reasoning_content or delta.reasoning
        if reasoning:
            tally.deliver(reasoning)
        if delta.refusal:
            tally.deliver(delta.refusal)
        if delta.images:
            tally.has_content = True
        if delta.tool_calls:
            self._deliver_calls(delta.tool_calls)

    def _deliver_calls(self, calls: Any) -> None:
        tally = self.tally
        tally.has_tool_call = tally.has_content = True
        for call in calls if isinstance(calls, list) else ():
            function = call.get("function") if isinstance(call, dict) else None
            if isinstance(function, dict):
                name = function.get("name")
                if name:
                    tally.call(name)
                    tally.deliver(name)
                tally.deliver(function.get("arguments"))

    def _mended(self) -> str | None:
        """The finish reason to supply, `None` when the one seen needs no mending."""
        tally = self.tally
        finish = tally.finish_reason
        if finish in _KNOWN_FINISHES or finish in _FAILED_FINISHES:
            return None
        if tally.has_tool_call:
            return None if finish in _TOOL_FINISHES else "tool_calls"
        return "stop" if finish is None else _SYNONYMS.get(finish, "stop")

    def _done(self) -> Edit | None:
        tally = self.tally
        if tally.is_ended:
            return None
        tally.is_ended = True
        mended = self._mended()
        if mended is None or tally.error_type is not None:
            return None
        tally.repair(tally.finish_reason, mended)
        last = _frames.decode(self._last)
        chunk = {
            "id": last.id,
            "object": "chat.completion.chunk",
            "created": last.created,
            "model": last.model,
            "choices": [{"index": 0, "delta": {}, "finish_reason": mended}],
        }
        known = {name: value for name, value in chunk.items() if value is not None}
        return Edit(before=b"data: " + msgspec.json.encode(known) + b"\n\n")


def _cached_elsewhere(seen: _Counts) -> int | None:
    """The cached tokens, from those who do not tell them where OpenAI does."""
    for told in (seen.prompt_cache_hit_tokens, seen.cached_tokens, seen.num_cached_tokens):
        if told is not None:
            return told
    singular = seen.prompt_token_details
    return None if singular is None else singular.cached_tokens


def _output(seen: _Counts, reasoning: int | None) -> int | None:
    prompt, output = seen.prompt_tokens, seen.completion_tokens
    if prompt is None or output is None or not reasoning:
        return output
    # xAI counts reasoning beside the completion; only the total gives it away.
    is_beside = seen.total_tokens == prompt + output + reasoning
    return output + reasoning if is_beside else output


def _part_text(part: object) -> object:
    """The text of a part of a content list, as Mistral's reasoning models send it."""
    if not isinstance(part, dict):
        return part
    text = part.get("text", part.get("thinking"))
    if isinstance(text, list):
        return "".join(str(_part_text(inner)) for inner in text)
    return text
