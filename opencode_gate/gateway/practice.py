"""The practice provider: a scripted model that lives inside the gateway.

It shows a newcomer a whole session without a key, a network or a bill. To the pipeline it is
an upstream like any other: OpenAI chat bytes, streamed with small pauses, with exact usage.
It never pretends to be a model: its first words and its last ones say what it is.

The script: a title call gets a title; a turn that offers tools gets some text and one
harmless call that only looks; the turn after the tool's result, and one without tools, gets
the closing text. All counts follow from the request alone, so the same request costs the
same every time: one output token per piece streamed, one input token per started four bytes
of `messages` and `tools`.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from typing import Final

import msgspec

from opencode_gate.gateway.upstream import (
    OnHead,
    RawHeaders,
    UpstreamFailure,
    UpstreamRequest,
)
from opencode_gate.wire.decoding import NOT_DECODED

MODEL_ID: Final = "scripted"
PIECE_PAUSE_S: Final = 0.02
_CREATED_S: Final = 1_767_225_600  # 2026-01-01, the same in every answer
_CACHE_BLOCK_TOKENS: Final = 128
_REASONING_TOKENS: Final = 24

_TITLE = "Practice session with a scripted model"
_OPENING = (
    "This is the practice provider: a scripted model inside ogate, not a real one. "
    "Nothing leaves this machine and nothing costs money. "
    "I will look at the files here with one harmless tool call.\n"
)
_CLOSING = (
    "That is all this script does. I am the scripted practice model of ogate, so I have not "
    "read your request; these words are always the same. You have seen a streamed answer, a "
    "tool call and exact token counts pass through the gateway. "
    "Leave with /exit to see the summary. "
    "For a real model: `ogate keys add PROVIDER`, then `ogate`."
)
_LOOKING_TOOLS: Final = (("read", '{"filePath":"."}'), ("glob", '{"pattern":"*"}'))
"""Tools that change nothing, the one to use first, with the arguments it gets."""


class _Function(msgspec.Struct):
    name: str = ""


class _Tool(msgspec.Struct):
    function: _Function = msgspec.field(default_factory=_Function)


class _Message(msgspec.Struct):
    role: str = ""
    content: msgspec.Raw = msgspec.Raw(b"null")


class _StreamOptions(msgspec.Struct):
    include_usage: bool = False


class _Question(msgspec.Struct):
    model: str
    messages: list[msgspec.Raw]
    tools: list[msgspec.Raw] = msgspec.field(default_factory=list)
    tool_choice: msgspec.Raw = msgspec.Raw(b'"auto"')
    stream: bool | None = False
    stream_options: _StreamOptions | None = None


class _Call(msgspec.Struct, frozen=True):
    id: str
    name: str
    arguments: str


class _Answer(msgspec.Struct, frozen=True):
    """What the script says to one request, and what it counts."""

    id: str
    text: str
    call: _Call | None
    usage: dict[str, object]

    @property
    def finish_reason(self) -> str:
        return "stop" if self.call is None else "tool_calls"


class PracticeResponse:
    """A scripted answer. Implements `UpstreamResponse`."""

    __slots__ = ("_parts", "arrived_s", "headers", "sent_s", "status")

    def __init__(self, status: int, headers: RawHeaders, parts: AsyncIterator[bytes]) -> None:
        self.status = status
        self.sent_s = self.arrived_s = time.monotonic()
        self.headers = headers
        self._parts: AsyncIterator[bytes] | None = parts

    async def read(self) -> bytes:
        """See `UpstreamResponse.read`."""
        if self._parts is None:
            raise UpstreamFailure("reset", "the answer was given up", bytes_sent=True)
        return await anext(self._parts, b"")

    def abort(self) -> None:
        """See `UpstreamResponse.abort`."""
        self._parts = None


class PracticeUpstream:
    """The scripted model. Implements `Upstream`.

    Args:
        piece_pause_s: the pause before each streamed piece.
    """

    def __init__(self, *, piece_pause_s: float = PIECE_PAUSE_S) -> None:
        self._piece_pause_s = piece_pause_s

    async def send(
        self, request: UpstreamRequest, *, header_timeout_s: float, on_head: OnHead | None = None
    ) -> PracticeResponse:
        """See `Upstream.send`; it never fails, never keeps anybody waiting, and pushes nothing."""
        path = request.target.partition(b"?")[0]
        if request.method == "GET" and path.endswith(b"/models"):
            return _json(200, {"object": "list", "data": [_model()]})
        if request.method != "POST" or not path.endswith(b"/chat/completions"):
            return _refusal(404, "the practice provider has no such address", "not_found")
        try:
            question = msgspec.json.decode(request.body, type=_Question)
            messages = [
                msgspec.json.decode(message, type=_Message) for message in question.messages
            ]
            answer = _answer(question, messages)
        except NOT_DECODED as error:
            return _refusal(400, f"the body is no chat request: {error}", "invalid_request_error")
        if question.model != MODEL_ID:
            message = f"the practice provider has one model, {MODEL_ID!r}"
            return _refusal(404, message, "model_not_found")
        if not question.stream:
            return _json(200, _completion(answer))
        options = question.stream_options
        parts = _stream(answer, self._piece_pause_s, options is not None and options.include_usage)
        headers = [
            (b"Content-Type", b"text/event-stream; charset=utf-8"),
            (b"Cache-Control", b"no-cache"),
            (b"X-Request-Id", answer.id.encode("ascii")),
        ]
        return PracticeResponse(200, headers, parts)

    async def close(self) -> None:
        """See `Upstream.close`; there is nothing to close."""


def _answer(question: _Question, messages: list[_Message]) -> _Answer:
    call = None
    if _is_title_call(messages):
        text, reasoning_tokens = _TITLE, 0
    else:
        call = _call(question, messages)
        text, reasoning_tokens = _CLOSING if call is None else _OPENING, _REASONING_TOKENS
    sizes = [len(bytes(message)) for message in question.messages]
    tools_size = sum(len(bytes(tool)) for tool in question.tools)
    prompt_tokens = _tokens(sum(sizes) + tools_size)
    # As if everything but the last message had been asked before, in whole blocks.
    is_going_on = any(message.role == "assistant" for message in messages)
    seen_tokens = _tokens(sum(sizes[:-1]) + tools_size) if is_going_on else 0
    cached_tokens = seen_tokens // _CACHE_BLOCK_TOKENS * _CACHE_BLOCK_TOKENS
    completion_tokens = len(_pieces(text)) + reasoning_tokens
    if call is not None:
        completion_tokens += len(_pieces(call.arguments))
    usage: dict[str, object] = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": reasoning_tokens},
    }
    identity = f"{len(messages)}-{prompt_tokens}"
    return _Answer(id=f"chatcmpl-practice-{identity}", text=text, call=call, usage=usage)


def _is_title_call(messages: list[_Message]) -> bool:
    return any(
        message.role in ("system", "developer")
        and b"title generator" in bytes(message.content)[:200].lower()
        for message in messages
    )


def _call(question: _Question, messages: list[_Message]) -> _Call | None:
    """The one tool call of a turn: none after its result, none where none may be made."""
    for message in reversed(messages):
        if message.role == "user":
            break
        if message.role == "tool":
            return None
    if bytes(question.tool_choice) == b'"none"':
        return None
    offered = {msgspec.json.decode(tool, type=_Tool).function.name for tool in question.tools}
    for name, arguments in _LOOKING_TOOLS:
        if name in offered:
            return _Call(f"call_practice_{len(messages)}", name, arguments)
    return None


def _tokens(size_bytes: int) -> int:
    return -(-size_bytes // 4)


def _pieces(text: str) -> list[str]:
    """The parts a text is streamed in: words with the space before them."""
    return re.findall(r"\s*\S+\s*\Z|\s*\S+", text)


async def _stream(answer: _Answer, pause_s: float, is_usage_wanted: bool) -> AsyncIterator[bytes]:
    yield _event(answer, {"role": "assistant", "content": ""})
    for piece in _pieces(answer.text):
        await asyncio.sleep(pause_s)
        yield _event(answer, {"content": piece})
    if answer.call is not None:
        function: dict[str, object] = {"name": answer.call.name, "arguments": ""}
        call = {"index": 0, "id": answer.call.id, "type": "function", "function": function}
        yield _event(answer, {"tool_calls": [call]})
        for piece in _pieces(answer.call.arguments):
            await asyncio.sleep(pause_s)
            yield _event(answer, {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})
    yield _event(answer, {}, answer.finish_reason)
    if is_usage_wanted:
        yield _data({**_chunk(answer), "choices": [], "usage": answer.usage})
    yield b"data: [DONE]\n\n"


def _chunk(answer: _Answer) -> dict[str, object]:
    return {
        "id": answer.id,
        "object": "chat.completion.chunk",
        "created": _CREATED_S,
        "model": MODEL_ID,
    }


def _event(answer: _Answer, delta: dict[str, object], finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return _data({**_chunk(answer), "choices": [choice]})


def _data(event: dict[str, object]) -> bytes:
    return b"data: " + msgspec.json.encode(event) + b"\n\n"


def _completion(answer: _Answer) -> dict[str, object]:
    message: dict[str, object] = {"role": "assistant", "content": answer.text}
    if answer.call is not None:
        function = {"name": answer.call.name, "arguments": answer.call.arguments}
        message["tool_calls"] = [{"id": answer.call.id, "type": "function", "function": function}]
    choice = {"index": 0, "message": message, "finish_reason": answer.finish_reason}
    head = {**_chunk(answer), "object": "chat.completion"}
    return {**head, "choices": [choice], "usage": answer.usage}


def _model() -> dict[str, object]:
    return {"id": MODEL_ID, "object": "model", "created": _CREATED_S, "owned_by": "ogate"}


def _refusal(status: int, message: str, code: str) -> PracticeResponse:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return _json(status, {"error": error})


def _json(status: int, document: dict[str, object]) -> PracticeResponse:
    body = msgspec.json.encode(document)
    headers = [
        (b"Content-Type", b"application/json"),
        (b"Content-Length", b"%d" % len(body)),
    ]
    return PracticeResponse(status, headers, _once(body))


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body
