"""Options that mean the same on every command, declared once."""

import sys
from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
NoInput = Annotated[
    bool, typer.Option("--no-input", help="Never ask: a missing choice is an error.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")]


def may_ask(*, no_input: bool = False) -> bool:
    """True when there is a person to ask: a terminal in and out, and no `--no-input`."""
    return not no_input and sys.stdin.isatty() and sys.stderr.isatty()
