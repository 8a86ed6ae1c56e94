"""JSON with comments and trailing commas, as Opencode reads its configuration.

The invariant: text that is plain JSON takes the standard library's fast path, and nothing
inside a string is ever taken for a comment.
"""

import json
import re
from typing import TypeAlias

JsonObject: TypeAlias = dict[str, object]

# Not compiled: plain JSON needs neither.
_COMMENT = r'("(?:[^"\\]|\\.)*")|//[^\n\r]*|/\*.*?\*/'
_COMMA = r'("(?:[^"\\]|\\.)*")|,(?=\s*[}\]])'


def parse_object(text: str) -> JsonObject:
    """The object that `text` is.

    Raises:
        ValueError: it is no JSONC, or no object; the message names line and column.
    """
    text = text.removeprefix("\ufeff")
    try:
        value = json.loads(text)
    except ValueError:
        value = json.loads(strip(text))
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def strip(text: str) -> str:
    """`text` with comments blanked (line breaks stay, so positions do) and no trailing commas."""
    bare = re.sub(
        _COMMENT,
        lambda match: match.group(1) or re.sub(r"[^\n\r]", " ", match.group(0)),
        text,
        flags=re.DOTALL,
    )
    return re.sub(_COMMA, lambda match: match.group(1) or " ", bare, flags=re.DOTALL)


def as_object(value: object) -> JsonObject:
    """`value` if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}
