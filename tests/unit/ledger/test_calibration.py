"""Estimates are corrected by what the user's own answers came to."""

import msgspec
import pytest

from opencode_gate.core.semconv import ExchangeStatus, Operation, UsageQuality, WireFormat
from opencode_gate.core.usage import TokenUsage
from opencode_gate.ledger.calibration import Calibration
from opencode_gate.ledger.ratios import Ratio
from opencode_gate.ledger.records import ExchangeRecord
from opencode_gate.ledger.sqlite import open_store
from opencode_gate.wire.metering import Delivered

BODY = b'{"messages":[]}' + b" " * 985


def reported(usage: TokenUsage, **fields: object) -> ExchangeRecord:
    record = ExchangeRecord(
        id="01JD0000000000000000000001",
        session_id="01JD0000000000000000000002",
        operation=Operation.GENERATE,
        wire_format=WireFormat.OPENAI_CHAT,
        provider_name="acme",
        request_model="m-1",
        status=ExchangeStatus.COMPLETED,
        started_at_us=1,
        usage=usage,
        usage_quality=UsageQuality.REPORTED,
    )
    return msgspec.structs.replace(record, **fields)


def cut(seen: TokenUsage, **fields: object) -> ExchangeRecord:
    return reported(
        seen, status=ExchangeStatus.INTERRUPTED, usage_quality=UsageQuality.ESTIMATED, **fields
    )


def delivered(chars: int, seen: TokenUsage | None = None, *, hides: bool = False) -> Delivered:
    return Delivered(
        text="x" * chars,
        chars=chars,
        seen=TokenUsage() if seen is None else seen,
        hides_reasoning=hides,
    )


def a_tenth(text: str, model: str | None) -> int:
    return len(text) // 10


def learned(answers: int, usage: TokenUsage, **options: object) -> Calibration:
    calibration = Calibration(a_tenth)
    for _ in range(answers):
        calibration.settled(reported(usage), BODY, delivered(4000, **options))
    return calibration


def test_a_cut_answer_is_counted_from_its_text():
    settled = Calibration(a_tenth).settled(cut(TokenUsage(output=7)), BODY, delivered(4000))
    assert settled.usage.output == 400
    assert settled.usage.input_uncached == 250


def test_what_the_provider_told_is_never_made_less():
    seen = TokenUsage(input_uncached=11, output=900)
    settled = Calibration(a_tenth).settled(cut(seen), BODY, delivered(4000, seen))
    assert settled.usage == seen


def test_the_users_own_answers_correct_the_next_estimate():
    """Three answers that came to half as much again make a model's estimates that much more."""
    calibration = learned(3, TokenUsage(input_uncached=500, output=600))
    settled = calibration.settled(cut(TokenUsage()), BODY, delivered(2000))
    assert settled.usage.output == 300
    assert settled.usage.input_uncached == 500


def test_one_answer_is_no_rule():
    settled = learned(2, TokenUsage(input_uncached=500, output=600)).settled(
        cut(TokenUsage()), BODY, delivered(2000)
    )
    assert settled.usage.output == 200


@pytest.mark.parametrize(
    ("usage", "options"),
    [
        (TokenUsage(output=600, reasoning=400), {}),
        (TokenUsage(output=600), {"hides": True}),
        (TokenUsage(output=31), {}),
        (TokenUsage(output=60_000), {}),
    ],
    ids=["reasoning", "hidden reasoning", "short", "not text"],
)
def test_nothing_is_learned_from_an_answer_whose_output_is_not_what_was_delivered(usage, options):
    assert not any(kind != "input_size" for *_, kind in learned(5, usage, **options).learned)


def test_another_model_is_not_corrected():
    calibration = learned(5, TokenUsage(output=800))
    other = cut(TokenUsage(), request_model="m-2")
    assert calibration.settled(other, BODY, delivered(2000)).usage.output == 200


def test_a_factor_has_its_bounds():
    assert Ratio(1000, 5000, 9).factor == 2.0
    assert Ratio(1000, 1, 9).factor == 0.5
    assert Ratio(10, 15, 9).factor == 1.0


def test_the_ledger_keeps_sums_and_adds_to_them(tmp_path):
    """Two gateways on one ledger lose nothing of each other's."""
    store = open_store(tmp_path / "ledger.db")
    key = ("acme", "m-1", "output_text")
    store.add_token_ratios({key: Ratio(100, 110, 1)})
    store.add_token_ratios({key: Ratio(200, 190, 2)})
    assert store.token_ratios() == {key: Ratio(300, 300, 3)}
    store.close()
