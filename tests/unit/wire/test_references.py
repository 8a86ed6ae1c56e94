"""Whether a body says all that a provider reads is told without being fooled by text."""

import json

import pytest
from hypothesis import given

from opencode_gate.core.semconv import WireFormat
from opencode_gate.wire.facts import BadBody, read_facts
from opencode_gate.wire.references import References, may_write_1h, read_references
from opencode_gate.wire.routes import Route
from tests.support.agent_conversations import FORMATS
from tests.support.json_bodies import prompts
from tests.support.wire_corpus import route_of

CHAT = route_of(WireFormat.OPENAI_CHAT)
LARGE_PICTURE = "A" * 70_000
SMALL_PICTURE = "A" * 500
ORDINARY_TOOLS = [
    {"type": "function", "function": {"name": "f", "parameters": {"properties": {"source": {}}}}},
    {"type": "function", "name": "f", "parameters": {"properties": {"file_id": {}}}},
    {"name": "f", "input_schema": {"properties": {"image_url": {"type": "string"}}}},
    {"functionDeclarations": [{"name": "f"}]},
    {"type": "custom", "name": "apply_patch"},
]


def references(route: Route, body: bytes) -> References:
    """What is read of a body, with and without what its facts already tell."""
    found = read_references(route, body)
    try:
        facts = read_facts(route, body)
    except BadBody:
        return found
    assert read_references(route, body, facts)[:3] == found[:3]
    return found


def refers(**body: object) -> bool:
    return references(CHAT, json.dumps(body).encode()).refers_elsewhere


def part(**content: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": [content]}]}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"messages": [{"role": "user", "content": 'say "file_id", "previous_response_id"'}]},
        {"previous_response_id": None, "conversation": None, "plugins": []},
        {"tools": ORDINARY_TOOLS},
        {"tools": None},
        part(type="image_url", image_url={"url": f"data:image/png;base64,{LARGE_PICTURE}"}),
        part(type="input_image", image_url=f"data:image/png;base64,{LARGE_PICTURE}"),
        part(
            type="image",
            source={"type": "base64", "media_type": "image/png", "data": LARGE_PICTURE},
        ),
        {
            "contents": [
                {"parts": [{"inlineData": {"mimeType": "image/png", "data": LARGE_PICTURE}}]}
            ]
        },
        {
            "messages": [
                {"content": [{"type": "tool_use", "input": {"file_id": "x", "source": "y"}}]}
            ]
        },
        {"input": [{"type": "function_call", "arguments": '{"file_id":"x"}'}]},
    ],
)
def test_a_body_that_says_all_is_bounded_by_its_bytes(body):
    assert not refers(**body)


@pytest.mark.parametrize(
    "body",
    [
        {"previous_response_id": "resp_1"},
        {"conversation": {"id": "conv_1"}},
        {"prompt": {"id": "pmpt_1"}},
        {"cachedContent": "cachedContents/x"},
        {"mcp_servers": [{"url": "x"}]},
        {"web_search_options": {"search_context_size": "low"}},
        {"plugins": [{"id": "web"}]},
        {"tools": [*ORDINARY_TOOLS, {"type": "web_search"}]},
        {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
        {"tools": [{"type": "what_comes_next_20270101", "input_schema": {}}]},
        {"tools": [{"googleSearch": {}}]},
        {"tools": [{"functionDeclarations": [], "urlContext": {}}]},
        {"tools": "odd"},
        {"input": [{"type": "item_reference", "id": "msg_1"}]},
        part(type="input_file", file_id="file-1"),
        part(type="file", file={"file_id": "file-1"}),
        part(type="input_image", file_id="file-1"),
        part(type="image_url", image_url={"url": "https://x/y.png"}),
        part(type="input_image", image_url="https://x/y.png"),
        part(type="video_url", video_url={"url": "data:video/mp4;base64," + LARGE_PICTURE}),
        part(type="document_url", document_url="https://x/y.pdf"),
        part(type="image", source={"type": "url", "url": "https://x"}),
        part(type="image", source={"type": "file", "file_id": "file_1"}),
        part(
            type="document",
            source={"type": "base64", "media_type": "application/pdf", "data": LARGE_PICTURE},
        ),
        {"contents": [{"parts": [{"fileData": {"fileUri": "gs://x"}}]}]},
        {
            "contents": [
                {"parts": [{"inlineData": {"mimeType": "video/mp4", "data": LARGE_PICTURE}}]}
            ]
        },
        part(
            type="tool_result", content=[{"type": "image", "source": {"type": "url", "url": "x"}}]
        ),
        {
            "input": [
                {
                    "type": "function_call_output",
                    "output": [{"type": "input_image", "file_id": "f"}],
                }
            ]
        },
        part(type="image_url", image_url={"url": f"data:image/png;base64,{SMALL_PICTURE}"}),
    ],
)
def test_what_is_read_elsewhere_or_holds_more_than_its_bytes_is_seen(body):
    assert refers(**body)


@pytest.mark.parametrize(
    "name",
    [
        "file_id",
        "file_url",
        "fileData",
        "file_data",
        "source",
        "image_url",
        "inlineData",
        "inline_data",
    ],
)
@pytest.mark.parametrize("kind", [{}, {"type": "text"}])
def test_media_are_seen_whatever_their_piece_is_called(name, kind):
    assert refers(**part(**kind, **{name: {"url": "https://x"}}))
    assert refers(messages=[{"role": "user", "content": "t", name: {"url": "https://x"}}])


def test_a_name_written_in_escapes_is_seen():
    assert references(CHAT, b'{"previous_r\\u0065sponse_id":"resp_1"}').refers_elsewhere
    body = b'{"messages":[{"content":[{"type":"input_image","fil\\u0065_id":"f"}]}]}'
    assert references(CHAT, body).refers_elsewhere


def test_what_cannot_be_read_counts_as_more():
    assert references(CHAT, b"{").refers_elsewhere
    assert references(CHAT, b"[]").refers_elsewhere
    assert references(CHAT, b'{"messages":[{"content":[1]}]}').refers_elsewhere


@pytest.mark.parametrize("depth", [10, 400, 900, 5_000, 200_000])
def test_turns_within_turns_without_end_are_looked_into_or_count_as_more(depth):
    picture = b'{"type":"input_image","file_id":"f"}'
    body = b'{"messages":' + b'[{"content":' * depth + b"[%s]" % picture + b"}]" * depth + b"}"
    assert references(CHAT, body).refers_elsewhere
    assert references(CHAT, body.replace(picture, b'{"type":"input_audio"}')).has_audio


@given(body=prompts())
def test_no_prompt_is_too_odd(body):
    for wire_format in FORMATS:
        found = references(route_of(wire_format), body)
        assert {type(one) for one in found} == {bool}
    assert may_write_1h(body) in (True, False)


def conversations() -> list[dict[str, object]]:
    """As clients send them in each format; with nothing but text in them."""
    turns = range(40)
    return [
        {
            "messages": [
                {"role": "system", "content": "s"},
                *({"role": "user", "content": f"text {turn}"} for turn in turns),
                {"role": "user", "content": [{"type": "text", "text": "t"}]},
                {"role": "tool", "tool_call_id": "c", "content": "result"},
            ],
            "tools": ORDINARY_TOOLS[:1],
        },
        {
            "input": [
                {"role": "developer", "content": "s"},
                *({"role": "user", "content": [{"type": "input_text"}]} for _ in turns),
                {"type": "function_call", "arguments": "{}"},
                {"type": "function_call_output", "output": [{"type": "input_text", "text": "t"}]},
            ]
        },
        {
            "system": [{"type": "text", "text": "s"}],
            "messages": [
                {"role": "user", "content": [{"type": "tool_result", "content": "t"}]},
                {"role": "user", "content": [{"type": "tool_result", "content": [{"text": "t"}]}]},
            ],
        },
        {
            "contents": [{"role": "user", "parts": [{"text": "t"}]} for _ in turns]
            + [{"parts": [{"functionResponse": {"name": "f", "response": {"output": "t"}}}]}]
        },
    ]


@pytest.mark.parametrize("body", conversations())
def test_a_conversation_of_text_is_not_decoded_twice(monkeypatch, body):
    """It is long, and what it says was passed over when its facts were read."""
    text = json.dumps(body).encode()
    facts = read_facts(CHAT, text)
    monkeypatch.setattr("opencode_gate.wire.references._requests", None)
    monkeypatch.setattr("opencode_gate.wire.references._part_lists", None)
    assert read_references(CHAT, text, facts)[:3] == (False, False, False)


@pytest.mark.parametrize(
    ("body", "may"),
    [
        ('{"cache_control":{"type":"ephemeral"}}', False),
        ('{"cache_control":{"type":"ephemeral","ttl":"5m"}}', False),
        ('{"cache_control":{"type":"ephemeral", "ttl" : "5m"}}', False),
        ('{"cache_control":{"type":"ephemeral","ttl":"1h"}}', True),
        ('{"cache_control":{"ttl" :\\n"\\u0031h"}}'.replace("\\n", "\n"), True),
        ('{"cache_control":{"\\u0074tl":"1h"}}', True),
        ('{"text":"\\"ttl\\":\\"1h\\""}', False),
    ],
)
def test_a_cache_that_is_kept_for_an_hour_is_seen(body, may):
    assert may_write_1h(body.encode()) is may


MARKED = [
    {"cache_control": "MARK"},
    {"system": [{"type": "text", "text": "t", "cache_control": "MARK"}]},
    {"tools": [{"name": "f", "input_schema": {}, "cache_control": "MARK"}]},
    {"tools": [{"type": "function", "function": {"name": "f"}, "cache_control": "MARK"}]},
    {"messages": [{"role": "user", "content": "t", "cache_control": "MARK"}]},
    {"messages": [{"role": "user", "content": [{"type": "text", "cache_control": "MARK"}]}]},
    {
        "messages": [
            {"role": "user", "content": [{"type": "text", "copilot_cache_control": "MARK"}]}
        ]
    },
    {"messages": [{"content": [{"type": "tool_result", "content": [{"cache_control": "MARK"}]}]}]},
    {"messages": [{"content": [{"type": "tool_use", "input": {}, "cache_control": "MARK"}]}]},
    {"input": [{"type": "function_call_output", "output": [{"cache_control": "MARK"}]}]},
]


@pytest.mark.parametrize("wire_format", FORMATS)
@pytest.mark.parametrize("body", MARKED)
def test_a_mark_is_seen_wherever_one_may_stand(body, wire_format):
    """Also where the texts between the marks are not searched."""
    route = route_of(wire_format)
    for mark, may in (
        ('{"type":"ephemeral"}', False),
        ('{"type":"ephemeral","ttl":"5m"}', False),
        ('{"type":"ephemeral","ttl":"1h"}', True),
        ('{"type":"ephemeral","ttl":"24h"}', True),
        ('{"type":"ephemeral","\\u0074tl":"1h"}', True),
    ):
        text = json.dumps(body).replace('"MARK"', mark).encode()
        found = read_references(route, text, read_facts(route, text))
        assert may_write_1h(text, found) is may


def test_a_long_text_between_short_marks_is_not_searched():
    text = json.dumps(
        {
            "system": [{"type": "text", "text": '"ttl":"1h"', "cache_control": {"ttl": "5m"}}],
            "messages": [{"role": "user", "content": [{"type": "text", "text": "\\u0041"}]}],
            "tools": [{"name": "f", "input_schema": {"properties": {"ttl": {}}}}],
        }
    ).encode()
    anthropic = route_of(WireFormat.ANTHROPIC_MESSAGES)
    found = read_references(anthropic, text, read_facts(anthropic, text))
    assert found.has_only_short_marks
    assert not may_write_1h(text, found)


@pytest.mark.parametrize(
    ("body", "sounds"),
    [
        ({"messages": [{"content": "audio"}]}, False),
        ({"modalities": ["text"]}, False),
        ({"modalities": ["text", "audio"], "audio": {"voice": "x"}}, True),
        (part(type="input_audio", input_audio={"data": "AAAA", "format": "wav"}), True),
        ({"contents": [{"parts": [{"inlineData": {"mimeType": "audio/mp3", "data": "A"}}]}]}, True),
        ({"generationConfig": {"responseModalities": ["AUDIO"]}}, True),
        ({"generationConfig": {"responseModalities": ["TEXT"]}, "x": "audio"}, False),
    ],
)
def test_sound_is_heard(body, sounds):
    assert references(CHAT, json.dumps(body).encode()).has_audio is sounds
