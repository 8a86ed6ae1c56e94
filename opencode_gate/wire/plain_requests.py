"""A request as nearly all are, decoded in one pass without its texts.

The idea: the types here fit nothing but text, and calls of tools that the client runs, so that
what they fit need not be looked at piece by piece. The invariant: what does not fit is a request
like any other; it is only read in more than one step.
"""

from typing import Any, Literal

import msgspec

from opencode_gate.wire.decoding import NOT_DECODED

ABSENT = msgspec.Raw(b"null")
"""What a member holds that is not there."""


class Members(msgspec.Struct):
    """Members of all four formats side by side: their names do not collide."""

    model: str | None = None
    stream: bool | None = None
    usage: msgspec.Raw = ABSENT
    instructions: msgspec.Raw = ABSENT
    system: msgspec.Raw = ABSENT
    system_instruction: msgspec.Raw = msgspec.field(name="systemInstruction", default=ABSENT)
    generation_config: msgspec.Raw = msgspec.field(name="generationConfig", default=ABSENT)
    # Google reads the names of its fields in both spellings.
    generation_config_2: msgspec.Raw = msgspec.field(name="generation_config", default=ABSENT)
    thinking: msgspec.Raw = ABSENT
    reasoning: msgspec.Raw = ABSENT
    service_tier: msgspec.Raw = ABSENT
    service_tier_2: msgspec.Raw = msgspec.field(name="serviceTier", default=ABSENT)
    speed: msgspec.Raw = ABSENT
    background: msgspec.Raw = ABSENT
    models: msgspec.Raw = ABSENT


class ShortMark(msgspec.Struct, gc=False):
    """Where a prompt cache begins that is kept for minutes, at the ordinary price of one."""

    ttl: Literal["5m"] = "5m"


class PlainPiece(msgspec.Struct, gc=False):
    """A piece of a turn that names no file, no page and no media; what is in it may do so."""

    type: (
        Literal[
            "text",
            "input_text",
            "output_text",
            "summary_text",
            "refusal",
            "message",
            "thinking",
            "redacted_thinking",
            "reasoning",
            "tool_use",
            "tool_result",
            "function_call",
            "function_call_output",
            "custom_tool_call",
            "custom_tool_call_output",
        ]
        | None
    ) = None
    content: msgspec.Raw = ABSENT
    parts: msgspec.Raw = ABSENT
    output: msgspec.Raw = ABSENT
    function_response: msgspec.Raw = msgspec.field(name="functionResponse", default=ABSENT)
    function_response_2: msgspec.Raw = msgspec.field(name="function_response", default=ABSENT)
    file_id: None = None
    file_url: None = None
    file_data: None = msgspec.field(name="fileData", default=None)
    file_data_2: None = msgspec.field(name="file_data", default=None)
    source: None = None
    image_url: None = None
    inline_data: None = msgspec.field(name="inlineData", default=None)
    inline_data_2: None = msgspec.field(name="inline_data", default=None)
    cache_control: ShortMark | None = None
    copilot_cache_control: ShortMark | None = None


class PlainTurn(PlainPiece, gc=False):
    """A message or input item of that kind."""

    role: Any = None


class StreamOptions(msgspec.Struct, gc=False):
    """Of the chat format."""

    include_usage: Any = None


class PlainRequest(Members):
    """A body that names nothing stored and asks for no search and no sound.

    Its tools, and its options for Gemini, are still to be looked at.
    """

    stream_options: StreamOptions | msgspec.UnsetType | None = msgspec.UNSET
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    max_output_tokens: int | None = None
    n: int | None = None
    messages: list[PlainTurn] | None = None
    input: list[PlainTurn] | None = None
    contents: list[PlainTurn] | None = None
    tools: msgspec.Raw = ABSENT
    previous_response_id: None = None
    conversation: None = None
    prompt: None = None
    container: None = None
    cached_content: None = msgspec.field(name="cachedContent", default=None)
    cached_content_2: None = msgspec.field(name="cached_content", default=None)
    mcp_servers: None = None
    web_search_options: None = None
    search_parameters: None = None
    enable_search: None = None
    plugins: None = None
    audio: None = None
    modalities: None = None
    cache_control: ShortMark | None = None

    def __repr__(self) -> str:
        # It holds prompts, which belong in no log.
        return "PlainRequest(…)"


_plain_requests = msgspec.json.Decoder(PlainRequest).decode
_plain_pieces = msgspec.json.Decoder(list[PlainPiece]).decode


def plain_request(body: bytes) -> PlainRequest | None:
    """What a body holds, `None` where some of it is not plain."""
    try:
        return _plain_requests(body)
    except NOT_DECODED:
        return None


def plain_pieces(raw: msgspec.Raw) -> list[PlainPiece] | None:
    """The pieces in a list of them, `None` where one is not plain."""
    try:
        return _plain_pieces(raw)
    except NOT_DECODED:
        return None
