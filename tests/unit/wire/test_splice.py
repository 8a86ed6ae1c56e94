import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencode_gate.wire.facts import read_facts
from opencode_gate.wire.routes import identify
from opencode_gate.wire.splice import ask_for_usage

MEMBER = '"stream_options":{"include_usage":true}'


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('{"a":1}', "{" + MEMBER + ',"a":1}'),
        ("{}", "{" + MEMBER + "}"),
        (' { \n "a" : 1 }\n', " {" + MEMBER + ', \n "a" : 1 }\n'),
        ("{ }", "{" + MEMBER + " }"),
        ('{"stream_options":null,"a":1}', "{" + MEMBER + ',"a":1}'),
        ('{"stream_options":{}}', "{" + MEMBER + "}"),
        (
            '{"a":"é😀","stream_options": {"x":1} ,"b":2}',
            '{"a":"é😀","stream_options": {"include_usage":true,"x":1} ,"b":2}',
        ),
        (
            '{"stream_options":{"include_usage": false}}',
            '{"stream_options":{"include_usage": true}}',
        ),
        ('{"m":{"stream_options":{}}}', "{" + MEMBER + ',"m":{"stream_options":{}}}'),
        (
            '{"m":"\\"stream_options\\":{}","t":1}',
            "{" + MEMBER + ',"m":"\\"stream_options\\":{}","t":1}',
        ),
    ],
)
def test_the_member_is_put_in_and_nothing_else_moves(body, expected):
    assert ask_for_usage(body.encode()).decode() == expected


def test_a_body_that_is_no_text_keeps_its_bytes():
    body = b'{"stream_options":{},"messages":"\xff\\ud83d"}'
    assert ask_for_usage(body) == body.replace(b"{}", b'{"include_usage":true}')


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(
    body=st.dictionaries(st.text() | st.sampled_from(["model", "stream"]), json_values),
    options=st.none()
    | st.dictionaries(st.sampled_from(["include_usage", "x"]), st.booleans() | st.none()),
    indent=st.sampled_from([None, 1]),
    ensure_ascii=st.booleans(),
)
def test_any_body_asks_for_usage_afterwards(body, options, indent, ensure_ascii):
    """Whatever the client sent stays, members of its own `stream_options` too."""
    body.pop("stream_options", None)
    if options is not None:
        body = {**body, "stream_options": options}
    original = json.dumps(body, indent=indent, ensure_ascii=ensure_ascii)
    try:
        encoded = original.encode()
    except UnicodeEncodeError:
        return
    spliced = json.loads(ask_for_usage(encoded))
    asked = spliced.pop("stream_options")
    assert asked == {**(options or {}), "include_usage": True}
    body.pop("stream_options", None)
    assert spliced == body


def test_a_body_known_to_have_no_options_is_not_searched_for_them():
    """A long prompt is read once; what was read tells whether there are any, in any spelling."""
    for text, has_options in (
        (b'{"stream":true}', False),
        (b'{"stream":true,"stream_options":null}', True),
        (b'{"stream":true,"stream\\u005foptions":{}}', True),
        (b'{"stream":true,"messages":[{"content":"\\"stream_options\\""}]}', False),
        (b'{"messages":[{"stream_options":{}}]}', False),
    ):
        facts = read_facts(identify("POST", "/v1/chat/completions"), text)
        assert facts.has_stream_options is has_options
        if not has_options:
            asked = ask_for_usage(text, has_stream_options=False)
            assert json.loads(asked)["stream_options"] == {"include_usage": True}
