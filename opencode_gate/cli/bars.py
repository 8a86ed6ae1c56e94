"""Bars beside each other's names, drawn with block characters.

The invariant: the longest bar fills the room, one that stands for anything is visible, and one
that stands for nothing is empty.
"""

from collections.abc import Sequence

import msgspec

_FULL = "█"
_PARTS = ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")
_STEPS = len(_PARTS)
_LONGEST_LABEL = 40


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """One bar: its name, its length (`None` where unknown), and its length in words."""

    label: str
    value: float | None
    text: str


def bar_lines(bars: Sequence[Bar], *, width: int) -> list[str]:
    """The bars as lines of text below each other, not wider than `width` where that is possible."""
    if not bars:
        return []
    labels = [_shortened(bar.label) for bar in bars]
    name_width = max(map(len, labels))
    room = max(1, width - name_width - max(len(bar.text) for bar in bars) - 2)
    peak = max((bar.value for bar in bars if bar.value is not None), default=0)
    return [
        " ".join(
            part
            for part in (f"{label:<{name_width}}", _bar(bar.value, peak, room), bar.text)
            if part
        )
        for label, bar in zip(labels, bars, strict=True)
    ]


def _bar(value: float | None, peak: float, room: int) -> str:
    if value is None or value <= 0 or peak <= 0:
        return ""
    steps = max(1, round(value / peak * room * _STEPS))
    return _FULL * (steps // _STEPS) + _PARTS[steps % _STEPS]


def _shortened(label: str) -> str:
    return label if len(label) <= _LONGEST_LABEL else label[: _LONGEST_LABEL - 1] + "…"
