"""The names of the tools an answer calls, from the corpus and from pieces of it."""

import json

import pytest

from opencode_gate.core.semconv import WireFormat
from opencode_gate.wire.meter import ExchangeMeter
from tests.support.wire_corpus import Case, cases, relayed, route_of

ALL = cases("sse") + cases("json")
CALLS = {
    "anthropic/plain": ("read",),
    "anthropic/thinking_and_tool_use": ("glob",),
    "gemini/function_call": ("glob",),
    "openai-chat/finish_missing_after_tool_call": ("read",),
    "openai-chat/plain_tool_call": ("read",),
    "openai-chat/tool_calls": ("glob",),
    "openai-responses/function_call": ("glob",),
    "openai-responses/plain": ("read",),
}


def called(case: Case) -> tuple[str, ...]:
    is_stream = b"data:" in case.upstream
    meter = case.meter(streamed=is_stream)
    if is_stream:
        relayed(meter, case.upstream, 7)
    else:
        meter.observe_body(case.upstream)
        meter.end()
    return meter.metering().tools_called


@pytest.mark.parametrize("case", [c for c in ALL if c.name in CALLS], ids=lambda case: case.name)
def test_the_tools_of_recorded_answers_are_named(case: Case):
    assert called(case) == CALLS[case.name]


def test_the_corpus_still_has_the_answers_that_call_tools():
    assert set(CALLS) <= {case.name for case in ALL}


def _chat_stream(*calls: dict[str, object]) -> bytes:
    chunks = [{"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]} for call in calls]
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks)


def test_parallel_calls_are_all_named_and_each_once():
    """A name that comes with every piece of the arguments is one name."""
    meter = ExchangeMeter(route_of(WireFormat.OPENAI_CHAT), streamed=True, asked_for_usage=False)
    meter.relay(
        _chat_stream(
            {"index": 0, "function": {"name": "bash", "arguments": "{"}},
            {"index": 0, "function": {"name": "bash", "arguments": "}"}},
            {"index": 1, "function": {"name": "git_status", "arguments": ""}},
            {"index": 2, "function": {"name": None, "arguments": "{}"}},
            {"index": 3, "function": {"name": 7}},
        )
    )
    assert meter.metering().tools_called == ("bash", "git_status")


def test_a_built_in_tool_of_responses_is_named_by_its_kind():
    meter = ExchangeMeter(
        route_of(WireFormat.OPENAI_RESPONSES), streamed=True, asked_for_usage=False
    )
    meter.relay(
        b'data: {"type":"response.output_item.added","item":{"type":"local_shell_call"}}\n\n'
    )
    assert meter.metering().tools_called == ("local_shell",)
