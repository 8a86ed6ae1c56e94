import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencode_gate.core.semconv import WireFormat
from opencode_gate.wire.facts import BadBody, RequestFacts, prompt_bytes, read_facts
from opencode_gate.wire.routes import identify
from tests.support.wire_corpus import route_of

CHAT = route_of(WireFormat.OPENAI_CHAT)
RESPONSES = route_of(WireFormat.OPENAI_RESPONSES)
ANTHROPIC = route_of(WireFormat.ANTHROPIC_MESSAGES)
GEMINI = route_of(WireFormat.GEMINI_GENERATE)


def facts(route, **body) -> RequestFacts:
    return read_facts(route, json.dumps(body).encode())


def test_chat():
    found = facts(
        CHAT,
        model="gpt-5",
        stream=True,
        stream_options={"include_usage": True},
        messages=[
            {"role": "system", "content": "You are " + "x" * 300},
            {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        ],
    )
    assert (found.request_model, found.stream) == ("gpt-5", True)
    assert found.asks_for_usage
    assert found.instructions_head == ("You are " + "x" * 300)[:200]


def test_responses():
    found = facts(
        RESPONSES,
        model="gpt-5",
        input=[
            {"role": "developer", "content": "You are a title generator."},
            {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
        ],
    )
    assert (found.request_model, found.stream) == ("gpt-5", False)
    assert found.instructions_head == "You are a title generator."
    assert facts(RESPONSES, model="m", input="hi", instructions="Be").instructions_head == "Be"


def test_anthropic():
    found = facts(
        ANTHROPIC,
        model="claude",
        stream=True,
        system=[{"type": "text", "text": "You are", "cache_control": {}}, {"text": "here"}],
        messages=[{"role": "user", "content": "hi"}],
    )
    assert found.instructions_head == "You are\nhere"
    assert facts(ANTHROPIC, model="m", system="Be brief").instructions_head == "Be brief"


def test_gemini():
    found = facts(
        GEMINI,
        systemInstruction={"parts": [{"text": "You are"}]},
        contents=[{"role": "user", "parts": [{"text": "hi"}]}],
    )
    assert (found.request_model, found.stream) == ("m", True)
    assert found.instructions_head == "You are"


@pytest.mark.parametrize(
    ("body", "asks"),
    [
        ({"stream": True}, False),
        ({"stream": True, "stream_options": {}}, False),
        ({"stream": True, "stream_options": None}, False),
        ({"stream": True, "stream_options": {"include_usage": False}}, False),
        ({"stream": True, "stream_options": {"include_usage": True}}, True),
        ({"stream": True, "usage": {"include": True}}, True),
        ({"stream": False}, True),
        ({}, True),
    ],
)
def test_only_a_streamed_chat_has_to_ask_for_usage(body, asks):
    assert facts(CHAT, model="m", **body).asks_for_usage is asks
    assert facts(ANTHROPIC, model="m", **body).asks_for_usage


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b'"x"', b"null", b"{", b'{"model":1}', b'{"stream":"yes"}', b"\xff", b"{}{}"],
)
def test_a_body_no_provider_could_take_is_refused(body):
    with pytest.raises(BadBody) as caught:
        read_facts(CHAT, body)
    assert caught.value.code == "bad-body"
    assert caught.value.http_status == 400


def test_nesting_without_end_is_refused():
    with pytest.raises(BadBody):
        read_facts(CHAT, b'{"x":' + b"[" * 200_000 + b"]" * 200_000 + b"}")


@pytest.mark.parametrize(
    "member",
    [
        {"messages": "hi"},
        {"messages": [1, None]},
        {"messages": [{"role": 7, "content": {"a": 1}}]},
        {"tools": {"a": 1}},
        {"tools": [{"function": 3}]},
        {"max_tokens": "many"},
        {"max_tokens": -1},
        {"stream_options": [1]},
        {"generationConfig": 5},
        {"system": 5},
    ],
)
def test_what_is_merely_unusual_is_left_to_the_provider(member):
    for route in (CHAT, RESPONSES, ANTHROPIC, GEMINI):
        found = facts(route, model="m", **member)
        assert found.request_model == "m"
        assert found.instructions_head == ""


def test_half_an_emoji_in_a_message_is_no_bad_body():
    """JavaScript clients cut texts inside a surrogate pair and still send valid JSON."""
    body = b'{"model":"m","messages":[{"role":"system","content":"a\\ud83d"}],"stream":true}'
    found = read_facts(CHAT, body)
    assert found.stream
    assert found.instructions_head == "a\ufffd"


_TEXTS = st.text(alphabet=st.sampled_from('a é\u20ac\U0001f600"\\\n'), min_size=20)


@given(text=_TEXTS, times=st.integers(1, 400), is_escaped=st.booleans())
def test_the_head_of_long_instructions_is_that_of_the_whole(text, times, is_escaped):
    """Wherever a long text is cut to be read, no character of its head is another one."""
    instructions = text * times
    for route, members in (
        (CHAT, {"messages": [{"role": "system", "content": instructions}]}),
        (RESPONSES, {"instructions": instructions}),
        (ANTHROPIC, {"system": instructions}),
    ):
        document = json.dumps({"model": "m", **members}, ensure_ascii=is_escaped)
        assert read_facts(route, document.encode()).instructions_head == instructions[:200]


def test_inline_media_does_not_count_as_text():
    """An image of a megabyte is not a quarter of a million tokens."""
    image = "A" * 1_000_000
    content = [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}}]
    found = facts(CHAT, model="m", messages=[{"role": "user", "content": content}])
    assert found.input_bytes < 1000
    assert facts(CHAT, model="m", messages=["x" * 5000]).input_bytes > 5000


def test_requests_without_a_prompt_are_not_read():
    assert read_facts(identify("GET", "/v1/models"), b"") == RequestFacts()
    assert read_facts(identify("POST", "/v1/embeddings"), b"\xff").input_bytes == 1


RUN = re.compile(rb"[A-Za-z0-9+/=_-]{2048,}")
pieces = st.builds(
    lambda char, length: char * length,
    st.sampled_from([b"A", b"=", b"/", b" ", b'"', b"word ", b"base64"]),
    st.sampled_from([1, 100, 1023, 1024, 2047, 2048, 2049, 4096, 9000]) | st.integers(1, 9000),
)


@given(parts=st.lists(pieces, max_size=12))
def test_media_are_taken_out_wherever_they_stand(parts):
    """Only a few bytes of a body are looked at to find them; none is overlooked."""
    body = b"".join([*parts, b'"base64"', b" text" * 4000])
    media = sum(len(match[0]) for match in RUN.finditer(body))
    assert prompt_bytes(body) == len(body) - media


@pytest.mark.parametrize("length", [2047, 2048, 3071, 3072, 4096])
def test_the_shortest_media_are_found_at_any_place(length):
    run = b"A" * length
    for place in range(0, 4096, 5):
        body = b" " * place + run + b'"base64"' + b" " * 20_000
        assert prompt_bytes(body) == len(body) - (length if length >= 2048 else 0), place


def test_a_long_word_is_no_media_where_none_is_named():
    assert prompt_bytes(b"A" * 50_000) == 50_000
