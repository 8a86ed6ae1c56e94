"""Numbers for people: never a false zero, never a hidden unknown."""

import pytest

from opencode_gate.cli import figures
from opencode_gate.core.semconv import CostQuality


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, "?"),
        (0, "0"),
        (999, "999"),
        (1000, "1.0 k"),
        (38_249, "38.2 k"),
        (999_949, "999.9 k"),
        (999_950, "1.00 M"),
        (1_924_000, "1.92 M"),
        (999_994_999, "999.99 M"),
        (999_995_000, "1.00 G"),
    ],
)
def test_counts_have_at_most_four_figures(count, text) -> None:
    assert figures.count_text(count) == text


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (None, 10, "?"),
        (3, None, "?"),
        (0, 0, "–"),
        (0, 10, "0 %"),
        (10, 10, "100 %"),
        (9_999, 10_000, "99 %"),
        (1, 10_000, "1 %"),
        (91, 100, "91 %"),
    ],
)
def test_a_share_is_whole_or_nothing_only_when_it_is(part, whole, text) -> None:
    assert figures.percent_text(part, whole) == text


@pytest.mark.parametrize(
    ("nano", "quality", "unknown", "text"),
    [
        (None, CostQuality.UNKNOWN, 0, "?"),
        (0, CostQuality.PRICED, 0, "$ 0"),
        (2_137_000_000, CostQuality.PRICED, 0, "$ 2.137"),
        (2_137_000_000, CostQuality.ESTIMATED, 0, "~$ 2.137"),
        (2_137_000_000, CostQuality.UNKNOWN, 2, "$ 2.137 + ?"),
        (1, CostQuality.PRICED, 0, "< $ 0.001"),
        (499_999, CostQuality.PRICED, 0, "< $ 0.001"),
        (500_000, CostQuality.PRICED, 0, "$ 0.001"),
        (1_234_567_891_000, CostQuality.REPORTED, 0, "$ 1,234.568"),
    ],
)
def test_money_marks_what_is_estimated_or_unknown(nano, quality, unknown, text) -> None:
    assert figures.money_text(nano, quality, unknown_requests=unknown) == text


def test_money_in_a_sentence_has_cents() -> None:
    assert figures.brief_money(2_185_000_000) == "$2.19"
    assert figures.brief_money(4_000_000) == "< $0.01"
    assert figures.brief_money(None) == "?"


@pytest.mark.parametrize(
    ("time_us", "text"),
    [
        (59_999_999, "59 s"),
        (60_000_000, "1 min"),
        (42 * 60_000_000, "42 min"),
        (185 * 60_000_000, "3 h 05 min"),
    ],
)
def test_lengths_of_time(time_us, text) -> None:
    assert figures.duration_text(time_us) == text


def test_moments_for_machines_are_utc_with_microseconds() -> None:
    assert figures.iso_text(1_795_262_400_000_001) == "2026-11-21T12:00:00.000001Z"
    assert figures.iso_text(None) is None


def test_words_agree_with_their_number() -> None:
    assert figures.counted(1, "retry", "retries") == "1 retry"
    assert figures.counted(2, "retry", "retries") == "2 retries"
    assert figures.counted(0, "request") == "0 requests"
