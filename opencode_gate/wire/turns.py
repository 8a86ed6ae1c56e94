"""How far a prompt has come: the turns up to the last that is not the model's own.

An agent that works adds results and questions to its prompt; one that goes round in a circle
adds nothing but what the model has said. The invariant: a prompt that is no list of turns has no
place, and nothing here raises for one.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from opencode_gate.wire.decoding import Lenient

_ABSENT = msgspec.Raw(b"null")


class _Turn(msgspec.Struct, gc=False):
    """One message, input item or content, without what it says."""

    role: Any = None
    type: Any = None


class _Prompt(msgspec.Struct):
    """The member that holds the turns, in each of the four formats."""

    messages: msgspec.Raw = _ABSENT
    input: msgspec.Raw = _ABSENT
    contents: msgspec.Raw = _ABSENT


_prompts = Lenient(_Prompt)
_turns = Lenient(list[_Turn])


def turns_asked(body: bytes) -> int | None:
    """How many turns there are up to the last that is not the model's own; `None` without any."""
    try:
        prompt = _prompts.decode(body)
        members = (prompt.messages, prompt.input, prompt.contents)
        raw = next((member for member in members if member is not _ABSENT), None)
        turns: Sequence[_Turn] = _turns.decode(bytes(raw)) if raw is not None else ()
    except msgspec.DecodeError:
        return None
    for index in range(len(turns), 0, -1):
        if not _is_the_models_own(turns[index - 1]):
            return index
    return None


def _is_the_models_own(turn: _Turn) -> bool:
    if turn.role is None and isinstance(turn.type, str):
        # Items of the Responses format: calls and reasoning are the model's, outputs are not.
        return not turn.type.endswith("_output")
    return turn.role in ("assistant", "model")
