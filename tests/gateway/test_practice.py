"""The scripted model: a provider to everybody, exact to the token, open about what it is."""

import json
from typing import Any

import pytest

from opencode_gate.gateway.practice import PracticeUpstream
from opencode_gate.gateway.upstream import UpstreamFailure, UpstreamRequest, UpstreamResponse

USER = {"role": "user", "content": "hello"}
TITLE = {"role": "system", "content": "You are a title generator. You output ONLY a thread title."}


def tool(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}


def body(*messages: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"model": "scripted", "messages": list(messages) or [USER], **more}).encode()


async def send(
    content: bytes, *, method: str = "POST", target: bytes = b"/v1/chat/completions"
) -> UpstreamResponse:
    request = UpstreamRequest(
        method=method,
        scheme="http",
        host="practice.invalid",
        port=80,
        target=target,
        headers=[],
        body=content,
    )
    return await PracticeUpstream(piece_pause_s=0).send(request, header_timeout_s=1)


async def document(content: bytes, **how: Any) -> tuple[int, dict[str, Any]]:
    response = await send(content, **how)
    raw = await response.read()
    assert await response.read() == b""
    assert dict(response.headers)[b"Content-Length"] == b"%d" % len(raw)
    return response.status, json.loads(raw)


async def events(content: bytes) -> list[dict[str, Any]]:
    """The events of a stream, checked for being well-formed server-sent events."""
    response = await send(content)
    assert response.status == 200
    assert dict(response.headers)[b"Content-Type"].startswith(b"text/event-stream")
    raw = b""
    while part := await response.read():
        raw += part
    assert raw.endswith(b"\n\n")
    blocks = raw[:-2].split(b"\n\n")
    assert blocks[-1] == b"data: [DONE]"
    assert all(block.startswith(b"data: ") for block in blocks)
    return [json.loads(block[6:]) for block in blocks[:-1]]


def joined(stream: list[dict[str, Any]]) -> tuple[str, str, str | None]:
    """Text, arguments of the tool call and finish reason of a stream."""
    text, arguments, reason = "", "", None
    for event in stream:
        for choice in event["choices"]:
            text += choice["delta"].get("content") or ""
            for call in choice["delta"].get("tool_calls", ()):
                arguments += call["function"]["arguments"]
            reason = choice["finish_reason"] or reason
    return text, arguments, reason


def message_of(answer: dict[str, Any]) -> dict[str, Any]:
    return answer["choices"][0]["message"]


async def test_stream_and_plain_answer_say_and_count_the_same() -> None:
    """Text, call, finish reason and usage do not depend on how it is asked."""
    asked = {"tools": [tool("glob")]}
    stream = await events(body(USER, stream=True, stream_options={"include_usage": True}, **asked))
    _, plain = await document(body(USER, **asked))
    text, arguments, reason = joined(stream)
    assert text == message_of(plain)["content"]
    assert arguments == message_of(plain)["tool_calls"][0]["function"]["arguments"]
    assert reason == plain["choices"][0]["finish_reason"] == "tool_calls"
    assert stream[-1]["usage"] == plain["usage"]


async def test_output_tokens_are_the_pieces_streamed() -> None:
    """Exact: anybody can count them in the stream."""
    stream = await events(
        body(USER, stream=True, stream_options={"include_usage": True}, tools=[tool("glob")])
    )
    pieces = 0
    for event in stream:
        for choice in event["choices"]:
            pieces += bool(choice["delta"].get("content"))
            pieces += sum(
                bool(call["function"]["arguments"])
                for call in choice["delta"].get("tool_calls", ())
            )
    usage = stream[-1]["usage"]
    reasoning = usage["completion_tokens_details"]["reasoning_tokens"]
    assert usage["completion_tokens"] == pieces + reasoning
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert reasoning > 0


async def test_input_tokens_follow_from_messages_and_tools_alone() -> None:
    """Four bytes a token; what the gateway adds to the body does not change the count."""
    message = '{"role":"user","content":"123456789"}'
    asked = '{"model":"scripted","messages":[%s],"tools":[%s]%s}'
    offered = json.dumps(tool("bash"))
    _, plain = await document((asked % (message, offered, "")).encode())
    _, more = await document((asked % (message, offered, ',"max_tokens":7')).encode())
    expected = -(-(len(message) + len(offered)) // 4)
    assert plain["usage"]["prompt_tokens"] == more["usage"]["prompt_tokens"] == expected


async def test_a_conversation_that_goes_on_is_partly_cached() -> None:
    """In whole blocks of 128, never more than the input, and nothing the first time."""
    long_message = {"role": "user", "content": "word " * 500}
    _, first = await document(body(long_message, USER))
    _, second = await document(body(long_message, USER, message_of(first), USER))
    assert first["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    cached = second["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert cached > 0
    assert cached % 128 == 0
    assert cached <= second["usage"]["prompt_tokens"]


@pytest.mark.parametrize("options", [{}, {"stream_options": {}}, {"stream_options": None}])
async def test_usage_is_streamed_only_when_asked_for(options: dict[str, Any]) -> None:
    """As OpenAI does: without include_usage no chunk carries any."""
    stream = await events(body(USER, stream=True, **options))
    assert all("usage" not in event for event in stream)
    assert all(event["choices"] for event in stream)


async def test_usage_chunk_comes_last_and_has_no_choices() -> None:
    """After the finish reason, right before [DONE]."""
    stream = await events(body(USER, stream=True, stream_options={"include_usage": True}))
    assert [bool(event.get("usage")) for event in stream] == [False] * (len(stream) - 1) + [True]
    assert stream[-1]["choices"] == []
    assert stream[-2]["choices"][0]["finish_reason"] == "stop"


async def test_a_title_call_gets_a_short_title() -> None:
    """Even with tools offered: no call, one line."""
    _, answer = await document(body(TITLE, USER, tools=[tool("glob")]))
    title = message_of(answer)["content"]
    assert "\n" not in title
    assert len(title) <= 50
    assert "tool_calls" not in message_of(answer)


async def test_a_turn_is_one_look_and_a_closing_word() -> None:
    """Call, result, end; the next turn looks again, under another call id."""
    offered = {"tools": [tool("bash"), tool("read"), tool("glob")]}
    _, first = await document(body(USER, **offered))
    call = message_of(first)["tool_calls"][0]
    assert call["function"] == {"name": "read", "arguments": '{"filePath":"."}'}
    result = {"role": "tool", "tool_call_id": call["id"], "content": "a.py"}
    _, second = await document(body(USER, message_of(first), result, **offered))
    assert "tool_calls" not in message_of(second)
    assert second["choices"][0]["finish_reason"] == "stop"
    _, third = await document(
        body(USER, message_of(first), result, message_of(second), USER, **offered)
    )
    assert message_of(third)["tool_calls"][0]["id"] != call["id"]


@pytest.mark.parametrize(
    "offered",
    [
        {},
        {"tools": []},
        {"tools": [tool("bash"), tool("write"), tool("edit")]},
        {"tools": [tool("glob")], "tool_choice": "none"},
    ],
)
async def test_it_never_calls_what_could_change_something(offered: dict[str, Any]) -> None:
    """Only tools that look, and none where none may be called."""
    _, answer = await document(body(USER, **offered))
    assert "tool_calls" not in message_of(answer)


@pytest.mark.parametrize("offered", [{}, {"tools": [tool("glob")]}])
async def test_every_answer_says_that_it_is_scripted(offered: dict[str, Any]) -> None:
    """Nobody may take it for a model."""
    _, answer = await document(body(USER, **offered))
    assert "scripted" in message_of(answer)["content"]
    assert answer["model"] == "scripted"


async def test_it_lists_its_one_model() -> None:
    """`GET …/models`, under whatever prefix."""
    status, answer = await document(b"", method="GET", target=b"/p/practice/v1/models?limit=1")
    assert (status, [model["id"] for model in answer["data"]]) == (200, ["scripted"])


@pytest.mark.parametrize(
    ("content", "how", "status"),
    [
        (b"not json", {}, 400),
        (b'{"model":"scripted"}', {}, 400),
        (b'{"model":"scripted","messages":[1]}', {}, 400),
        (b'{"model":"scr\xff","messages":[]}', {}, 400),
        (b'{"model":"scripted","messages":[],"x":' + b"[" * 9000 + b"]" * 9000 + b"}", {}, 400),
        (b'{"model":"scripted","messages":[],"tools":[1]}', {}, 400),
        (body().replace(b"scripted", b"gpt-5"), {}, 404),
        (body(), {"target": b"/v1/embeddings"}, 404),
        (b"", {"method": "GET"}, 404),
    ],
)
async def test_what_it_does_not_understand_it_refuses_as_openai_would(
    content: bytes, how: dict[str, Any], status: int
) -> None:
    """An error object with a message, not an exception in the gateway."""
    answered, answer = await document(content, **how)
    assert answered == status
    assert answer["error"]["message"]


async def test_a_given_up_answer_is_not_read_on() -> None:
    """As with a connection that was closed."""
    response = await send(body(USER, stream=True))
    assert await response.read()
    response.abort()
    with pytest.raises(UpstreamFailure):
        await response.read()
