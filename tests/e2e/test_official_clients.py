"""The official Python clients through the gateway: what they receive is what was sent, byte for
byte, and what is recorded is what they were told.

A recording relay stands on either side of the gateway.
"""

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import anthropic
import openai
import pytest
from genai_prices import Usage, calc_price
from google import genai
from google.genai import types

from opencode_gate.catalog.rows import ProviderRow
from opencode_gate.core.semconv import CostQuality, ExchangeStatus, Operation, UsageQuality
from opencode_gate.core.usage import TokenUsage
from opencode_gate.ledger.records import ExchangeRecord
from tests.support.fake_chat import ANSWER, fake_chat
from tests.support.gateway import TOKEN, RunningGateway, running_gateway
from tests.support.mock_providers import AIMOCK_BASES, LLMOCK_BASES, aimock, llmock
from tests.support.recording_relay import RecordingRelay, recording_relay
from tests.support.scripted_upstream import Peer, scripted

pytestmark = pytest.mark.e2e

KEY = "sk-live-0123456789abcdef"
PROMPT = "What is the weather in Paris?"
WIRES = tuple(AIMOCK_BASES)
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FIXTURES = [
    {
        "match": {"toolName": "get_weather"},
        "response": {
            "toolCalls": [{"name": "get_weather", "arguments": {"city": "Paris — 東京"}}],
            "usage": {"prompt_tokens": 1231, "completion_tokens": 47},
        },
    },
    {
        "match": {},
        "response": {
            "content": "Sunny, and a bit of “Wind” — 風. " * 5,
            "usage": {"prompt_tokens": 317, "completion_tokens": 59},
        },
    },
]

Counts = tuple[int, int]


@dataclass(frozen=True)
class Between:
    """A gateway between a client's relay and a provider's."""

    gateway: RunningGateway
    client_side: RecordingRelay
    provider_side: RecordingRelay

    def base(self, path: str) -> str:
        """The address a client is given for the provider's base path."""
        return f"{self.client_side.url}/p/it{path}"

    def rows(self) -> list[ExchangeRecord]:
        self.gateway.finish()
        return self.gateway.exchanges()


@contextmanager
def between(
    provider: RecordingRelay, base_path: str, provider_id: str = "it", **row: Any
) -> Iterator[Between]:
    it = ProviderRow(id=provider_id, name="It", base_url=provider.url + base_path, **row)
    with (
        running_gateway([it], keys={provider_id: KEY}) as gateway,
        recording_relay(gateway.port) as client_side,
    ):
        yield Between(gateway, client_side, provider)


@pytest.fixture(scope="module", params=["aimock", "llmock"])
def provider(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RecordingRelay]:
    with ExitStack() as stack:
        if request.param == "aimock":
            yield stack.enter_context(aimock(tmp_path_factory.mktemp("aimock"), FIXTURES))
        else:
            yield stack.enter_context(llmock())


@pytest.fixture
def bases(request: pytest.FixtureRequest) -> dict[str, str]:
    return AIMOCK_BASES if "aimock" in request.node.name else LLMOCK_BASES


def ask_chat(base: str, *, stream: bool, tools: bool) -> Counts:
    client = openai.OpenAI(base_url=base, api_key=TOKEN, max_retries=0)
    tool = {"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}}
    options: dict[str, Any] = {"tools": [tool]} if tools else {}
    messages: Any = [{"role": "user", "content": PROMPT}]
    if not stream:
        answer = client.chat.completions.create(model="m", messages=messages, **options)
        assert answer.choices[0].message.tool_calls if tools else answer.choices[0].message.content
        assert answer.usage is not None
        return answer.usage.prompt_tokens, answer.usage.completion_tokens
    chunks = list(
        client.chat.completions.create(
            model="m",
            messages=messages,
            stream=True,
            stream_options={"include_usage": True},
            **options,
        )
    )
    usage = chunks[-1].usage
    assert usage is not None
    return usage.prompt_tokens, usage.completion_tokens


def ask_responses(base: str, *, stream: bool, tools: bool) -> Counts:
    client = openai.OpenAI(base_url=base, api_key=TOKEN, max_retries=0)
    tool = {"type": "function", "name": "get_weather", "parameters": PARAMETERS}
    options: dict[str, Any] = {"tools": [tool]} if tools else {}
    if not stream:
        answer: Any = client.responses.create(model="m", input=PROMPT, **options)
    else:
        events = list(client.responses.create(model="m", input=PROMPT, stream=True, **options))
        (answer,) = [event.response for event in events if event.type == "response.completed"]
    kinds = {item.type for item in answer.output}
    assert "function_call" in kinds if tools else answer.output_text
    return answer.usage.input_tokens, answer.usage.output_tokens


def ask_messages(base: str, *, stream: bool, tools: bool) -> Counts:
    client = anthropic.Anthropic(base_url=base.removesuffix("/v1"), api_key=TOKEN, max_retries=0)
    tool = {"name": "get_weather", "input_schema": PARAMETERS}
    options: dict[str, Any] = {"tools": [tool]} if tools else {}
    request: Any = {
        "model": "m",
        "max_tokens": 4096,
        "messages": [{"role": "user", "content": PROMPT}],
        **options,
    }
    if not stream:
        answer = client.messages.create(**request)
    else:
        with client.messages.stream(**request) as events:
            answer = events.get_final_message()
    assert {block.type for block in answer.content} == {"tool_use" if tools else "text"}
    return answer.usage.input_tokens, answer.usage.output_tokens


def ask_gemini(base: str, *, stream: bool, tools: bool) -> Counts:
    root, _, version = base.rpartition("/")
    client = genai.Client(
        api_key=TOKEN, http_options=types.HttpOptions(base_url=root, api_version=version)
    )
    declared = types.FunctionDeclaration(name="get_weather", parameters_json_schema=PARAMETERS)
    config = types.GenerateContentConfig(
        tools=[types.Tool(function_declarations=[declared])] if tools else None
    )
    if not stream:
        last = client.models.generate_content(model="m", contents=PROMPT, config=config)
        assert last.function_calls if tools else last.text
    else:
        asked = client.models.generate_content_stream(model="m", contents=PROMPT, config=config)
        last = [part for part in asked if part.usage_metadata is not None][-1]
    usage = last.usage_metadata
    assert usage is not None
    return usage.prompt_token_count or 0, usage.candidates_token_count or 0


ASK: dict[str, Callable[..., Counts]] = {
    "openai-chat": ask_chat,
    "openai-responses": ask_responses,
    "anthropic": ask_messages,
    "gemini": ask_gemini,
}


@pytest.mark.filterwarnings("ignore:.* is not a valid FinishReason")
@pytest.mark.parametrize("wire", WIRES)
def test_what_was_sent_is_received_and_recorded(
    provider: RecordingRelay, bases: dict[str, str], wire: str
):
    """Text and tool calls, streamed and not."""
    provider.seen.clear()
    told = []
    with between(provider, bases[wire]) as it:
        for stream in (False, True):
            for tools in (False, True):
                told.append(ASK[wire](it.base(bases[wire]), stream=stream, tools=tools))
        rows = it.rows()
    assert len(provider.seen) == len(it.client_side.seen) == len(rows) == 4
    for sent, received, row in zip(provider.seen, it.client_side.seen, rows, strict=True):
        # aimock ends a Gemini tool call with a reason that does not exist: see wire repairs.
        mended = received.answer.removeprefix(sent.answer) if row.repaired else b""
        assert bool(mended) == (row.repaired is not None)
        assert received.answer == sent.answer + mended != b""
        assert received.status == sent.status == 200
        assert received.body == sent.body, "the request too"
        assert TOKEN not in json.dumps(sent.headers) + sent.path
        assert KEY in json.dumps(sent.headers) + sent.path
    assert [(row.usage.input_tokens, row.usage.output) for row in rows] == told
    assert {row.status for row in rows} == {ExchangeStatus.COMPLETED}
    assert {row.wire_format for row in rows} == {wire}
    assert [row.streamed for row in rows] == [False, False, True, True]
    assert {row.usage_quality for row in rows} == {UsageQuality.REPORTED}


def test_usage_that_only_the_gateway_asked_for_is_recorded_and_not_passed_on(
    provider: RecordingRelay,
):
    """The one thing taken out of a stream, and the one member put into a request."""
    provider.seen.clear()
    with between(provider, "/v1") as it:
        client = openai.OpenAI(base_url=it.base("/v1"), api_key=TOKEN, max_retries=0)
        messages: Any = [{"role": "user", "content": PROMPT}]
        chunks = list(client.chat.completions.create(model="m", messages=messages, stream=True))
        (row,) = it.rows()
    assert all(chunk.usage is None for chunk in chunks)
    (sent,), (received,) = provider.seen, it.client_side.seen
    asked = {**json.loads(received.body), "stream_options": {"include_usage": True}}
    assert json.loads(sent.body) == asked
    events = sent.answer.split(b"\n\n")
    kept = [event for event in events if b'"choices":[]' not in event]
    assert len(kept) == len(events) - 1
    assert received.answer == b"\n\n".join(kept)
    assert row.usage_quality is UsageQuality.REPORTED
    assert row.usage.input_tokens


@pytest.mark.parametrize("version", ["v1", "v1beta"])
def test_gemini_is_reached_in_both_versions(version: str):
    """The client's own default is `v1`, Opencode's and the catalogue's is `v1beta`."""
    with fake_chat() as server, recording_relay(server.port) as relay:
        with between(relay, "/v1beta") as it:
            client = genai.Client(
                api_key=TOKEN,
                http_options=types.HttpOptions(base_url=it.base(""), api_version=version),
            )
            parts = client.models.generate_content_stream(model="gemini-x", contents=PROMPT)
            assert "".join(part.text or "" for part in parts) == ANSWER
            (row,) = it.rows()
        (sent,), (received,) = relay.seen, it.client_side.seen
    assert sent.path == f"/{version}/models/gemini-x:streamGenerateContent?alt=sse"
    assert received.answer == sent.answer
    assert row.operation is Operation.GENERATE
    assert (row.usage.input_tokens, row.usage.cache_read) == (101, 7)
    assert (row.usage.output, row.usage.reasoning) == (13, 3)


def test_the_clients_own_listing_of_models_passes(provider: RecordingRelay):
    with between(provider, "/v1") as it:
        client = openai.OpenAI(base_url=it.base("/v1"), api_key=TOKEN, max_retries=0)
        assert list(client.models.list())
        (row,) = it.rows()
    assert row.operation is Operation.LIST_MODELS
    assert row.cost_nano_usd is None
    assert it.client_side.seen[0].answer == provider.seen[-1].answer


FULL_USAGE: dict[str, tuple[str, str, dict[str, Any], TokenUsage]] = {
    "openai-chat": (
        "openai",
        "gpt-5",
        {
            "prompt_tokens": 90_001,
            "completion_tokens": 4_337,
            "total_tokens": 94_338,
            "prompt_tokens_details": {"cached_tokens": 61_441},
            "completion_tokens_details": {"reasoning_tokens": 2_753},
        },
        TokenUsage(input_uncached=28_560, cache_read=61_441, output=4_337, reasoning=2_753),
    ),
    "openai-responses": (
        "openai",
        "gpt-5",
        {
            "input_tokens": 90_007,
            "output_tokens": 4_339,
            "total_tokens": 94_346,
            "input_tokens_details": {"cached_tokens": 61_457},
            "output_tokens_details": {"reasoning_tokens": 2_767},
        },
        TokenUsage(input_uncached=28_550, cache_read=61_457, output=4_339, reasoning=2_767),
    ),
    "anthropic": (
        "anthropic",
        "claude-sonnet-4-5",
        {
            "input_tokens": 1_237,
            "cache_read_input_tokens": 61_469,
            "cache_creation_input_tokens": 9_101,
            "cache_creation": {
                "ephemeral_5m_input_tokens": 7_001,
                "ephemeral_1h_input_tokens": 2_100,
            },
            "output_tokens": 4_341,
        },
        TokenUsage(
            input_uncached=1_237,
            cache_read=61_469,
            cache_write_5m=7_001,
            cache_write_1h=2_100,
            output=4_341,
        ),
    ),
    "gemini": (
        "google",
        "gemini-2.5-pro",
        {
            "promptTokenCount": 90_011,
            "cachedContentTokenCount": 61_471,
            "candidatesTokenCount": 1_571,
            "thoughtsTokenCount": 2_777,
            "toolUsePromptTokenCount": 313,
            "totalTokenCount": 94_672,
        },
        TokenUsage(input_uncached=28_540 + 313, cache_read=61_471, output=4_348, reasoning=2_777),
    ),
}


def full_answer(wire: str, model: str, usage: dict[str, Any]) -> dict[str, Any]:
    """An answer that was not streamed, with every count its format knows."""
    match wire:
        case "openai-chat":
            message = {"role": "assistant", "content": "Hi."}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            return {"id": "c", "model": model, "choices": [choice], "usage": usage}
        case "openai-responses":
            text = {"type": "output_text", "text": "Hi.", "annotations": []}
            item = {
                "type": "message",
                "id": "m",
                "role": "assistant",
                "status": "completed",
                "content": [text],
            }
            return {
                "id": "r",
                "object": "response",
                "model": model,
                "status": "completed",
                "output": [item],
                "usage": usage,
            }
        case "anthropic":
            return {
                "id": "m",
                "type": "message",
                "role": "assistant",
                "model": model,
                "content": [{"type": "text", "text": "Hi."}],
                "stop_reason": "end_turn",
                "usage": usage,
            }
    part = {"content": {"role": "model", "parts": [{"text": "Hi."}]}, "finishReason": "STOP"}
    return {"candidates": [part], "usageMetadata": usage, "modelVersion": model}


@pytest.mark.parametrize("wire", WIRES)
async def test_every_count_of_a_format_is_recorded_and_priced_as_genai_prices_does(wire: str):
    provider_id, model, usage, expected = FULL_USAGE[wire]
    body = json.dumps(full_answer(wire, model, usage)).encode()

    async def script(peer: Peer) -> None:
        while await peer.request() is not None:
            await peer.answer(body, b"Content-Type: application/json")

    def session(port: int) -> ExchangeRecord:
        row = ProviderRow(
            id=provider_id, name="It", base_url=f"http://127.0.0.1:{port}{AIMOCK_BASES[wire]}"
        )
        with running_gateway([row], keys={provider_id: KEY}) as gateway:
            base = f"http://127.0.0.1:{gateway.port}/p/{provider_id}{AIMOCK_BASES[wire]}"
            ASK[wire](base, stream=False, tools=False)
            gateway.finish()
            (record,) = gateway.exchanges()
        return record

    async with scripted(script) as server:
        record = await asyncio.to_thread(session, server.port)
    known = {
        name: getattr(record.usage, name)
        for name in ("input_uncached", "cache_read", "output", "reasoning")
        if getattr(expected, name) is not None
    }
    assert known == {name: getattr(expected, name) for name in known}
    assert record.usage.input_tokens == expected.input_tokens
    assert record.usage.cache_write_5m in (None, 0, expected.cache_write_5m)
    assert record.usage.cache_creation_input_tokens == expected.cache_creation_input_tokens
    price = calc_price(
        Usage(
            input_tokens=expected.input_tokens,
            cache_read_tokens=expected.cache_read,
            cache_write_tokens=expected.cache_creation_input_tokens,
            cache_write_5m_tokens=expected.cache_write_5m,
            cache_write_1h_tokens=expected.cache_write_1h,
            output_tokens=expected.output,
            output_reasoning_tokens=expected.reasoning,
        ),
        model,
        provider_id=provider_id,
    )
    assert record.cost_quality is CostQuality.PRICED
    assert record.cost_nano_usd is not None
    assert abs(Decimal(record.cost_nano_usd) / 10**9 - price.total_price) <= Decimal("1e-9")
