"""What a request is made of, as keyed hashes and lengths that tell nothing of its text.

The idea: a provider's prompt cache keeps the beginning of a request for as long as it comes
again unchanged, so the hashes of two requests, part by part in the order in which providers
read them, show where the second one left the first. The invariants: a part is 12 bytes
whatever it says, nobody without the installation's key can try a guess at its text, and where a
client puts its cache marks (they move on with every turn) changes no hash.
"""

import hashlib
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import msgspec

from opencode_gate.core.semconv import Operation, WireFormat
from opencode_gate.wire.decoding import Lenient
from opencode_gate.wire.facts import prompt_bytes
from opencode_gate.wire.routes import Route

HASH_BYTES = 8
PART_BYTES = HASH_BYTES + 4
TOOLS, SYSTEM, MESSAGES = 0, 1, 2
"""Where in the parts the tools, the system prompt and the first message stand."""

_LENGTH_MAX = 0xFFFF_FFFF
_RAW_NULL = msgspec.Raw(b"null")
_INSTRUCTION_ROLES = ("system", "developer")
_MARK = rb'"(?:copilot_)?cache_control"\s*:\s*(?:\{[^{}]*\}|null)'
# A quotation mark inside a JSON string is escaped, so this is never text that somebody wrote.
_CACHE_MARKS = re.compile(rb",\s*" + _MARK + rb"|" + _MARK + rb"\s*,?")
_MARK_END = b'cache_control"'
_HEAD_BYTES = 64
_LIST, _OBJECT, _QUOTE = b'[{"'

_Text: TypeAlias = bytes | memoryview
_Views: TypeAlias = list[memoryview]
"""Pieces of a body's JSON; views, as the body may be long."""
_List: TypeAlias = list[msgspec.Raw] | dict[str, msgspec.Raw] | str | float | bool | None
"""What should be a list, and is taken apart where it is one."""


class Part(NamedTuple):
    """One part: its keyed hash, and its length in bytes without inline media."""

    hash: bytes
    length: int


class _Body(msgspec.Struct):
    """The members that carry a prompt, of all four formats: their names do not collide."""

    tools: msgspec.Raw = _RAW_NULL
    messages: _List = None
    input: msgspec.Raw = _RAW_NULL
    contents: _List = None
    instructions: msgspec.Raw = _RAW_NULL
    system: msgspec.Raw = _RAW_NULL
    system_instruction: msgspec.Raw = msgspec.field(name="systemInstruction", default=_RAW_NULL)


class _Turn(msgspec.Struct):
    role: Any = None
    content: msgspec.Raw = _RAW_NULL


class _TextPart(msgspec.Struct):
    type: Any = None
    text: msgspec.Raw = _RAW_NULL


class _Named(msgspec.Struct):
    name: Any = None


class _Tool(msgspec.Struct):
    name: Any = None
    type: Any = None
    function: _Named | None = None
    declarations: list[msgspec.Raw] | None = msgspec.field(
        name="functionDeclarations", default=None
    )


_bodies = Lenient(_Body)
_lists: Lenient[_List] = Lenient(_List)
_turns = Lenient(_Turn)
_text_parts = Lenient(list[_TextPart])
_tools = Lenient(_Tool)
_named = Lenient(_Named)


def prompt_parts(route: Route, body: bytes, key: bytes) -> bytes | None:
    """The parts of a request, `PART_BYTES` each: tools, system prompt, message 0 to n.

    Args:
        key: of this installation, at most 64 bytes; without it a hash says nothing.

    Returns:
        `None` where the request carries no prompt, or none that can be read.
    """
    if not _has_prompt(route):
        return None
    try:
        parsed = _bodies.decode(body)
        system, turns = _system_and_turns(route.wire_format, parsed)
    except msgspec.DecodeError:
        return None
    unmarked: Callable[[_Text], _Text] = _unmarked if _has_mark(body) else memoryview
    tools, *texts = map(unmarked, (_present(parsed.tools), *system, *turns))
    if route.wire_format is WireFormat.OPENAI_CHAT:
        texts = list(map(_plain, texts))
    pieces, texts = texts[: len(system)], texts[len(system) :]
    instructions = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    return b"".join([_packed(text, key) for text in (tools, instructions, *texts)])


def unpacked(parts: bytes) -> tuple[Part, ...]:
    """The parts that `prompt_parts` packed; a torn last one is left out."""
    whole = len(parts) - len(parts) % PART_BYTES
    return tuple(Part(*found) for found in struct.iter_unpack(f">{HASH_BYTES}sI", parts[:whole]))


def tool_set_of(parts: bytes) -> str | None:
    """The name of the set of tools offered, `None` where none were."""
    if not any(parts[HASH_BYTES:PART_BYTES]):
        return None
    return parts[:HASH_BYTES].hex()


def tool_sizes(route: Route, body: bytes) -> dict[str, int]:
    """The bytes of each offered tool's definition, by name; none where it cannot be read."""
    if not _has_prompt(route):
        return {}
    sizes: dict[str, int] = {}
    try:
        tools = _items(_lists.decode(_bodies.decode(body).tools))
        for name, definition in _definitions(tools):
            sizes[name] = sizes.get(name, 0) + len(_unmarked(definition))
    except msgspec.DecodeError:
        return {}
    return sizes


def _has_prompt(route: Route) -> bool:
    return route.operation is Operation.GENERATE and route.wire_format is not WireFormat.UNKNOWN


def _system_and_turns(wire_format: WireFormat, body: _Body) -> tuple[_Views, _Views]:
    """The system prompt in its pieces, and everything behind it."""
    match wire_format:
        case WireFormat.ANTHROPIC_MESSAGES:
            return [_present(body.system)], _items(body.messages)
        case WireFormat.GEMINI_GENERATE:
            return [_present(body.system_instruction)], _items(body.contents)
        case WireFormat.OPENAI_RESPONSES:
            said = _present(body.input)
            turns = [said] if said and said[0] == _QUOTE else _items(_lists.decode(body.input))
            system, turns = _led(turns)
            return [_present(body.instructions), *system], turns
        case _:
            return _led(_items(body.messages))


def _led(turns: _Views) -> tuple[_Views, _Views]:
    """The instructions that lead a list of messages, and the rest of them."""
    for number, turn in enumerate(turns):
        if turn[0] != _OBJECT or _turns.decode(turn).role not in _INSTRUCTION_ROLES:
            return turns[:number], turns[number:]
    return turns, []


def _definitions(tools: Sequence[_Text]) -> Iterator[tuple[str, _Text]]:
    for definition in tools:
        tool = _tools.decode(definition)
        if tool.declarations is not None:
            for declared in tool.declarations:
                yield _name(_named.decode(declared).name), declared
        elif tool.function is not None:
            yield _name(tool.function.name), definition
        else:
            yield _name(tool.name if tool.name is not None else tool.type), definition


def _name(name: object) -> str:
    return name if isinstance(name, str) else ""


def _present(raw: msgspec.Raw) -> memoryview:
    return memoryview(b"" if raw == _RAW_NULL else raw)


def _items(found: _List) -> _Views:
    if found is not None and not isinstance(found, list):
        raise msgspec.DecodeError("not a list")
    return [memoryview(item) for item in found or ()]


def _has_mark(text: bytes) -> bool:
    # Looking from the end takes a third of the time.
    return text.rfind(_MARK_END) >= 0


def _unmarked(text: _Text) -> bytes:
    text = bytes(text)
    if not _has_mark(text):
        return text
    # The first match begins at the comma in front of the first mark, or behind it.
    start = max(text.rfind(b",", 0, text.find(_MARK_END)), 0)
    return text[:start] + _CACHE_MARKS.sub(b"", text[start:])


def _plain(message: _Text) -> _Text:
    """A chat message without marks, and with a single text told in the one way.

    Clients write such a text as a list of one part while it carries a mark, and bare after.
    """
    try:
        content = memoryview(_turns.decode(message).content)
        if content[0] != _LIST or b'"text"' not in bytes(message):
            return message
        parts = _text_parts.decode(content)
    except msgspec.DecodeError:
        return message
    if len(parts) != 1 or parts[0].type != "text" or parts[0].text == _RAW_NULL:
        return message
    return _replaced(bytes(message), bytes(content), parts[0].text)


def _replaced(text: bytes, old: bytes, new: bytes) -> bytes:
    """`text.replace(old, new, 1)`, which takes its time over a long `old`."""
    at = text.find(old[:_HEAD_BYTES])
    if at < 0 or not text.startswith(old, at):
        return text.replace(old, new, 1)
    return text[:at] + new + text[at + len(old) :]


def _packed(text: _Text, key: bytes) -> bytes:
    digest = hashlib.blake2b(text, digest_size=HASH_BYTES, key=key).digest()
    return digest + min(prompt_bytes(text), _LENGTH_MAX).to_bytes(4, "big")
