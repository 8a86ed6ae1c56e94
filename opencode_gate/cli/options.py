"""Options that mean the same on every command, declared once."""

from typing import Annotated

import typer

from opencode_gate.cli import run_line

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
NoInput = Annotated[bool, typer.Option("--no-input", help=run_line.NO_INPUT)]
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
