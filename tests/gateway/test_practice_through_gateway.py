"""The scripted provider through a real gateway process, into the ledger."""

import json

import httpx

from opencode_gate.catalog.practice import practice_row
from opencode_gate.core.semconv import CostQuality, ExchangeStatus, UsageQuality
from tests.support.gateway import TOKEN, running_gateway


def test_a_streamed_answer_leaves_one_exact_row() -> None:
    with running_gateway([practice_row()]) as gateway:
        body = {
            "model": "scripted",
            "stream": True,
            "stream_options": {"include_usage": True},
            "messages": [{"role": "user", "content": "hello"}],
        }
        answer = httpx.post(
            gateway.url("practice", "/v1/chat/completions"),
            json=body,
            headers={"authorization": f"Bearer {TOKEN}", "x-session-id": "ses_1"},
        )
        assert answer.status_code == 200
        events = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
        assert events[-1] == "[DONE]"
        usage = json.loads(events[-2])["usage"]
        assert gateway.finish() == {"type": "settled", "exchanges": 1, "is_whole": True}
        (row,) = gateway.exchanges()
    assert row.status is ExchangeStatus.COMPLETED
    assert row.usage_quality is UsageQuality.REPORTED
    assert row.usage.input_tokens == usage["prompt_tokens"]
    assert row.usage.output == usage["completion_tokens"]
    assert (row.cost_nano_usd, row.cost_quality) == (0, CostQuality.PRICED)
    assert row.conversation_id == "ses_1"


def test_without_the_launch_token_nobody_is_served_and_nothing_is_recorded() -> None:
    with running_gateway([practice_row()]) as gateway:
        answer = httpx.post(
            gateway.url("practice", "/v1/chat/completions"),
            json={"model": "scripted", "messages": []},
            headers={"authorization": "Bearer sk-wrong"},
        )
        assert answer.status_code == 401
        assert "launch token" in answer.json()["error"]["message"]
        assert gateway.finish()["exchanges"] == 0
