"""Dotted keys of TOML, and the lines of a text where they stand.

The parser tells no lines, so the text is looked through once more for an error message. The
invariant: nothing here decides what a file means.
"""

from collections.abc import Mapping

from opencode_gate.config.toml_shape import KeyPath, Place
from opencode_gate.core.errors import ConfigError


def key_path(text: str) -> KeyPath:
    """A dotted key as TOML reads it: `prices."openai/gpt-5".input` has three parts.

    Raises:
        ConfigError: it is no key.
    """
    import tomllib

    try:
        node: object = tomllib.loads(f"{text} = 0")
    except tomllib.TOMLDecodeError as error:
        raise ConfigError("bad-config", f"not the name of a setting: {text!r}") from error
    path: list[str] = []
    while isinstance(node, dict) and len(node) == 1:
        key, node = next(iter(node.items()))
        path.append(key)
    if node != 0 or "\n" in text:
        raise ConfigError("bad-config", f"not the name of a setting: {text!r}")
    return tuple(path)


def line_of(text: str, path: Place) -> int | None:
    """The line of a TOML text where a key stands, or the nearest table above it.

    The first table of a list is looked for like one that stands alone.
    Good enough for an error message: a key inside a multi-line string may mislead it.
    """
    path = tuple(key for key in path if key != 0)
    table: Place = ()
    best: tuple[int, int] | None = None
    places: dict[KeyPath, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if stripped.startswith("["):
            named = _path_of_line(stripped.split("#")[0].strip("[] \t") + " = 0")
            if stripped.startswith("[["):
                _begin_table(places, named)
            table = here = _placed(places, named)
        elif "=" in stripped and not stripped.startswith("#"):
            here = table + _path_of_line(_key_side(stripped) + " = 0")
        else:
            continue
        depth = len(here)
        if depth and path[:depth] == here and (best is None or depth > best[0]):
            best = (depth, number)
    return best[1] if best is not None else None


def _begin_table(places: dict[KeyPath, int], named: KeyPath) -> None:
    """Counts one more table of that name; lists below it begin anew."""
    places[named] = places.get(named, -1) + 1
    for below in [one for one in places if one[: len(named)] == named and one != named]:
        del places[below]


def _placed(places: Mapping[KeyPath, int], named: KeyPath) -> Place:
    """The path of a table with its place, if not the first, in each list on the way."""
    path: Place = ()
    for depth, key in enumerate(named, start=1):
        path += (key,)
        if places.get(named[:depth], 0):
            path += (places[named[:depth]],)
    return path


def _key_side(line: str) -> str:
    quote: str | None = None
    for index, character in enumerate(line):
        if quote is not None:
            quote = None if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character == "=":
            return line[:index]
    return line


def _path_of_line(line: str) -> KeyPath:
    import tomllib

    try:
        node: object = tomllib.loads(line)
    except tomllib.TOMLDecodeError:
        return ()
    path: list[str] = []
    while isinstance(node, dict) and node:
        key, node = next(iter(node.items()))
        path.append(key)
    return tuple(path)
