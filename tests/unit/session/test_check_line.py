"""The end of a session says in one line how Opencode's figure and the ledger's differ."""

from pathlib import Path

import pytest

from opencode_gate.session.check_line import check_line
from opencode_gate.session.reconciliation import Difference, Figures, Reason, Reconciliation

CENT = 10_000_000


def line(agent: Figures, *, unpriced: int = 0, **differences: Figures) -> str | None:
    found = tuple(
        Difference(reason=Reason[name.upper()], cases=1, figures=each)
        for name, each in differences.items()
    )
    ledger = sum((each.figures for each in found), agent)
    return check_line(
        Reconciliation(
            ledger=ledger,
            agent=agent,
            reported=Figures(),
            unpriced_requests=unpriced,
            differences=found,
        )
    )


def test_the_reasons_stand_with_their_amounts_the_largest_first():
    said = line(
        Figures(requests=3, cost_nano_usd=160 * CENT),
        titles=Figures(requests=1, cost_nano_usd=5 * CENT),
        sub_agents=Figures(requests=9, cost_nano_usd=53 * CENT),
        prices=Figures(cost_nano_usd=-2 * CENT),
        rounding=Figures(cost_nano_usd=1),
    )
    assert said == (
        "Opencode counted $1.60, ogate $2.16: sub-agents +$0.53, titles +$0.05, other prices -$0.02"
    )


def test_what_cost_nothing_is_compared_in_tokens():
    said = line(
        Figures(requests=2, input_tokens=4_000, output_tokens=100),
        titles=Figures(requests=1, input_tokens=900, output_tokens=20),
        refused=Figures(requests=1),
    )
    assert said == "Opencode counted 4,100 tokens, ogate 5,020 tokens: titles +920 tokens"


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason is not Reason.ROUNDING])
def test_every_reason_has_its_words_here_and_in_the_documentation(reason: Reason):
    said = line(Figures(), **{reason.name.lower(): Figures(cost_nano_usd=160 * CENT)})
    assert said is not None and said.endswith("+$1.60")
    page = Path(__file__).parents[3] / "docs/explanation/accounting.md"
    assert f"| `{reason}` |" in page.read_text(encoding="utf-8")


def test_agreement_is_worth_a_line_and_nothing_is_not():
    agreed = Figures(requests=1, input_tokens=10, cost_nano_usd=160 * CENT)
    assert line(agreed) == "Opencode counted the same: $1.60"
    assert line(Figures(requests=1, input_tokens=10)) == "Opencode counted the same: 10 tokens"
    assert line(Figures()) is None


def test_small_sums_are_written_finely_and_none_as_nothing():
    said = line(
        Figures(cost_nano_usd=2_104_700),
        titles=Figures(cost_nano_usd=1_022_100),
        unknown=Figures(cost_nano_usd=5),
    )
    assert said == "Opencode counted $0.0021, ogate $0.0031: titles +$0.0010, unknown +<$0.0001"


def test_what_nobody_knows_the_price_of_is_never_nothing():
    """A ledger without a price has not counted $0, and one with some has not counted all."""
    theirs = Figures(requests=2, cost_nano_usd=160 * CENT)
    lost = Figures(cost_nano_usd=-160 * CENT)
    assert line(theirs, unpriced=2, no_price=lost) == (
        "Opencode counted $1.60, ogate ?: models without a known price -$1.60"
    )
    half = Figures(cost_nano_usd=-80 * CENT)
    assert line(theirs, unpriced=1, no_price=half) == (
        "Opencode counted $1.60, ogate $0.80 + ?: models without a known price -$0.80"
    )
