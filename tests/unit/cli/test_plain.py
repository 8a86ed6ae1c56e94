"""What goes into a pipe is what Rich would have written there."""

import io
import random

import pytest
from rich.console import Console

from opencode_gate.cli.plain import cell_width, plain_lines
from opencode_gate.cli.render import Block, Column, Fact, Facts, Table, Text, print_blocks

CELLS = (
    "",
    "x",
    "$ 12.345",
    "–",
    "模型",
    "a\x1b[2Jb",
    "org/model:3",
    "é" * 7,
    "two\nlines",
    "[b]",
    "👍",
)


def by_rich(blocks: list[Block]) -> str:
    console = Console(file=io.StringIO(), width=10_000, highlight=False)
    print_blocks(console, blocks)
    return console.file.getvalue()


def some_block(chance: random.Random) -> Block:
    kind = chance.randrange(3)
    if kind == 0:
        return Text(chance.choice(CELLS), chance.choice(("", "bold")))
    if kind == 1:
        rows = [Fact(chance.choice(CELLS), chance.choice(CELLS)) for _ in range(3)]
        return Facts(rows)
    size = chance.randrange(1, 5)
    rows = [[chance.choice(CELLS) for _ in range(size)] for _ in range(chance.randrange(4))]
    return Table(
        columns=[
            Column(f"c{n}", chance.choice(("left", "right")), chance.random() < 0.5)
            for n in range(size)
        ],
        rows=rows,
        footer=[chance.choice(CELLS) for _ in range(size)] if chance.random() < 0.5 else None,
    )


@pytest.mark.parametrize("seed", range(20))
def test_the_lines_are_those_of_rich(seed) -> None:
    """Tables with footers, facts and texts of any cells, wide and unprintable ones among them."""
    chance = random.Random(seed)
    blocks = [some_block(chance) for _ in range(4)]
    assert "".join(line + "\n" for line in plain_lines(blocks)) == by_rich(blocks)


def test_a_title_stands_above() -> None:
    table = Table(columns=[Column("a"), Column("b")], rows=[["1", "2"]], title="t")
    assert "".join(line + "\n" for line in plain_lines([table])) == by_rich([table])


@pytest.mark.parametrize(
    ("text", "width"), [("", 0), ("abc", 3), ("–…·", 3), ("模", 2), ("é", 1), ("e\u0301", 1)]
)
def test_a_width_is_that_of_the_terminal(text, width) -> None:
    assert cell_width(text) == width
