"""Small plots, drawn with block characters.

The invariant of the plot over days: a day with anything in it shows at least the lowest block,
a day with nothing is empty, and the highest day fills the height.
"""

from collections.abc import Sequence
from datetime import date
from itertools import pairwise

import msgspec

_BLOCKS = " ▁▂▃▄▅▆▇█"
_STEPS = len(_BLOCKS) - 1


class Plot(msgspec.Struct, frozen=True, kw_only=True):
    """Bars over consecutive days: their heights and what the highest one stands for."""

    days: Sequence[date]
    values: Sequence[float]
    peak_label: str


def plot_lines(plot: Plot, *, width: int, height: int = 3) -> list[str]:
    """The plot as lines of text, not wider than `width`; the latest days where all do not fit."""
    if not plot.days or max(plot.values, default=0) <= 0:
        return []
    room = max(1, width - len(plot.peak_label) - 3)
    cell = 2 if 2 * len(plot.days) <= room else 1
    days, values = plot.days[-(room // cell) :], plot.values[-(room // cell) :]
    peak = max(values)
    if peak <= 0:
        return []
    levels = [_level(value, peak, height * _STEPS) for value in values]
    rows = []
    for row in range(height - 1, -1, -1):
        label = plot.peak_label if row == height - 1 else ""
        bars = "".join(
            (_BLOCKS[min(_STEPS, max(0, level - row * _STEPS))] * (cell - 1 or 1)).ljust(cell)
            for level in levels
        )
        rows.append(f"{label:>{len(plot.peak_label)}} ┤{bars}".rstrip())
    return [*rows, _axis(days, cell=cell, indent=len(plot.peak_label) + 2)]


def share_line(shares: Sequence[float], *, width: int) -> str:
    """Shares of 0 to 1 in a line, the first on the left; averaged where they do not fit."""
    count = min(width, len(shares))
    edges = [number * len(shares) // count for number in range(count + 1)] if count else []
    groups = [shares[start:end] for start, end in pairwise(edges)]
    return "".join(
        _BLOCKS[max(1, min(_STEPS, round(sum(group) / len(group) * _STEPS)))] for group in groups
    )


def _level(value: float, peak: float, steps: int) -> int:
    return 0 if value <= 0 else max(1, round(value / peak * steps))


def _axis(days: Sequence[date], *, cell: int, indent: int) -> str:
    """The first and the last day below the bars, the last one only where it fits."""
    first, last = (f"{day:%b} {day.day}" for day in (days[0], days[-1]))
    gap = len(days) * cell - (cell - 1) - len(first) - len(last)
    end = f"{'':{gap}}{last}" if gap > 0 and len(days) > 1 else ""
    return f"{'':{indent}}{first}{end}"
