"""A limit is lowered in the words of its format, and nothing else of a body changes."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencode_gate.core.semconv import WireFormat
from opencode_gate.wire.facts import RequestFacts, read_facts
from opencode_gate.wire.output_limits import SENSIBLE_TOKENS, smallest_sensible, with_output_limit
from tests.support.json_bodies import bodies, encoded, without
from tests.support.wire_corpus import route_of

CHAT = route_of(WireFormat.OPENAI_CHAT)
RESPONSES = route_of(WireFormat.OPENAI_RESPONSES)
ANTHROPIC = route_of(WireFormat.ANTHROPIC_MESSAGES)
GEMINI = route_of(WireFormat.GEMINI_GENERATE)
FORMATS = (CHAT, RESPONSES, ANTHROPIC, GEMINI)
NAMES = ("max_tokens", "max_completion_tokens", "max_output_tokens", "maxOutputTokens")


@pytest.mark.parametrize(
    ("route", "provider_id", "body", "expected"),
    [
        (CHAT, "groq", '{"model":"m"}', '{"max_tokens":7,"model":"m"}'),
        (CHAT, "openai", '{"model":"m"}', '{"max_completion_tokens":7,"model":"m"}'),
        (CHAT, "azure", '{"model":"m"}', '{"max_completion_tokens":7,"model":"m"}'),
        (CHAT, "groq", "{}", '{"max_tokens":7}'),
        (CHAT, "groq", ' { "max_tokens" : 8000 , "a":1}\n', ' { "max_tokens" : 7 , "a":1}\n'),
        (CHAT, "groq", '{"max_completion_tokens":9}', '{"max_completion_tokens":7}'),
        (
            CHAT,
            "x",
            '{"max_completion_tokens":9,"max_tokens":10}',
            '{"max_completion_tokens":7,"max_tokens":7}',
        ),
        (CHAT, "x", '{"max_tokens":9,"max_tokens":8}', '{"max_tokens":7,"max_tokens":7}'),
        (CHAT, "x", '{"max_tokens":6}', '{"max_tokens":6}'),
        (CHAT, "x", '{"max_tokens":null}', '{"max_tokens":7}'),
        (
            CHAT,
            "openai",
            '{"max_tokens":null}',
            '{"max_completion_tokens":7,"max_tokens":null}',
        ),
        (CHAT, "x", '{"max_tokens":8.5e3}', '{"max_tokens":7}'),
        (CHAT, "x", '{"max_tokens":-1}', '{"max_tokens":7}'),
        (CHAT, "x", '{"max_t\\u006fkens":9}', '{"max_t\\u006fkens":7}'),
        (CHAT, "x", '{"max_tokens":1e999}', '{"max_tokens":7}'),
        (
            CHAT,
            "x",
            '{"messages":[{"content":"\\"max_tokens\\":9","max_tokens":9}],"max_tokens":9}',
            '{"messages":[{"content":"\\"max_tokens\\":9","max_tokens":9}],"max_tokens":7}',
        ),
        (RESPONSES, "openai", '{"max_tokens":9}', '{"max_output_tokens":7,"max_tokens":9}'),
        (RESPONSES, "openai", '{"max_output_tokens":9}', '{"max_output_tokens":7}'),
        (ANTHROPIC, "anthropic", '{"max_tokens":32000}', '{"max_tokens":7}'),
        (GEMINI, "google", "{}", '{"generationConfig":{"maxOutputTokens":7}}'),
        (
            GEMINI,
            "google",
            '{"generationConfig":{"temperature":1}}',
            '{"generationConfig":{"maxOutputTokens":7,"temperature":1}}',
        ),
        (
            GEMINI,
            "google",
            '{"a":1, "generationConfig": { "maxOutputTokens": 32000}, "b":"é"}',
            '{"a":1, "generationConfig": { "maxOutputTokens": 7}, "b":"é"}',
        ),
        (
            GEMINI,
            "google",
            '{"generation_config":{"max_output_tokens":32000}}',
            '{"generation_config":{"max_output_tokens":7}}',
        ),
        (
            GEMINI,
            "google",
            '{"generationConfig":{"maxOutputTokens":9},"generation_config":{}}',
            '{"generationConfig":{"maxOutputTokens":7},"generation_config":{"maxOutputTokens":7}}',
        ),
        (
            GEMINI,
            "google",
            '{"generationConfig":null}',
            '{"generationConfig":{"maxOutputTokens":7}}',
        ),
    ],
)
def test_the_limit_is_lowered_where_it_stands_or_put_in(route, provider_id, body, expected):
    assert with_output_limit(route, body.encode(), 7, provider_id=provider_id).decode() == expected


@given(
    body=bodies(st.sampled_from(NAMES)),
    style=encoded,
    tokens=st.integers(1, 40_000),
    route=st.sampled_from(FORMATS),
    provider_id=st.sampled_from(["openai", "groq"]),
)
def test_whatever_the_client_sent_is_limited_afterwards_and_else_the_same(
    body, style, tokens, route, provider_id
):
    original = style(body)
    limited = with_output_limit(route, original, tokens, provider_id=provider_id)
    facts = read_facts(route, limited)
    assert facts.max_output_tokens is not None
    assert facts.max_output_tokens <= tokens
    names = NAMES if route is not GEMINI else ("generationConfig", "generation_config")
    assert without(json.loads(limited), names) == without(json.loads(original), names)
    assert with_output_limit(route, limited, tokens, provider_id=provider_id) == limited


def test_a_body_that_is_no_text_keeps_its_bytes():
    body = b'{"messages":[{"content":"\xff\\ud83d"}],"max_tokens":9}'
    limited = with_output_limit(CHAT, body, 7, provider_id="x")
    assert limited == body.replace(b":9}", b":7}")


def test_a_huge_body_keeps_all_but_its_limit():
    text = '\\"{[ \n é' * 200_000
    for trailing in ({}, {"max_tokens": 9}):
        document = {"max_tokens": 9, "messages": [{"content": text}] * 3, **trailing}
        body = json.dumps(document).encode()
        assert len(body) > 5_000_000
        limited = with_output_limit(CHAT, body, 7, provider_id="x")
        assert limited == body.replace(b'"max_tokens": 9', b'"max_tokens": 7')


def test_what_is_sensible_is_above_the_thinking_and_never_above_what_was_asked():
    def least(route, **facts):
        return smallest_sensible(route, RequestFacts(**facts))

    assert least(CHAT) == SENSIBLE_TOKENS
    assert least(CHAT, max_output_tokens=100) == 100
    assert least(CHAT, max_output_tokens=0) == least(CHAT, max_output_tokens=-5) == SENSIBLE_TOKENS
    thinking = {"thinking_budget_tokens": 16_000}
    assert least(ANTHROPIC, max_output_tokens=48_000, **thinking) == 16_000 + SENSIBLE_TOKENS
    assert least(ANTHROPIC, max_output_tokens=16_500, **thinking) == 16_500
    assert least(CHAT, **thinking) == 16_000 + SENSIBLE_TOKENS
    assert least(GEMINI, **thinking) == SENSIBLE_TOKENS
