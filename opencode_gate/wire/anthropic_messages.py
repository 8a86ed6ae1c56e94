"""Anthropic Messages: https://platform.claude.com/docs/en/build-with-claude/streaming.

`input_tokens` excludes both cache buckets; cache writes have a 5-minute and a 1-hour tier. The
counts of `message_delta` are cumulative and replace those of `message_start`. The stream ends
with `message_stop`.
"""

from typing import Any, Literal

import msgspec

from opencode_gate.core.usage import TokenUsage, sum_known
from opencode_gate.wire.counts import Counts, CountsReader, Tokens, Usages, remainder
from opencode_gate.wire.decoding import NOT_DECODED, Lenient
from opencode_gate.wire.formats import ABSENT, Edit, Tally, UsageReading, short_error_type

_THINKING = frozenset({"thinking", "redacted_thinking"})
"""Models since Claude 4 show a summary of it: docs, build-with-claude/extended-thinking."""
_KNOWN_STOPS = frozenset(
    {
        "end_turn",
        "stop_sequence",
        "max_tokens",
        "refusal",
        "model_context_window_exceeded",
        # These two ask the client to send again: its own answer to them is the right one.
        "pause_turn",
        "compaction",
    }
)


class _Block(msgspec.Struct, gc=False):
    """A content block; in an answer that was not streamed it carries everything at once."""

    type: Any = None
    text: Any = None
    thinking: Any = None
    name: Any = None
    input: msgspec.Raw = ABSENT


class _Delta(msgspec.Struct, gc=False):
    text: Any = None
    thinking: Any = None
    partial_json: Any = None
    stop_reason: Any = None


class _Message(msgspec.Struct):
    model: Any = None
    usage: msgspec.Raw = ABSENT


class _Event(msgspec.Struct):
    type: str = ""
    delta: _Delta | None = None
    message: _Message | None = None
    content_block: _Block | None = None
    usage: msgspec.Raw = ABSENT
    error: Any = None
    cost: Any = None


class _Answer(msgspec.Struct):
    model: Any = None
    content: list[_Block] | None = None
    stop_reason: Any = None
    usage: msgspec.Raw = ABSENT
    error: Any = None
    cost: Any = None


class _MoreOfABlock(msgspec.Struct, gc=False):
    text: str | None = None
    thinking: str | None = None
    partial_json: str | None = None


class _MoreContent(msgspec.Struct, gc=False):
    """Nearly every event."""

    type: Literal["content_block_delta"]
    delta: _MoreOfABlock


class _Tiers(msgspec.Struct):
    ephemeral_5m_input_tokens: Tokens = None
    ephemeral_1h_input_tokens: Tokens = None


class _OutputDetails(msgspec.Struct):
    thinking_tokens: Tokens = None


class _Iteration(msgspec.Struct):
    """One of the rounds an answer took: docs, build-with-claude/compaction."""

    type: Any = None
    input_tokens: Tokens = None
    output_tokens: Tokens = None
    cache_read_input_tokens: Tokens = None
    cache_creation_input_tokens: Tokens = None


class _Counts(Counts):
    input_tokens: Tokens = None
    output_tokens: Tokens = None
    cache_read_input_tokens: Tokens = None
    cache_creation_input_tokens: Tokens = None
    cache_creation: _Tiers | None = None
    output_tokens_details: _OutputDetails | None = None
    iterations: list[_Iteration] | None = None


_events = Lenient(_Event)
_more_content = msgspec.json.Decoder(_MoreContent).decode
_counts_reader = CountsReader(_Counts)
_NO_TIERS = _Tiers()
_NO_OUTPUT_DETAILS = _OutputDetails()
_answers = Lenient(_Answer)


class AnthropicMessages:
    """Reads one message."""

    __slots__ = ("tally", "usages")

    def __init__(self) -> None:
        self.tally = Tally()
        self.usages = Usages(_counts_reader)

    def event(self, data: bytes) -> Edit | None:
        """Reads one event; a missing stop reason is supplied before `message_stop`."""
        try:
            delta = _more_content(data).delta
        except NOT_DECODED:
            return self._event(data)
        text = delta.text or delta.thinking or delta.partial_json
        if text:
            tally = self.tally
            tally.text.write(text)
            tally.has_content = True
        return None

    def _event(self, data: bytes) -> Edit | None:
        event = _events.decode(data)
        if event.type == "content_block_delta":
            delta = event.delta
            if delta is not None:
                self.tally.deliver(delta.text or delta.thinking or delta.partial_json)
            return None
        if event.type == "message_stop":
            return self._stop()
        self._read_frame(event)
        return None

    def body(self, data: bytes) -> None:
        """Reads a message that was not streamed."""
        answer = _answers.decode(data)
        if answer.error is not None:
            self._fail(answer.error)
        self._name(answer.model)
        self.usages.take(answer.usage)
        self.usages.take_beside(None, answer.cost)
        for block in answer.content or ():
            self._open_block(block)
        if answer.stop_reason is not None:
            self.tally.finish_reason = str(answer.stop_reason)
        self.tally.is_ended = True

    def usage(self) -> UsageReading:
        """The usage; writes of an unnamed tier are the 5-minute ones, which are the default."""
        seen = self.usages.counts()
        if seen.iterations is not None:
            seen = _with_compactions(seen, seen.iterations)
        tiers = seen.cache_creation or _NO_TIERS
        written = seen.cache_creation_input_tokens
        written_5m = tiers.ephemeral_5m_input_tokens
        written_1h = tiers.ephemeral_1h_input_tokens
        contradicts = False
        if written is not None:
            written_5m, contradicts = remainder(written, written_1h)
        outputs = seen.output_tokens_details or _NO_OUTPUT_DETAILS
        usage = TokenUsage(
            input_uncached=seen.input_tokens,
            cache_read=seen.cache_read_input_tokens,
            cache_write_5m=written_5m,
            cache_write_1h=written_1h,
            output=seen.output_tokens,
            reasoning=outputs.thinking_tokens,
        )
        return UsageReading(usage, contradicts, seen.reported_cost_usd())

    def last_event(self) -> bytes:
        """Nothing: what is missing is put before `message_stop`."""
        return b""

    @property
    def is_complete(self) -> bool:
        """`message_stop`, or an error event, which clients take for an end with an error."""
        return self.tally.is_ended or self.tally.error_type is not None

    def _read_frame(self, event: _Event) -> None:
        """The events around the content: the first, the last but one, blocks, errors."""
        if event.type == "error" or event.error is not None:
            self._fail(event.error)
        if event.message is not None:
            self._name(event.message.model)
            self.usages.take(event.message.usage)
        if event.content_block is not None:
            self._open_block(event.content_block)
        if event.delta is not None and event.delta.stop_reason is not None:
            self.tally.finish_reason = str(event.delta.stop_reason)
        self.usages.take(event.usage)
        if event.cost is not None:
            self.usages.take_beside(None, event.cost)

    def _name(self, model: object) -> None:
        if isinstance(model, str) and model:
            self.tally.response_model = model

    def _open_block(self, block: _Block) -> None:
        tally = self.tally
        tally.deliver(block.text)
        tally.deliver(block.thinking)
        if block.type in _THINKING:
            tally.hides_reasoning = True
        if block.type == "tool_use":
            tally.call(block.name)
            tally.deliver(block.name)
            arguments = bytes(block.input)
            if len(arguments) > len(b"null"):
                tally.deliver(arguments.decode("utf-8", "replace"))

    def _fail(self, error: Any) -> None:
        details = error if isinstance(error, dict) else {}
        self.tally.error_type = short_error_type(details.get("type"))

    def _stop(self) -> Edit | None:
        tally = self.tally
        if tally.is_ended:
            return None
        tally.is_ended = True
        stop = tally.finish_reason
        if tally.error_type is not None or stop in _KNOWN_STOPS:
            return None
        if stop == "tool_use" and tally.has_tool_call:
            return None
        mended = "tool_use" if tally.has_tool_call else "end_turn"
        tally.repair(stop, mended)
        # Clients require a count here, and it replaces the earlier one: repeat what was said.
        output = self.usages.counts().output_tokens
        event = {
            "type": "message_delta",
            "delta": {"stop_reason": mended, "stop_sequence": None},
            "usage": {"output_tokens": 0 if output is None else output},
        }
        encoded = msgspec.json.encode(event)
        return Edit(before=b"event: message_delta\ndata: " + encoded + b"\n\n")


def _with_compactions(seen: _Counts, iterations: list[_Iteration]) -> _Counts:
    """The counts with the rounds that compacted the conversation: billed beside the totals."""
    compactions = [one for one in iterations if one.type == "compaction"]
    if not compactions:
        return seen
    names = _Iteration.__struct_fields__[1:]
    billed = {
        name: sum_known(getattr(seen, name), *(getattr(one, name) for one in compactions))
        for name in names
    }
    return msgspec.structs.replace(seen, **billed)
