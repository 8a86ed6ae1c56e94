"""What a request has the provider read, or bill, beyond the bytes of its body.

The idea: a text has never more tokens than bytes, so a body bounds its own input; unless it
names a file, a stored conversation or a tool that fetches pages. This is asked for only under
a budget; and a prompt is only taken apart where its bytes have a name of media in quotation
marks, which text inside a JSON string never has unescaped. The invariant: in doubt the answer
is yes, for that costs no more than a larger reservation.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from opencode_gate.core.semconv import WireFormat
from opencode_gate.wire.decoding import Lenient
from opencode_gate.wire.routes import Route

_PART_MARKERS = (
    b'_url"',
    b'"file_id"',
    b'"file_data"',
    b'"fileData"',
    b'"source"',
    b'"inlineData"',
    b'"inline_data"',
    b'"item_reference"',
    b'"container_upload"',
)
_INLINE_MEDIA = ("source", "inlineData", "inline_data")
_STORED_FILES = ("file_id", "fileData", "file_data")
_STORED_TYPES = ("item_reference", "container_upload", "input_file", "document", "file")
_AUDIO_TYPES = ("input_audio", "audio")
_CLIENT_TOOLS = ("function", "custom", "local_shell", "apply_patch")
"""Types of tools that the client runs and whose results it sends itself."""
_GEMINI_CLIENT_TOOLS = frozenset({"functionDeclarations", "function_declarations"})
# Nobody writes a letter in this way but who wants a name not to be found.
_ESCAPED_LETTER = re.compile(rb"\\u00[4-7][0-9a-fA-F]")
_LONG_LIFE = re.compile(rb'"ttl"\s*:\s*+(?!"5m")')

_MEDIA_BOUND_BYTES = 64 * 1024
"""Below it a picture may have more tokens than bytes: no provider counts more than some 50,000
for one (gpt-4o-mini: 2,833, and 5,667 for each of at most eight tiles)."""


class _References(msgspec.Struct):
    """Members that name what the provider has stored, or have it search."""

    previous_response_id: Any = None
    conversation: Any = None
    prompt: Any = None
    container: Any = None
    cached_content: Any = msgspec.field(name="cachedContent", default=None)
    cached_content_2: Any = msgspec.field(name="cached_content", default=None)
    mcp_servers: Any = None
    web_search_options: Any = None
    search_parameters: Any = None
    enable_search: Any = None
    plugins: Any = None


class _Offer(msgspec.Struct):
    tools: list[dict[str, msgspec.Raw]] | None = None


_references = Lenient(_References)
_offers = Lenient(_Offer)
_values: Lenient[Any] = Lenient(Any)


def refers_elsewhere(route: Route, body: bytes) -> bool:
    """True where the provider may read more than the body says.

    So it is with stored conversations, files and pages that are named, with tools of the
    provider's own, and with documents, films and small pictures, which may hold more tokens
    than bytes. Of a format that is not known nothing can be said, so it counts as such.
    """
    if route.wire_format is WireFormat.UNKNOWN:
        return True
    try:
        named = _references.decode(body)
        tools = _offers.decode(body).tools
    except msgspec.DecodeError:
        return True
    if any(msgspec.structs.astuple(named)) or any(map(_is_run_by_provider, tools or ())):
        return True
    if not (any(marker in body for marker in _PART_MARKERS) or _ESCAPED_LETTER.search(body)):
        return False
    request = _parsed(body)
    return not isinstance(request, dict) or any(map(_is_more_than_its_bytes, _parts_of(request)))


def may_write_1h(body: bytes) -> bool:
    """True where the prompt may be written to a cache that keeps it for an hour, at a higher
    price (https://docs.claude.com/en/docs/build-with-claude/prompt-caching).
    """
    return _LONG_LIFE.search(body) is not None or _ESCAPED_LETTER.search(body) is not None


def has_audio(body: bytes) -> bool:
    """True where sound goes in or comes out, of which tokens cost more."""
    if b"audio" not in body and b"AUDIO" not in body and not _ESCAPED_LETTER.search(body):
        return False
    request = _parsed(body)
    if not isinstance(request, dict):
        return True
    if request.get("audio") or "audio" in _list(request.get("modalities")):
        return True
    for name in ("generationConfig", "generation_config"):
        config = request.get(name)
        if isinstance(config, dict) and _asks_for_sound(config):
            return True
    return any(map(_is_sound, _parts_of(request)))


def _parsed(body: bytes) -> Any:
    try:
        return _values.decode(body)
    except msgspec.DecodeError:
        return None


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _is_run_by_provider(tool: dict[str, msgspec.Raw]) -> bool:
    """Anthropic's `bash_20250124` and the like count as such: their description is not here."""
    if "type" in tool:
        return _values.decode(tool["type"]) not in _CLIENT_TOOLS
    # Anthropic's own have a schema; a client's of Gemini are nothing but declarations.
    return "input_schema" not in tool and not tool.keys() <= _GEMINI_CLIENT_TOOLS


def _parts_of(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The pieces of the prompt that may be media, in all four formats."""
    for member in ("messages", "input", "contents", "system"):
        yield from _parts(_list(request.get(member)))


def _parts(turns: Iterable[object]) -> Iterator[dict[str, Any]]:
    for turn in turns:
        if isinstance(turn, dict):
            yield turn
            # What tools gave back may hold pictures too; arguments of calls hold only text.
            for member in ("content", "parts", "output"):
                yield from _parts(_list(turn.get(member)))
            for member in ("functionResponse", "function_response"):
                response = turn.get(member)
                if isinstance(response, dict):
                    yield from _parts(_list(response.get("parts")))


def _is_more_than_its_bytes(part: dict[str, Any]) -> bool:
    if part.get("type") in _STORED_TYPES or any(part.get(name) for name in _STORED_FILES):
        return True
    return any(
        not _is_bounded_picture(value)
        for name, value in part.items()
        if value and (name in _INLINE_MEDIA or name.endswith("_url"))
    )


def _is_bounded_picture(value: object) -> bool:
    """True for a picture that lies in the body itself and has more bytes than tokens."""
    if isinstance(value, dict):
        if not _media_type(value, "image/").startswith("image/"):
            return False
        value = value.get("data", value.get("url"))
    if not isinstance(value, str) or len(value) < _MEDIA_BOUND_BYTES:
        return False
    return ":" not in value[:16] or value.startswith("data:image/")


def _media_type(value: dict[str, Any], otherwise: str) -> str:
    return str(
        value.get("media_type", value.get("mimeType", value.get("mime_type", otherwise)))
    ).lower()


def _asks_for_sound(config: dict[str, Any]) -> bool:
    for name in ("responseModalities", "response_modalities"):
        if "AUDIO" in [str(one).upper() for one in _list(config.get(name))]:
            return True
    return False


def _is_sound(part: dict[str, Any]) -> bool:
    if part.get("type") in _AUDIO_TYPES:
        return True
    values = (part.get(name) for name in (*_INLINE_MEDIA, "fileData", "file_data"))
    return any(
        _media_type(value, "").startswith(("audio/", "video/"))
        for value in values
        if isinstance(value, dict)
    )
