"""The table of commands: name, where it is, one line of help.

The idea: `ogate --help` prints from this table and a command's module is imported only when
that command runs. The invariant: every entry resolves; a test resolves them all.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple


class Entry(NamedTuple):
    """One command.

    Attributes:
        module: the dotted module.
        attribute: `app`, a `typer.Typer` group of verbs (which may do something itself), or
            `command`, one function.
        help: one line, shown by `ogate --help` without importing the module.
        changes_values: running it may change what the shell completes.
    """

    module: str
    attribute: Literal["app", "command"]
    help: str
    changes_values: bool = False


def _group(name: str, summary: str, *, changes_values: bool = False) -> Entry:
    return Entry(
        module=f"opencode_gate.cli.commands.{name}",
        attribute="app",
        help=summary,
        changes_values=changes_values,
    )


def _command(name: str, summary: str, *, changes_values: bool = False) -> Entry:
    return Entry(
        module=f"opencode_gate.cli.commands.{name}",
        attribute="command",
        help=summary,
        changes_values=changes_values,
    )


COMMANDS: dict[str, Entry] = {
    "run": _command("run", "Start Opencode through a gateway of its own", changes_values=True),
    "keys": _group("keys", "Provider keys in the OS keyring", changes_values=True),
    "providers": _group("providers", "Built-in providers and your own", changes_values=True),
    "models": _group("models", "Models you can use now, with prices", changes_values=True),
    "usage": _group("usage", "What was used and what it cost"),
    "sessions": _group("sessions", "Runs of Opencode, one summary each"),
    "logs": _group("logs", "Every model call, later and as it happens"),
    "top": _command("top", "What runs now, and what it costs so far"),
    "budgets": _group("budgets", "Who may spend how much, and how it stands"),
    "vkeys": _group("vkeys", "Virtual keys of a served gateway", changes_values=True),
    "teams": _group(
        "teams", "What virtual keys share: budgets, limits, models", changes_values=True
    ),
    "customers": _group("customers", "What teams share", changes_values=True),
    "policy": _group(
        "policy", "All rules at once: show, check, export, apply", changes_values=True
    ),
    "audit": _group("audit", "What was changed, refused and settled, with proof"),
    "ledger": _group("ledger", "Check, back up and tidy what was recorded"),
    "serve": _command("serve", "The gateway for a team, with virtual keys"),
    "env": _command("env", "What a desktop app or an IDE needs to use that gateway"),
    "doctor": _command("doctor", "What is wrong here, and what mends it"),
    "config": _group("config", "Settings in config.toml", changes_values=True),
    "completion": _group("completion", "Completion for your shell"),
    "alias": _group("alias", "Let plain `opencode` go through ogate"),
    "uninstall": _command("uninstall", "Remove keys, files and shell lines"),
}
"""In the order `--help` shows them."""

OWNER_COMMANDS = frozenset({"vkeys", "teams", "customers", "policy"})
"""Commands that change which owners of rules there are."""

_tail: tuple[str, ...] = ()
_is_bare = False


def keep_tail(arguments: Sequence[str], *, is_bare: bool = False) -> None:
    """Keeps what stood behind `--` for `run`; called once, before the command."""
    global _tail, _is_bare
    _tail, _is_bare = tuple(arguments), is_bare


def is_bare() -> bool:
    """True when the line was `ogate` and nothing else: the last screen is then always shown."""
    return _is_bare


def tail_arguments() -> tuple[str, ...]:
    """The words behind the first `--` of the line, as they were typed."""
    return _tail
