"""What the gateway must know about a request, read from its body without rewriting it.

The idea: one pass of a schema that skips everything unnamed, so the contents of a long
conversation are never turned into Python objects. The invariant: only a body that no provider
could take (not JSON, not an object, a model that is no text) is refused; anything merely
unusual is left for the provider to judge.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from opencode_gate.core.errors import GateError
from opencode_gate.core.semconv import Operation, WireFormat
from opencode_gate.wire.decoding import Lenient
from opencode_gate.wire.routes import Route

INSTRUCTIONS_HEAD_CHARS = 200

_RAW_NULL = msgspec.Raw(b"null")
_MEDIA_BYTES_MIN = 16 * 1024
"""In less than that, media cannot put an estimate out by much."""
_MEDIA_RUN = re.compile(rb"[A-Za-z0-9+/=_-]{2048,}")


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
    """

    request_model: str | None = None
    stream: bool = False
    asks_for_usage: bool = True
    instructions_head: str = ""
    input_bytes: int = 0


class _StreamOptions(msgspec.Struct):
    include_usage: Any = None


class _UsageOption(msgspec.Struct):
    include: Any = None


class _Body(msgspec.Struct):
    """The members of all four formats side by side: their names do not collide."""

    model: str | None = None
    stream: bool | None = None
    stream_options: msgspec.Raw = _RAW_NULL
    usage: msgspec.Raw = _RAW_NULL
    messages: msgspec.Raw = _RAW_NULL
    input: msgspec.Raw = _RAW_NULL
    instructions: msgspec.Raw = _RAW_NULL
    system: msgspec.Raw = _RAW_NULL
    system_instruction: msgspec.Raw = msgspec.field(name="systemInstruction", default=_RAW_NULL)


class _Turn(msgspec.Struct):
    """One message or input item; what it says stays undecoded."""

    role: Any = None
    content: msgspec.Raw = _RAW_NULL


class _TextPart(msgspec.Struct):
    text: Any = None


class _Parts(msgspec.Struct):
    parts: list[_TextPart] = []


_bodies = Lenient(_Body)
_turns_decoder = Lenient(list[_Turn])
_text_decoder: Lenient[str | list[_TextPart]] = Lenient(str | list[_TextPart])
_parts_decoder = Lenient(_Parts)
_stream_options_decoder = Lenient(_StreamOptions)
_usage_option_decoder = Lenient(_UsageOption)


def read_facts(route: Route, body: bytes) -> RequestFacts:
    """The facts of a request; a route that carries no prompt gives empty ones.

    Raises:
        BadBody: the body is not a JSON object, or `model` or `stream` has a wrong type.
    """
    if route.operation not in (Operation.GENERATE, Operation.COUNT_TOKENS):
        return RequestFacts(request_model=route.model, input_bytes=len(body))
    try:
        parsed = _bodies.decode(body)
    except msgspec.DecodeError as error:
        raise BadBody(f"The request body is not understood: {error}.") from error
    stream = route.stream if route.stream is not None else parsed.stream is True
    return RequestFacts(
        request_model=route.model if route.model is not None else parsed.model,
        stream=stream,
        asks_for_usage=_asks_for_usage(route.wire_format, stream, parsed),
        instructions_head=_INSTRUCTIONS[route.wire_format](parsed)[:INSTRUCTIONS_HEAD_CHARS],
        input_bytes=prompt_bytes(body),
    )


def _decoded(decoder: Lenient[Any], raw: msgspec.Raw) -> Any:
    """The decoded part, or `None` when it is absent, null or of an unusual shape."""
    if raw is _RAW_NULL:
        return None
    try:
        return decoder.decode(raw)
    except msgspec.DecodeError:
        return None


def _asks_for_usage(wire_format: WireFormat, stream: bool, body: _Body) -> bool:
    if wire_format is not WireFormat.OPENAI_CHAT or not stream:
        return True
    options = _decoded(_stream_options_decoder, body.stream_options)
    if options is not None and options.include_usage is True:
        return True
    # OpenRouter's own way: https://openrouter.ai/docs/use-cases/usage-accounting
    own = _decoded(_usage_option_decoder, body.usage)
    return own is not None and own.include is True


def _text(raw: msgspec.Raw) -> str:
    content = _decoded(_text_decoder, raw)
    if content is None:
        return ""
    return content if isinstance(content, str) else _joined(content)


def _joined(parts: Sequence[_TextPart]) -> str:
    return "\n".join(part.text for part in parts if isinstance(part.text, str))


def _leading_instructions(turns: msgspec.Raw) -> str:
    for turn in _decoded(_turns_decoder, turns) or ():
        if turn.role in ("system", "developer"):
            return _text(turn.content)
    return ""


def _gemini_instructions(body: _Body) -> str:
    system = _decoded(_parts_decoder, body.system_instruction)
    return _joined(system.parts) if system is not None else ""


def prompt_bytes(body: bytes) -> int:
    """The size of a body, or of a part of one, without inline media."""
    if len(body) < _MEDIA_BYTES_MIN or (b"base64" not in body and b"inlineData" not in body):
        return len(body)
    return len(body) - sum(match.end() - match.start() for match in _MEDIA_RUN.finditer(body))


def _chat_instructions(body: _Body) -> str:
    return _leading_instructions(body.messages)


_INSTRUCTIONS: dict[WireFormat, Callable[[_Body], str]] = {
    WireFormat.OPENAI_CHAT: _chat_instructions,
    WireFormat.UNKNOWN: _chat_instructions,
    WireFormat.OPENAI_RESPONSES: (
        lambda body: _text(body.instructions) or _leading_instructions(body.input)
    ),
    WireFormat.ANTHROPIC_MESSAGES: lambda body: _text(body.system),
    WireFormat.GEMINI_GENERATE: _gemini_instructions,
}
