"""What strange bytes may not do to the tap; `tests/fuzz` throws a million of them."""

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
