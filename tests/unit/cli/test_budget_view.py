"""How budgets are written for people and for programs."""

from decimal import Decimal

import pytest

from opencode_gate.cli.budget_view import (
    label_text,
    short_line,
    standing_document,
    standing_line,
    standing_style,
    warning_lines,
)
from opencode_gate.governance.policy import Budget, Owner
from opencode_gate.governance.standing import BudgetStanding
from tests.support.ledger_records import NOON_US

HOUR_US = 3_600_000_000
MIDNIGHT_US = NOON_US - 12 * HOUR_US
ADA = Owner("user", "ada")
SESSION = Owner("session", "01S")


def standing(
    spent_usd: str = "0",
    limit: str = "20",
    window: str = "day",
    owner: Owner = ADA,
    **more: object,
) -> BudgetStanding:
    budget = Budget(window=window, usd=Decimal(limit), **more)  # type: ignore[arg-type]
    is_endless = window in ("session", "total")
    return BudgetStanding(
        owner=owner,
        budget=budget,
        start_us=0 if is_endless else MIDNIGHT_US,
        resets_at_us=None if is_endless else MIDNIGHT_US + 24 * HOUR_US,
        time_zone="UTC",
        spent=int(Decimal(spent_usd) * 10**9),
        held=0,
    )


def test_the_line_of_a_summary() -> None:
    """As it is in the design."""
    some = [standing("2.185", "5", "session", SESSION), standing("6.4")]
    assert standing_line(some, NOON_US) == "session $2.19 of $5.00 · today $6.40 of $20.00"
    assert standing_line([], NOON_US) == ""


@pytest.mark.parametrize(
    ("one", "label"),
    [
        (standing(window="session", owner=SESSION), "session"),
        (standing(window="day", owner=SESSION), "session today"),
        (standing(window="month"), "this month"),
        (standing(window="total"), "in all"),
        (standing(owner=Owner("vkey", "ci")), "key ci today"),
        (standing(window="month", owner=Owner("team", "core")), "team core this month"),
        (standing(window="quarter", owner=Owner("customer", "acme")), "customer acme this quarter"),
        (standing(mode="shadow"), "today (shadow)"),
    ],
)
def test_a_budget_has_a_name_of_a_word_or_two(one: BudgetStanding, label: str) -> None:
    """Whose it is, unless it is one's own, and its window."""
    assert label_text(one, NOON_US) == label


def test_a_window_that_is_over_is_named_by_its_date() -> None:
    """A summary shown again tomorrow does not call yesterday today."""
    assert label_text(standing(), NOON_US + 24 * HOUR_US) == "2026-11-21"
    assert label_text(standing(window="week"), NOON_US + 24 * HOUR_US).startswith("week since 2026")


def test_a_rolling_budget_says_since_when() -> None:
    """It follows no calendar."""
    label = label_text(standing(rolling=True, since_us=MIDNIGHT_US), NOON_US)
    assert label.startswith("day since 2026-11-2")


def test_tokens_are_tokens() -> None:
    """Never dollars."""
    one = BudgetStanding(
        owner=ADA,
        budget=Budget(window="total", tokens=100_000),
        start_us=0,
        resets_at_us=None,
        time_zone="UTC",
        spent=12_300,
        held=7,
    )
    assert standing_line([one], NOON_US) == "in all 12.3 k of 100.0 k tokens"
    document = standing_document(one)
    assert (document["limit"], document["spent"], document["left"]) == (100_000, 12_300, 87_693)


def test_only_what_has_reached_a_threshold_is_in_the_short_line() -> None:
    """A status bar has no room for what is well."""
    some = [standing("1"), standing("16.4", window="month"), standing("5", "5", "session", SESSION)]
    assert short_line(some, NOON_US) == "this month 82 % of $20.00 · session 100 % of $5.00"
    assert short_line(some[:1], NOON_US) == ""


def test_a_warning_says_the_numbers_the_reset_and_the_command() -> None:
    """What a person needs to decide."""
    [line] = warning_lines([standing("1"), standing("16.4", window="day")])
    assert "82 % of your daily budget of $20 is used: $16.40 spent" in line
    assert "2026-11-22 00:00 (UTC)" in line
    assert "ogate budgets raise day" in line
    assert not line.startswith("ogate:")


def test_the_style_is_that_of_the_worst() -> None:
    """Red is spent, yellow is warned."""
    assert standing_style([standing("1")]) == ""
    assert standing_style([standing("1"), standing("10")]) == "yellow"
    assert standing_style([standing("20"), standing("10")]) == "red"


def test_the_document_is_exact() -> None:
    """To the nano-dollar, as strings."""
    assert standing_document(standing("2.185000001", "5", "session", SESSION)) == {
        "owner_kind": "session",
        "owner": "01S",
        "window": "session",
        "rolling": False,
        "unit": "usd",
        "limit": "5",
        "spent": "2.185000001",
        "held": "0",
        "left": "2.814999999",
        "percent": 43,
        "warned_percent": None,
        "at_end": "block",
        "mode": "enforce",
        "starts_at": None,
        "resets_at": None,
        "time_zone": "UTC",
    }
