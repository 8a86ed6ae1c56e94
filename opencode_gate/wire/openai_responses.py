"""OpenAI Responses: https://platform.openai.com/docs/api-reference/responses-streaming.

`input_tokens` includes cached tokens and cache writes, `output_tokens` includes reasoning. Usage
stands in the terminal event: `response.completed`, `response.incomplete` or `response.failed`.
"""

from typing import Any

import msgspec

from opencode_gate.core.usage import TokenUsage
from opencode_gate.wire.counts import Counts, CountsReader, Tokens, Usages, remainder
from opencode_gate.wire.decoding import NOT_DECODED, Lenient
from opencode_gate.wire.formats import ABSENT, DONE, Edit, Tally, UsageReading, short_error_type

_TERMINAL = frozenset({"response.completed", "response.incomplete", "response.failed"})
_IMAGE_DELTA = "response.image_generation_call.partial_image"
_KNOWN_REASONS = frozenset({"max_output_tokens", "content_filter"})
_TOOL_ITEMS = frozenset(
    {"function_call", "custom_tool_call", "local_shell_call", "shell_call", "apply_patch_call"}
)


class _Incomplete(msgspec.Struct):
    reason: str | None = None


class _ContentPart(msgspec.Struct, gc=False):
    text: Any = None
    refusal: Any = None


class _Item(msgspec.Struct):
    type: str | None = None
    name: Any = None
    arguments: Any = None
    input: Any = None
    content: list[_ContentPart] | None = None
    summary: list[_ContentPart] | None = None


class _Response(msgspec.Struct):
    model: Any = None
    status: Any = None
    service_tier: Any = None
    usage: msgspec.Raw = ABSENT
    error: Any = None
    incomplete_details: _Incomplete | None = None


class _Event(msgspec.Struct):
    type: str = ""
    delta: Any = None
    response: _Response | None = None
    item: _Item | None = None
    error: Any = None
    code: Any = None
    cost: Any = None


class _Answer(_Response):
    cost: Any = None
    output: list[_Item] | None = None


class _MoreContent(msgspec.Struct, gc=False):
    """Nearly every event; only those that carry content have a text there."""

    delta: str


class _InputDetails(msgspec.Struct):
    cached_tokens: Tokens = None
    cache_write_tokens: Tokens = None


class _OutputDetails(msgspec.Struct):
    reasoning_tokens: Tokens = None


class _Counts(Counts):
    input_tokens: Tokens = None
    output_tokens: Tokens = None
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None


_events = Lenient(_Event)
_more_content = msgspec.json.Decoder(_MoreContent).decode
_counts_reader = CountsReader(_Counts)
_NO_INPUT_DETAILS = _InputDetails()
_NO_OUTPUT_DETAILS = _OutputDetails()
_answers = Lenient(_Answer)


class OpenAIResponses:
    """Reads one response."""

    __slots__ = ("tally", "usages")

    def __init__(self) -> None:
        self.tally = Tally()
        self.usages = Usages(_counts_reader)

    def event(self, data: bytes) -> Edit | None:
        """Reads one event; behind an end the client cannot read comes one it can."""
        try:
            delta = _more_content(data).delta
        except NOT_DECODED:
            return self._event(data)
        if delta:
            tally = self.tally
            tally.text.write(delta)
            tally.has_content = True
        return None

    def _event(self, data: bytes) -> Edit | None:
        if data.startswith(DONE):
            return None
        event = _events.decode(data)
        if event.delta.__class__ is str:
            self.tally.deliver(event.delta)
            return None
        if event.item is not None:
            if event.item.type in _TOOL_ITEMS:
                self.tally.call(_tool_name(event.item))
            elif event.item.type == "reasoning":
                self.tally.hides_reasoning = True
        if event.type == "error":
            self._fail(event.error, event.code)
        elif event.type == _IMAGE_DELTA:
            self.tally.has_content = True
        if event.response is None:
            self.usages.take_beside(None, event.cost)
            return None
        self._read(event.response)
        if event.type in _TERMINAL:
            return self._end(event, event.response)
        return None

    def body(self, data: bytes) -> None:
        """Reads a response that was not streamed."""
        answer = _answers.decode(data)
        self._read(answer)
        self.usages.take_beside(None, answer.cost)
        if answer.error is not None:
            self._fail(answer.error, None)
        if answer.status is not None:
            self.tally.finish_reason = self._finish(answer)
        for item in answer.output or ():
            self._deliver(item)
        self.tally.is_ended = True

    def usage(self) -> UsageReading:
        """The usage, with cached tokens and cache writes taken out of the inclusive input."""
        seen = self.usages.counts()
        inputs = seen.input_tokens_details or _NO_INPUT_DETAILS
        outputs = seen.output_tokens_details or _NO_OUTPUT_DETAILS
        uncached, contradicts = remainder(
            seen.input_tokens, inputs.cached_tokens, inputs.cache_write_tokens
        )
        usage = TokenUsage(
            input_uncached=uncached,
            cache_read=inputs.cached_tokens,
            cache_write_5m=inputs.cache_write_tokens,
            output=seen.output_tokens,
            reasoning=outputs.reasoning_tokens,
        )
        return UsageReading(usage, contradicts, seen.reported_cost_usd())

    def last_event(self) -> bytes:
        """Nothing: the format has terminal events."""
        return b""

    @property
    def is_complete(self) -> bool:
        """A terminal event, or an error event, which clients take for an end with an error."""
        return self.tally.is_ended or self.tally.error_type is not None

    def _read(self, response: _Response) -> None:
        if isinstance(response.model, str) and response.model:
            self.tally.response_model = response.model
        if response.usage is not ABSENT:
            self.usages.take(response.usage)
        if response.service_tier is not None:
            self.usages.take_beside(response.service_tier, None)

    def _deliver(self, item: _Item) -> None:
        tally = self.tally
        if item.type in _TOOL_ITEMS:
            tally.call(_tool_name(item))
            tally.deliver(item.name)
            tally.deliver(item.arguments)
            tally.deliver(item.input)
        elif item.type == "reasoning":
            tally.hides_reasoning = True
        for part in (*(item.content or ()), *(item.summary or ())):
            tally.deliver(part.text)
            tally.deliver(part.refusal)

    def _fail(self, error: Any, code: object) -> None:
        details = error if isinstance(error, dict) else {}
        self.tally.error_type = short_error_type(details.get("code"), details.get("type"), code)

    def _finish(self, response: _Response) -> str | None:
        details = response.incomplete_details
        if details is not None and details.reason is not None:
            return str(details.reason)
        return None if response.status is None else str(response.status)

    def _end(self, event: _Event, response: _Response) -> Edit | None:
        tally = self.tally
        had_ended, tally.is_ended = tally.is_ended, True
        tally.finish_reason = self._finish(response) or event.type.removeprefix("response.")
        if event.type == "response.failed":
            self._fail(response.error, None)
            return None
        return None if had_ended else self._mended_end(event.type, response)

    def _mended_end(self, event_type: str, response: _Response) -> Edit | None:
        """A terminal event Opencode can read behind one it cannot; `None` if it can.

        It needs both totals of the usage, and takes a reason it does not know for no end at all.
        """
        tally = self.tally
        seen = self.usages.counts()
        totals = {"input_tokens": seen.input_tokens, "output_tokens": seen.output_tokens}
        has_usage = None not in totals.values()
        details = response.incomplete_details
        is_known = details is None or details.reason in _KNOWN_REASONS or tally.has_tool_call
        if has_usage and is_known:
            return None
        if is_known:
            tally.repair(None, "0", what="usage")
        else:
            tally.repair(tally.finish_reason, "max_output_tokens")
        end = {
            "type": event_type,
            "response": {
                "object": "response",
                "model": tally.response_model,
                "status": event_type.removeprefix("response."),
                "incomplete_details": None if details is None else {"reason": "max_output_tokens"},
                "output": [],
                "usage": msgspec.Raw((self.usages.raw() or "null").encode())
                if has_usage
                else {name: 0 if count is None else count for name, count in totals.items()},
            },
        }
        lines = (b"event: ", event_type.encode(), b"\ndata: ", msgspec.json.encode(end), b"\n\n")
        return Edit(after=b"".join(lines))


def _tool_name(item: _Item) -> object:
    """What the tool is called; a built-in one by its kind."""
    return item.name if item.name is not None else (item.type or "").removesuffix("_call")
