"""What a request is made of: the same parts for the same prompt, and never a word of it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencode_gate.wire.prompt_parts import (
    MESSAGES,
    PART_BYTES,
    SYSTEM,
    TOOLS,
    Part,
    prompt_parts,
    tool_set_of,
    tool_sizes,
    unpacked,
)
from opencode_gate.wire.routes import Route, identify

KEY = b"k" * 32
CHAT = identify("POST", "/v1/chat/completions")
RESPONSES = identify("POST", "/v1/responses")
ANTHROPIC = identify("POST", "/v1/messages")
GEMINI = identify("POST", "/v1beta/models/m:streamGenerateContent")


def chat(tools: list[str], system: str, *said: str) -> dict[str, Any]:
    return {
        "model": "m",
        "messages": [
            {"role": "system", "content": system},
            *({"role": "user", "content": text} for text in said),
        ],
        "tools": [{"type": "function", "function": {"name": name}} for name in tools],
    }


def responses(tools: list[str], system: str, *said: str) -> dict[str, Any]:
    return {
        "model": "m",
        "input": [
            {"role": "developer", "content": system},
            *({"role": "user", "content": [{"type": "input_text", "text": t}]} for t in said),
        ],
        "tools": [{"type": "function", "name": name} for name in tools],
    }


def anthropic(tools: list[str], system: str, *said: str) -> dict[str, Any]:
    return {
        "model": "m",
        "system": [{"type": "text", "text": system}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": text}]} for text in said
        ],
        "tools": [{"name": name, "input_schema": {}} for name in tools],
    }


def gemini(tools: list[str], system: str, *said: str) -> dict[str, Any]:
    return {
        "systemInstruction": {"parts": [{"text": system}]},
        "contents": [{"role": "user", "parts": [{"text": text}]} for text in said],
        "tools": [{"functionDeclarations": [{"name": name} for name in tools]}],
    }


FORMATS = [(CHAT, chat), (RESPONSES, responses), (ANTHROPIC, anthropic), (GEMINI, gemini)]
each_format = pytest.mark.parametrize(("route", "request_of"), FORMATS)


def parts_of(route: Route, body: Any, key: bytes = KEY) -> tuple[Part, ...]:
    text = body if isinstance(body, bytes) else json.dumps(body, separators=(",", ":")).encode()
    packed = prompt_parts(route, text, key)
    assert packed is not None
    assert len(packed) % PART_BYTES == 0
    return unpacked(packed)


def changed(before: tuple[Part, ...], after: tuple[Part, ...]) -> list[int]:
    return [number for number in range(len(before)) if before[number].hash != after[number].hash]


@each_format
def test_parts_are_tools_then_system_then_each_message(route, request_of):
    """A change shows at its own place and nowhere else, in every format."""
    before = parts_of(route, request_of(["bash", "read"], "Be brief.", "one", "two"))
    assert len(before) == MESSAGES + 2
    for body, place in (
        (request_of(["bash", "write"], "Be brief.", "one", "two"), TOOLS),
        (request_of(["read", "bash"], "Be brief.", "one", "two"), TOOLS),
        (request_of(["bash", "read"], "Be long.", "one", "two"), SYSTEM),
        (request_of(["bash", "read"], "Be brief.", "ONE", "two"), MESSAGES),
        (request_of(["bash", "read"], "Be brief.", "one", "TWO"), MESSAGES + 1),
    ):
        assert changed(before, parts_of(route, body)) == [place]


@each_format
def test_a_longer_conversation_begins_with_the_parts_of_the_shorter(route, request_of):
    before = parts_of(route, request_of(["bash"], "s", "one", "two"))
    after = parts_of(route, request_of(["bash"], "s", "one", "two", "three"))
    assert after[: len(before)] == before
    assert len(after) == len(before) + 1


@each_format
def test_lengths_grow_with_what_was_said(route, request_of):
    short = parts_of(route, request_of([], "s", "x"))
    long = parts_of(route, request_of([], "s", "x" * 1001))
    assert long[MESSAGES].length - short[MESSAGES].length == 1000


@each_format
def test_another_key_gives_other_hashes_and_the_same_lengths(route, request_of):
    """Nobody who lacks the key can try guesses at a text."""
    body = request_of(["bash"], "s", "one")
    ours, theirs = parts_of(route, body), parts_of(route, body, b"t" * 32)
    assert changed(ours, theirs) == [TOOLS, SYSTEM, MESSAGES]
    assert [part.length for part in ours] == [part.length for part in theirs]


@each_format
def test_the_tool_set_has_a_name_and_sizes(route, request_of):
    body = json.dumps(request_of(["bash", "git_status"], "s", "one")).encode()
    sizes = tool_sizes(route, body)
    assert list(sizes) == ["bash", "git_status"]
    assert sizes["git_status"] - sizes["bash"] == len("git_status") - len("bash")
    packed = prompt_parts(route, body, KEY)
    assert packed is not None
    assert tool_set_of(packed) == packed[:8].hex()
    without = {name: value for name, value in request_of([], "s", "one").items() if name != "tools"}
    bare = prompt_parts(route, json.dumps(without).encode(), KEY)
    assert bare is not None
    assert tool_set_of(bare) is None


def marked(body: dict[str, Any], *places: int) -> dict[str, Any]:
    """An Anthropic body with cache marks on the system prompt, a tool and some messages."""
    body = json.loads(json.dumps(body))
    mark = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
    body["system"][-1] |= mark
    body["tools"][-1] = {**mark, **body["tools"][-1]}
    for place in places:
        body["messages"][place]["content"][-1] |= mark
    return body


def test_a_cache_mark_that_moves_on_changes_nothing():
    """Anthropic's marks stand on the last messages of each request and are no part of a prompt."""
    plain = anthropic(["bash"], "s", "one", "two", "three")
    expected = parts_of(ANTHROPIC, plain)
    assert parts_of(ANTHROPIC, marked(plain, 0)) == expected
    assert parts_of(ANTHROPIC, marked(plain, 1, 2)) == expected
    spaced = json.dumps(marked(plain, 2), indent=1).encode()
    assert changed(expected, parts_of(ANTHROPIC, json.dumps(plain, indent=1).encode())) != []
    assert changed(parts_of(ANTHROPIC, spaced), expected) != []


def test_a_text_about_cache_marks_is_not_taken_for_one():
    """Their bytes inside a text are escaped: two texts that differ in them differ."""
    one = anthropic([], "s", '{"x":1,"cache_control":{"type":"ephemeral"}}')
    two = anthropic([], "s", '{"x":1}')
    assert changed(parts_of(ANTHROPIC, one), parts_of(ANTHROPIC, two)) == [MESSAGES]


def test_a_chat_text_in_a_marked_list_is_the_bare_text():
    """OpenRouter's client writes a message as a list only while it carries the mark."""
    plain = chat(["bash"], "s", "one", 'two "quoted" \n \u00e4')
    listed = json.loads(json.dumps(plain))
    for message in listed["messages"]:
        part = {"type": "text", "text": message["content"], "cache_control": {"type": "ephemeral"}}
        message["content"] = [part]
    assert parts_of(CHAT, listed) == parts_of(CHAT, plain)
    several = json.loads(json.dumps(plain))
    several["messages"][1]["content"] = [{"type": "text", "text": "one"}] * 2
    assert changed(parts_of(CHAT, several), parts_of(CHAT, plain)) == [MESSAGES]


@given(text=st.text(), said_before=st.integers(0, 100), said_behind=st.text(min_size=1))
def test_whatever_else_a_message_says_its_single_text_is_told_in_the_one_way(
    text: str, said_before: int, said_behind: str
):
    """A member that begins like the content is no reason to take it for the content."""
    text = "=" * said_before + text
    message = {
        "role": "user",
        "quoted": [{"type": "text", "text": text + said_behind}],
        "content": [{"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}],
        "name": "n",
    }
    bare = {**message, "content": text}
    assert parts_of(CHAT, {"messages": [message]}) == parts_of(CHAT, {"messages": [bare]})


def test_instructions_lead_a_responses_request_in_either_place():
    one = {"instructions": "s", "input": [{"role": "user", "content": "hi"}]}
    two = {"instructions": "s", "input": "hi"}
    assert len(parts_of(RESPONSES, one)) == len(parts_of(RESPONSES, two)) == MESSAGES + 1
    assert parts_of(RESPONSES, one)[SYSTEM] == parts_of(RESPONSES, two)[SYSTEM]


def test_a_system_message_in_the_middle_is_a_message():
    body = chat([], "s", "one")
    body["messages"].append({"role": "system", "content": "late"})
    assert len(parts_of(CHAT, body)) == MESSAGES + 2


def test_inline_media_have_a_hash_and_no_length():
    """A picture would else pass for a long text."""
    body = anthropic([], "s", "look")
    image = {"type": "image", "source": {"type": "base64", "data": "QUJD" * 5000}}
    body["messages"][0]["content"].append(image)
    part = parts_of(ANTHROPIC, body)[MESSAGES]
    assert part.length < 300
    image["source"]["data"] = "QUJE" * 5000
    assert parts_of(ANTHROPIC, body)[MESSAGES].hash != part.hash


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'{"messages":{}}',
        b'{"messages":[1],"tools":{}}',
        b'{"messages":["text"]}',
        b'{"messages":[{"role":"user","content":["text"]}]}',
        b"\xff",
        b"[" * 100_000,
    ],
)
@pytest.mark.parametrize("route", [CHAT, RESPONSES, ANTHROPIC, GEMINI])
def test_what_cannot_be_read_has_no_parts_and_raises_nothing(route: Route, body: bytes):
    prompt_parts(route, body, KEY)
    assert tool_sizes(route, body) == {}
    assert prompt_parts(route, b"{", KEY) is None


def test_what_carries_no_prompt_has_no_parts():
    body = json.dumps(anthropic(["bash"], "s", "one")).encode()
    for path in ("/v1/messages/count_tokens", "/v1/embeddings"):
        assert prompt_parts(identify("POST", path), body, KEY) is None
        assert tool_sizes(identify("POST", path), body) == {}


def test_a_torn_last_part_is_left_out():
    packed = prompt_parts(CHAT, json.dumps(chat([], "s", "one")).encode(), KEY)
    assert packed is not None
    assert unpacked(packed[:-1]) == unpacked(packed)[:-1]


@each_format
def test_no_text_is_in_the_parts(route, request_of):
    body = json.dumps(request_of(["bash"], "violet-system", "violet-prompt")).encode()
    packed = prompt_parts(route, body, KEY)
    assert packed is not None
    assert b"violet" not in packed
    assert len(packed) == PART_BYTES * (MESSAGES + 1)
