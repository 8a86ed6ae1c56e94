"""Any JSON object a client could send, in any spelling, for tests that change one member of it."""

import json
from collections.abc import Callable, Iterable
from typing import Any

from hypothesis import strategies as st

_TEXTS = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(
    ['"max_tokens":1', "}{][,:", '\\"', '"model":"x"', "é😀", "\\"]
)
_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | _TEXTS,
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            _TEXTS | st.sampled_from(["max_tokens", "model", "maxOutputTokens"]), inner
        )
    ),
    max_leaves=12,
)
_LIMITS = st.none() | st.integers(1, 100_000) | st.just("many")


def bodies(names: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with members of any name, and some with the names that matter."""
    config = st.none() | st.dictionaries(
        st.sampled_from(["maxOutputTokens", "max_output_tokens", "x"]), _LIMITS
    )
    rest = st.dictionaries(_TEXTS, _VALUES)
    named = st.dictionaries(names, _LIMITS)
    configs = st.dictionaries(st.sampled_from(["generationConfig", "generation_config"]), config)
    return st.builds(lambda *parts: _merged(*parts), rest, named, configs)


def _merged(*parts: dict[str, Any]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for part in parts:
        merged |= part
    for refused in ("model", "stream"):
        merged.pop(refused, None)
    return merged


def _style(indent: int | None, ensure_ascii: bool, around: str) -> Callable[[object], bytes]:
    def encode(body: object) -> bytes:
        text = json.dumps(body, indent=indent, ensure_ascii=ensure_ascii)
        return f"{around}{text}{around}".encode()

    return encode


encoded = st.builds(
    _style, st.sampled_from([None, 0, 2]), st.booleans(), st.sampled_from(["", " ", "\r\n\t"])
)
"""Ways to spell a body: white space, escapes."""


_NAMES = [
    "role",
    "type",
    "content",
    "parts",
    "output",
    "input",
    "contents",
    "messages",
    "system",
    "tools",
    "tool_calls",
    "function",
    "name",
    "arguments",
    "functionCall",
    "functionResponse",
    "args",
    "response",
    "source",
    "image_url",
    "inlineData",
    "file_id",
    "data",
    "url",
    "media_type",
    "mimeType",
    "audio",
    "modalities",
    "generationConfig",
    "responseModalities",
    "model",
    "max_tokens",
    "maxOutputTokens",
    "n",
    "thinking",
    "budget_tokens",
    "service_tier",
    "models",
    "instructions",
    "text",
]
_WORDS = [
    "user",
    "assistant",
    "model",
    "tool",
    "system",
    "tool_use",
    "tool_result",
    "function_call",
    "function_call_output",
    "reasoning",
    "document",
    "input_audio",
    "image_url",
    "web_search",
    "function",
]


def prompts() -> st.SearchStrategy[bytes]:
    """Bodies whose members have the names that matter, and values of any shape."""
    texts = st.sampled_from(_WORDS) | st.text(max_size=5)
    values: st.SearchStrategy[Any] = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | texts,
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.sampled_from(_NAMES), inner, max_size=4)
        ),
        max_leaves=25,
    )
    return st.dictionaries(st.sampled_from(_NAMES), values).map(
        lambda body: json.dumps(body).encode()
    )


def without(body: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """A body without its members of these names."""
    left_out = set(names)
    return {name: value for name, value in body.items() if name not in left_out}
