"""The only place that prints: data to stdout, talk to stderr, one JSON envelope.

The idea: a command returns a `Result`; `render` decides between one JSON document and tables.
The invariant: with `--json` stdout carries exactly one document and nothing else.
"""

import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, TextIO

import msgspec

from opencode_gate.core.errors import GateError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text as RichText

JSON_VERSION = 1
_PIPE_WIDTH = 10_000
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")


class Column(msgspec.Struct, frozen=True):
    """A column of a table; numbers and money are right-aligned, `wrap` columns give way first."""

    title: str
    justify: Literal["left", "right"] = "left"
    wrap: bool = False


class Table(msgspec.Struct, frozen=True):
    """A table for people. Cells are plain text; `footer` is a last row set apart."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    footer: Sequence[str] | None = None
    title: str | None = None


class Text(msgspec.Struct, frozen=True):
    """A line of text for people, with an optional rich style."""

    text: str
    style: str = ""


class Fact(msgspec.Struct, frozen=True):
    """A label and what it says, with an optional rich style for the latter."""

    label: str
    text: str
    style: str = ""


class Facts(msgspec.Struct, frozen=True):
    """Labelled lines below each other."""

    rows: Sequence[Fact]


Block = Table | Text | Facts


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What a command found: `data` for machines, `blocks` for people, `talk` for stderr."""

    data: Mapping[str, object]
    blocks: Sequence[Block] = ()
    talk: Sequence[str] = ()
    exit_code: int = 0


def render(result: Result, *, as_json: bool) -> int:
    """Prints a result and returns its exit status."""
    if as_json:
        print_document(result.data)
    else:
        _print_data(result.blocks)
    for line in result.talk:
        talk(line)
    return result.exit_code


def _print_data(blocks: Sequence[Block]) -> None:
    """Blocks to stdout; Rich is not even imported where it would change nothing."""
    is_plain = all(isinstance(block, Text) and not block.style for block in blocks)
    if is_plain or _is_pipe(sys.stdout):
        _print_plain(sys.stdout, blocks)
    else:
        print_blocks(stdout_console(), blocks)


def talk_blocks(blocks: Sequence[Block], *, indent: int = 0) -> None:
    """Blocks to stderr, all moved right by `indent`."""
    if _is_pipe(sys.stderr):
        _print_plain(sys.stderr, blocks, indent=indent)
    else:
        print_blocks(stderr_console(), blocks, indent=indent)


def load_drawing() -> None:
    """Loads what `talk_blocks` will need."""
    if _is_pipe(sys.stderr):
        import opencode_gate.cli.plain  # noqa: F401
    else:
        import rich.padding
        import rich.table  # noqa: F401

        stderr_console()


def _print_plain(stream: TextIO, blocks: Sequence[Block], *, indent: int = 0) -> None:
    from opencode_gate.cli.plain import plain_lines

    space = " " * indent
    stream.write("".join(f"{space}{line}".rstrip() + "\n" for line in plain_lines(blocks)))


def _is_pipe(stream: TextIO) -> bool:
    """True where nobody looks: no terminal, nor what makes Rich take a stream for one."""
    told = ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE")
    is_told = _is_width_told() or any(os.environ.get(name) for name in told)
    return not stream.isatty() and not is_told


def _is_width_told() -> bool:
    """Whether `COLUMNS` says a width; some terminals that do not know theirs say `0`."""
    return os.environ.get("COLUMNS", "").strip("0") != ""


def stdout_width() -> int:
    """The columns there are for data; many in a pipe."""
    if _is_pipe(sys.stdout):
        return _PIPE_WIDTH
    import shutil

    return shutil.get_terminal_size().columns


def print_document(data: Mapping[str, object], stream: TextIO | None = None) -> None:
    """One JSON document in the version-1 envelope, on stdout unless told."""
    out = sys.stdout if stream is None else stream
    json.dump({"version": JSON_VERSION, **data}, out, indent=2, default=str)
    out.write("\n")


def print_lines(lines: Iterable[str]) -> None:
    """Lines of data to stdout as they come, for documents too long to hold."""
    for line in lines:
        sys.stdout.write(line + "\n")


def print_blocks(console: "Console", blocks: Sequence[Block], *, indent: int = 0) -> None:
    """Draws blocks below each other, all moved right by `indent`."""
    if console.is_terminal:
        for block in blocks:
            _draw(console, block, indent)
        return
    with console.capture() as drawn:
        for block in blocks:
            _draw(console, block, indent)
    # A pipe wants no spaces that only fill a line.
    console.file.write("".join(line.rstrip() + "\n" for line in drawn.get().splitlines()))


def drawn(blocks: Sequence[Block]) -> "RenderableType":
    """Blocks below each other as one thing to draw, for a screen that is drawn again and again."""
    from rich.console import Group

    return Group(*map(_drawn, blocks))


def _draw(console: "Console", block: Block, indent: int) -> None:
    from rich.padding import Padding

    # Padding swallows an empty line.
    is_indented = indent and block != Text("")
    shape = _drawn(block)
    console.print(Padding(shape, (0, 0, 0, indent), expand=False) if is_indented else shape)


def _drawn(block: Block) -> "RenderableType":
    if isinstance(block, Text):
        return _text(block.text, block.style)
    return _facts(block) if isinstance(block, Facts) else _table(block)


def _facts(facts: Facts) -> "RenderableType":
    import rich.table

    grid = rich.table.Table.grid(padding=(0, 3, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for fact in facts.rows:
        grid.add_row(_text(fact.label, "dim"), _text(fact.text, fact.style))
    return grid


def _table(table: Table) -> "RenderableType":
    import rich.table

    drawn = rich.table.Table(
        box=None,
        title=table.title,
        title_justify="left",
        show_footer=table.footer is not None,
        footer_style="bold",
        header_style="dim",
        pad_edge=False,
        padding=(0, 3, 0, 0),
    )
    for index, column in enumerate(table.columns):
        drawn.add_column(
            column.title,
            justify=column.justify,
            no_wrap=not column.wrap,
            overflow="fold" if column.wrap else "ellipsis",
            footer=_text(table.footer[index]) if table.footer is not None else "",
        )
    for row in table.rows:
        drawn.add_row(*(_text(cell) for cell in row))
    return drawn


def _text(text: str, style: str = "") -> "RichText":
    """Text as it is: no markup, and no control characters."""
    from rich.text import Text as RichText

    return RichText(printable(text), style=style)


def printable(text: str) -> str:
    """Without control characters: a model's title or a server's words must not drive a terminal."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def stdout_console() -> "Console":
    """The console for data: no colour unless it is a terminal and `NO_COLOR` is unset."""
    return _console(sys.stdout)


def stderr_console() -> "Console":
    """The console for talk."""
    return _console(sys.stderr)


def _console(stream: TextIO) -> "Console":
    """A console that adapts to a terminal's width and cuts nothing on its way into a pipe."""
    from rich.console import Console

    width = None
    if not stream.isatty():
        width = None if _is_width_told() else _PIPE_WIDTH
    elif os.environ.get("COLUMNS") and not _is_width_told():
        import shutil

        # Rich would take a `0` for the width and draw nothing.
        width = shutil.get_terminal_size().columns
    return Console(file=stream, highlight=False, width=width)


def talk(line: str) -> None:
    """One line to stderr; what is at work goes on though nobody reads there any more."""
    try:
        sys.stderr.write(printable(line) + "\n")
    except OSError:
        forget(sys.stderr)


def forget(stream: TextIO) -> None:
    """Points a stream that nobody reads any more nowhere, so that its last flush stays quiet."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def render_error(error: GateError) -> None:
    """An error in its parts on stderr: code, details, hint."""
    red, reset = ("\x1b[31m", "\x1b[0m") if _colour(sys.stderr) else ("", "")
    sys.stderr.write(f"{red}error:{reset} {printable(error.message)}  [{error.code}]\n")
    for detail in error.details:
        sys.stderr.write(f"  {printable(detail)}\n")
    if error.hint:
        sys.stderr.write(f"  hint: {printable(error.hint)}\n")


def _colour(stream: object) -> bool:
    isatty = getattr(stream, "isatty", None)
    return bool(isatty and isatty()) and not os.environ.get("NO_COLOR")
