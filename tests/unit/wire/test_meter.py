import copy
import gzip
import json

import brotli
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opencode_gate.core.semconv import UsageQuality, WireFormat
from opencode_gate.core.usage import TokenUsage
from opencode_gate.wire import meter as meter_module
from opencode_gate.wire.anthropic_messages import AnthropicMessages
from opencode_gate.wire.facts import RequestFacts
from opencode_gate.wire.gemini_generate import GeminiGenerate as Gemini
from opencode_gate.wire.meter import (
    HELD_BYTES_MAX,
    ExchangeMeter,
    StreamEnd,
)
from opencode_gate.wire.metering import Metering, estimated
from opencode_gate.wire.openai_chat import OpenAIChat
from opencode_gate.wire.openai_responses import OpenAIResponses
from opencode_gate.wire.routes import identify
from opencode_gate.wire.sse import events
from tests.support.wire_corpus import cases, relayed, route_of

FORMATS = [wire_format for wire_format in WireFormat if wire_format is not WireFormat.UNKNOWN]
STREAMS = cases("sse")
TEXT = b'data: {"choices":[{"index":0,"delta":{"content":"abcd"}}]}\n\n'
FINISH = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"


def chat_meter(**options) -> ExchangeMeter:
    options = {"streamed": True, "asked_for_usage": False, **options}
    return ExchangeMeter(route_of(WireFormat.OPENAI_CHAT), **options)


# Fuzzing: whatever comes, nothing raises and no byte is lost.

MEMBERS = [
    "choices",
    "delta",
    "content",
    "tool_calls",
    "function",
    "arguments",
    "finish_reason",
    "usage",
    "error",
    "type",
    "prompt_tokens",
    "prompt_tokens_details",
    "cached_tokens",
    "message",
    "content_block",
    "stop_reason",
    "response",
    "item",
    "incomplete_details",
    "reason",
    "candidates",
    "parts",
    "text",
    "finishReason",
    "usageMetadata",
    "promptTokenCount",
    "promptFeedback",
    "blockReason",
    "cost",
    "code",
]
json_text = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(MEMBERS),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
).map(lambda value: json.dumps(value).encode())
kinds = st.sampled_from(
    [
        b'"message_stop"',
        b'"message_delta"',
        b'"message_start"',
        b'"error"',
        b'"response.incomplete"',
        b'"response.failed"',
        b'"response.completed"',
    ]
)
RECORDED = [
    json.loads(data)
    for case in STREAMS
    if "malformed" not in case.name and "surrogate" not in case.name
    for _, _, data in events(case.upstream)
    if data != b"[DONE]" and len(data) < 5000
]


@st.composite
def mutated_events(draw: st.DrawFn) -> bytes:
    """A recorded event with one value somewhere in it replaced by another kind of value."""
    event = copy.deepcopy(draw(st.sampled_from(RECORDED)))
    place = event
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = draw(st.sampled_from(keys))
        inner = place[key]
        if isinstance(inner, dict | list) and inner and draw(st.booleans()):
            place = inner
            continue
        place[key] = draw(st.sampled_from([[], {}, [{}], {"a": 1}, 7, -7, 0.5, "x", True, None]))
        return json.dumps(event).encode()


payloads = (
    mutated_events()
    | json_text
    | st.binary(max_size=20)
    | st.just(b"[DONE]")
    | st.builds(
        lambda kind, inner: b'{"type":' + kind + b',"response":' + inner + b"}", kinds, json_text
    )
    | st.builds(
        lambda kind, inner: b'{"type":' + kind + b',"delta":' + inner + b"}", kinds, json_text
    )
    | st.builds(lambda inner: b'{"choices":[' + inner + b"]}", json_text)
    | st.builds(lambda inner: b'{"candidates":[' + inner + b"]}", json_text)
)
line_ends = st.sampled_from([b"\n\n", b"\r\n\r\n", b"\r\r", b"\n", b""])
fuzzed_streams = st.lists(
    st.builds(lambda payload, end: b"data: " + payload + end, payloads, line_ends), max_size=8
).map(b"".join)


@pytest.mark.parametrize("wire_format", FORMATS)
@pytest.mark.parametrize("asked_for_usage", [False, True])
@settings(max_examples=150, deadline=None)
@given(stream=fuzzed_streams, chunk_bytes=st.integers(1, 60))
def test_no_stream_makes_the_tap_raise(wire_format, asked_for_usage, stream, chunk_bytes):
    """Whatever an upstream sends, the client gets it; only whole events may be taken out or
    put in, and only where something was repaired or not asked for."""
    meter = ExchangeMeter(route_of(wire_format), streamed=True, asked_for_usage=asked_for_usage)
    received, end = relayed(meter, stream, chunk_bytes)
    metering = meter.metering()
    assert isinstance(end, StreamEnd)
    assert isinstance(metering, Metering)
    assert metering.usage_quality is not UsageQuality.UNKNOWN or metering.usage.is_empty
    if metering.repaired is None and not asked_for_usage:
        assert received == stream
    estimated(metering, RequestFacts(input_bytes=7))


@pytest.mark.parametrize("reader_type", [OpenAIChat, OpenAIResponses, AnthropicMessages, Gemini])
@settings(max_examples=400, deadline=None)
@given(data=st.lists(payloads, max_size=4))
def test_a_reader_refuses_what_it_cannot_read_in_one_way_only(reader_type, data):
    """The meter's last resort for bugs is not what handles strange data."""
    reader = reader_type(drops_usage=True) if reader_type is OpenAIChat else reader_type()
    for read in (*[reader.event] * len(data), reader.body):
        try:
            read(data.pop() if data else b"{}")
        except msgspec.DecodeError:
            continue
    usage = reader.usage().usage
    assert all(count is None or count >= 0 for count in msgspec.structs.asdict(usage).values())
    assert isinstance(reader.is_complete, bool)
    assert isinstance(reader.last_event(), bytes)


@pytest.mark.parametrize("wire_format", FORMATS)
@settings(max_examples=60, deadline=None)
@given(body=json_text | st.binary(), encoding=st.sampled_from([None, "gzip", "br", "deflate"]))
def test_no_body_makes_the_tap_raise(wire_format, body, encoding):
    meter = ExchangeMeter(
        route_of(wire_format), streamed=False, asked_for_usage=False, content_encoding=encoding
    )
    meter.observe_body(body)
    assert meter.end() == StreamEnd(tail=b"", is_complete=True)
    meter.metering()


@settings(max_examples=200, deadline=None)
@given(
    case=st.sampled_from(STREAMS),
    position=st.integers(0, 10_000),
    byte=st.integers(0, 255),
    chunk_bytes=st.integers(1, 200),
)
def test_a_recorded_stream_with_one_byte_changed_still_passes(case, position, byte, chunk_bytes):
    stream = bytearray(case.upstream)
    stream[position % len(stream)] = byte
    meter = case.meter()
    received, _ = relayed(meter, bytes(stream), chunk_bytes)
    if meter.metering().repaired is None and not case.asked_for_usage:
        assert received == stream


# Limits and failures of the tap itself.


def test_an_event_longer_than_may_be_held_starts_to_go_out_before_its_end():
    """A client never waits for the end of a huge event, and the event is still counted."""
    content = b"x" * (3 * HELD_BYTES_MAX)
    event = b'data: {"choices":[{"index":0,"delta":{"content":"' + content + b'"}}]}\n\n'
    meter = chat_meter()
    sent, longest_wait = b"", 0
    for start in range(0, len(event), 1024):
        sent += meter.relay(event[start : start + 1024])
        longest_wait = max(longest_wait, start + 1024 - len(sent))
    assert sent == event
    assert longest_wait <= HELD_BYTES_MAX + 1024
    assert meter.metering().delivered_text_chars == len(content)


def test_an_event_too_long_to_read_passes_and_lowers_the_quality(monkeypatch):
    monkeypatch.setattr(meter_module, "READ_BYTES_MAX", 2 * HELD_BYTES_MAX)
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":5}}\n\n'
    endless = b"data: " + b"x" * (4 * HELD_BYTES_MAX) + b"\n\n"
    meter = chat_meter()
    received, end = relayed(meter, usage + endless + FINISH + DONE, 4096)
    assert received == usage + endless + FINISH + DONE
    assert end.is_complete
    assert meter.metering().usage_quality is UsageQuality.ESTIMATED


def test_a_body_too_long_to_read_is_not_kept(monkeypatch):
    monkeypatch.setattr(meter_module, "READ_BYTES_MAX", 10)
    meter = chat_meter(streamed=False)
    for _ in range(3):
        meter.observe_body(b'{"usage"')
    assert meter.end().is_complete
    assert meter.metering() == Metering(wire_format=WireFormat.OPENAI_CHAT)


def test_a_bug_in_a_reader_costs_no_byte(monkeypatch):
    """Accounting may fail; the answer may not. And our own failure never cuts the client off."""

    def broken(self, data):
        if b"finish_reason" in data:
            raise ZeroDivisionError
        return read(self, data)

    read = OpenAIChat.event
    monkeypatch.setattr(OpenAIChat, "event", broken)
    stream = TEXT + FINISH + TEXT + DONE + b"data: unfinis"
    for chunk_bytes in (1, 50, len(stream)):
        meter = chat_meter()
        received, end = relayed(meter, stream, chunk_bytes)
        assert received == stream
        assert end.is_complete
        assert meter.metering().delivered_text_chars == 4


def test_half_an_event_behind_the_reported_counts_does_not_lower_them():
    """A stream that is cut inside its last marker has told its counts all the same."""
    (case,) = [case for case in cases("sse") if case.name == "openai-chat/usage_chunk"]
    meter = case.meter()
    relayed(meter, case.upstream[: case.upstream.index(b"[DONE]") + 3], 1 << 30)
    assert meter.metering().usage_quality is UsageQuality.REPORTED


@pytest.mark.parametrize("padding", [b"", b"\0" * 8])
@pytest.mark.parametrize("chunk_bytes", [1, 7, 1 << 30])
def test_a_stream_may_be_compressed_event_by_event(padding, chunk_bytes):
    """Members of gzip follow each other (RFC 1952, section 2.2), and some pad behind the last."""
    (case,) = [case for case in cases("sse") if case.name == "openai-chat/usage_chunk"]
    whole = case.meter()
    relayed(whole, case.upstream, 1 << 30)
    pieces = case.upstream.split(b"\n\n")[:-1]
    packed = b"".join(gzip.compress(piece + b"\n\n") for piece in pieces) + padding
    meter = chat_meter(content_encoding="gzip")
    assert relayed(meter, packed, chunk_bytes) == (packed, StreamEnd(tail=b"", is_complete=True))
    assert meter.metering().usage == whole.metering().usage
    assert meter.metering().usage_quality is UsageQuality.REPORTED


@pytest.mark.parametrize("pack", [gzip.compress, brotli.compress], ids=["gzip", "br"])
def test_an_unpacking_bomb_is_not_unpacked(monkeypatch, pack):
    monkeypatch.setattr("opencode_gate.wire.inflate.PLAIN_BYTES_MAX", 1000)
    bomb = pack(TEXT * 10_000)
    meter = chat_meter(content_encoding="br" if pack is brotli.compress else "gzip")
    assert meter.relay(bomb) == bomb
    assert meter.end().is_complete


@pytest.mark.parametrize("encoding", ["zstd", "gzip, br"])
def test_an_encoding_nobody_asked_for_passes_unread(encoding):
    meter = chat_meter(content_encoding=encoding)
    assert relayed(meter, b"\x1b\x0f\x00", 1) == (
        b"\x1b\x0f\x00",
        StreamEnd(tail=b"", is_complete=True),
    )
    assert meter.metering().usage_quality is UsageQuality.UNKNOWN


@pytest.mark.parametrize(
    "path", ["/v1/messages/count_tokens", "/v1/embeddings", "/v1/responses/input_tokens"]
)
def test_what_generates_nothing_is_not_metered(path):
    meter = ExchangeMeter(identify("POST", path), streamed=False, asked_for_usage=False)
    meter.observe_body(b'{"usage":{"prompt_tokens":5},"input_tokens":5}')
    assert meter.end().is_complete
    assert meter.metering().usage.is_empty


# What the pipeline decides by.


def test_content_counts_as_delivered_from_the_first_delta_on():
    """Before the first text, reasoning or tool-call delta another target may still be tried."""
    quiet = {
        WireFormat.OPENAI_CHAT: [
            b": ping\n\n",
            b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n',
        ],
        WireFormat.OPENAI_RESPONSES: [
            b'data: {"type":"response.created","response":{"model":"m"}}\n\n',
            b'data: {"type":"response.output_item.added","item":{"type":"message"}}\n\n',
        ],
        WireFormat.ANTHROPIC_MESSAGES: [
            b'data: {"type":"message_start","message":{"usage":{"input_tokens":1}}}\n\n',
            b'data: {"type":"ping"}\n\n',
            b'data: {"type":"content_block_start","content_block":{"type":"text","text":""}}\n\n',
        ],
        WireFormat.GEMINI_GENERATE: [b'data: {"usageMetadata":{"promptTokenCount":1}}\n\n'],
    }
    loud = {
        WireFormat.OPENAI_CHAT: [
            TEXT,
            b'data: {"choices":[{"delta":{"reasoning_content":"x"}}]}\n\n',
            b'data: {"choices":[{"delta":{"reasoning":"x"}}]}\n\n',
            b'data: {"choices":[{"delta":{"tool_calls":[{"index":0,"id":"c"}]}}]}\n\n',
        ],
        WireFormat.OPENAI_RESPONSES: [
            b'data: {"type":"response.output_text.delta","delta":"x"}\n\n',
            b'data: {"type":"response.reasoning_summary_text.delta","delta":"x"}\n\n',
            b'data: {"type":"response.output_item.added","item":{"type":"function_call"}}\n\n',
        ],
        WireFormat.ANTHROPIC_MESSAGES: [
            b'data: {"type":"content_block_delta","delta":{"type":"text_delta","text":"x"}}\n\n',
            b'data: {"type":"content_block_delta","delta":{"thinking":"x"}}\n\n',
            b'data: {"type":"content_block_start","content_block":{"type":"tool_use"}}\n\n',
        ],
        WireFormat.GEMINI_GENERATE: [
            b'data: {"candidates":[{"content":{"parts":[{"text":"x","thought":true}]}}]}\n\n',
            b'data: {"candidates":[{"content":{"parts":[{"functionCall":{"name":"x"}}]}}]}\n\n',
        ],
    }
    for wire_format in FORMATS:
        for event in loud[wire_format]:
            meter = ExchangeMeter(route_of(wire_format), streamed=True, asked_for_usage=False)
            for before in quiet[wire_format]:
                meter.relay(before)
                assert not meter.content_delivered, before
            meter.relay(event)
            assert meter.content_delivered, event


def test_half_an_event_is_not_delivered_content():
    """Counted is what went out, not what came in."""
    meter = chat_meter()
    assert meter.relay(TEXT[:-1]) == b""
    assert not meter.content_delivered
    assert meter.relay(TEXT[-1:]) == TEXT
    assert meter.content_delivered


def test_counts_on_the_way_are_not_final():
    """`message_start` names one output token; a stream cut there has not cost one token."""
    meter = ExchangeMeter(
        route_of(WireFormat.ANTHROPIC_MESSAGES), streamed=True, asked_for_usage=False
    )
    meter.relay(
        b'data: {"type":"message_start","message":{"usage":{"input_tokens":907,'
        b'"output_tokens":1}}}\n\n'
        b'data: {"type":"content_block_delta","delta":{"text":"' + b"x" * 3500 + b'"}}\n\n'
    )
    seen = meter.metering()
    assert seen.usage_quality is UsageQuality.ESTIMATED
    guess = estimated(seen, RequestFacts(input_bytes=99))
    assert guess.usage == TokenUsage(input_uncached=907, output=1000)
    assert guess.usage_quality is UsageQuality.ESTIMATED


def test_an_answer_without_usage_is_estimated_from_sizes():
    meter = chat_meter()
    relayed(meter, TEXT + FINISH + DONE, 64)
    guess = estimated(meter.metering(), RequestFacts(input_bytes=401))
    assert guess.usage == TokenUsage(input_uncached=101, output=1)
    assert guess.usage_quality is UsageQuality.ESTIMATED


def test_reported_counts_are_never_replaced_by_an_estimate():
    """A reported zero is a value, however much text was delivered."""
    meter = chat_meter()
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":0,"completion_tokens":0}}\n\n'
    relayed(meter, TEXT * 100 + FINISH + usage + DONE, 64)
    seen = meter.metering()
    assert seen.contradicts
    assert estimated(seen, RequestFacts(input_bytes=4000)) is seen
