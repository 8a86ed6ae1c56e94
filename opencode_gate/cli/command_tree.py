"""The commands as plain data, for what is generated from them: completion and reference pages.

The invariant: everything here is read from Typer's own tree, so that a script or a page can never
know an option that the program does not.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from opencode_gate.cli import command_group, registry

_VALUES = {
    "provider": "provider",
    "providers": "provider",
    "provider_id": "provider",
    "model": "model",
    "model_id": "model",
    "small_model": "model",
    "session": "session",
    "what_if": "model",
    "vkey": "vkey",
    "team": "team",
    "customer": "customer",
}
"""Parameter names whose values the completion index knows, and its kind of value."""

_VALUES_BELOW = {
    ("run", "key"): "key",
    ("keys", "name"): "key",
    ("vkeys", "name"): "vkey",
    ("teams", "name"): "team",
    ("customers", "name"): "customer",
}
"""The same for names that say so only below one command; options of `keys` name new keys."""

_HELP_WIDTH = 80


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """An option or a positional argument.

    Attributes:
        names: the option's spellings (`--yes`, `-y`); empty for a positional argument.
        label: how help names its value (`PROVIDER`); empty for a flag.
        help: one or more sentences.
        choices: the closed set of its values, if it has one.
        values: the kind of value the completion index offers for it, if any.
        is_path: its value is a file.
    """

    names: tuple[str, ...] = ()
    label: str = ""
    help: str = ""
    choices: tuple[str, ...] = ()
    values: str | None = None
    is_path: bool = False
    is_repeated: bool = False

    @property
    def takes_value(self) -> bool:
        """False for a flag."""
        return bool(self.label)


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A command: `path` is its words behind `ogate`, empty for the root."""

    path: tuple[str, ...]
    help: str
    text: str
    options: tuple[Parameter, ...]
    arguments: tuple[Parameter, ...]
    children: "tuple[Node, ...]" = ()

    def walk(self) -> "Iterator[Node]":
        """This command and all below it, parents first."""
        yield self
        for child in self.children:
            yield from child.walk()


def tree() -> Node:
    """The whole tree; imports every command's module."""
    group = command_group.root()
    group.commands = {name: command_group.load(name) for name in registry.COMMANDS}
    with group.make_context(
        "ogate", [], resilient_parsing=True, terminal_width=_HELP_WIDTH
    ) as context:
        return _node(group, context, ())


def _node(command: Any, context: Any, path: tuple[str, ...]) -> Node:
    members = getattr(command, "commands", {})
    shown = {name: member for name, member in members.items() if not member.hidden}
    parameters = [
        _parameter(found, path) for found in command.get_params(context) if _is_shown(found)
    ]
    summary = registry.COMMANDS[path[0]].help if len(path) == 1 else command.get_short_help_str(200)
    return Node(
        path=path,
        help=summary.rstrip("."),
        text=command.get_help(context),
        options=tuple(parameter for parameter in parameters if parameter.names),
        arguments=tuple(parameter for parameter in parameters if not parameter.names),
        children=tuple(
            _node(member, _context(member, name, context), (*path, name))
            for name, member in shown.items()
        ),
    )


def _context(command: Any, name: str, parent: Any) -> Any:
    return command.make_context(name, [], parent=parent, resilient_parsing=True)


def _is_shown(parameter: Any) -> bool:
    return not getattr(parameter, "hidden", False)


def _parameter(parameter: Any, path: tuple[str, ...]) -> Parameter:
    is_option = parameter.param_type_name == "option"
    is_flag = bool(getattr(parameter, "is_flag", False))
    return Parameter(
        names=_spellings(parameter) if is_option else (),
        label="" if is_flag else parameter.metavar or parameter.name.upper(),
        help=" ".join((parameter.help or "").split()),
        choices=_choices(getattr(parameter.type, "choices", ())),
        values=None if is_flag else _values(parameter.name, path, is_option=is_option),
        is_path=type(parameter.type).__name__ in ("Path", "TyperPath"),
        is_repeated=parameter.multiple or parameter.nargs == -1,
    )


def _spellings(parameter: Any) -> tuple[str, ...]:
    """Long ones first: Typer keeps those of `--help` in a set, in any order."""
    names = (*parameter.opts, *parameter.secondary_opts)
    return tuple(sorted(names, key=lambda name: not name.startswith("--")))


def _values(name: str, path: tuple[str, ...], *, is_option: bool) -> str | None:
    below = (*path[:1], name)
    if below in _VALUES_BELOW and not (is_option and path[0] == "keys"):
        return _VALUES_BELOW[path[0], name]
    return _VALUES.get(name)


def _choices(choices: Sequence[Any]) -> tuple[str, ...]:
    return tuple(str(getattr(choice, "value", choice)) for choice in choices)
