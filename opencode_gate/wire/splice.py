"""Members put into a JSON body without re-encoding anything else of it.

The invariant: every byte of the original is still there in its order, except a value that had
to be replaced because the client had asked for the opposite.
"""

import re
from json import JSONDecoder

_ASK = b'"stream_options":{"include_usage":true}'
_MEMBER = '"include_usage":true'
_SPACE = " \t\n\r"
_CLOSES_AT_ONCE = re.compile(rb"[ \t\n\r]*}")

_values = JSONDecoder()


def ask_for_usage(body: bytes) -> bytes:
    """A streaming chat body that also asks for `stream_options.include_usage`.

    `body` must be a JSON object (as `read_facts` has found it). A member that is already
    there is completed in place.
    """
    if b'"stream_options"' not in body:
        start = body.index(b"{") + 1
        comma = b"" if _CLOSES_AT_ONCE.match(body, start) else b","
        return body[:start] + _ASK + comma + body[start:]
    return _complete_options(body.decode()).encode()


def _complete_options(text: str) -> str:
    start, span = text.index("{"), None
    for key, value_start, value_end in _members(text, start):
        if key == "stream_options":
            span = (value_start, value_end)
    if span is None:
        return f"{text[: start + 1]}{_ASK.decode()},{text[start + 1 :]}"
    options_start, options_end = span
    if text[options_start] != "{":
        return f"{text[:options_start]}{{{_MEMBER}}}{text[options_end:]}"
    for key, value_start, value_end in _members(text, options_start):
        if key == "include_usage":
            return f"{text[:value_start]}true{text[value_end:]}"
    inside = options_start + 1
    comma = "" if text[_skip(text, inside)] == "}" else ","
    return f"{text[:inside]}{_MEMBER}{comma}{text[inside:]}"


def _members(text: str, start: int) -> list[tuple[str, int, int]]:
    """Key, start and end of the value of each member of the object that opens at `start`."""
    members: list[tuple[str, int, int]] = []
    index = _skip(text, start + 1)
    while text[index] != "}":
        key, index = _values.raw_decode(text, index)
        index = _skip(text, _skip(text, index) + 1)
        _, end = _values.raw_decode(text, index)
        members.append((key, index, end))
        index = _skip(text, end)
        if text[index] == ",":
            index = _skip(text, index + 1)
    return members


def _skip(text: str, index: int) -> int:
    while text[index] in _SPACE:
        index += 1
    return index
