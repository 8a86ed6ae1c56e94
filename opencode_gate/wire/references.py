"""What a request has the provider read, or bill, beyond the bytes of its body.

The idea: a text has never more tokens than bytes, so a body bounds its own input; unless it
names a file, a stored conversation or a tool that fetches pages. This is asked for only under
a budget, and texts are passed over undecoded. The invariant: in doubt the answer is yes, for
that costs no more than a larger reservation.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import msgspec

from opencode_gate.core.semconv import WireFormat
from opencode_gate.wire.decoding import NOT_DECODED, Lenient
from opencode_gate.wire.facts import RequestFacts
from opencode_gate.wire.plain_requests import (
    ABSENT,
    PlainPiece,
    PlainRequest,
    ShortMark,
    plain_pieces,
)
from opencode_gate.wire.routes import Route

_STORED_TYPES = ("item_reference", "container_upload", "input_file", "document", "file")
_AUDIO_TYPES = ("input_audio", "audio")
_ClientTool: TypeAlias = Literal["function", "custom", "local_shell", "apply_patch"]
_CLIENT_TOOLS = get_args(_ClientTool)
"""Types of tools that the client runs and whose results it sends itself."""
_GEMINI_CLIENT_TOOLS = frozenset({"functionDeclarations", "function_declarations"})
_LONG_LIFE = re.compile(rb'"ttl"\s*+:\s*+(?!"5m")')
# Nobody writes a letter in this way but who wants a name not to be found.
_ESCAPED_LETTER = re.compile(rb"\\u00[4-7][0-9a-fA-F]")

_MEDIA_BOUND_BYTES = 64 * 1024
"""Below it a picture may have more tokens than bytes: no provider counts more than some 50,000
for one (gpt-4o-mini: 2,833, and 5,667 for each of at most eight tiles)."""

_LIST_BYTE = ord("[")
_NO_PARTS: Iterator["_Part"] = iter(())


class _Request(msgspec.Struct):
    """What names something stored or has the provider search, and where prompts lie."""

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
    tools: list[dict[str, msgspec.Raw]] | None = None
    audio: Any = None
    modalities: Any = None
    generation_config: Any = msgspec.field(name="generationConfig", default=None)
    generation_config_2: Any = msgspec.field(name="generation_config", default=None)
    messages: msgspec.Raw = ABSENT
    input: msgspec.Raw = ABSENT
    contents: msgspec.Raw = ABSENT
    system: msgspec.Raw = ABSENT

    @property
    def refers(self) -> bool:
        """True where it names something stored."""
        return any(
            (
                self.previous_response_id,
                self.conversation,
                self.prompt,
                self.container,
                self.cached_content,
                self.cached_content_2,
            )
        )

    @property
    def searches(self) -> bool:
        """True where it has the provider search, or ask servers of tools."""
        return bool(
            self.mcp_servers
            or self.web_search_options is not None
            or self.search_parameters
            or self.enable_search
            or self.plugins
        )


class _Part(msgspec.Struct):
    """A turn, or a piece of one, without its text."""

    type: Any = None
    content: msgspec.Raw = ABSENT
    parts: msgspec.Raw = ABSENT
    output: msgspec.Raw = ABSENT
    function_response: msgspec.Raw = msgspec.field(name="functionResponse", default=ABSENT)
    function_response_2: msgspec.Raw = msgspec.field(name="function_response", default=ABSENT)
    file_id: Any = None
    file_url: Any = None
    file_data: Any = msgspec.field(name="fileData", default=None)
    file_data_2: Any = msgspec.field(name="file_data", default=None)
    source: Any = None
    image_url: Any = None
    inline_data: Any = msgspec.field(name="inlineData", default=None)
    inline_data_2: Any = msgspec.field(name="inline_data", default=None)


class _TypedTool(msgspec.Struct, gc=False):
    type: _ClientTool
    cache_control: ShortMark | None = None
    copilot_cache_control: ShortMark | None = None


class _DescribedTool(msgspec.Struct, gc=False):
    input_schema: msgspec.Raw
    type: _ClientTool = "custom"
    cache_control: ShortMark | None = None


class _DeclaredTools(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    declarations: msgspec.Raw = msgspec.field(name="functionDeclarations", default=ABSENT)
    declarations_2: msgspec.Raw = msgspec.field(name="function_declarations", default=ABSENT)


class _Response(msgspec.Struct):
    parts: msgspec.Raw = ABSENT


_requests = Lenient(_Request)
_tool_lists: Lenient[list[dict[str, msgspec.Raw]] | None] = Lenient(
    list[dict[str, msgspec.Raw]] | None
)
_TOOLS_OF_A_CLIENT: dict[WireFormat, Callable[[msgspec.Raw], object]] = {
    WireFormat.OPENAI_CHAT: msgspec.json.Decoder(list[_TypedTool] | None).decode,
    WireFormat.OPENAI_RESPONSES: msgspec.json.Decoder(list[_TypedTool] | None).decode,
    WireFormat.ANTHROPIC_MESSAGES: msgspec.json.Decoder(list[_DescribedTool] | None).decode,
    WireFormat.GEMINI_GENERATE: msgspec.json.Decoder(list[_DeclaredTools] | None).decode,
    WireFormat.UNKNOWN: msgspec.json.Decoder(None).decode,
}
"""What takes nothing but tools that the client runs, as the format has them."""
_part_lists = Lenient(list[_Part])
_responses = Lenient(_Response)
_values: Lenient[Any] = Lenient(Any)


class References(NamedTuple):
    """What a request has the provider read or make beyond text in its body.

    Attributes:
        refers_elsewhere: the provider may read more than the body says: stored conversations,
            files and pages that are named, what tools of its own find, documents, films and small
            pictures, which may hold more tokens than bytes. Of a format that is not known nothing
            can be said, so it counts as such.
        has_audio: sound goes in or comes out, of which tokens cost more.
        has_provider_tools: tools that the provider runs itself: it may read what they find again
            and again within one request, and charge for each search.
        has_only_short_marks: it is known that no mark asks for a cache of an hour; where it is
            not, `may_write_1h` looks for one.
    """

    refers_elsewhere: bool
    has_audio: bool
    has_provider_tools: bool
    has_only_short_marks: bool = False


def read_references(route: Route, body: bytes, facts: RequestFacts | None = None) -> References:
    """What a body refers to; in doubt, everything.

    Args:
        facts: of this body, where they are known; they save looking at all of it again.
    """
    plain = None if facts is None else facts.plain
    try:
        if plain is None:
            return _read(route, _requests.decode(body))
        return _read_plain(route, plain)
    except msgspec.DecodeError:
        return References(True, True, True)


def _read(route: Route, request: _Request) -> References:
    tools = request.searches or any(map(_is_run_by_provider, request.tools or ()))
    elsewhere = tools or route.wire_format is WireFormat.UNKNOWN or request.refers
    sound = (
        bool(request.audio)
        or "audio" in _list(request.modalities)
        or _asks_for_sound(request.generation_config)
        or _asks_for_sound(request.generation_config_2)
    )
    return _with_parts(elsewhere, sound, tools, _parts_of(request))


def _read_plain(route: Route, request: PlainRequest) -> References:
    tools = request.tools is not ABSENT and not _are_of_a_client(route, request.tools)
    is_marked = tools
    if tools:
        tools = any(map(_is_run_by_provider, _tool_lists.decode(request.tools) or ()))
    sound = not (request.generation_config is request.generation_config_2 is ABSENT) and any(
        _asks_for_sound(_values.decode(config))
        for config in (request.generation_config, request.generation_config_2)
    )
    elsewhere = tools or route.wire_format is WireFormat.UNKNOWN
    parts = _PartsOfPlain()
    found = _with_parts(elsewhere, sound, tools, parts.of(request))
    if is_marked or not parts.were_all_plain:
        return found
    return found._replace(has_only_short_marks=True)


def _are_of_a_client(route: Route, tools: msgspec.Raw) -> bool:
    """True where all tools are seen at once to be the client's, and none of them is marked."""
    try:
        _TOOLS_OF_A_CLIENT[route.wire_format](tools)
    except NOT_DECODED:
        return False
    return True


def _with_parts(elsewhere: bool, sound: bool, tools: bool, parts: Iterator[_Part]) -> References:
    for part in parts:
        elsewhere = elsewhere or _is_more_than_its_bytes(part)
        sound = sound or _is_sound(part)
    return References(elsewhere, sound, tools)


def may_write_1h(body: bytes, references: References | None = None) -> bool:
    """True where the prompt may be written to a cache that keeps it for an hour, at a higher
    price (https://docs.claude.com/en/docs/build-with-claude/prompt-caching).
    """
    if references is not None and references.has_only_short_marks:
        return False
    return _LONG_LIFE.search(body) is not None or _ESCAPED_LETTER.search(body) is not None


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _is_run_by_provider(tool: dict[str, msgspec.Raw]) -> bool:
    """Anthropic's `bash_20250124` and the like count as such: their description is not here."""
    if "type" in tool:
        kind = tool["type"]
        # Nearly all are written like this, and a look is cheaper than decoding.
        return bytes(kind) != b'"function"' and _values.decode(kind) not in _CLIENT_TOOLS
    # Anthropic's own have a schema; a client's of Gemini are nothing but declarations.
    return "input_schema" not in tool and not tool.keys() <= _GEMINI_CLIENT_TOOLS


def _parts_of(request: _Request) -> Iterator[_Part]:
    """The turns and pieces of the prompt that may be media, in all four formats.

    Raises:
        msgspec.DecodeError: they are of an unusual shape.
    """
    for prompt in (request.messages, request.input, request.contents, request.system):
        if prompt is not ABSENT:
            yield from _parts(prompt)


class _PartsOfPlain:
    """The turns and pieces of a plain request, those passed over that are known to be text.

    Attributes:
        were_all_plain: so were all of them, once they have been gone through.
    """

    __slots__ = ("were_all_plain",)

    def __init__(self) -> None:
        self.were_all_plain = False

    def of(self, request: PlainRequest) -> Iterator[_Part]:
        """As `_parts_of` gives them.

        Raises:
            msgspec.DecodeError: they are of an unusual shape.
        """
        self.were_all_plain = True
        for turns in (request.messages, request.input, request.contents):
            if turns is not None:
                yield from self._inside(turns)
        if request.system is not ABSENT and memoryview(request.system)[0] == _LIST_BYTE:
            yield from self._in_list(request.system)

    def _inside(self, pieces: Iterable[PlainPiece]) -> Iterator[_Part]:
        for piece in pieces:
            content, parts, output = piece.content, piece.parts, piece.output
            if content is not ABSENT and memoryview(content)[0] == _LIST_BYTE:
                yield from self._in_list(content)
            if parts is not ABSENT and memoryview(parts)[0] == _LIST_BYTE:
                yield from self._in_list(parts)
            if output is not ABSENT and memoryview(output)[0] == _LIST_BYTE:
                yield from self._in_list(output)
            if not (piece.function_response is piece.function_response_2 is ABSENT):
                self.were_all_plain = False
                for response in (piece.function_response, piece.function_response_2):
                    if response is not ABSENT:
                        yield from _parts(_responses.decode(response).parts)

    def _in_list(self, raw: msgspec.Raw) -> Iterator[_Part]:
        pieces = plain_pieces(raw)
        if pieces is None:
            self.were_all_plain = False
            return _parts(raw)
        inner = [
            piece
            for piece in pieces
            if not (
                piece.content
                is piece.parts
                is piece.output
                is piece.function_response
                is piece.function_response_2
            )
        ]
        return self._inside(inner) if inner else _NO_PARTS


def _parts(raw: msgspec.Raw) -> Iterator[_Part]:
    # A list of pieces, unlike a text, may be more than it looks like.
    if memoryview(raw)[0] != _LIST_BYTE:
        return
    for part in _part_lists.decode(raw):
        yield part
        # What tools gave back may hold pictures too; arguments of calls hold only text.
        for inner in (part.content, part.parts, part.output):
            if inner is not ABSENT:
                yield from _parts(inner)
        for response in (part.function_response, part.function_response_2):
            if response is not ABSENT:
                yield from _parts(_responses.decode(response).parts)


def _is_more_than_its_bytes(part: _Part) -> bool:
    if part.type in _STORED_TYPES:
        return True
    if isinstance(part.type, str) and part.type.endswith("_url") and part.type != "image_url":
        return True
    if part.file_id or part.file_url or part.file_data or part.file_data_2:
        return True
    media = (part.source, part.image_url, part.inline_data, part.inline_data_2)
    return any(value and not _is_bounded_picture(value) for value in media)


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


def _asks_for_sound(config: object) -> bool:
    if not isinstance(config, dict):
        return False
    asked = config.get("responseModalities", config.get("response_modalities"))
    return "AUDIO" in [str(one).upper() for one in _list(asked)]


def _is_sound(part: _Part) -> bool:
    if part.type in _AUDIO_TYPES:
        return True
    media = (part.inline_data, part.inline_data_2, part.file_data, part.file_data_2)
    return any(
        _media_type(value, "").startswith(("audio/", "video/"))
        for value in media
        if isinstance(value, dict)
    )
