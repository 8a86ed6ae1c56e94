"""Changes to `config.toml` that keep the user's comments and order.

The invariant: the file is replaced in one step, by a text that has been read back as valid
settings; it is never half written, never broken by `ogate`, and readable by its owner alone. Of
two changes at once none is lost.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from opencode_gate.config.paths import Paths
from opencode_gate.config.private_files import exclusive, replace_private
from opencode_gate.config.settings import Settings, parse_settings
from opencode_gate.config.toml_lines import key_path
from opencode_gate.config.toml_shape import KeyPath, ShapeProblem, dotted, read_text_at
from opencode_gate.core.errors import ConfigError

if TYPE_CHECKING:
    from tomlkit import TOMLDocument

ConfigValue = bool | int | float | str | Decimal | Sequence[str] | Mapping[str, object]


def set_values(paths: Paths, values: Mapping[KeyPath, ConfigValue | None]) -> Settings:
    """Writes values to `config.toml`, making tables as needed; `None` takes a key out.

    Returns:
        The settings of the file as it now is.

    Raises:
        ConfigError: the change would make the file invalid, or it cannot be written.
    """

    def change(document: "TOMLDocument") -> None:
        for path, value in values.items():
            if value is None:
                _take_out(document, path)
            else:
                _put_in(document, path, value)

    return edit(paths, change)


def set_text(paths: Paths, key: str, text: str) -> Settings:
    """Writes one setting from text, as a command line gives it.

    Args:
        key: the dotted name, as TOML writes it: `prices."openai/gpt-5".input`.

    Raises:
        ConfigError: there is no such setting, or the text is no value for it.
    """
    path = key_path(key)
    try:
        value = read_text_at(Settings, path, text)
    except ShapeProblem as problem:
        raise ConfigError(
            "bad-config", f"{dotted(problem.path)} {problem.text}", hint=problem.hint
        ) from problem
    return set_values(paths, {path: value})


def edit(paths: Paths, change: Callable[["TOMLDocument"], None]) -> Settings:
    """Applies `change` to the parsed file, checks the outcome and replaces the file.

    Raises:
        ConfigError: as `set_values`.
    """
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    file = paths.config_file
    with exclusive(_lock_name(paths)):
        before = current_text(file)
        parse_settings(before, source=str(file))
        try:
            document = tomlkit.parse(before)
            change(document)
            after = tomlkit.dumps(document)
        except TOMLKitError as error:
            raise ConfigError("bad-config", f"{file} cannot be changed: {error}") from error
        return _replace(paths, after)


def replace_text(paths: Paths, text: str, *, before: str) -> Settings:
    """Makes `text` the content of `config.toml`, if it is valid and made from what is there.

    Raises:
        ConfigError: it is not valid, the file no longer says `before`, or cannot be written.
    """
    with exclusive(_lock_name(paths)):
        if current_text(paths.config_file) != before:
            raise ConfigError("bad-config", f"{paths.config_file} was changed meanwhile")
        return _replace(paths, text)


def _lock_name(paths: Paths) -> Path:
    """Not beside the settings: their folder may be the user's own, under version control."""
    return paths.data / "config"


def _replace(paths: Paths, text: str) -> Settings:
    settings = parse_settings(text, source="config.toml as it would become")
    # The file itself, where the user keeps it elsewhere and has a link here.
    replace_private(Path(os.path.realpath(paths.config_file)), text.encode())
    return settings


def current_text(file: Path) -> str:
    """The text of a file, empty if there is none.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("bad-config", f"cannot read {file}: {error}") from error


def _put_in(document: "TOMLDocument", path: KeyPath, value: ConfigValue) -> None:
    import tomlkit
    from tomlkit.items import Table

    *folders, last = path
    node = document
    for depth, key in enumerate(folders):
        if key not in node:
            node[key] = tomlkit.table()
        inner = node[key]
        if not isinstance(inner, Mapping):
            kind = "several tables" if isinstance(inner, list) else "not a table"
            raise ConfigError(
                "bad-config", f"{dotted(path[: depth + 1])} is {kind}", hint="ogate config edit"
            )
        node = inner  # type: ignore[assignment]
    if isinstance(value, Mapping) and not isinstance(value, Table):
        # What is said already below a table that is asked for stays.
        table = node[last] if isinstance(node.get(last), Mapping) else tomlkit.table()
        for key, inner_value in value.items():
            table[key] = inner_value
        value = table
    # A decimal is written with the digits it has, not as the nearest binary number.
    node[last] = tomlkit.value(f"{value:f}") if isinstance(value, Decimal) else value


def _take_out(document: "TOMLDocument", path: KeyPath) -> None:
    node: object = document
    for key in path[:-1]:
        if not isinstance(node, Mapping) or key not in node:
            return
        node = node[key]
    if isinstance(node, dict):
        node.pop(path[-1], None)
