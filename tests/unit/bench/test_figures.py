"""The arithmetic of the bench."""

import pytest

from bench.figures import bootstrap, percentile, table, time_text


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, 1), (0.01, 1), (0.5, 50), (0.99, 99), (0.995, 100), (1.0, 100)]
)
def test_a_percentile_is_a_value_that_was_measured(share: float, expected: int) -> None:
    """The smallest that so large a share does not exceed, whatever the order."""
    assert percentile(list(range(100, 0, -1)), share) == expected


def test_a_percentile_of_one_value_is_that_value() -> None:
    assert percentile([7.0], 0.99) == 7.0


def test_an_interval_holds_the_estimate_and_is_the_same_each_time() -> None:
    rounds = [1.0, 2.0, 3.0, 4.0, 50.0]
    interval = bootstrap(rounds, max)
    assert interval == bootstrap(rounds, max)
    assert interval.value == 50.0
    assert interval.low <= interval.value <= interval.high


def test_rounds_that_are_alike_leave_no_doubt() -> None:
    interval = bootstrap([3.0] * 9, sum)
    assert (interval.low, interval.value, interval.high) == (27.0, 27.0, 27.0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0000714, "71 µs"), (-0.00003, "-30 µs"), (0.0012, "1.2 ms"), (0.1784, "178 ms")],
)
def test_a_time_is_shown_in_the_unit_that_reads_best(seconds: float, text: str) -> None:
    assert time_text(seconds) == text


def test_a_table_is_markdown() -> None:
    assert table(["", "a"], [["x", "1"]]) == "|  | a |\n|---|---:|\n| x | 1 |"
