"""OpenAI chat completions: https://platform.openai.com/docs/api-reference/chat.

`prompt_tokens` includes cached tokens and cache writes, `completion_tokens` includes reasoning.
The stream ends with `[DONE]`; the last finish reason that is not null counts, and Opencode
re-sends the turn for ever when it does not know it.
"""

from typing import Any

import msgspec

from opencode_gate.core.usage import TokenUsage
from opencode_gate.wire.counts import first_count, member, remainder, token_count
from opencode_gate.wire.decoding import Lenient
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
    id: Any = None
    created: Any = None
    model: Any = None


_chunks = Lenient(_Chunk)


class OpenAIChat:
    """Reads one chat completion; `drops_usage` takes out the chunk the client did not ask for."""

    __slots__ = ("_drops_usage", "_last", "tally")

    def __init__(self, *, drops_usage: bool) -> None:
        self.tally = Tally()
        self._drops_usage = drops_usage
        self._last = _Chunk()

    def event(self, data: bytes) -> Edit | None:
        """Reads one chunk, or the `[DONE]` before which a missing finish reason is supplied."""
        if data.startswith(DONE):
            return self._done()
        chunk = _chunks.decode(data)
        has_usage = self._read(chunk)
        if chunk.choices:
            delta = chunk.choices[0].delta
            if delta is not None:
                self._deliver(delta)
        elif has_usage and self._drops_usage and chunk.error is None:
            return DROP
        return None

    def body(self, data: bytes) -> None:
        """Reads a completion that was not streamed."""
        chunk = _chunks.decode(data)
        self._read(chunk)
        for choice in chunk.choices or ():
            if choice.message is not None:
                self._deliver(choice.message)
        self.tally.is_ended = True

    def usage(self) -> UsageReading:
        """The usage, with cached tokens and cache writes taken out of the inclusive prompt."""
        seen = self.tally.usage
        prompt = member(seen, "prompt_tokens_details")
        completion = member(seen, "completion_tokens_details")
        cache_read = first_count(
            prompt.get("cached_tokens"),
            # DeepSeek (https://api-docs.deepseek.com/guides/kv_cache), then Moonshot.
            seen.get("prompt_cache_hit_tokens"),
            seen.get("cached_tokens"),
        )
        cache_write = token_count(prompt.get("cache_write_tokens"))
        uncached, contradicts = remainder(
            token_count(seen.get("prompt_tokens")), cache_read, cache_write
        )
        reasoning = token_count(completion.get("reasoning_tokens"))
        usage = TokenUsage(
            input_uncached=uncached,
            cache_read=cache_read,
            cache_write_5m=cache_write,
            output=self._output(reasoning),
            reasoning=reasoning,
            input_audio=token_count(prompt.get("audio_tokens")),
            output_audio=token_count(completion.get("audio_tokens")),
        )
        return UsageReading(usage, contradicts)

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
        has_usage = chunk.usage is not ABSENT and tally.take_usage(chunk.usage)
        if chunk.x_groq is not None and not has_usage:
            has_usage = tally.take_usage(chunk.x_groq.usage)
        if chunk.choices:
            self._last = chunk
            choice = chunk.choices[0]
            if choice.finish_reason is not None:
                tally.finish_reason = str(choice.finish_reason)
            if choice.usage is not ABSENT and not has_usage:
                has_usage = tally.take_usage(choice.usage)
        return has_usage

    def _output(self, reasoning: int | None) -> int | None:
        seen = self.tally.usage
        prompt = token_count(seen.get("prompt_tokens"))
        output = token_count(seen.get("completion_tokens"))
        if prompt is None or output is None or not reasoning:
            return output
        # xAI counts reasoning beside the completion; only the total gives it away.
        is_beside = token_count(seen.get("total_tokens")) == prompt + output + reasoning
        return output + reasoning if is_beside else output

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
        last = self._last
        chunk = {
            "id": last.id,
            "object": "chat.completion.chunk",
            "created": last.created,
            "model": last.model,
            "choices": [{"index": 0, "delta": {}, "finish_reason": mended}],
        }
        known = {name: value for name, value in chunk.items() if value is not None}
        return Edit(before=b"data: " + msgspec.json.encode(known) + b"\n\n")


def _part_text(part: object) -> object:
    """The text of a part of a content list, as Mistral's reasoning models send it."""
    if not isinstance(part, dict):
        return part
    text = part.get("text", part.get("thinking"))
    if isinstance(text, list):
        return "".join(str(_part_text(inner)) for inner in text)
    return text
