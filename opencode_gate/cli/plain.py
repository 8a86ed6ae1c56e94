"""Tables and facts as plain lines, for a pipe: what Rich would write there, without loading it.

Rich costs a third of the time of a command that draws a table, and a pipe has no use for what it
can do. The invariant: the lines are those of `render.print_blocks` on a pipe, by test.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opencode_gate.cli.render import Block, Facts, Table

GAP = 3
"""Spaces between two columns."""


def cell_width(text: str) -> int:
    """How many cells of a terminal a text takes; Rich is asked only where that is not plain."""
    if all(character < "\u0300" or "\u2010" <= character <= "\u2027" for character in text):
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def plain_lines(blocks: "Sequence[Block]") -> Iterator[str]:
    """The blocks below each other, without spaces at the ends of lines."""
    from opencode_gate.cli.render import Facts, Table, printable

    for block in blocks:
        if isinstance(block, Table):
            lines = _table(block)
        elif isinstance(block, Facts):
            lines = _facts(block)
        else:
            lines = printable(block.text).split("\n")
        yield from (line.rstrip() for line in lines)


def _table(table: "Table") -> list[str]:
    from opencode_gate.cli.render import printable

    rows = [[column.title for column in table.columns], *table.rows]
    if table.footer is not None:
        rows.append(table.footer)
    is_right = [column.justify == "right" for column in table.columns]
    lines = _aligned([[printable(cell) for cell in row] for row in rows], is_right)
    return lines if table.title is None else [printable(table.title), *lines]


def _facts(facts: "Facts") -> list[str]:
    from opencode_gate.cli.render import printable

    rows = [[printable(fact.label), printable(fact.text)] for fact in facts.rows]
    return _aligned(rows, [False, False])


def _aligned(rows: "Sequence[Sequence[str]]", is_right: Sequence[bool]) -> list[str]:
    """Rows as lines in columns; a cell of several lines makes a row of several."""
    cells = [[cell.split("\n") for cell in row] for row in rows]
    widths = [
        max((cell_width(line) for row in cells for line in row[place]), default=0)
        for place in range(len(is_right))
    ]
    return [
        (" " * GAP).join(
            _padded(cell[number] if number < len(cell) else "", width, right)
            for cell, width, right in zip(row, widths, is_right, strict=True)
        )
        for row in cells
        for number in range(max(map(len, row)))
    ]


def _padded(text: str, width: int, is_right: bool) -> str:
    space = " " * (width - cell_width(text))
    return space + text if is_right else text + space
