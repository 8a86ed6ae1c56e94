"""The files and texts Opencode 1.x reads its configuration from, in the order it reads them.

Later ones win: the user's global files, the file `OPENCODE_CONFIG` names, the project's files
from its root down to the folder, the `.opencode` folders, `OPENCODE_CONFIG_DIR`, and the text in
`OPENCODE_CONFIG_CONTENT` (https://opencode.ai/docs/config). The invariant: every text knows
whether the user wrote it or the project did, because a project is not trusted with the user's
keys.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from opencode_gate.agents.opencode.folders import AgentFolders
from opencode_gate.agents.opencode.jsonc import JsonObject, parse_object

_NAMES: Final = ("opencode.json", "opencode.jsonc")
_GLOBAL_NAMES: Final = ("config.json", *_NAMES)
# Not compiled: most starts use neither.
_VARIABLE: Final = r"\{env:([^}]+)\}"
_FILE: Final = r"\{file:([^}]+)\}"
AGENT_KINDS: Final = ("agents", "mode", "agent")
"""The members that hold agents, the last of them the strongest."""
_MODEL_KEYS: Final = ("model", "small_model")
_MAX_BYTES: Final = 4 * 1024 * 1024


class ConfigSource(msgspec.Struct, frozen=True, kw_only=True):
    """One configuration as it was written, its `{env:}` and `{file:}` not yet filled in.

    Attributes:
        folder: what relative `{file:}` references start from.
        is_project: the project wrote it, not the user.
    """

    folder: Path
    is_project: bool
    config: JsonObject


def project_root(folder: Path) -> Path:
    """The top of the repository `folder` is in; the root of the file system outside of one."""
    for candidate in (folder, *folder.parents):
        if (candidate / ".git").exists():
            return candidate
    return Path(folder.anchor)


def config_folders(
    environ: Mapping[str, str], folders: AgentFolders, folder: Path
) -> list[tuple[Path, bool]]:
    """Folders with agents and plugins, in Opencode's order; `True` for those of the project."""
    found: list[tuple[Path, bool]] = [(folders.config, False)]
    user_folder = folders.home / ".opencode"
    if not environ.get("OPENCODE_DISABLE_PROJECT_CONFIG"):
        found += [
            (above / ".opencode", True)
            for above in _upwards(folder)
            if (above / ".opencode") != user_folder
        ]
    found.append((user_folder, False))
    if environ.get("OPENCODE_CONFIG_DIR"):
        found.append((Path(environ["OPENCODE_CONFIG_DIR"]), False))
    return [(path, is_project) for path, is_project in found if path.is_dir()]


def config_sources(
    environ: Mapping[str, str], folders: AgentFolders, folder: Path
) -> Iterator[ConfigSource]:
    """Every configuration that can be read; Opencode itself complains about the others."""
    for file, is_project in _files(environ, folders, folder):
        text = _text(file)
        config = None if text is None else _parsed(text)
        if config is None and text is not None and not is_project:
            # A reference may stand outside of a string (`"timeout": {env:T}`). A project's are
            # not filled in unseen: they could be the user's keys.
            config = _parsed(filled_in(text, environ, file.parent))
        if config is not None:
            yield ConfigSource(folder=file.parent, is_project=is_project, config=config)
    content = environ.get("OPENCODE_CONFIG_CONTENT")
    if content:
        config = _parsed(content) or _parsed(filled_in(content, environ, folder))
        if config is not None:
            yield ConfigSource(folder=folder, is_project=False, config=config)


def managed_files(folders: AgentFolders, preferences: Sequence[Path]) -> tuple[Path, ...]:
    """The files of an administrator that are there: they outrank a session's configuration."""
    candidates = [*(folders.managed / name for name in _NAMES), *preferences]
    return tuple(file for file in candidates if file.is_file())


def filled_in(text: str, environ: Mapping[str, str], folder: Path) -> str:
    """`text` with its `{env:NAME}` and `{file:path}` replaced; what is absent becomes empty."""
    return re.sub(
        _FILE,
        lambda match: (_text(_referenced(match.group(1), folder)) or "").strip(),
        _with_variables(text, environ),
    )


def _with_variables(text: str, environ: Mapping[str, str]) -> str:
    return re.sub(_VARIABLE, lambda match: environ.get(match.group(1), ""), text)


def models_filled_in(config: JsonObject, fill: Callable[[str], str]) -> JsonObject:
    """`config` with `fill` applied to the models it names, for itself and for its agents."""
    filled = dict(config)
    for key, value in config.items():
        if key in _MODEL_KEYS and isinstance(value, str):
            filled[key] = fill(value)
        elif key in AGENT_KINDS and isinstance(value, dict):
            filled[key] = {
                name: models_filled_in(agent, fill) if isinstance(agent, dict) else agent
                for name, agent in value.items()
            }
    return filled


def variables_in(text: str) -> tuple[str, ...]:
    """The environment variables that `text` refers to."""
    return tuple(re.findall(_VARIABLE, text))


def files_in(text: str, environ: Mapping[str, str], folder: Path) -> tuple[Path, ...]:
    """The files that `text` refers to; a variable may stand in their names."""
    text = _with_variables(text, environ)
    return tuple(_referenced(name, folder) for name in re.findall(_FILE, text))


def _files(
    environ: Mapping[str, str], folders: AgentFolders, folder: Path
) -> Iterator[tuple[Path, bool]]:
    for name in _GLOBAL_NAMES:
        yield folders.config / name, False
    if environ.get("OPENCODE_CONFIG"):
        yield Path(environ["OPENCODE_CONFIG"]), False
    if not environ.get("OPENCODE_DISABLE_PROJECT_CONFIG"):
        for above in reversed(_upwards(folder)):
            for name in _NAMES:
                yield above / name, True
    for path, is_project in config_folders(environ, folders, folder):
        if path != folders.config:
            for name in _NAMES:
                yield path / name, is_project


def _upwards(folder: Path) -> list[Path]:
    """`folder` and those above it, up to the project's root."""
    root = project_root(folder)
    above = [folder]
    while above[-1] != root and above[-1] != above[-1].parent:
        above.append(above[-1].parent)
    return above


def _parsed(text: str) -> JsonObject | None:
    try:
        return parse_object(text)
    except ValueError:
        return None


def _referenced(name: str, folder: Path) -> Path:
    path = Path(name).expanduser() if name.startswith("~/") else Path(name)
    return path if path.is_absolute() else folder / path


def _text(file: Path) -> str | None:
    try:
        if file.stat().st_size > _MAX_BYTES:
            return None
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
