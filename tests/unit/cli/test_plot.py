"""The plot over days: proportions are kept, something never looks like nothing."""

from datetime import date, timedelta

import pytest

from opencode_gate.cli.plot import Plot, plot_lines, share_line


def _plot(values: list[float], label: str = "$9") -> Plot:
    days = [date(2026, 11, 1) + timedelta(days=number) for number in range(len(values))]
    return Plot(days=days, values=values, peak_label=label)


def test_heights_are_in_proportion_and_a_day_without_anything_is_empty() -> None:
    assert plot_lines(_plot([0, 4, 8, 2, 1]), width=40, height=1) == [
        "$9 ┤  ▄ █ ▂ ▁",
        "    Nov 1",
    ]


def test_a_day_with_very_little_is_still_seen() -> None:
    assert plot_lines(_plot([1, 10_000]), width=40, height=1)[0] == "$9 ┤▁ █"


def test_several_rows_stack_from_the_bottom() -> None:
    assert plot_lines(_plot([4, 8]), width=40, height=2)[:2] == ["$9 ┤  █", "   ┤█ █"]


def test_first_and_last_day_stand_below() -> None:
    line = plot_lines(_plot([1] * 10), width=60, height=1)[-1]
    assert line == "    Nov 1        Nov 10"


def test_many_days_get_narrow_and_the_latest_stay() -> None:
    lines = plot_lines(_plot([float(number) for number in range(90)]), width=40, height=1)
    assert all(len(line) <= 40 for line in lines)
    assert lines[0].endswith("█")
    assert lines[-1].endswith("Jan 29")


def test_nothing_makes_no_plot() -> None:
    assert plot_lines(_plot([]), width=40) == []
    assert plot_lines(_plot([0, 0]), width=40) == []


@pytest.mark.parametrize(
    ("shares", "line"),
    [
        ([], ""),
        ([0, 1], "▁█"),
        ([0.5], "▄"),
        ([0, 0.02, 0.99, 1], "▁▁██"),
        ([0, 0, 1, 1] * 4, "▁█▁█▁█▁█"),
        ([1.0] * 1000, "████████"),
    ],
)
def test_shares_fill_a_line_and_no_more(shares: list[float], line: str) -> None:
    """Averaged where there are more of them than room."""
    assert share_line(shares, width=8) == line
