"""Tables of one line a row for any width: less important columns go, long text is cut short.

The idea: a table that is read down its columns, or redrawn in place, must not wrap. The invariant:
figures are shown whole or not at all; only columns that say so are cut short.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec

from opencode_gate.cli.plain import GAP, cell_width
from opencode_gate.cli.render import Column, Table, printable

_LEAST = 8
"""What a column that is cut short keeps, unless it never had so much."""


class FittedColumn(msgspec.Struct, frozen=True, kw_only=True):
    """A column with its cells.

    Attributes:
        rank: the column with the highest goes first where there is no room; 0 never goes.
        is_text: may be cut short.
    """

    title: str
    cells: Sequence[str]
    justify: Literal["left", "right"] = "left"
    rank: int = 0
    is_text: bool = False


def fitted_table(columns: Sequence[FittedColumn], *, width: int) -> Table:
    """The table of what fits into `width` terminal cells."""
    kept = list(columns)
    while _least_width(kept) > width and (least := max(kept, key=lambda one: one.rank)).rank:
        kept.remove(least)
    return Table(
        columns=[Column(column.title, column.justify) for column in kept],
        rows=list(zip(*_cells(kept, width), strict=True)),
    )


def _cells(columns: Sequence[FittedColumn], width: int) -> list[list[str]]:
    """The cells, those of text columns cut to share what the others leave."""
    wanted = {column.title: _width(column) for column in columns if column.is_text}
    fixed = sum(_width(column) for column in columns if not column.is_text)
    room = width - fixed - GAP * (len(columns) - 1)
    while sum(wanted.values()) > room and max(wanted.values(), default=0) > _LEAST:
        wanted[max(wanted, key=lambda title: wanted[title])] -= 1
    return [
        [_cut(cell, wanted[column.title]) for cell in column.cells]
        if column.is_text
        else list(column.cells)
        for column in columns
    ]


def _least_width(columns: Sequence[FittedColumn]) -> int:
    widths = [
        min(_width(column), _LEAST) if column.is_text else _width(column) for column in columns
    ]
    return sum(widths) + GAP * (len(columns) - 1)


def _width(column: FittedColumn) -> int:
    return max(_length(text) for text in (column.title, *column.cells))


def _length(text: str) -> int:
    return cell_width(printable(text))


def _cut(text: str, width: int) -> str:
    if _length(text) <= width:
        return text
    from rich.cells import set_cell_size

    return set_cell_size(printable(text), width - 1).rstrip() + "…"
