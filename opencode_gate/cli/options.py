"""Options that mean the same on every command, declared once."""

import sys
from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
NoInput = Annotated[
    bool, typer.Option("--no-input", help="Never ask: a missing choice is an error.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")]

Today = Annotated[bool, typer.Option("--today", help="Since midnight.")]
Week = Annotated[bool, typer.Option("--week", help="Since Monday.")]
Month = Annotated[bool, typer.Option("--month", help="Since the 1st (the default).")]
Since = Annotated[
    str | None,
    typer.Option(metavar="DAY", help="From this day on: 2026-11-03, yesterday, 7d."),
]
Until = Annotated[
    str | None, typer.Option(metavar="DAY", help="Up to this day, which still counts.")
]


def may_ask(*, no_input: bool = False) -> bool:
    """True when there is a person to ask: a terminal in and out, and no `--no-input`."""
    return not no_input and sys.stdin.isatty() and sys.stderr.isatty()
