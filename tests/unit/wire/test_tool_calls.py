"""A conversation that goes round in a circle is told from one that gets on."""

import json

import pytest
from hypothesis import given

from opencode_gate.core.semconv import WireFormat
from opencode_gate.wire.tool_calls import RepeatedCall, repeated_tool_call
from tests.support.agent_conversations import FORMATS, Step, body_of
from tests.support.json_bodies import prompts

READ = Step("read", {"filePath": "/a"}, "text")
GREP = Step("grep", {"pattern": "x"}, "nothing")
EDIT = Step("edit", {"filePath": "/a"}, "done")


def numbered(count: int) -> list[Step]:
    return [Step("read", {"filePath": f"/{number}"}, "text") for number in range(count)]


def told(wire_format: WireFormat, steps: list[Step], **more: object) -> tuple[str, int, int]:
    return tuple(repeated_tool_call(body_of(wire_format, steps, **more)))


@pytest.mark.parametrize("wire_format", FORMATS)
@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([], ("", 0, 0)),
        ([READ], ("read", 1, 1)),
        ([READ] * 7, ("read", 7, 7)),
        ([*numbered(5), *[READ] * 3], ("read", 3, 3)),
        ([*[READ] * 5, GREP], ("grep", 1, 1)),
        ([READ, GREP] * 4, ("read, grep", 4, 4)),
        ([GREP, *[READ, GREP] * 4], ("read, grep", 4, 4)),
        ([EDIT, READ, GREP] * 3, ("edit, read, grep", 3, 3)),
        (numbered(40), ("read", 1, 1)),
        ([READ, *numbered(3)] * 5, ("read", 1, 1)),
        ([Step("read", {}, str(number)) for number in range(6)], ("read", 6, 1)),
        ([Step("read", {"a": number}, "same") for number in range(6)], ("read", 1, 1)),
        ([*[Step("run", {}, "x")] * 2, *[Step("run", {}, "y")] * 3], ("run", 5, 3)),
    ],
)
def test_what_repeats_at_the_end_is_counted(wire_format, steps, expected):
    assert told(wire_format, steps) == expected


@pytest.mark.parametrize("wire_format", FORMATS)
def test_what_the_user_says_begins_anew(wire_format):
    assert told(wire_format, [READ] * 5, said_last="go on") == ("", 0, 0)
    assert told(wire_format, [READ] * 5, said_before={3: "go on"}) == ("read", 2, 2)


@pytest.mark.parametrize("wire_format", FORMATS)
def test_calls_made_together_are_one_step(wire_format):
    both = Step("read", {"filePath": "/a"}, "text", together=(GREP,))
    assert told(wire_format, [both] * 4) == ("read, grep", 4, 4)
    other = Step("read", {"filePath": "/a"}, "text", together=(EDIT,))
    assert told(wire_format, [both, other, both]) == ("read, grep", 1, 1)


def test_cache_marks_that_move_on_make_no_difference():
    """Opencode marks the last two messages, inside the results too."""
    body = json.loads(body_of(WireFormat.ANTHROPIC_MESSAGES, [READ] * 4))
    for number, message in enumerate(body["messages"]):
        for block in message["content"]:
            if block["type"] == "tool_result":
                block["content"] = [{"type": "text", "text": block["content"]}]
                if number > 4:
                    block["content"][0]["cache_control"] = {"type": "ephemeral"}
    assert repeated_tool_call(json.dumps(body).encode()) == RepeatedCall("read", 4, 2)
    for message in body["messages"]:
        for block in message["content"]:
            if block["type"] == "tool_result":
                block["content"][0]["cache_control"] = {"type": "ephemeral"}
    assert repeated_tool_call(json.dumps(body).encode()) == RepeatedCall("read", 4, 4)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"messages":[]}',
        b'{"messages":"x"}',
        b'{"messages":[1]}',
        b'{"input":"hi"}',
        b'{"messages":[{"role":"tool","content":"x"}]}',
        b'{"messages":[{"role":"assistant","tool_calls":[{"function":{"name":"f"}}]}]}',
        b'{"messages":[{"role":"assistant","tool_calls":[{}]},{"role":"tool"}]}',
        b'{"input":[{"type":"function_call_output","output":"x"}]}',
        b'{"contents":[{"role":"model","parts":[{"functionCall":null}]}]}',
        b"\xff",
    ],
)
def test_an_odd_prompt_repeats_nothing(body):
    assert repeated_tool_call(body).times == 0


@given(body=prompts())
def test_no_prompt_is_too_odd(body):
    assert repeated_tool_call(body).times >= 0
