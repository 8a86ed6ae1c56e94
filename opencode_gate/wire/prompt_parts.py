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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

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


class Part(NamedTuple):
    """One part: its keyed hash, and its length in bytes without inline media."""

    hash: bytes
    length: int


class _Body(msgspec.Struct):
    """The members that carry a prompt, of all four formats: their names do not collide."""

    tools: msgspec.Raw = _RAW_NULL
    messages: msgspec.Raw = _RAW_NULL
    input: msgspec.Raw = _RAW_NULL
    contents: msgspec.Raw = _RAW_NULL
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
_lists = Lenient(list[msgspec.Raw])
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
    prompt = _prompt_of(route, body)
    if prompt is None:
        return None
    packed = [_packed(text, key) for text in (prompt.tools, prompt.system, *prompt.messages)]
    return b"".join(packed)


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
        tools = _items(_bodies.decode(body).tools)
        for name, definition in _definitions(tools):
            sizes[name] = sizes.get(name, 0) + len(_unmarked(definition))
    except msgspec.DecodeError:
        return {}
    return sizes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prompt:
    tools: bytes
    system: bytes
    messages: Sequence[bytes]


def _has_prompt(route: Route) -> bool:
    return route.operation is Operation.GENERATE and route.wire_format is not WireFormat.UNKNOWN


def _prompt_of(route: Route, body: bytes) -> _Prompt | None:
    if not _has_prompt(route):
        return None
    try:
        parsed = _bodies.decode(body)
        system, turns = _system_and_turns(route.wire_format, parsed)
    except msgspec.DecodeError:
        return None
    shorten = _plain if route.wire_format is WireFormat.OPENAI_CHAT else _unmarked
    return _Prompt(
        tools=_unmarked(_present(parsed.tools)),
        system=b"".join(shorten(piece) for piece in system),
        messages=[shorten(turn) for turn in turns],
    )


def _system_and_turns(wire_format: WireFormat, body: _Body) -> tuple[list[bytes], list[bytes]]:
    """The system prompt in its pieces, and everything behind it."""
    match wire_format:
        case WireFormat.ANTHROPIC_MESSAGES:
            return [_present(body.system)], _items(body.messages)
        case WireFormat.GEMINI_GENERATE:
            return [_present(body.system_instruction)], _items(body.contents)
        case WireFormat.OPENAI_RESPONSES:
            said = _present(body.input)
            turns = [said] if said.startswith(b'"') else _items(body.input)
            system, turns = _led(turns)
            return [_present(body.instructions), *system], turns
        case _:
            return _led(_items(body.messages))


def _led(turns: list[bytes]) -> tuple[list[bytes], list[bytes]]:
    """The instructions that lead a list of messages, and the rest of them."""
    for number, turn in enumerate(turns):
        if not turn.startswith(b"{") or _turns.decode(turn).role not in _INSTRUCTION_ROLES:
            return turns[:number], turns[number:]
    return turns, []


def _definitions(tools: Sequence[bytes]) -> Iterator[tuple[str, bytes]]:
    for definition in tools:
        tool = _tools.decode(definition)
        if tool.declarations is not None:
            for declared in tool.declarations:
                yield _name(_named.decode(bytes(declared)).name), bytes(declared)
        elif tool.function is not None:
            yield _name(tool.function.name), definition
        else:
            yield _name(tool.name if tool.name is not None else tool.type), definition


def _name(name: object) -> str:
    return name if isinstance(name, str) else ""


def _present(raw: msgspec.Raw) -> bytes:
    return b"" if raw == _RAW_NULL else bytes(raw)


def _items(raw: msgspec.Raw) -> list[bytes]:
    text = _present(raw)
    return [bytes(item) for item in _lists.decode(text)] if text else []


def _unmarked(text: bytes) -> bytes:
    return _CACHE_MARKS.sub(b"", text) if b'cache_control"' in text else text


def _plain(message: bytes) -> bytes:
    """A chat message without marks, and with a single text told in the one way.

    Clients write such a text as a list of one part while it carries a mark, and bare after.
    """
    message = _unmarked(message)
    if b'"text"' not in message:
        return message
    content = bytes(_turns.decode(message).content)
    if not content.startswith(b"["):
        return message
    parts = _text_parts.decode(content)
    if len(parts) != 1 or parts[0].type != "text" or parts[0].text == _RAW_NULL:
        return message
    return message.replace(content, bytes(parts[0].text), 1)


def _packed(text: bytes, key: bytes) -> bytes:
    digest = hashlib.blake2b(text, digest_size=HASH_BYTES, key=key).digest()
    return digest + min(prompt_bytes(text), _LENGTH_MAX).to_bytes(4, "big")
