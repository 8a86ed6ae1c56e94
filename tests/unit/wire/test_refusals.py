import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencode_gate.core.semconv import WireFormat
from opencode_gate.wire.refusals import (
    OVERFLOW_PATTERN,
    RETRY_PATTERN,
    WORD_JOINER,
    neutralise,
    refusal_body,
)

TEXT = "Budget of $500 spent; try again later, the rate limit of gpt-429 was hit."


def body_of(wire_format: WireFormat, *, http_status: int = 402) -> dict:
    return json.loads(
        refusal_body(
            wire_format,
            http_status=http_status,
            message="No.",
            error_type="insufficient_quota",
            code="insufficient_quota",
        )
    )


def test_each_format_gets_its_native_envelope():
    """Opencode shows exactly `error.message` for these; other shapes are shown as raw JSON."""
    openai = {
        "error": {
            "message": "No.",
            "type": "insufficient_quota",
            "param": None,
            "code": "insufficient_quota",
        }
    }
    assert body_of(WireFormat.OPENAI_CHAT) == openai
    assert body_of(WireFormat.OPENAI_RESPONSES) == openai
    assert body_of(WireFormat.UNKNOWN) == openai
    assert body_of(WireFormat.ANTHROPIC_MESSAGES) == {
        "type": "error",
        "error": {"type": "insufficient_quota", "message": "No."},
    }
    assert body_of(WireFormat.GEMINI_GENERATE) == {
        "error": {"code": 402, "message": "No.", "status": "FAILED_PRECONDITION"}
    }


@given(
    wire_format=st.sampled_from(list(WireFormat)),
    http_status=st.sampled_from([400, 401, 402, 403, 404, 422]),
    text=st.text() | st.from_regex(RETRY_PATTERN) | st.from_regex(OVERFLOW_PATTERN),
)
def test_a_final_refusal_never_invites_a_retry_or_a_compaction(wire_format, http_status, text):
    """Opencode decides by these patterns over the whole body, whatever the status says."""
    body = refusal_body(
        wire_format,
        http_status=http_status,
        message=text,
        error_type="insufficient_quota",
        code=text,
    ).decode()
    assert not RETRY_PATTERN.search(body)
    assert not OVERFLOW_PATTERN.search(body)
    message = json.loads(body)["error"]["message"]
    assert not RETRY_PATTERN.search(message)
    assert message.replace(WORD_JOINER, "") == text.replace(WORD_JOINER, "")


@pytest.mark.parametrize("http_status", [429, 500, 502, 503, 504])
def test_a_refusal_that_may_be_retried_says_so_plainly(http_status):
    body = refusal_body(
        WireFormat.OPENAI_CHAT,
        http_status=http_status,
        message=TEXT,
        error_type="upstream_error",
        code="upstream-timeout",
    )
    assert json.loads(body)["error"]["message"] == TEXT


def test_overlapping_runs_are_all_broken():
    for text in ("52429", "500503", "5005005", "4295024"):
        assert not RETRY_PATTERN.search(neutralise(text))


def test_neutralising_twice_changes_nothing():
    assert neutralise(neutralise(TEXT)) == neutralise(TEXT)


def test_harmless_text_is_left_alone():
    text = "The session budget of $5.00 is spent: ogate run --budget 10 starts a new one."
    assert neutralise(text) == text
