"""`ogate config`: what `config.toml` says, and changes to it that keep its comments.

The invariant: a change that would make the file invalid is refused and the file stays as it was.
"""

import os
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from opencode_gate.cli.options import AsJson
from opencode_gate.cli.render import Column, Fact, Facts, Result, Table, Text
from opencode_gate.core.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from opencode_gate.config.settings import Settings

app = typer.Typer()

Key = Annotated[
    str, typer.Argument(metavar="KEY", help='Dotted: run.summary, prices."openai/gpt-5".input')
]


@app.command("path")
def path(as_json: AsJson = False) -> Result:
    """Where the settings and everything else of ogate lie."""
    from opencode_gate.config.paths import paths

    places = paths()
    folders = {
        "config_file": places.config_file,
        "ledger_file": places.ledger_file,
        "catalogue": places.catalogue,
        "config": places.config,
        "data": places.data,
        "cache": places.cache,
    }
    named = {name: str(place) for name, place in folders.items()}
    return Result(
        data={"paths": named},
        blocks=() if as_json else [Facts([Fact(name, place) for name, place in named.items()])],
    )


@app.command()
def show(as_json: AsJson = False) -> Result:
    """Every setting in force, and where it comes from."""
    from opencode_gate.config.settings import Settings

    settings = _in_force()
    plain = dict(_leaves(Settings()))
    rows = [
        (key, value, _source(key, value, plain))
        for key, value in _leaves(settings)
        if value is not None or key in plain
    ]
    return Result(
        data={
            "settings": [dict(zip(("key", "value", "source"), row, strict=True)) for row in rows]
        },
        blocks=()
        if as_json
        else [
            Table(
                columns=(Column("setting"), Column("value", wrap=True), Column("from")),
                rows=[(key, _text(value), source) for key, value, source in rows],
            )
        ],
    )


@app.command()
def get(key: Key, as_json: AsJson = False) -> Result:
    """The value of one setting, or of all below it."""
    from opencode_gate.config.toml_lines import key_path
    from opencode_gate.config.toml_shape import dotted

    wanted = dotted(key_path(key))
    found = {
        name: value
        for name, value in _leaves(_in_force())
        if name == wanted or name.startswith((wanted + ".", wanted + "["))
    }
    if not found:
        raise _unknown(wanted)
    if wanted in found:
        data: dict[str, object] = {"key": wanted, "value": found[wanted]}
        lines = [_text(found[wanted])]
    else:
        data = {"key": wanted, "value": found}
        lines = [f"{name} = {_text(value)}" for name, value in found.items() if value is not None]
    return Result(data=data, blocks=() if as_json else [Text(line) for line in lines])


@app.command("set")
def set_(
    key: Key, value: Annotated[str, typer.Argument(metavar="VALUE", help="The new value.")]
) -> Result:
    """Writes one setting to config.toml; comments stay."""
    from opencode_gate.cli.typed_secrets import refuse_in_header
    from opencode_gate.config.editing import set_text
    from opencode_gate.config.paths import paths
    from opencode_gate.config.toml_lines import key_path

    match key_path(key):
        case ("providers", _, "headers", header):
            refuse_in_header(str(header), value)
    places = paths()
    set_text(places, key, value)
    return Result(data={}, talk=[f"{key} = {value} in {places.config_file}"])


@app.command()
def edit() -> Result:
    """Opens config.toml in your editor and takes it over only if it is valid."""
    from opencode_gate.config.editing import current_text, replace_text
    from opencode_gate.config.paths import paths, private_folder

    places = paths()
    before = current_text(places.config_file)
    first = before or _FIRST_LINES
    private_folder(places.config)
    draft = _draft(places.config, first)
    _open_editor(draft)
    after = current_text(draft)
    if after == first:
        draft.unlink()
        return Result(data={}, talk=["nothing changed"])
    try:
        replace_text(places, after, before=before)
    except ConfigError as error:
        raise ConfigError(
            error.code,
            error.message,
            hint=error.hint if error.hint != "ogate config edit" else None,
            details=(f"config.toml was not replaced; your draft is {draft}",),
        ) from error
    draft.unlink()
    return Result(data={}, talk=[f"{places.config_file} written"])


_FIRST_LINES = "# Settings of ogate; docs/reference/config.md lists them all.\n"


def _draft(folder: Path, text: str) -> Path:
    """A new file of the owner alone with a text in it.

    Raises:
        ConfigError: the folder cannot be written.
    """
    try:
        descriptor, name = tempfile.mkstemp(dir=folder, prefix="edit-", suffix=".toml")
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        raise ConfigError(
            "folder-unwritable", f"cannot write a draft in {folder}: {error.strerror}"
        ) from error
    return Path(name)


def _open_editor(draft: Path) -> None:
    command = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    # Ctrl-C is the editor's; the terminal sends it here too.
    former = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        status = subprocess.run([*shlex.split(command), str(draft)], check=False).returncode
    except OSError as error:
        draft.unlink()
        raise UsageError(
            "usage",
            f"cannot start the editor {command!r}: {error.strerror}",
            hint="set EDITOR, or use `ogate config set KEY VALUE`",
        ) from error
    finally:
        signal.signal(signal.SIGINT, former)
    if status != 0:
        draft.unlink()
        raise UsageError("usage", f"the editor {command!r} ended with status {status}")


def _in_force() -> "Settings":
    from opencode_gate.config.paths import paths
    from opencode_gate.config.settings import load_settings

    return load_settings(paths(), os.environ)


def _leaves(node: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str, object]]:
    """Every single value below a settings object, with its dotted name."""
    from opencode_gate.config.toml_shape import dotted

    if isinstance(node, msgspec.Struct):
        inner: dict[str | int, object] = dict(msgspec.structs.asdict(node).items())
    elif isinstance(node, Mapping):
        inner = dict(node)
    elif isinstance(node, tuple):
        if len(node) == 1:
            yield from _leaves(node[0], path)
            return
        inner = dict(enumerate(node))
    else:
        yield dotted(path), str(node) if isinstance(node, Decimal | date) else node
        return
    for key, value in inner.items():
        yield from _leaves(value, (*path, key))


def _source(key: str, value: object, plain: Mapping[str, object]) -> str:
    from opencode_gate.config.settings import ENVIRONMENT_SECTIONS

    section, _, name = key.partition(".")
    variable = f"OGATE_{section}_{name}".upper()
    if section in ENVIRONMENT_SECTIONS and variable in os.environ:
        return variable
    return "default" if key in plain and plain[key] == value else "config.toml"


def _text(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _unknown(wanted: str) -> ConfigError:
    from opencode_gate.config.settings import Settings
    from opencode_gate.config.toml_shape import nearest

    close = nearest(wanted, [key for key, _ in _leaves(Settings())])
    return ConfigError(
        "bad-config",
        f"no setting is called {wanted}",
        hint=f"did you mean {close[0]}?" if close else "ogate config show",
    )
