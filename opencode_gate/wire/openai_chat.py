"""OpenAI chat completions: https://platform.openai.com/docs/api-reference/chat.

`prompt_tokens` includes cached tokens and cache writes, `completion_tokens` includes reasoning.
The stream ends with `[DONE]`; the last finish reason that is not null counts, and Opencode
re-sends the turn for ever when it does not know it.
"""

from decimal import Decimal
from typing import Any

import msgspec

from opencode_gate.core.usage import TokenUsage
from opencode_gate.wire.counts import amount_usd, first_known, merged, remainder, token_count
from opencode_gate.wire.decoding import Lenient
from opencode_gate.wire.formats import DROP, Edit, Tally, UsageReading, short_error_type

_NULL = msgspec.Raw(b"null")

_TOOL_FINISHES = frozenset({"tool_calls", "function_call"})
_KNOWN_FINISHES = frozenset({"stop", "length", "content_filter"})
_FAILED_FINISHES = frozenset({"error", "network_error", "insufficient_system_resource"})
"""The upstream says that it broke: not an end of a turn."""
_SYNONYMS = {
    "max_tokens": "length",
    "model_length": "length",
    "MAX_TOKENS": "length",
    "safety": "content_filter",
    "SAFETY": "content_filter",
}


class _PromptDetails(msgspec.Struct):
    cached_tokens: Any = None
    cache_write_tokens: Any = None
    audio_tokens: Any = None


class _CompletionDetails(msgspec.Struct):
    reasoning_tokens: Any = None
    audio_tokens: Any = None


class _CostDetails(msgspec.Struct):
    upstream_inference_cost: Any = None


class _Usage(msgspec.Struct):
    prompt_tokens: Any = None
    completion_tokens: Any = None
    total_tokens: Any = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None
    prompt_cache_hit_tokens: Any = None
    """DeepSeek's name: https://api-docs.deepseek.com/guides/kv_cache"""
    cached_tokens: Any = None
    """Moonshot's place: https://platform.moonshot.ai/docs/api/chat"""
    cost: Any = None
    """OpenRouter, in USD: https://openrouter.ai/docs/use-cases/usage-accounting"""
    cost_details: _CostDetails | None = None
    is_byok: Any = None


class _Delta(msgspec.Struct, gc=False):
    content: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    refusal: Any = None
    tool_calls: Any = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    message: _Delta | None = None
    finish_reason: Any = None
    usage: msgspec.Raw = _NULL


class _Groq(msgspec.Struct):
    usage: msgspec.Raw = _NULL


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: msgspec.Raw = _NULL
    x_groq: _Groq | None = None
    error: Any = None
    id: Any = None
    created: Any = None
    model: Any = None


_chunks = Lenient(_Chunk)
_usages = Lenient(_Usage, float_hook=Decimal)


class OpenAIChat:
    """Reads one chat completion; `drops_usage` takes out the chunk the client did not ask for."""

    __slots__ = ("_drops_usage", "_last", "_usage", "tally")

    def __init__(self, *, drops_usage: bool) -> None:
        self.tally = Tally()
        self._drops_usage = drops_usage
        self._usage: _Usage | None = None
        self._last: _Chunk | None = None

    def event(self, data: bytes) -> Edit | None:
        """Reads one chunk, or the `[DONE]` before which a missing finish reason is supplied."""
        if data.startswith(b"[DONE]"):
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
        seen = self._usage
        if seen is None:
            return UsageReading(TokenUsage(), False)
        prompt = seen.prompt_tokens_details or _PromptDetails()
        completion = seen.completion_tokens_details or _CompletionDetails()
        cache_read = first_known(
            prompt.cached_tokens, seen.prompt_cache_hit_tokens, seen.cached_tokens
        )
        cache_write = token_count(prompt.cache_write_tokens)
        prompt_tokens = token_count(seen.prompt_tokens)
        uncached, contradicts = remainder(prompt_tokens, cache_read, cache_write)
        reasoning = token_count(completion.reasoning_tokens)
        output = token_count(seen.completion_tokens)
        total = token_count(seen.total_tokens)
        if None not in (prompt_tokens, output, total) and reasoning:
            # xAI counts reasoning beside the completion; only the total gives it away.
            assert prompt_tokens is not None and output is not None
            if total == prompt_tokens + output + reasoning:
                output += reasoning
        usage = TokenUsage(
            input_uncached=uncached,
            cache_read=cache_read,
            cache_write_5m=cache_write,
            output=output,
            reasoning=reasoning,
            input_audio=token_count(prompt.audio_tokens),
            output_audio=token_count(completion.audio_tokens),
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
        if tally.finish_reason in _FAILED_FINISHES:
            return tally.error_type is not None
        return (
            tally.is_ended
            or tally.error_type is not None
            or (tally.finish_reason is not None and self._mended_finish() is None)
        )

    def _read(self, chunk: _Chunk) -> bool:
        """Everything but the content; True when the chunk carries usage."""
        tally = self.tally
        if tally.response_model is None and isinstance(chunk.model, str) and chunk.model:
            tally.response_model = chunk.model
        if chunk.error is not None:
            self._fail(chunk.error)
        has_usage = self._take_usage(chunk.usage)
        if not has_usage and chunk.x_groq is not None:
            has_usage = self._take_usage(chunk.x_groq.usage)
        if chunk.choices:
            self._last = chunk
            choice = chunk.choices[0]
            if choice.finish_reason is not None:
                tally.finish_reason = str(choice.finish_reason)
            if not has_usage:
                has_usage = self._take_usage(choice.usage)
        return has_usage

    def _take_usage(self, raw: msgspec.Raw) -> bool:
        if raw is _NULL:
            return False
        text = bytes(raw)
        if text == b"null":
            return False
        self._usage = usage = merged(self._usage, _usages.decode(text))
        self.tally.keep_raw_usage(text)
        cost = amount_usd(usage.cost)
        if cost is not None and usage.is_byok is True and usage.cost_details is not None:
            # With a key of one's own `cost` is only the fee on top.
            cost += amount_usd(usage.cost_details.upstream_inference_cost) or 0
        if cost is not None:
            self.tally.reported_cost_usd = cost
        return True

    def _deliver(self, delta: _Delta) -> None:
        tally = self.tally
        if delta.content.__class__ is str:
            tally.deliver(delta.content)
        elif delta.content:
            for part in delta.content:
                tally.deliver(_part_text(part))
        tally.deliver(delta.reasoning_content)
        if delta.reasoning is not delta.reasoning_content:
            tally.deliver(delta.reasoning)
        tally.deliver(delta.refusal)
        if delta.tool_calls:
            tally.has_tool_call = tally.has_content = True
            for call in delta.tool_calls:
                function = call.get("function") if isinstance(call, dict) else None
                if isinstance(function, dict):
                    tally.deliver(function.get("name"))
                    tally.deliver(function.get("arguments"))

    def _fail(self, error: Any) -> None:
        details = error if isinstance(error, dict) else {}
        self.tally.error_type = short_error_type(details.get("type"), details.get("code"))

    def _mended_finish(self) -> str | None:
        """The finish reason to supply, `None` when the one seen needs no mending."""
        tally = self.tally
        finish = tally.finish_reason
        if finish in _KNOWN_FINISHES or finish in _FAILED_FINISHES:
            return None
        if tally.has_tool_call:
            return None if finish in _TOOL_FINISHES else "tool_calls"
        return _SYNONYMS.get(finish, "stop") if finish is not None else "stop"

    def _done(self) -> Edit | None:
        tally = self.tally
        if tally.is_ended:
            return None
        tally.is_ended = True
        mended = self._mended_finish()
        if mended is None or tally.error_type is not None:
            return None
        tally.repair(tally.finish_reason, mended)
        last = self._last or _Chunk()
        chunk: dict[str, object] = {"object": "chat.completion.chunk"}
        for name in ("id", "created", "model"):
            if getattr(last, name) is not None:
                chunk[name] = getattr(last, name)
        chunk["choices"] = [{"index": 0, "delta": {}, "finish_reason": mended}]
        return Edit(before=b"data: " + msgspec.json.encode(chunk) + b"\n\n")


def _part_text(part: object) -> object:
    """Mistral's reasoning models send a list of parts as content."""
    if not isinstance(part, dict):
        return part
    text = part.get("text", part.get("thinking"))
    if isinstance(text, list):
        return "".join(str(_part_text(inner)) for inner in text)
    return text
