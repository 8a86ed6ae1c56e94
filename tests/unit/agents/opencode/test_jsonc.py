"""Configuration with comments must mean what it means to Opencode."""

import pytest

from opencode_gate.agents.opencode.jsonc import parse_object


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a":1}', {"a": 1}),
        ('\ufeff{"a":1}', {"a": 1}),
        ('{"a":1,}', {"a": 1}),
        ('{"a":[1,2,],}', {"a": [1, 2]}),
        ('// top\n{"a":1 /* b */}', {"a": 1}),
        ('{"u":"http://x//y","v":"/* no */",}', {"u": "http://x//y", "v": "/* no */"}),
        ('{"q":"a\\"//b", // c\n"r":",}"}', {"q": 'a"//b', "r": ",}"}),
        ('{"a":1, // last\n}', {"a": 1}),
    ],
)
def test_comments_and_trailing_commas_are_ignored_outside_strings(text, value):
    assert parse_object(text) == value


@pytest.mark.parametrize("text", ["", "[]", "1", "{", '{"a":}'])
def test_what_is_no_object_is_refused(text):
    with pytest.raises(ValueError):
        parse_object(text)


def test_an_error_names_the_line_of_the_original_text():
    with pytest.raises(ValueError, match="line 3"):
        parse_object('{ /* one\ntwo */\n"a": ?}')
