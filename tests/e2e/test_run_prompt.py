"""`ogate run -- run PROMPT` with the real Opencode and providers that others wrote."""

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from genai_prices import Usage, calc_price

from opencode_gate.core.semconv import ConversationKind, CostQuality, ExchangeStatus, UsageQuality
from opencode_gate.ledger.records import ExchangeRecord
from tests.support.launcher import ledger
from tests.support.mock_providers import (
    AIMOCK_BASES,
    LLMOCK_BASES,
    agent_turn,
    aimock,
    llmock,
    reported_usage,
)
from tests.support.real_session import Person, generations
from tests.support.recording_relay import RecordingRelay

pytestmark = pytest.mark.e2e

KEY = "sk-live-0123456789abcdef0123456789abcdef"
ANSWER = "The note says that milk is to be bought."
TITLE, CALL, FINAL = (37, 5), (10_007, 23), (20_011, 41)

# provider, model, wire format, the name genai-prices has for the provider
BUILT_IN = [
    ("deepseek", "deepseek-v4-pro", "openai-chat", "deepseek"),
    ("openai", "gpt-5", "openai-responses", "openai"),
    ("anthropic", "claude-sonnet-4-5", "anthropic", "anthropic"),
    ("google", "gemini-2.5-pro", "gemini", "google"),
]
OWN = [(f"own-{wire}", "m-1", wire) for wire in LLMOCK_BASES]


def counts(pair: tuple[int, int]) -> dict[str, int]:
    return {"prompt_tokens": pair[0], "completion_tokens": pair[1]}


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory):
    fixtures = agent_turn(title=counts(TITLE), call=counts(CALL), answer=counts(FINAL), text=ANSWER)
    with aimock(tmp_path_factory.mktemp("aimock"), fixtures) as relay:
        yield relay


@pytest.fixture(scope="module")
def lively():
    with llmock() as relay:
        yield relay


@pytest.fixture
def person(tmp_path: Path) -> Person:
    return Person(tmp_path)


def cost_by_genai_prices(record: ExchangeRecord, provider_id: str) -> Decimal:
    asked_at = datetime.fromtimestamp(record.started_at_us / 1e6, tz=UTC)
    usage = Usage(input_tokens=record.usage.input_tokens, output_tokens=record.usage.output)
    assert record.request_model is not None
    return calc_price(
        usage,
        record.request_model,
        provider_id=provider_id,
        genai_request_timestamp=asked_at,
    ).total_price


@pytest.mark.parametrize(("provider", "model", "wire", "priced_as"), BUILT_IN)
def test_a_turn_with_a_tool_call_is_counted_to_the_token_and_priced(
    person: Person,
    scripted: RecordingRelay,
    provider: str,
    model: str,
    wire: str,
    priced_as: str,
):
    """A built-in provider sent elsewhere: title, tool call, answer, each with its own figures."""
    scripted.seen.clear()
    base = scripted.url + AIMOCK_BASES[wire]
    person.configure("providers", "edit", provider, "--base-url", base)
    variable = {"google": "GEMINI_API_KEY"}.get(provider, f"{provider.upper()}_API_KEY")
    done = person.prompt("What is in my notes?", model=f"{provider}/{model}", **{variable: KEY})
    assert done.returncode == 0, done.stderr
    assert ANSWER in done.stdout
    assert "$" in done.stderr

    rows = generations()
    assert len(rows) == len(scripted.seen) == 3
    assert {row.status for row in rows} == {ExchangeStatus.COMPLETED}
    assert {(row.provider_name, row.wire_format) for row in rows} == {(provider, wire)}
    assert {row.usage_quality for row in rows} == {UsageQuality.REPORTED}
    assert sorted((row.kind, row.usage.input_tokens, row.usage.output) for row in rows) == [
        (ConversationKind.MAIN, *CALL),
        (ConversationKind.MAIN, *FINAL),
        (ConversationKind.TITLE, *TITLE),
    ]
    for row in rows:
        assert row.cost_quality is CostQuality.PRICED
        assert row.cost_nano_usd is not None
        cost_usd = Decimal(row.cost_nano_usd) / 10**9
        assert abs(cost_usd - cost_by_genai_prices(row, priced_as)) <= Decimal("1e-9")
    for relayed in scripted.seen:
        assert KEY in relayed.headers.values() or f"Bearer {KEY}" in relayed.headers.values()
        assert not any("ogs-" in value for value in relayed.headers.values())


@pytest.mark.parametrize(("provider", "model", "wire"), OWN)
def test_a_server_of_ones_own_runs_an_agent_loop_and_its_price_is_unknown(
    person: Person, lively: RecordingRelay, provider: str, model: str, wire: str
):
    lively.seen.clear()
    person.add_server(provider, wire, lively.url + LLMOCK_BASES[wire], model)
    done = person.prompt("Please read notes.txt", model=f"{provider}/{model}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()

    rows = generations()
    assert len(rows) == len(lively.seen) >= 3, "a title, a tool call and an answer"
    assert {row.status for row in rows} == {ExchangeStatus.COMPLETED}
    assert sorted((row.usage.input_tokens, row.usage.output) for row in rows) == sorted(
        reported_usage(wire, relayed.answer) for relayed in lively.seen
    )
    assert {(row.cost_nano_usd, row.cost_quality) for row in rows} == {(None, CostQuality.UNKNOWN)}
    assert "$ 0" not in done.stderr
    assert ledger().session.exit_status == 0
