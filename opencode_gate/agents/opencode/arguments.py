"""What the arguments behind `--` ask Opencode to do, read as Opencode's own parser reads them.

Opencode parses twice (yargs): first it looks for a command among the words, knowing only the
options every command has (an option it does not know takes the next word as its value), then
it parses again with the options of that command. The invariant: reading changes nothing; the
arguments reach Opencode as they are.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

_COMMON_FLAGS: Final = frozenset({"help", "h", "version", "v", "print-logs", "pure"})
_SERVER_FLAGS: Final = frozenset({"mdns"})
_CONVERSATION_FLAGS: Final = frozenset({"continue", "c", "fork", "auto"})

_FLAGS: Final[dict[str, frozenset[str]]] = {
    "": _COMMON_FLAGS | _SERVER_FLAGS | _CONVERSATION_FLAGS | {"mini", "replay"},
    "run": _COMMON_FLAGS | _CONVERSATION_FLAGS | {"share", "thinking", "interactive", "i"},
    "serve": _COMMON_FLAGS | _SERVER_FLAGS,
    "web": _COMMON_FLAGS | _SERVER_FLAGS,
    "acp": _COMMON_FLAGS | _SERVER_FLAGS,
    "attach": _COMMON_FLAGS | {"continue", "c", "fork", "mini", "replay"},
}
"""Options without a value, per command; `""` is the terminal interface."""

_ARRAYS: Final = {"run": frozenset({"file", "f"})}
"""Options that take every word up to the next option."""

_LONG: Final = {"h": "help", "v": "version", "m": "model", "s": "session", "c": "continue"}
_LONG_BY_COMMAND: Final = {"run": {"i": "interactive", "f": "file"}}

# fmt: off
_COMMANDS: Final = frozenset({
    "completion", "acp", "mcp", "attach", "run", "debug", "providers", "auth", "agent", "upgrade",
    "uninstall", "serve", "web", "models", "stats", "export", "import", "github", "pr", "session",
    "plugin", "plug", "db", "generate", "console",
})
# fmt: on
_ALIASES: Final = {"auth": "providers", "plug": "plugin"}

_CALLS_MODELS: Final = frozenset({"", "run", "serve", "web", "acp", "pr"})
_SUBCOMMANDS_THAT_CALL: Final = {"agent": {"create"}, "github": {"run"}}


class AgentArguments(msgspec.Struct, frozen=True, kw_only=True):
    """What one Opencode command line says.

    Attributes:
        command: the command, `None` for the terminal interface itself.
        model: `-m`, as `provider/model`.
        session: `-s`.
        continue_last: `-c`.
        agent: `--agent`.
        directory: the folder it works in, as given: the TUI's positional, `--dir` or `--cwd`.
        attach: the address of another Opencode process that does the work.
        needs_gateway: models may be called, so a gateway is started.
        is_tui: it draws on a terminal and hangs without one.
        is_pure: `--pure`, without the user's plugins.
    """

    command: str | None
    model: str | None = None
    session: str | None = None
    continue_last: bool = False
    agent: str | None = None
    directory: str | None = None
    attach: str | None = None
    needs_gateway: bool
    is_tui: bool
    is_pure: bool = False


def read_arguments(argv: Sequence[str]) -> AgentArguments:
    """What `argv` (without the program's name) asks for. Never fails: Opencode itself complains."""
    first = _parse(argv, flags=_COMMON_FLAGS, arrays=frozenset(), long=_LONG)
    word = first.words[0] if first.words else None
    command = _ALIASES.get(word, word) if word in _COMMANDS else None
    key = command or ""
    parsed = _parse(
        argv,
        flags=_FLAGS.get(key, _COMMON_FLAGS),
        arrays=_ARRAYS.get(key, frozenset()),
        long=_LONG | _LONG_BY_COMMAND.get(key, {}),
    )
    words = _without_command(parsed.words, word if command else None)
    subcommand = words[0] if command and words else None
    attach = _attached_to(command, parsed, words)
    asks_only = parsed.is_on("help") or parsed.is_on("version") or _completes(argv)
    calls = key in _CALLS_MODELS or subcommand in _SUBCOMMANDS_THAT_CALL.get(key, ())
    draws = key in ("", "attach", "pr") or (key == "run" and parsed.is_on("interactive"))
    return AgentArguments(
        command=command,
        model=parsed.text("model"),
        session=parsed.text("session"),
        continue_last=parsed.is_on("continue"),
        agent=parsed.text("agent"),
        directory=_directory(command, parsed, words),
        attach=attach,
        needs_gateway=calls and attach is None and not asks_only,
        is_tui=draws and not asks_only,
        is_pure=parsed.is_on("pure"),
    )


def _attached_to(command: str | None, parsed: "_Parsed", words: Sequence[str]) -> str | None:
    if command == "attach":
        return words[0] if words else None
    return parsed.text("attach") if command == "run" else None


def _directory(command: str | None, parsed: "_Parsed", words: Sequence[str]) -> str | None:
    if command is None:
        return words[0] if words else None
    return parsed.text("cwd" if command == "acp" else "dir")


def _completes(argv: Sequence[str]) -> bool:
    return "--get-yargs-completions" in argv


def _without_command(words: Sequence[str], command: str | None) -> list[str]:
    rest = list(words)
    if command is not None and command in rest:
        rest.remove(command)
    return rest


class _Parsed(msgspec.Struct):
    """Words and options; an option given as a flag has `True`."""

    words: list[str] = msgspec.field(default_factory=list)
    options: dict[str, str | bool] = msgspec.field(default_factory=dict)

    def text(self, name: str) -> str | None:
        value = self.options.get(name)
        return value if isinstance(value, str) and value else None

    def is_on(self, name: str) -> bool:
        return self.options.get(name) not in (None, False, "false")


def _parse(
    argv: Sequence[str],
    *,
    flags: frozenset[str],
    arrays: frozenset[str],
    long: Mapping[str, str],
) -> _Parsed:
    """One pass of yargs-parser, as far as Opencode's options need it."""
    parsed = _Parsed()
    rest = deque(argv)
    while rest:
        word = rest.popleft()
        if word == "--":
            # What follows is a message, never a command or a folder.
            break
        if not _is_option(word):
            parsed.words.append(word)
            continue
        name, equals, value = word.lstrip("-").partition("=")
        if not word.startswith("--"):
            # -cm X: all but the last letter are flags.
            for letter in name[:-1]:
                parsed.options[long.get(letter, letter)] = True
            name = name[-1:]
        if equals:
            parsed.options[long.get(name, name)] = value
        elif name.startswith("no-"):
            parsed.options[name[3:]] = False
        else:
            taken = _values(rest, is_flag=name in flags, is_array=name in arrays)
            parsed.options[long.get(name, name)] = taken[-1] if taken else True
    return parsed


def _values(rest: deque[str], *, is_flag: bool, is_array: bool) -> list[str]:
    """Takes from `rest` the words that belong to the option before them."""
    taken: list[str] = []
    while rest and not _is_option(rest[0]):
        if is_flag and rest[0] not in ("true", "false"):
            break
        taken.append(rest.popleft())
        if not is_array:
            break
    return taken


def _is_option(word: str) -> bool:
    """A lone dash and negative numbers are words."""
    if len(word) < 2 or not word.startswith("-"):
        return False
    return not word[1:].replace(".", "", 1).isdigit()
