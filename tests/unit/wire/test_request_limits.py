"""What a request asks for at most, in the words of each format."""

import json

import msgspec
import pytest
from hypothesis import given

from opencode_gate.core.semconv import WireFormat
from opencode_gate.wire.facts import BadBody, RequestFacts, read_facts
from tests.support.agent_conversations import FORMATS
from tests.support.json_bodies import prompts
from tests.support.wire_corpus import route_of

CHAT = route_of(WireFormat.OPENAI_CHAT)
RESPONSES = route_of(WireFormat.OPENAI_RESPONSES)
ANTHROPIC = route_of(WireFormat.ANTHROPIC_MESSAGES)
GEMINI = route_of(WireFormat.GEMINI_GENERATE)


def facts(route, text: str) -> RequestFacts:
    return read_facts(route, text.encode())


@pytest.mark.parametrize(
    ("route", "body", "limit"),
    [
        (CHAT, "{}", None),
        (CHAT, '{"max_tokens":8000}', 8000),
        (CHAT, '{"max_completion_tokens":8000}', 8000),
        (CHAT, '{"max_completion_tokens":1,"max_tokens":8000}', 8000),
        (CHAT, '{"max_completion_tokens":8000,"max_tokens":null}', 8000),
        (CHAT, '{"max_tokens":1,"max_tokens":8000}', 8000),
        (CHAT, '{"max_tokens":"8000"}', None),
        (CHAT, '{"max_tokens":true}', None),
        (CHAT, '{"max_tokens":7999.5}', 8000),
        (CHAT, '{"max_tokens":1e999}', None),
        (CHAT, '{"max_output_tokens":8000}', None),
        (CHAT, '{"messages":[{"max_tokens":8000}]}', None),
        (RESPONSES, '{"max_output_tokens":8000}', 8000),
        (RESPONSES, '{"max_tokens":8000}', None),
        (ANTHROPIC, '{"max_tokens":8000}', 8000),
        (GEMINI, '{"generationConfig":{"maxOutputTokens":8000}}', 8000),
        (GEMINI, '{"generation_config":{"max_output_tokens":8000}}', 8000),
        (GEMINI, '{"generationConfig":[],"max_tokens":1}', None),
    ],
)
def test_the_output_limit_is_the_one_that_may_hold(route, body, limit):
    assert facts(route, body).max_output_tokens == limit


@pytest.mark.parametrize(
    ("route", "body", "choices"),
    [
        (CHAT, "{}", 1),
        (CHAT, '{"n":3}', 3),
        (CHAT, '{"n":null}', 1),
        (CHAT, '{"n":0}', 1),
        (RESPONSES, '{"n":3}', 1),
        (GEMINI, "{}", 1),
        (GEMINI, '{"generationConfig":{"candidateCount":4}}', 4),
    ],
)
def test_how_many_answers_are_asked_for(route, body, choices):
    assert facts(route, body).choices == choices


def test_what_costs_more_or_goes_on_alone_is_told():
    body = {
        "thinking": {"type": "enabled", "budget_tokens": 16_000},
        "service_tier": "priority",
        "speed": "fast",
        "background": True,
        "models": ["a", 1, "b"],
    }
    found = facts(CHAT, json.dumps(body))
    assert found.thinking_budget_tokens == 16_000
    assert (found.service_tier, found.speed) == ("priority", "fast")
    assert found.is_background
    assert found.fallback_models == ("a", "b")
    openrouters = facts(CHAT, '{"reasoning":{"max_tokens":2000,"effort":"high"}}')
    assert openrouters.thinking_budget_tokens == 2000
    assert facts(RESPONSES, '{"reasoning":{"effort":"high"}}').thinking_budget_tokens is None
    assert facts(GEMINI, '{"serviceTier":"flex"}').service_tier == "flex"


def test_what_is_not_there_or_odd_says_nothing():
    for text in (
        "{}",
        '{"thinking":{"type":"adaptive"},"service_tier":null,"background":false,"models":[]}',
        '{"thinking":5,"service_tier":5,"speed":[],"background":"yes","models":"a"}',
    ):
        found = facts(ANTHROPIC, text)
        said = msgspec.structs.replace(found, plain=None, has_stream_options=True)
        assert said == RequestFacts(input_bytes=len(text), body_bytes=len(text))


def test_media_counts_in_the_size_of_the_body():
    text = json.dumps({"messages": [{"content": "data:image/png;base64," + "A" * 20_000}]})
    found = facts(CHAT, text)
    assert found.body_bytes == len(text)
    assert found.input_bytes < 1_000


@given(body=prompts())
def test_an_unusual_body_is_left_for_the_provider_to_judge(body):
    for wire_format in FORMATS:
        try:
            found = read_facts(route_of(wire_format), body)
        except BadBody as refusal:
            # Only for a model that is no text, or what is no JSON at all (`NaN`).
            assert "$.model" in str(refusal) or "JSON" in str(refusal)
            continue
        assert found.choices >= 1
        assert found.max_output_tokens is None or isinstance(found.max_output_tokens, int)
