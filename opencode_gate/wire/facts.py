"""What the gateway must know about a request, read from its body without rewriting it.

The idea: one pass of a schema that skips everything unnamed, so the contents of a long
conversation are never turned into Python objects. The invariant: only a body that no provider
could take (not JSON, not an object, a model that is no text) is refused; anything merely
unusual is left for the provider to judge.
"""

from collections.abc import Callable, Sequence
from math import ceil, isfinite
from typing import Any, TypeAlias

import msgspec

from opencode_gate.core.errors import GateError
from opencode_gate.core.semconv import Operation, WireFormat
from opencode_gate.wire.decoding import Lenient
from opencode_gate.wire.media import media_bytes
from opencode_gate.wire.plain_requests import (
    ABSENT,
    Members,
    PlainRequest,
    PlainTurn,
    StreamOptions,
    plain_request,
)
from opencode_gate.wire.routes import Route

INSTRUCTIONS_HEAD_CHARS = 200

_QUOTE = 0x22
_LONG_TEXT_BYTES = 4096
_CHAR_BYTES_MAX = len(r"\ud83d\ude00")

_Members: TypeAlias = dict[str, Any]
_NOTHING: _Members = {}


class BadBody(GateError):
    """The request body is not something a provider could understand."""

    http_status = 400
    error_type = "invalid_request_error"

    def __init__(self, message: str) -> None:
        super().__init__("bad-body", message)


class RequestFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a request asks for.

    Attributes:
        asks_for_usage: the answer will carry usage without our asking; False only for a
            streamed chat completion that does not set `stream_options.include_usage`.
        instructions_head: the first 200 characters of the system prompt.
        input_bytes: the size of the body without inline media, to estimate tokens from.
        body_bytes: the whole size of the body.
        max_output_tokens: how much may be answered, in each choice; where the body says it in two
            ways, the larger one. `None` leaves it to the provider.
        choices: how many answers are asked for.
        thinking_budget_tokens: how much of the output may be thought; a limit must be above it.
        service_tier: what the client would pay more or less for (`priority`, `flex`).
        speed: Anthropic's `fast`, which costs more.
        is_background: the provider works on when the client has left.
        fallback_models: what may be taken instead of the model: those a router is given
            (OpenRouter's `models`), or the deployment that the path names.
        has_stream_options: the body has that member, whatever is in it.
        plain: what was read of a body that has nothing unusual in it.
    """

    request_model: str | None = None
    stream: bool = False
    asks_for_usage: bool = True
    instructions_head: str = ""
    input_bytes: int = 0
    body_bytes: int = 0
    max_output_tokens: int | None = None
    choices: int = 1
    thinking_budget_tokens: int | None = None
    service_tier: str | None = None
    speed: str | None = None
    is_background: bool = False
    fallback_models: tuple[str, ...] = ()
    has_stream_options: bool = True
    plain: PlainRequest | None = None


class _Named(msgspec.Struct):
    model: Any = None


class _UsageOption(msgspec.Struct):
    include: Any = None


class _Body(Members):
    """Any body that is an object."""

    stream_options: msgspec.Raw = ABSENT
    max_tokens: msgspec.Raw = ABSENT
    max_completion_tokens: msgspec.Raw = ABSENT
    max_output_tokens: msgspec.Raw = ABSENT
    n: msgspec.Raw = ABSENT
    messages: msgspec.Raw = ABSENT
    input: msgspec.Raw = ABSENT


class _Turn(msgspec.Struct):
    """One message or input item; what it says stays undecoded."""

    role: Any = None
    content: msgspec.Raw = ABSENT


class _GenerationConfig(msgspec.Struct):
    """https://ai.google.dev/api/generate-content#generationconfig."""

    max_output: Any = msgspec.field(name="maxOutputTokens", default=None)
    max_output_2: Any = msgspec.field(name="max_output_tokens", default=None)
    candidates: Any = msgspec.field(name="candidateCount", default=None)
    candidates_2: Any = msgspec.field(name="candidate_count", default=None)


class _Thinking(msgspec.Struct):
    """Anthropic's `thinking`, or OpenRouter's `reasoning` in the chat format."""

    budget_tokens: Any = None
    max_tokens: Any = None


class _TextPart(msgspec.Struct):
    text: Any = None


class _Parts(msgspec.Struct):
    parts: list[_TextPart] = []


_Request: TypeAlias = PlainRequest | _Body

_bodies = Lenient(_Body)
_named_decoder = Lenient(_Named)
_turns_decoder = Lenient(list[_Turn])
_text_decoder: Lenient[str | list[_TextPart]] = Lenient(str | list[_TextPart])
_parts_decoder = Lenient(_Parts)
_stream_options_decoder = Lenient(StreamOptions)
_usage_option_decoder = Lenient(_UsageOption)
_generation_config_decoder = Lenient(_GenerationConfig)
_thinking_decoder = Lenient(_Thinking)
_value_decoder: Lenient[Any] = Lenient(Any)


def read_facts(route: Route, body: bytes) -> RequestFacts:
    """The facts of a request; a route that carries no prompt gives empty ones.

    Raises:
        BadBody: the body is not a JSON object, or `model` or `stream` has a wrong type.
    """
    if route.operation not in (Operation.GENERATE, Operation.COUNT_TOKENS):
        return RequestFacts(request_model=route.model, input_bytes=len(body))
    plain = plain_request(body)
    parsed: _Request = plain if plain is not None else _any_body(body)
    stream = route.stream if route.stream is not None else parsed.stream is True
    unusual = _NOTHING if _is_ordinary(parsed) else _unusual(parsed)
    model = parsed.model if route.model is None else route.model
    if route.deployment is not None:
        others = (*unusual.get("fallback_models", ()), route.deployment)
        unusual = {**unusual, "fallback_models": others}
        model = route.deployment if model is None else model
    max_output_tokens, choices = _LIMITS[route.wire_format](parsed)
    return RequestFacts(
        request_model=model,
        stream=stream,
        asks_for_usage=not stream
        or route.wire_format is not WireFormat.OPENAI_CHAT
        or _asks_for_usage(parsed),
        instructions_head=_INSTRUCTIONS[route.wire_format](parsed)[:INSTRUCTIONS_HEAD_CHARS],
        input_bytes=prompt_bytes(body),
        body_bytes=len(body),
        has_stream_options=_is_told(parsed.stream_options),
        plain=plain,
        max_output_tokens=max_output_tokens,
        choices=choices,
        **unusual,
    )


def _any_body(body: bytes) -> _Body:
    try:
        return _bodies.decode(body)
    except msgspec.DecodeError as error:
        raise BadBody(f"The request body is not understood: {error}.") from error


def named_model(body: bytes) -> str | None:
    """The `model` of a body of which nothing else is known; `None` where it names none."""
    try:
        model = _named_decoder.decode(body).model
    except msgspec.DecodeError:
        return None
    return model if isinstance(model, str) else None


def _decoded(decoder: Lenient[Any], raw: msgspec.Raw | None) -> Any:
    """The decoded part, or `None` when it is absent, null or of an unusual shape."""
    if raw is None or raw is ABSENT:
        return None
    try:
        return decoder.decode(raw)
    except msgspec.DecodeError:
        return None


def _is_told(member: object) -> bool:
    return member is not ABSENT and member is not msgspec.UNSET


def _asks_for_usage(body: _Request) -> bool:
    options = body.stream_options
    if isinstance(options, msgspec.Raw):
        options = _decoded(_stream_options_decoder, options)
    if isinstance(options, StreamOptions) and options.include_usage is True:
        return True
    # OpenRouter's own way: https://openrouter.ai/docs/use-cases/usage-accounting
    own = _decoded(_usage_option_decoder, body.usage)
    return own is not None and own.include is True


def _text(raw: msgspec.Raw) -> str:
    """A text, or those of a list of parts; of a long one at least the head."""
    content = _decoded(_text_decoder, _shortened(raw))
    if content is None:
        return ""
    return content if isinstance(content, str) else _joined(content)


def _shortened(raw: msgspec.Raw) -> msgspec.Raw:
    """The beginning of a long text, cut where no character and no escape can be in two."""
    seen = memoryview(raw)
    if len(seen) <= _LONG_TEXT_BYTES or seen[0] != _QUOTE:
        return raw
    beginning, space, _ = seen[:_LONG_TEXT_BYTES].tobytes().rpartition(b" ")
    is_enough = bool(space) and len(beginning) > INSTRUCTIONS_HEAD_CHARS * _CHAR_BYTES_MAX
    return msgspec.Raw(beginning + b'"') if is_enough else raw


def _joined(parts: Sequence[_TextPart]) -> str:
    return "\n".join(part.text for part in parts if isinstance(part.text, str))


def _leading_instructions(turns: msgspec.Raw | list[PlainTurn] | None) -> str:
    known = turns if isinstance(turns, list) else _decoded(_turns_decoder, turns)
    for turn in known or ():
        if turn.role in ("system", "developer"):
            return _text(turn.content)
    return ""


def _gemini_instructions(body: Members) -> str:
    system = _decoded(_parts_decoder, body.system_instruction)
    return _joined(system.parts) if system is not None else ""


def prompt_bytes(body: bytes | memoryview) -> int:
    """The size of a body, or of a part of one, without inline media."""
    return len(body) - media_bytes(body)


def _chat_instructions(body: _Request) -> str:
    return _leading_instructions(body.messages)


def _count(told: msgspec.Raw | int | None) -> int | None:
    """A number of tokens or answers; one with a fraction counts up, as no provider counts more."""
    if isinstance(told, msgspec.Raw):
        return _whole(_decoded(_value_decoder, told))
    return told


def _whole(value: object) -> int | None:
    if isinstance(value, float) and isfinite(value):
        return ceil(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _larger(first: int | None, second: int | None) -> int | None:
    if first is None or second is None:
        return second if first is None else first
    return max(first, second)


_Limits: TypeAlias = tuple[int | None, int]
"""How much may be answered, and how often."""


def _chat_limits(body: _Request) -> _Limits:
    # Either name is read by some and passed over by others, so the larger one may be what holds.
    limit = _larger(_count(body.max_tokens), _count(body.max_completion_tokens))
    return limit, _choices(_count(body.n))


def _responses_limits(body: _Request) -> _Limits:
    return _count(body.max_output_tokens), 1


def _anthropic_limits(body: _Request) -> _Limits:
    return _count(body.max_tokens), 1


def _gemini_limits(body: _Request) -> _Limits:
    limit, choices = None, None
    for raw in (body.generation_config, body.generation_config_2):
        config = _decoded(_generation_config_decoder, raw)
        if config is not None:
            for count in (config.max_output, config.max_output_2):
                limit = _larger(limit, _whole(count))
            for count in (config.candidates, config.candidates_2):
                choices = _larger(choices, _whole(count))
    return limit, _choices(choices)


def _choices(count: int | None) -> int:
    return 1 if count is None else max(1, count)


def _is_ordinary(body: Members) -> bool:
    """True without any of the members that few requests have; all but free."""
    return (
        body.thinking
        is body.reasoning
        is body.service_tier
        is body.service_tier_2
        is body.speed
        is body.background
        is body.models
        is ABSENT
    )


def _unusual(body: Members) -> _Members:
    budget = None
    for raw in (body.thinking, body.reasoning):
        thinking = _decoded(_thinking_decoder, raw)
        if thinking is not None:
            budget = _larger(budget, _whole(thinking.budget_tokens))
            budget = _larger(budget, _whole(thinking.max_tokens))
    return {
        "thinking_budget_tokens": budget,
        "service_tier": _name(body.service_tier) or _name(body.service_tier_2),
        "speed": _name(body.speed),
        "is_background": _decoded(_value_decoder, body.background) is True,
        "fallback_models": _names(body.models),
    }


def _name(raw: msgspec.Raw) -> str | None:
    value = _decoded(_value_decoder, raw)
    return value if isinstance(value, str) else None


def _names(raw: msgspec.Raw) -> tuple[str, ...]:
    values = _decoded(_value_decoder, raw)
    if not isinstance(values, list):
        return ()
    return tuple(value for value in values if isinstance(value, str))


_LIMITS: dict[WireFormat, Callable[[_Request], _Limits]] = {
    WireFormat.OPENAI_CHAT: _chat_limits,
    WireFormat.UNKNOWN: _chat_limits,
    WireFormat.OPENAI_RESPONSES: _responses_limits,
    WireFormat.ANTHROPIC_MESSAGES: _anthropic_limits,
    WireFormat.GEMINI_GENERATE: _gemini_limits,
}
_INSTRUCTIONS: dict[WireFormat, Callable[[_Request], str]] = {
    WireFormat.OPENAI_CHAT: _chat_instructions,
    WireFormat.UNKNOWN: _chat_instructions,
    WireFormat.OPENAI_RESPONSES: (
        lambda body: _text(body.instructions) or _leading_instructions(body.input)
    ),
    WireFormat.ANTHROPIC_MESSAGES: lambda body: _text(body.system),
    WireFormat.GEMINI_GENERATE: _gemini_instructions,
}
