"""What the model says itself is no new question."""

import json

import pytest

from opencode_gate.wire.turns import turns_asked


def item(kind: str) -> dict[str, object]:
    return {"type": kind, "call_id": "c"}


@pytest.mark.parametrize(
    ("member", "question", "own", "result"),
    [
        (
            "messages",
            [{"role": "system", "content": "s"}, {"role": "user", "content": "hi"}],
            [{"role": "assistant", "content": "half"}],
            {"role": "tool", "content": "x"},
        ),
        (
            "input",
            [{"role": "developer", "content": "s"}, {"role": "user", "content": "hi"}],
            [item("reasoning"), {"role": "assistant", "content": []}, item("function_call")],
            item("function_call_output"),
        ),
        (
            "messages",
            [{"role": "user", "content": "hi"}],
            [{"role": "assistant", "content": "half"}],
            {"role": "user", "content": [{"type": "tool_result"}]},
        ),
        (
            "contents",
            [{"parts": [{"text": "hi"}]}],
            [{"role": "model", "parts": [{"text": "half"}]}],
            {"role": "user", "parts": [{"functionResponse": {}}]},
        ),
    ],
)
def test_an_agent_in_a_circle_stays_where_it_is_and_one_that_works_gets_on(
    member, question, own, result
):
    asked = len(question)
    for turns, expected in (
        (question, asked),
        ([*question, *own], asked),
        ([*question, *own, *own], asked),
        ([*question, *own, result], asked + len(own) + 1),
        ([*question, *own, result, *own], asked + len(own) + 1),
    ):
        body = json.dumps({"model": "m", member: turns, "tools": [{"type": "function"}]})
        assert turns_asked(body.encode()) == expected


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"input":"hi"}', b'{"messages":[]}', b'{"messages":[1]}', b"\xff"]
)
def test_what_is_no_list_of_turns_has_no_place(body):
    assert turns_asked(body) is None
