"""The only place that prints: data to stdout, talk to stderr, one JSON envelope.

The idea: a command returns a `Result`; `render` decides between one JSON document and tables.
The invariant: with `--json` stdout carries exactly one document and nothing else.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from opencode_gate.core.errors import GateError

if TYPE_CHECKING:
    from rich.console import Console

JSON_VERSION = 1


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table; numbers and money are right-aligned, `wrap` columns give way first."""

    title: str
    justify: Literal["left", "right"] = "left"
    wrap: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table for people. Cells are plain text; `footer` is a last row set apart."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    footer: Sequence[str] | None = None
    title: str | None = None


@dataclass(frozen=True, slots=True)
class Text:
    """A line of text for people, with an optional rich style."""

    text: str
    style: str = ""


Block = Table | Text


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a command found: `data` for machines, `blocks` for people, `talk` for stderr."""

    data: Mapping[str, object]
    blocks: Sequence[Block] = ()
    talk: Sequence[str] = ()
    exit_code: int = 0
    extra: Mapping[str, object] = field(default_factory=dict)


def render(result: Result, *, as_json: bool) -> int:
    """Prints a result and returns its exit status."""
    if as_json:
        json.dump({"version": JSON_VERSION, **result.data}, sys.stdout, indent=2, default=str)
        sys.stdout.write("\n")
    elif result.blocks:
        console = stdout_console()
        for block in result.blocks:
            print_block(console, block)
    for line in result.talk:
        talk(line)
    return result.exit_code


def print_block(console: "Console", block: Block) -> None:
    """Draws one block on a console."""
    if isinstance(block, Text):
        console.print(block.text, style=block.style, markup=False, highlight=False)
        return
    import rich.box
    import rich.table

    drawn = rich.table.Table(
        box=rich.box.SIMPLE_HEAD,
        title=block.title,
        title_justify="left",
        show_footer=block.footer is not None,
        pad_edge=False,
    )
    for index, column in enumerate(block.columns):
        drawn.add_column(
            column.title,
            justify=column.justify,
            no_wrap=not column.wrap,
            overflow="ellipsis",
            footer=block.footer[index] if block.footer is not None else "",
        )
    from rich.text import Text as RichText

    for row in block.rows:
        drawn.add_row(*(RichText(cell) for cell in row))
    console.print(drawn)


def stdout_console() -> "Console":
    """The console for data: no colour unless it is a terminal and `NO_COLOR` is unset."""
    from rich.console import Console

    return Console(file=sys.stdout, highlight=False, soft_wrap=False)


def stderr_console() -> "Console":
    """The console for talk."""
    from rich.console import Console

    return Console(file=sys.stderr, highlight=False, soft_wrap=False)


def talk(line: str) -> None:
    """One line to stderr."""
    sys.stderr.write(line + "\n")


def render_error(error: GateError) -> int:
    """An error in its parts on stderr (code, details, hint); returns its exit status."""
    red, reset = ("\x1b[31m", "\x1b[0m") if _colour(sys.stderr) else ("", "")
    sys.stderr.write(f"{red}error:{reset} {error.message}  [{error.code}]\n")
    for detail in error.details:
        sys.stderr.write(f"  {detail}\n")
    if error.hint:
        sys.stderr.write(f"  hint: {error.hint}\n")
    return error.exit_code


def _colour(stream: object) -> bool:
    isatty = getattr(stream, "isatty", None)
    return bool(isatty and isatty()) and not os.environ.get("NO_COLOR")
