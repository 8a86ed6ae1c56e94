"""Tables of one line a row: what goes, what is cut, and what is never touched."""

import pytest

from opencode_gate.cli.fitted_table import GAP, FittedColumn, fitted_table

COLUMNS = [
    FittedColumn(title="id", cells=["01AA…BBBB", "01AA…CCCC"], rank=1),
    FittedColumn(title="model", cells=["anthropic/claude-sonnet-5-20260101", "x/y"], is_text=True),
    FittedColumn(title="why", cells=["", "a reason that is rather long"], is_text=True, rank=2),
    FittedColumn(title="cost", cells=["$ 12.345", "?"], justify="right"),
]


def _widths(width: int) -> tuple[list[str], int]:
    table = fitted_table(COLUMNS, width=width)
    titles = [column.title for column in table.columns]
    lines = [titles, *table.rows]
    widths = [max(len(line[place]) for line in lines) for place in range(len(titles))]
    return titles, sum(widths) + GAP * (len(titles) - 1)


def test_with_room_everything_is_whole() -> None:
    table = fitted_table(COLUMNS, width=200)
    assert table.rows == [tuple(column.cells[row] for column in COLUMNS) for row in (0, 1)]
    assert [column.justify for column in table.columns] == ["left", "left", "left", "right"]


@pytest.mark.parametrize("width", range(24, 100))
def test_it_fits_and_figures_are_whole(width) -> None:
    titles, used = _widths(width)
    assert used <= width
    assert {"model", "cost"} <= set(titles)
    costs = [row[titles.index("cost")] for row in fitted_table(COLUMNS, width=width).rows]
    assert costs == ["$ 12.345", "?"]


def test_the_least_important_goes_first() -> None:
    seen = [tuple(_widths(width)[0]) for width in range(99, 23, -1)]
    assert list(dict.fromkeys(seen)) == [
        ("id", "model", "why", "cost"),
        ("id", "model", "cost"),
        ("model", "cost"),
    ]


def test_text_is_cut_where_it_ends_and_says_so() -> None:
    rows = fitted_table(COLUMNS[1:2], width=14).rows
    assert rows == [("anthropic/cla…",), ("x/y",)]


def test_wide_characters_take_two_cells() -> None:
    rows = fitted_table([FittedColumn(title="m", cells=["模" * 20], is_text=True)], width=15).rows
    assert rows == [("模" * 7 + "…",)]


def test_no_rows_are_a_table_too() -> None:
    assert fitted_table([FittedColumn(title="m", cells=[])], width=10).rows == []
