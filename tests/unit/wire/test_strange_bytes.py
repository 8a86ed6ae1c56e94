"""What strange bytes may not do to the tap; `tests/fuzz` throws a million of them."""

import pytest

from opencode_gate.core.semconv import WireFormat
from opencode_gate.wire.meter import HELD_BYTES_MAX, ExchangeMeter
from tests.support.wire_corpus import route_of


def test_a_cut_answer_that_is_no_text_is_still_read_for_what_it_says():
    meter = ExchangeMeter(route_of(WireFormat.OPENAI_CHAT), streamed=False, asked_for_usage=False)
    meter.observe_body(b'{"choices":[{"message":{"content":"ab\xb4","reasoning":"cde"')
    assert meter.end().is_complete
    assert meter.metering().delivered_text_chars == 3 + 3


def test_usage_with_numbers_out_of_range_is_told_as_it_came():
    meter = ExchangeMeter(route_of(WireFormat.OPENAI_CHAT), streamed=True, asked_for_usage=False)
    meter.relay(b'data: {"usage":{"prompt_tokens":1}}\n\n')
    meter.relay(b'data: {"usage":{"completion_tokens":2,"x":1e999}}\n\n')
    seen = meter.metering()
    assert (seen.usage.input_uncached, seen.usage.output) == (1, 2)
    assert "completion_tokens" in str(seen.raw_usage)


def test_the_start_of_an_event_behind_whole_ones_does_not_wait_for_its_end_either():
    meter = ExchangeMeter(route_of(WireFormat.OPENAI_CHAT), streamed=True, asked_for_usage=False)
    whole = b'data: {"choices":[{"index":0,"delta":{"content":"abcd"}}]}\n\n'
    start = b'data: {"choices":[{"index":0,"delta":{"content":"' + b"x" * HELD_BYTES_MAX
    assert meter.relay(whole + start) == whole + start
    assert meter.relay(b'"}}]}\n\n') == b'"}}]}\n\n'
    assert meter.delivered_chars == 4 + HELD_BYTES_MAX


@pytest.mark.parametrize("blank", [b"\n", b"\n\n\n", b"\r\n\r\n\r\n", b"\r"])
@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b""])
def test_blank_lines_stay_where_they_are_however_the_stream_is_cut(blank, end):
    """What is put in, or taken out, stands behind all of them."""
    text = b'data: {"id":"i","choices":[{"index":0,"delta":{"content":"abcd"}}]}\n\n'
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":1}}\n\n'
    stream = b"".join((text, blank, usage, blank, b"data: [DONE]", end))
    received = set()
    for cut in range(len(stream) + 1):
        meter = ExchangeMeter(route_of(WireFormat.OPENAI_CHAT), streamed=True, asked_for_usage=True)
        passed = meter.relay(stream[:cut]) + meter.relay(stream[cut:])
        last = meter.end()
        assert last.is_complete
        received.add(passed + last.tail)
    (one,) = received
    assert one.startswith(text + blank + blank + b'data: {"id":"i","object"')
    assert one.endswith(b"data: [DONE]" + end)


@pytest.mark.parametrize("line_end", [b"\r", b"\n", b"\r\n"])
@pytest.mark.parametrize("tail", [b"\n\n", b"\r\n\r\n"])
def test_a_line_end_in_json_ends_the_data_as_it_does_for_a_client(line_end, tail):
    """JSON may have it between its tokens, an event may not."""
    broken = b'data: {"choices":[],' + line_end + b'"usage":{"prompt_tokens":1}}' + tail
    ordinary = b'data: {"choices":[{"index":0,"delta":{"content":"abcd"}}]}' + tail
    for chunks in ([broken], [ordinary, broken], [ordinary + broken], [broken[:9], broken[9:]]):
        meter = ExchangeMeter(
            route_of(WireFormat.OPENAI_CHAT), streamed=True, asked_for_usage=False
        )
        assert b"".join([meter.relay(chunk) for chunk in chunks]) == b"".join(chunks)
        assert meter.metering().usage.is_empty
