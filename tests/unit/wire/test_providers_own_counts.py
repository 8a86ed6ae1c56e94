"""What only one provider says of its bill, in words of its own, is read as it means it."""

import json
from decimal import Decimal

import pytest

from opencode_gate.core.semconv import WireFormat
from opencode_gate.wire.meter import ExchangeMeter
from tests.support.wire_corpus import route_of


def metered(wire_format: WireFormat, answer: object):
    meter = ExchangeMeter(route_of(wire_format), streamed=False, asked_for_usage=False)
    meter.observe_body(json.dumps(answer).encode())
    meter.end()
    return meter.metering()


def chat(usage: object):
    message = {"role": "assistant", "content": "Hi"}
    return metered(
        WireFormat.OPENAI_CHAT,
        {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage},
    )


def test_alibabas_cache_writes_are_no_plain_input():
    """They cost a quarter more: https://www.alibabacloud.com/help/en/model-studio/context-cache."""
    seen = chat(
        {
            "prompt_tokens": 1500,
            "completion_tokens": 5,
            "prompt_tokens_details": {"cached_tokens": 200, "cache_creation_input_tokens": 1204},
        }
    ).usage
    assert (seen.input_uncached, seen.cache_read, seen.cache_write_5m) == (96, 200, 1204)


@pytest.mark.parametrize(
    "cached", [{"num_cached_tokens": 60}, {"prompt_token_details": {"cached_tokens": 60}}]
)
def test_mistrals_cached_tokens_are_cached(cached):
    seen = chat({"prompt_tokens": 100, "completion_tokens": 5, **cached}).usage
    assert (seen.input_uncached, seen.cache_read) == (40, 60)


def test_perplexitys_cost_is_its_total():
    """It has a fee for each request, which no price of a token tells."""
    cost = {"input_tokens_cost": 0.000002, "request_cost": 0.006, "total_cost": 0.006008}
    seen = chat({"prompt_tokens": 8, "completion_tokens": 4, "cost": cost})
    assert seen.reported_cost_usd == Decimal("0.006008")


@pytest.mark.parametrize(
    ("ticks", "cost_usd"),
    [(37756000, Decimal("0.0037756")), (0, Decimal(0)), (-1, None), ("x", None), (10**17, None)],
)
def test_xais_ticks_are_its_cost(ticks, cost_usd):
    """Ten thousand million to the dollar: https://docs.x.ai/developers/cost-tracking."""
    usage = {"prompt_tokens": 8, "completion_tokens": 4, "cost_in_usd_ticks": ticks}
    assert chat(usage).reported_cost_usd == cost_usd
    answer = {"status": "completed", "output": [], "usage": {"cost_in_usd_ticks": ticks}}
    assert metered(WireFormat.OPENAI_RESPONSES, answer).reported_cost_usd == cost_usd


COMPACTED = {
    "input_tokens": 23000,
    "output_tokens": 1000,
    "cache_read_input_tokens": 40,
    "cache_creation_input_tokens": 30,
    "iterations": [
        {"type": "compaction", "input_tokens": 180000, "output_tokens": 3500},
        {"type": "message", "input_tokens": 23000, "output_tokens": 1000},
        {"type": "compaction", "output_tokens": 5, "cache_read_input_tokens": 2},
    ],
}


def test_a_compaction_by_the_provider_is_billed_though_the_totals_leave_it_out():
    """https://platform.claude.com/docs/en/build-with-claude/compaction#understanding-usage."""
    seen = metered(WireFormat.ANTHROPIC_MESSAGES, {"content": [], "usage": COMPACTED}).usage
    assert (seen.input_uncached, seen.output) == (203000, 4505)
    assert (seen.cache_read, seen.cache_write_5m) == (42, 30)


@pytest.mark.parametrize(
    "kinds",
    [
        ["message", "message"],
        ["message", "advisor_message"],
        ["fallback_message"],
        ["compaction", 7],
    ],
)
def test_other_iterations_are_in_the_totals_or_not_to_be_told(kinds):
    rounds = [7 if kind == 7 else {"type": kind, "input_tokens": 9} for kind in kinds]
    usage = dict(COMPACTED, iterations=rounds)
    seen = metered(WireFormat.ANTHROPIC_MESSAGES, {"content": [], "usage": usage}).usage
    assert (seen.input_uncached, seen.output) == (23000, 1000)


def streamed(wire_format: WireFormat, *answers: object):
    meter = ExchangeMeter(route_of(wire_format), streamed=True, asked_for_usage=False)
    for answer in answers:
        meter.relay(b"data: " + json.dumps(answer).encode() + b"\n\n")
    meter.end()
    return json.loads(meter.metering().raw_usage)


USED = {"prompt_tokens": 8, "completion_tokens": 4}


def test_the_tier_a_chat_was_served_by_is_kept_with_its_usage():
    """OpenAI names it beside the usage, and asks twice as much for `priority`."""
    chunk = {"service_tier": "priority", "model": "m", "choices": [{"delta": {"content": "Hi"}}]}
    last = {"service_tier": "priority", "choices": [], "usage": USED}
    expected = {**USED, "service_tier": "priority"}
    assert streamed(WireFormat.OPENAI_CHAT, chunk, chunk, last) == expected
    message = {"message": {"content": "Hi"}, "finish_reason": "stop"}
    whole = {"service_tier": "priority", "model": "m", "choices": [message], "usage": USED}
    assert json.loads(metered(WireFormat.OPENAI_CHAT, whole).raw_usage) == expected


def test_the_tier_of_a_response_is_the_one_it_ended_with():
    used = {"input_tokens": 8, "output_tokens": 4}
    begun = {"type": "response.created", "response": {"service_tier": "auto", "usage": None}}
    ended = {"status": "completed", "service_tier": "flex", "usage": used}
    events = (begun, {"type": "response.completed", "response": ended})
    assert streamed(WireFormat.OPENAI_RESPONSES, *events) == {**used, "service_tier": "flex"}
    whole = metered(WireFormat.OPENAI_RESPONSES, {**ended, "output": []})
    assert json.loads(whole.raw_usage) == {**used, "service_tier": "flex"}


@pytest.mark.parametrize("tier", ["default", "auto", None, 7])
def test_a_tier_that_changes_no_price_changes_no_usage(tier):
    last = {"service_tier": tier, "model": "m", "choices": [], "usage": USED}
    assert streamed(WireFormat.OPENAI_CHAT, last) == USED


def of_zen(wire_format: WireFormat, *answers: object):
    meter = ExchangeMeter(route_of(wire_format), streamed=True, asked_for_usage=True)
    sent = b"".join(b"data: " + json.dumps(answer).encode() + b"\n\n" for answer in answers)
    assert meter.relay(sent) + meter.end().tail == sent
    return meter.metering()


@pytest.mark.parametrize(("cost", "cost_usd"), [("0.00420000", Decimal("0.0042")), ("0", None)])
def test_opencode_zen_says_last_what_it_took(cost, cost_usd):
    """From the balance: nothing for a plan or a key of one's own, which says of a cost nothing."""
    used = {"input_tokens": 8, "output_tokens": 4}
    chat_usage = {"choices": [{"delta": {"content": "Hi"}, "finish_reason": "stop"}], "usage": USED}
    paid = {"choices": [], "cost": cost}
    assert of_zen(WireFormat.OPENAI_CHAT, chat_usage, paid).reported_cost_usd == cost_usd
    ping = {"type": "ping", "cost": cost}
    begun = {"type": "message_start", "message": {"usage": {"input_tokens": 8, "output_tokens": 1}}}
    ended = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": used}
    stop = {"type": "message_stop"}
    seen = of_zen(WireFormat.ANTHROPIC_MESSAGES, begun, ended, stop, ping)
    assert (seen.reported_cost_usd, seen.usage.output) == (cost_usd, 4)
    assert json.loads(seen.raw_usage)["output_tokens"] == 4
    done = {"type": "response.completed", "response": {"status": "completed", "usage": used}}
    assert of_zen(WireFormat.OPENAI_RESPONSES, done, ping).reported_cost_usd == cost_usd
    part = {"content": {"parts": [{"text": "Hi"}]}, "finishReason": "STOP"}
    told = {"candidates": [part], "usageMetadata": {"promptTokenCount": 8}}
    assert of_zen(WireFormat.GEMINI_GENERATE, told, ping).reported_cost_usd == cost_usd


@pytest.mark.parametrize("wire_format", [one for one in WireFormat if one != WireFormat.UNKNOWN])
def test_opencode_zen_says_it_in_a_plain_answer_too(wire_format):
    message = {"message": {"content": "Hi"}, "finish_reason": "stop"}
    answer = {"choices": [message], "status": "completed", "output": [], "content": []}
    seen = metered(wire_format, {**answer, "cost": "0.5"})
    assert seen.reported_cost_usd == Decimal("0.5")
