"""How often a conversation ends in the same tool call, over and over.

An agent that works calls a tool with other arguments, or another tool; one that goes round in a
circle makes the same calls, be it one, or two or three in turn. The idea: the steps of a
conversation are read from its end, and no further than they repeat. The invariant: a prompt of
another shape repeats nothing, and nothing here raises for one.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from opencode_gate.wire.decoding import Lenient

PERIODS = (1, 2, 3)
"""How many different steps a circle may have."""
_STEPS_MAX = 128
"""So often nothing is repeated that has not been stopped long ago."""
_ABSENT = msgspec.Raw(b"null")


class RepeatedCall(NamedTuple):
    """What repeats at the end of a conversation.

    Attributes:
        name: the tool, or the tools that are called together or in turn.
        times: how often with the same arguments.
        times_alike: how often with the same results too.
    """

    name: str
    times: int
    times_alike: int


class _Step(NamedTuple):
    calls: tuple[tuple[str, bytes], ...]
    results: tuple[bytes, ...]


class _Prompt(msgspec.Struct):
    """The member that holds the turns, in each of the four formats."""

    messages: list[msgspec.Raw] | None = None
    input: msgspec.Raw = _ABSENT
    contents: list[msgspec.Raw] | None = None


class _Function(msgspec.Struct):
    name: Any = None
    arguments: msgspec.Raw = _ABSENT


class _ChatCall(msgspec.Struct):
    """https://platform.openai.com/docs/api-reference/chat/create."""

    function: _Function | None = None
    custom: _Function | None = None


class _GeminiCall(msgspec.Struct):
    name: Any = None
    args: msgspec.Raw = _ABSENT


class _GeminiResponse(msgspec.Struct):
    response: msgspec.Raw = _ABSENT


class _Piece(msgspec.Struct):
    """A block of Anthropic's, or a part of Gemini's."""

    type: Any = None
    name: Any = None
    input: msgspec.Raw = _ABSENT
    content: msgspec.Raw = _ABSENT
    call: _GeminiCall | None = msgspec.field(name="functionCall", default=None)
    response: _GeminiResponse | None = msgspec.field(name="functionResponse", default=None)


class _Turn(msgspec.Struct):
    """A message, an input item of Responses, or a content of Gemini's."""

    role: Any = None
    type: Any = None
    tool_calls: list[_ChatCall] | None = None
    content: msgspec.Raw = _ABSENT
    parts: list[_Piece] | None = None
    name: Any = None
    arguments: msgspec.Raw = _ABSENT
    input: msgspec.Raw = _ABSENT
    output: msgspec.Raw = _ABSENT


class _TextPart(msgspec.Struct):
    text: msgspec.Raw = _ABSENT


_prompts = Lenient(_Prompt)
_lists = Lenient(list[msgspec.Raw])
_turns = Lenient(_Turn)
_pieces = Lenient(list[_Piece])
_text_parts = Lenient(list[_TextPart])

_NO_CALL = RepeatedCall("", 0, 0)


def repeated_tool_call(body: bytes) -> RepeatedCall:
    """The call that a conversation ends in; `times` is 0 where it ends in no tool's result."""
    try:
        prompt = _prompts.decode(body)
        turns = prompt.messages or prompt.contents
        if turns is None and prompt.input is not _ABSENT:
            turns = _lists.decode(prompt.input)
        steps = _repeating(_steps(turns or ()))
    except msgspec.DecodeError:
        return _NO_CALL
    calls = [step.calls for step in steps]
    period = max(PERIODS, key=lambda period: (_times(calls, period), -period))
    names = {name: None for step in reversed(steps[:period]) for name, _ in step.calls}
    alike = max(_times(steps, period) for period in PERIODS)
    return RepeatedCall(", ".join(names), _times(calls, period), alike)


def _repeating(steps: Iterator[_Step]) -> list[_Step]:
    """The last steps, last first, as far back as they can be part of a circle."""
    found: list[_Step] = []
    periods: Sequence[int] = PERIODS
    for step in steps:
        found.append(step)
        place = len(found) - 1
        periods = [
            period
            for period in periods
            if place < period or found[place - period].calls == step.calls
        ]
        if not periods or place == _STEPS_MAX:
            break
    return found


def _times(keys: Sequence[object], period: int) -> int:
    """How often the last `period` keys have come, the first being the latest."""
    matching = 0
    while matching + period < len(keys) and keys[matching] == keys[matching + period]:
        matching += 1
    return matching // period + 1 if len(keys) >= period else 0


def _steps(turns: Sequence[msgspec.Raw]) -> Iterator[_Step]:
    """Calls with their results, from the end of a conversation to what the user said last."""
    calls: list[tuple[str, bytes]] = []
    results: list[bytes] = []
    for raw in reversed(turns):
        turn = _turns.decode(raw)
        pieces = _pieces_of(turn)
        got = _results_of(turn, pieces)
        if got:
            if calls:
                yield _Step(tuple(calls), tuple(results))
                calls, results = [], []
            results = got + results
            continue
        made = _calls_of(turn, pieces)
        if made and not results:
            return
        if not made and not _is_the_models_own(turn):
            break
        calls = made + calls
    if calls:
        yield _Step(tuple(calls), tuple(results))


def _pieces_of(turn: _Turn) -> Sequence[_Piece]:
    if turn.parts is not None:
        return turn.parts
    if turn.role == "tool" or not bytes(turn.content).startswith(b"["):
        return ()
    return _pieces.decode(turn.content)


def _results_of(turn: _Turn, pieces: Sequence[_Piece]) -> list[bytes]:
    if turn.role == "tool":
        return [_said(turn.content)]
    if isinstance(turn.type, str) and turn.type.endswith("_output"):
        return [_said(turn.output)]
    found = []
    for piece in pieces:
        if piece.type == "tool_result":
            found.append(_said(piece.content))
        elif piece.response is not None:
            found.append(bytes(piece.response.response))
    return found


def _calls_of(turn: _Turn, pieces: Sequence[_Piece]) -> list[tuple[str, bytes]]:
    if isinstance(turn.type, str) and turn.type.endswith("_call"):
        given = turn.input if turn.arguments is _ABSENT else turn.arguments
        name = turn.name if isinstance(turn.name, str) else turn.type
        return [(name, bytes(given))]
    found = []
    for call in turn.tool_calls or ():
        function = call.function or call.custom
        if function is not None:
            found.append((str(function.name), bytes(function.arguments)))
    for piece in pieces:
        if piece.type == "tool_use":
            found.append((str(piece.name), bytes(piece.input)))
        elif piece.call is not None:
            found.append((str(piece.call.name), bytes(piece.call.args)))
    return found


def _is_the_models_own(turn: _Turn) -> bool:
    return turn.role in ("assistant", "model") or turn.type == "reasoning"


def _said(raw: msgspec.Raw) -> bytes:
    """What a result says, without the cache marks that move on with every turn."""
    text = bytes(raw)
    if not text.startswith(b"[") or b"cache_control" not in text:
        return text
    return b",".join(bytes(part.text) for part in _text_parts.decode(raw))
