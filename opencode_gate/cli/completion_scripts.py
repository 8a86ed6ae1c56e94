"""The completion scripts, made from the tree of commands.

The idea: each shell has one small engine (`completion_templates/`) that walks the line, and
tables of the same facts in the shell's own syntax; values come from `ogate __complete`.
The invariant: a script holds no fact that is not in the tree.
"""

from collections.abc import Callable, Iterable, Mapping
from importlib.resources import files

from opencode_gate.cli.command_tree import Node, Parameter, tree
from opencode_gate.cli.shell_files import Shell

FILE_NAMES: Mapping[Shell, str] = {
    "bash": "ogate.bash",
    "zsh": "ogate.zsh",
    "fish": "ogate.fish",
    "powershell": "ogate.ps1",
}
"""What each shell's script is called."""

_MOST_ARGUMENTS = 9
_ROOT_OPTIONS = (("--version", "Print the version."), ("--help", "Show this message and exit."))


def completion_script(shell: Shell, root: Node | None = None) -> str:
    """The whole script for a shell."""
    nodes = list((tree() if root is None else root).walk())
    template = files("opencode_gate.cli") / "completion_templates" / FILE_NAMES[shell]
    text = template.read_text(encoding="utf-8")
    for name, lines in _TABLES[shell](nodes).items():
        text = text.replace(f"@{name}@", "\n".join(lines))
    return text


def _children(node: Node) -> list[tuple[str, str]]:
    return [(child.path[-1], child.help) for child in node.children]


def _options(node: Node, nodes: Iterable[Node]) -> list[tuple[str, str]]:
    """A command's options; a line without a command may have those of `run`."""
    own = [(name, option.help) for option in node.options for name in option.names]
    if node.path:
        return own
    return [*_ROOT_OPTIONS, *((n, h) for n, h in _run_options(nodes) if n not in ("--help", "-h"))]


def _run_options(nodes: Iterable[Node]) -> list[tuple[str, str]]:
    run = next((node for node in nodes if node.path == ("run",)), None)
    return [(n, option.help) for option in run.options for n in option.names] if run else []


def _specs(nodes: Iterable[Node]) -> list[tuple[str, str, str]]:
    """`(command, option or argument number, spec)`; a repeated argument has several numbers."""
    found = []
    for node in nodes:
        path = " ".join(node.path)
        places = [path, ""] if path == "run" else [path]
        for place in places:
            found += [
                (place, name, _spec(option))
                for option in node.options
                if option.takes_value
                for name in option.names
            ]
        for first, argument in enumerate(node.arguments, 1):
            last = _MOST_ARGUMENTS if argument.is_repeated else first
            found += [(path, str(n), _spec(argument)) for n in range(first, last + 1)]
    return found


def _spec(parameter: Parameter) -> str:
    if parameter.choices:
        return " ".join(parameter.choices)
    if parameter.values is not None:
        return f"@{parameter.values}"
    return "/" if parameter.is_path else "-"


def _quoted(text: str) -> str:
    """A single-quoted word for bash and zsh."""
    return "'" + text.replace("'", "'\\''") + "'"


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _powershell_quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _case_specs(nodes: list[Node]) -> list[str]:
    return [
        f"    {_quoted(f'{path}|{name}')}) spec={_quoted(spec)} ;;"
        for path, name, spec in _specs(nodes)
    ]


def _bash(nodes: list[Node]) -> dict[str, list[str]]:
    def names(pairs: list[tuple[str, str]]) -> str:
        return _quoted(" ".join(name for name, _ in pairs))

    return {
        "PLACES": [
            f"    {_quoted(' '.join(node.path))})"
            f" children={names(_children(node))} options={names(_options(node, nodes))} ;;"
            for node in nodes
        ],
        "SPECS": _case_specs(nodes),
    }


def _zsh(nodes: list[Node]) -> dict[str, list[str]]:
    def words(pairs: list[tuple[str, str]]) -> str:
        return " ".join(
            _quoted(name.replace(":", "\\:") + f":{description}") for name, description in pairs
        )

    return {
        "PLACES": [
            f"    {_quoted(' '.join(node.path))})\n"
            f"        children=({words(_children(node))})\n"
            f"        options=({words(_options(node, nodes))})\n"
            "        ;;"
            for node in nodes
        ],
        "SPECS": _case_specs(nodes),
    }


def _fish(nodes: list[Node]) -> dict[str, list[str]]:
    def arms(pairs_of: Callable[[Node], list[tuple[str, str]]]) -> list[str]:
        return [
            f"        case {_fish_quoted(' '.join(node.path))}\n            printf '%s\\t%s\\n' "
            + " ".join(f"{_fish_quoted(n)} {_fish_quoted(d)}" for n, d in pairs_of(node))
            for node in nodes
            if pairs_of(node)
        ]

    return {
        "CHILDREN": arms(_children),
        "OPTIONS": arms(lambda node: _options(node, nodes)),
        "SPECS": [
            f"        case {_fish_quoted(f'{path}|{name}')}\n            echo {_fish_quoted(spec)}"
            for path, name, spec in _specs(nodes)
        ],
    }


def _powershell(nodes: list[Node]) -> dict[str, list[str]]:
    def tables(pairs_of: Callable[[Node], list[tuple[str, str]]]) -> list[str]:
        return [
            f"        {_powershell_quoted(' '.join(node.path))} = [ordered]@{{ "
            + "; ".join(
                f"{_powershell_quoted(n)} = {_powershell_quoted(d)}" for n, d in pairs_of(node)
            )
            + " }"
            for node in nodes
            if pairs_of(node)
        ]

    return {
        "CHILDREN": tables(_children),
        "OPTIONS": tables(lambda node: _options(node, nodes)),
        "SPECS": [
            f"        {_powershell_quoted(f'{path}|{name}')} = {_powershell_quoted(spec)}"
            for path, name, spec in _specs(nodes)
        ],
    }


_TABLES: Mapping[Shell, Callable[[list[Node]], dict[str, list[str]]]] = {
    "bash": _bash,
    "zsh": _zsh,
    "fish": _fish,
    "powershell": _powershell,
}
