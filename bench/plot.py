"""A picture of bars as SVG, written out by hand: a few rectangles need no library.

The colours follow the reader's light or dark screen; the same figures give the same bytes.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

_WIDTH, _LEFT, _RIGHT, _TOP = 760, 180, 90, 44
_BAR, _GAP, _GROUP = 20, 6, 34
_LEAST_S = 1e-5
_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600 } .grid { stroke: #d0d7de } .other { fill: #8c959f }
.floor { fill: #57606a } .ours { fill: #0969da }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .grid { stroke: #30363d } .other { fill: #6e7681 }
  .floor { fill: #9198a1 } .ours { fill: #4493f8 }
}
"""


def bars(
    title: str,
    groups: Mapping[str, Sequence[tuple[str, float]]],
    text: Callable[[float], str],
) -> str:
    """Bars by group on one logarithmic axis of seconds; those of ours stand out."""
    values = [max(value, _LEAST_S) for group in groups.values() for _, value in group]
    low = math.floor(math.log10(min(values)))
    high = math.ceil(math.log10(max(values)))
    span = _WIDTH - _LEFT - _RIGHT

    def at(value: float) -> float:
        share = (math.log10(max(value, _LEAST_S)) - low) / max(high - low, 1)
        return _LEFT + span * share

    drawn: list[str] = []
    y = _TOP
    for name, group in groups.items():
        y += _GROUP
        drawn.append(f'<text class="title" x="{_LEFT}" y="{y - 8}">{escape(name)}</text>')
        for label, value in group:
            middle = y + _BAR / 2 + 4.5
            width = max(at(value) - _LEFT, 1)
            drawn += [
                f'<text x="{_LEFT - 8}" y="{middle:.1f}" text-anchor="end">{escape(label)}</text>',
                f'<rect class="{_kind(label)}" x="{_LEFT}" y="{y}" width="{width:.1f}" '
                f'height="{_BAR}" rx="2"/>',
                f'<text x="{_LEFT + width + 6:.1f}" y="{middle:.1f}">{escape(text(value))}</text>',
            ]
            y += _BAR + _GAP
    grid = []
    for decade in range(low, high + 1):
        x = at(10.0**decade)
        grid.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{y}"/>')
        label = f"{10.0 ** (decade + 6):g} µs" if decade < -3 else f"{10.0 ** (decade + 3):g} ms"
        grid.append(f'<text x="{x:.1f}" y="{y + 18}" text-anchor="middle">{label}</text>')
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y + 30}" '
        f'width="{_WIDTH}" height="{y + 30}" role="img" aria-label="{escape(title)}">'
    )
    named = f'<text class="title" x="{_LEFT}" y="24">{escape(title)}</text>'
    return "\n".join([head, f"<style>{_STYLE}</style>", named, *grid, *drawn, "</svg>"]) + "\n"


def _kind(label: str) -> str:
    if label.startswith("ogate"):
        return "ours"
    return "floor" if label == "nginx" else "other"
