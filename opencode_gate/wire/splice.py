"""Members put into a JSON body, or changed there, without re-encoding anything else of it.

The invariant: every byte of the original is still there in its order, except a value that had
to be replaced because the client had asked for something else. A body is looked at as bytes, so
one that is no proper UTF-8 keeps what it has.
"""

import json
import re
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

_ASK = b'"stream_options":{"include_usage":true}'
_MEMBER = b'"include_usage":true'
_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_SPACE = re.compile(rb"[ \t\n\r]*")
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_SCALAR = re.compile(rb"[^,}\] \t\n\r]+")
# Brackets in text must not count, so the strings between them are passed over whole.
_STRING_OR_BRACKET = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)


class Member(NamedTuple):
    """A member of an object: its name, and where its value begins and ends in the body."""

    name: str
    start: int
    end: int


class Change(NamedTuple):
    """New bytes for what stands from `start` to `end`."""

    start: int
    end: int
    text: bytes


def members(body: bytes, start: int) -> list[Member]:
    """The members of the object that opens at `start`, in their order, repeated ones too.

    `body` must be JSON, as `read_facts` has found it.
    """
    found: list[Member] = []
    values = _values_of(body) if start == body.index(b"{") else {}
    index = _skip(body, start + 1)
    while body[index] != _CLOSES:
        name = _STRING.match(body, index)
        assert name is not None, "read_facts has found it to be JSON"
        value_start = _skip(body, _skip(body, name.end()) + 1)
        text = _text(name[0])
        value_end = _end_of_known(body, value_start, values.get(text))
        if value_end is None:
            value_end = _end_of_value(body, value_start)
        found.append(Member(text, value_start, value_end))
        index = _skip(body, value_end)
        if body[index] == _COMMA:
            index = _skip(body, index + 1)
    return found


def with_member(body: bytes, start: int, member: bytes) -> bytes:
    """`body` with a member put in front of the others of the object that opens at `start`."""
    inside = start + 1
    comma = b"" if body[_skip(body, inside)] == _CLOSES else b","
    return b"".join((body[:inside], member, comma, body[inside:]))


def with_changes(body: bytes, changes: Iterable[Change]) -> bytes:
    """`body` with new bytes in some places, which must not overlap and be in their order."""
    pieces: list[bytes] = []
    index = 0
    for change in changes:
        pieces += (body[index : change.start], change.text)
        index = change.end
    return b"".join((*pieces, body[index:]))


def ask_for_usage(body: bytes, *, has_stream_options: bool = True) -> bytes:
    """A streaming chat body that also asks for `stream_options.include_usage`.

    `body` must be a JSON object (as `read_facts` has found it). A member that is already
    there is completed in place.

    Args:
        has_stream_options: False where it is known that there are none.
    """
    start = body.index(b"{")
    if not has_stream_options or b'"stream_options"' not in body:
        return with_member(body, start, _ASK)
    options = [member for member in members(body, start) if member.name == "stream_options"]
    if not options:
        return with_member(body, start, _ASK)
    _, options_start, options_end = options[-1]
    if body[options_start] != _OPENS:
        asked = b"{" + _MEMBER + b"}"
        return with_changes(body, (Change(options_start, options_end, asked),))
    usage = [member for member in members(body, options_start) if member.name == "include_usage"]
    if usage:
        return with_changes(body, (Change(usage[-1].start, usage[-1].end, b"true"),))
    return with_member(body, options_start, _MEMBER)


_OPENS, _CLOSES, _COMMA, _QUOTE = b'{},"'
_OPENING, _CLOSING, _BEHIND_A_VALUE = b"[{", b"]}", b",}"


def _values_of(body: bytes) -> dict[str, msgspec.Raw]:
    """The values of the body's members; for repeated ones the last. Only there to be quick."""
    try:
        return _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}


def _end_of_known(body: bytes, start: int, value: msgspec.Raw | None) -> int | None:
    """Where a value ends if it is the one that is known, else `None`."""
    if value is None or not body.startswith(value, start):
        return None
    end = start + len(bytes(value))
    # `12` begins with `1`; what begins with a whole text or list is that text or list.
    return end if body[_skip(body, end)] in _BEHIND_A_VALUE else None


def _text(string: bytes) -> str:
    if b"\\" not in string:
        return string[1:-1].decode("utf-8", "replace")
    return str(json.loads(string.decode("utf-8", "replace"), strict=False))


def _end_of_value(body: bytes, start: int) -> int:
    first = body[start]
    if first in _OPENING:
        return _end_of_container(body, start)
    match = (_STRING if first == _QUOTE else _SCALAR).match(body, start)
    assert match is not None, "read_facts has found it to be JSON"
    return match.end()


def _end_of_container(body: bytes, start: int) -> int:
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(body, start):
        token = body[match.start()]
        if token in _OPENING:
            depth += 1
        elif token in _CLOSING:
            depth -= 1
            if depth == 0:
                return match.end()
    raise AssertionError("read_facts has found it to be JSON")


def _skip(body: bytes, index: int) -> int:
    match = _SPACE.match(body, index)
    assert match is not None
    return match.end()
