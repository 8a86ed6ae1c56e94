"""Short questions of single commands, asked on stderr so that stdout stays data.

The invariant: nothing is asked here without a terminal; callers ask `may_ask` first.
Ctrl-C and the end of input leave as `KeyboardInterrupt`.
"""

import sys
from collections.abc import Mapping

from opencode_gate.core.errors import UsageError


def may_ask(*, no_input: bool = False) -> bool:
    """True when there is a person to ask: a terminal in and out, and no `--no-input`."""
    return not no_input and sys.stdin.isatty() and sys.stderr.isatty()


def ask_hidden(question: str) -> str:
    """A line that is not shown while it is typed.

    Raises:
        KeyboardInterrupt: the person left.
    """
    import getpass

    try:
        return getpass.getpass(f"{question}: ", stream=sys.stderr)
    except EOFError as error:
        raise KeyboardInterrupt from error


def ask_text(question: str) -> str:
    """A line.

    Raises:
        KeyboardInterrupt: the person left.
    """
    sys.stderr.write(f"{question}: ")
    sys.stderr.flush()
    try:
        line = sys.stdin.readline()
    except KeyboardInterrupt:
        line = ""
    if not line:
        # What is written next, by a shell say, begins a line of its own.
        sys.stderr.write("\n")
        raise KeyboardInterrupt
    return line.strip()


def confirm(question: str, *, default: bool) -> bool:
    """Yes or no; Enter alone is `default`.

    Raises:
        KeyboardInterrupt: the person left.
    """
    choices = "Y/n" if default else "y/N"
    while True:
        answer = ask_text(f"{question} [{choices}]").lower()
        if answer in ("y", "yes"):
            return True
        if answer in ("n", "no"):
            return False
        if not answer:
            return default


def require_yes(question: str, *, may_ask: bool, instead: str, default: bool = False) -> None:
    """Goes on only where the person says yes.

    Args:
        instead: the command that needs no answer.

    Raises:
        UsageError: nobody can be asked (`no-terminal`).
        KeyboardInterrupt: the person said no, or left.
    """
    if not may_ask:
        raise UsageError("no-terminal", "there is no terminal to confirm on", hint=instead)
    if not confirm(question, default=default):
        sys.stderr.write("nothing is changed\n")
        raise KeyboardInterrupt


def choose(question: str, choices: Mapping[str, str]) -> str:
    """One of `choices` (value to words) by its number; Enter alone is the first.

    Raises:
        KeyboardInterrupt: the person left.
    """
    values = list(choices)
    for number, words in enumerate(choices.values(), start=1):
        sys.stderr.write(f"  {number}) {words}\n")
    while True:
        answer = ask_text(f"{question} [1]")
        if not answer:
            return values[0]
        if answer.isdigit() and 1 <= int(answer) <= len(values):
            return values[int(answer) - 1]
