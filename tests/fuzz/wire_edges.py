"""What providers and clients send in their bodies: read as it passes, whatever it is.

An answer comes to the same however the network cuts it and whether it was compressed; and the
client gets the provider's own bytes, but for whole events that are put in or taken out.
"""

import zlib
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from itertools import pairwise
from random import Random

import brotli

from opencode_gate.core.semconv import UsageQuality, WireFormat
from opencode_gate.wire import meter as meter_module
from opencode_gate.wire.facts import BadBody, prompt_bytes, read_facts
from opencode_gate.wire.meter import ExchangeMeter
from opencode_gate.wire.output_limits import with_output_limit
from opencode_gate.wire.references import may_write_1h, read_references
from opencode_gate.wire.splice import ask_for_usage
from opencode_gate.wire.turns import turns_asked
from tests.support.wire_corpus import cases, route_of, seen

_SEED_BYTES_MAX = 4096
_LINE_ENDS = (b"\n", b"\r\n", b"\r", b"\n\n", b"\r\n\r\n", b"\r\r", b"\n\r\n")
_JSON_WORDS = (
    b"null", b"true", b"0", b"-1", b"1.5", b"1e999", b"9007199254740993", b'""', b'"x"', b"{}",
    b"[]", b"[{}]", b'{"a":1}', b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\\u00",
    b"\\ud83d", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", "é😀".encode(),
)  # fmt: skip
_STREAM_WORDS = (
    *_LINE_ENDS, *_JSON_WORDS, b"data: ", b"data:", b"data", b"event: x\n",
    b"event: message_stop\n", b": ping\n\n", b"id: 1\n", b"retry: 5\n", b"[DONE]",
    b"data: [DONE]\n\n", b"data: \n\n", b'"finish_reason":"stop"', b'"finish_reason":"x"',
    b'"finish_reason":null', b'"usage":{"cost":1}', b'"usage":null', b'"error":{"type":"x"}',
    b'"stop_reason":"x"', b'"finishReason":"X"', b'"type":"message_stop"',
    b'"type":"response.completed"', b'"type":"error"',
)  # fmt: skip
_MEMBERS_OF_REQUESTS = (
    b'"messages":', b'"input":', b'"contents":', b'"content":', b'"parts":', b'"output":',
    b'"type":', b'"text"', b'"role":', b'"system"', b'"source":', b'"image_url":',
    b'"inlineData":', b'"file_id":', b'"input_audio"', b'"document"', b'"functionResponse":',
    b'"response":', b'"tools":', b'"function"', b'"web_search"', b'"input_schema":{},',
    b'"functionDeclarations":', b'"max_tokens":', b'"max_completion_tokens":',
    b'"maxOutputTokens":', b'"generationConfig":', b'"stream":true,', b'"stream_options":',
    b'"include_usage":', b'"model":', b'"thinking":', b'"n":', b'"ttl":"1h",',
)  # fmt: skip


def _cut(data: bytes, random: Random) -> list[bytes]:
    """The same bytes, as a network may cut them; often beside the end of a line."""
    places = {random.randrange(len(data) + 1) for _ in range(random.choice((1, 2, 8)))}
    at = random.randrange(len(data) + 1)
    for _ in range(random.choice((0, 2, 6))):
        at = data.find(b"\n", at) + random.randrange(3)
        places.add(min(max(at, 0), len(data)))
    ordered = [0, *sorted(places), len(data)]
    return [data[a:b] for a, b in pairwise(ordered) if a < b]


def _what_came(meter: ExchangeMeter) -> dict[str, object]:
    return seen(meter) | {
        "tools": meter.metering().tools_called,
        "raw": meter.metering().raw_usage,
        "delivered": meter.delivered(),
        "has_ended": meter.has_ended,
    }


class StreamEdge:
    """Streams of one format, in one piece, cut, compressed, and with little room to hold them."""

    words: Sequence[bytes] = _STREAM_WORDS

    def __init__(self, wire_format: WireFormat) -> None:
        self.name = f"stream-{wire_format}"
        self._route = route_of(wire_format)
        self.seeds = [
            case.upstream
            for case in cases("sse")
            if case.route == self._route and len(case.upstream) <= _SEED_BYTES_MAX
        ]

    async def take(self, data: bytes, random: Random) -> Hashable:
        asked = random.random() < 0.3
        whole = self._meter(asked_for_usage=asked)
        received, is_complete = _relayed(whole, [data])
        came = _what_came(whole)
        _check_bytes(data, received, came["repaired"] is not None, drops=asked)
        _check_counts(came)
        cut = self._meter(asked_for_usage=asked)
        assert _relayed(cut, _cut(data, random)) == (received, is_complete)
        assert _what_came(cut) == came
        match random.randrange(4):
            case 0:
                self._compressed(data, came, random)
            case 1:
                self._with_little_room(data, random)
        return (
            is_complete,
            came["usage_quality"],
            came["finish_reason"] if is_complete else None,
            came["repaired"],
            came["error_type"],
            came["contradicts"],
            tuple(sorted(came["usage"])),  # type: ignore[call-overload]
        )

    def _meter(self, **options: object) -> ExchangeMeter:
        return ExchangeMeter(self._route, **{"streamed": True, "asked_for_usage": False, **options})

    def _compressed(self, data: bytes, came: dict[str, object], random: Random) -> None:
        """Read along, and never edited; broken, it passes all the same."""
        encoding = random.choice(("gzip", "deflate", "br"))
        if encoding == "br":
            packed = brotli.compress(data, quality=1)
        else:
            packer = zlib.compressobj(1, wbits=31 if encoding == "gzip" else 15)
            packed = packer.compress(data) + packer.flush()
        meter = self._meter(content_encoding=encoding)
        assert _relayed(meter, _cut(packed, random))[0] == packed
        found = _what_came(meter)
        for name in ("usage", "finish_reason", "response_model", "delivered_text_chars", "raw"):
            assert found[name] == came[name], name
        broken = bytearray(packed)
        broken[random.randrange(len(broken))] ^= 1 << random.randrange(8)
        meter = self._meter(content_encoding=encoding)
        assert _relayed(meter, _cut(bytes(broken), random))[0] == broken
        _what_came(meter)

    def _with_little_room(self, data: bytes, random: Random) -> None:
        """No more is held than there is room for, and none of it is lost."""
        held_max, read_max = meter_module.HELD_BYTES_MAX, meter_module.READ_BYTES_MAX
        meter_module.HELD_BYTES_MAX = random.choice((0, 16, 128))
        meter_module.READ_BYTES_MAX = random.choice((16, 128, 1024))
        try:
            meter = self._meter()
            came = sent = 0
            received = b""
            for chunk in _cut(data, random):
                received += meter.relay(chunk)
                came, sent = came + len(chunk), len(received)
                assert came - sent <= meter_module.HELD_BYTES_MAX
            received += meter.end().tail
            _check_bytes(data, received, meter.metering().repaired is not None, drops=False)
        finally:
            meter_module.HELD_BYTES_MAX, meter_module.READ_BYTES_MAX = held_max, read_max


def stream_edges() -> dict[str, Callable[[], StreamEdge]]:
    """One for each format, by name."""
    formats = [one for one in WireFormat if one is not WireFormat.UNKNOWN]
    return {f"stream-{one}": partial(StreamEdge, one) for one in formats}


def _relayed(meter: ExchangeMeter, chunks: Sequence[bytes]) -> tuple[bytes, bool]:
    received = b"".join([meter.relay(chunk) for chunk in chunks])
    end = meter.end()
    return received + end.tail, end.is_complete


def _check_bytes(data: bytes, received: bytes, is_repaired: bool, *, drops: bool) -> None:
    if not is_repaired and not drops:
        assert received == data
    elif not drops:
        # One thing is put in, in one place.
        before = 0
        while before < len(data) and data[before] == received[before]:
            before += 1
        assert received.endswith(data[before:])
        assert len(received) > len(data)
    elif not is_repaired:
        left = iter(received.splitlines(keepends=True))
        line = next(left, None)
        for one in data.splitlines(keepends=True):
            if one == line:
                line = next(left, None)
        assert line is None, "more than whole lines is missing"


def _check_counts(came: dict[str, object]) -> None:
    usage = came["usage"]
    assert isinstance(usage, dict)
    assert all(count >= 0 for count in usage.values())
    assert bool(usage) == (came["usage_quality"] != UsageQuality.UNKNOWN)


class AnswerEdge:
    """Answers that are not streamed, of all formats."""

    name = "answer"
    words: Sequence[bytes] = _JSON_WORDS

    def __init__(self) -> None:
        plain = [case for case in cases("json") if len(case.upstream) <= _SEED_BYTES_MAX]
        self.seeds = [case.upstream for case in plain]
        self._routes = [route_of(one) for one in WireFormat if one is not WireFormat.UNKNOWN]

    async def take(self, data: bytes, random: Random) -> Hashable:
        outcomes = []
        for route in self._routes:
            found = []
            for chunks in ([data], _cut(data, random)):
                meter = ExchangeMeter(route, streamed=False, asked_for_usage=False)
                for chunk in chunks:
                    meter.observe_body(chunk)
                end = meter.end()
                assert (end.tail, end.is_complete) == (b"", True)
                found.append(_what_came(meter))
            assert found[0] == found[1]
            _check_counts(found[0])
            outcomes.append((found[0]["usage_quality"], tuple(found[0]["usage"])))  # type: ignore[call-overload]
        return tuple(outcomes)


class RequestEdge:
    """What clients ask, in all formats: facts, and the members that are put in."""

    name = "request"
    words: Sequence[bytes] = (*_JSON_WORDS, *_MEMBERS_OF_REQUESTS)
    seeds = (
        b'{"model":"m","max_tokens":9,"stream":true,"messages":[{"role":"system","content":"s"},'
        b'{"role":"user","content":[{"type":"text","text":"t"}]}],"tools":[{"type":"function",'
        b'"function":{"name":"f","parameters":{}}}]}',
        b'{"model":"m","instructions":"i","input":[{"role":"user","content":[{"type":"input_text",'
        b'"text":"t"}]},{"type":"function_call_output","output":"x"}],"max_output_tokens":5}',
        b'{"model":"m","system":[{"type":"text","text":"s","cache_control":{"type":"ephemeral"}}],'
        b'"messages":[{"role":"user","content":[{"type":"tool_result","content":[{"type":"text"}]}'
        b']}],"tools":[{"name":"f","input_schema":{}}],"thinking":{"budget_tokens":7}}',
        b'{"contents":[{"role":"user","parts":[{"text":"t"},{"functionResponse":{"response":{}}}]}'
        b'],"generationConfig":{"maxOutputTokens":5,"responseModalities":["TEXT"]},'
        b'"tools":[{"functionDeclarations":[]}],"systemInstruction":{"parts":[{"text":"s"}]}}',
        b'{"messages":[{"content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,'
        + b"A" * 3000
        + b'"}}]}],"stream_options":{"x":1}}',
    )

    def __init__(self) -> None:
        self._routes = [route_of(one) for one in WireFormat if one is not WireFormat.UNKNOWN]

    async def take(self, data: bytes, random: Random) -> Hashable:
        route = random.choice(self._routes)
        may_write_1h(data)
        turns = turns_asked(data)
        assert 0 <= prompt_bytes(data) <= len(data)
        alone = read_references(route, data)
        try:
            facts = read_facts(route, data)
        except BadBody:
            return None
        # Of members that stand there twice, one that is odd may only make it more careful.
        found = read_references(route, data, facts)
        assert alone[:3] in (found[:3], (True, True, True))
        limit = 3
        limited = with_output_limit(route, data, limit, provider_id="p")
        told = read_facts(route, limited).max_output_tokens
        assert told is not None
        assert told <= limit
        if route.wire_format is WireFormat.OPENAI_CHAT:
            asking = ask_for_usage(data, has_stream_options=facts.has_stream_options)
            assert asking == ask_for_usage(data)
            assert read_facts(route, asking).asks_for_usage
        return (route.wire_format, *found, facts.plain is None, turns is None, facts.stream)
