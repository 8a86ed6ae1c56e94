"""The lazy command tree: Typer over the registry's table.

The root group shows the registry's one-liners and imports a command's module only when that
command is resolved. Help is plain: Rich would double the time of every `--help`.
"""

import difflib
import importlib
import inspect
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand, TyperGroup
from typer.exceptions import TyperException

from opencode_gate.cli import registry, run_line, typed_secrets
from opencode_gate.core.errors import UsageError

_HELP_NAMES = ["-h", "--help"]
_ABOUT = """\
Opencode through a gateway of its own: true costs, keys the agent never sees, bytes unchanged.

Without a command: ask what is missing, then start a session (the same as `ogate run`).
Everything behind `--` goes to Opencode as it is: ogate run -- run "fix the test"
"""


class LazyGroup(TyperGroup):
    """The root group; its members are stubs with a help line until one is resolved."""

    def resolve_command(self, ctx: Any, args: list[str]) -> "tuple[str | None, Any, list[str]]":
        """The real command behind a name, its module imported now."""
        name, stub, rest = super().resolve_command(ctx, args)
        if name == "keys":
            typed_secrets.refuse_key(rest)
        return name, stub if name is None else load(name), rest


class TailCommand(TyperCommand):
    """A command whose positional arguments belong behind `--`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuses a word before `--` and shows the line as it should be.

        Raises:
            UsageError: there is one.
        """
        ctx.allow_extra_args = True
        typed = list(args)
        rest = super().parse_args(ctx, args)
        if rest and not ctx.resilient_parsing:
            raise _misplaced(typed, rest)
        return rest


def root() -> TyperGroup:
    """The whole tree, no command module imported."""
    stubs: dict[str, Any] = {
        name: TyperCommand(name=name, help=entry.help, rich_markup_mode=None)
        for name, entry in registry.COMMANDS.items()
    }
    return LazyGroup(
        name="ogate",
        help=_ABOUT,
        commands=stubs,
        rich_markup_mode=None,
        context_settings={"help_option_names": _HELP_NAMES},
        epilog="ogate COMMAND --help says more. `ogate --version` prints the version.",
    )


def load(name: str) -> Any:
    """The command of that name, imported and built for Typer."""
    entry = registry.COMMANDS[name]
    found = getattr(importlib.import_module(entry.module), entry.attribute)
    if isinstance(found, typer.Typer):
        found.rich_markup_mode = None
        group = typer.main.get_group(found)
        group.name, group.help = name, group.help or entry.help
        group.no_args_is_help = not group.invoke_without_command
        return group
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    if name == "run":
        app.command(name=name, cls=TailCommand)(_from_table(found))
    else:
        app.command(name=name)(found)
    return typer.main.get_command(app)


def _from_table(found: Callable[[run_line.RunLine], Any]) -> Callable[..., Any]:
    """`run` as Typer wants it: a function that has the table's options as its parameters."""

    def command(**given: Any) -> Any:
        file = given["summary_file"]
        return found(
            run_line.RunLine(**{**given, "summary_file": None if file is None else str(file)})
        )

    defaults = run_line.RunLine._field_defaults
    command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(
                field,
                inspect.Parameter.KEYWORD_ONLY,
                default=defaults[field],
                annotation=Annotated[
                    _type(option),
                    typer.Option(run_line.spelled(field), metavar=option.metavar, help=option.help),
                ],
            )
            for field, option in run_line.OPTIONS.items()
        ]
    )
    command.__annotations__ = {}
    command.__doc__ = found.__doc__
    return command


def _type(option: run_line.Option) -> Any:
    if option.is_switch:
        return bool
    if option.choices:
        return Literal[option.choices] | None
    return (Path if option.is_file else str) | None


def usage_error(error: TyperException) -> UsageError:
    """A parser's complaint in our own form, with the help that answers it."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "ogate"
    if type(error).__name__ == "NoArgsIsHelpError":
        return UsageError("usage", f"`{path}` needs a verb", hint=f"{path} --help")
    message = " ".join(error.format_message().split()).rstrip(".")
    if path.startswith("ogate keys") and "extra argument" in message:
        # A key that does not begin as keys do; the parser's words would show it once more.
        return typed_secrets.key_on_the_line()
    return UsageError("usage", message[:1].lower() + message[1:], hint=f"{path} --help")


def _misplaced(typed: list[str], rest: list[str]) -> UsageError:
    """The refusal of a word before `--`, with the line as it should be."""
    from opencode_gate.agents.opencode.arguments import read_arguments

    # `ogate --no-input usage` comes here as a line of `run`. One that starts with the word, or has
    # a prompt behind `run`, is meant for Opencode, which has commands of the same names.
    is_ours = rest[0] in registry.COMMANDS and typed[0] != rest[0]
    if is_ours and not (rest[0] == "run" and rest[1:]):
        return UsageError(
            "usage",
            f"options of `ogate {rest[0]}` come after its name",
            hint=f"ogate {rest[0]} --help",
        )
    options = list(typed)
    for word in rest:
        options.remove(word)
    command = () if read_arguments(rest[:1]).command else ("run",)
    nearest = difflib.get_close_matches(rest[0], list(registry.COMMANDS), n=1)
    is_near = nearest and nearest[0] != rest[0]
    return UsageError(
        "usage",
        f"{rest[0]!r} is not an option of ogate: what Opencode is to get stands behind `--`",
        hint=shlex.join(["ogate", "run", *options, "--", *command, *rest]),
        details=(f"did you mean `ogate {nearest[0]}`?",) if is_near else (),
    )
