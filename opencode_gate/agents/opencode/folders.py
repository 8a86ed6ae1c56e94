"""Where Opencode 1.x keeps its files, on every platform.

Opencode uses the XDG layout everywhere, also on macOS and Windows; only the folder an
administrator manages differs (https://opencode.ai/docs/config). The invariant: this module is
the only one that asks which platform it is on, and it touches no file.
"""

import sys
from collections.abc import Mapping
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath

import msgspec

APP = "opencode"


class AgentFolders(msgspec.Struct, frozen=True, kw_only=True):
    """Opencode's own folders for one user.

    Attributes:
        managed: where an administrator's configuration outranks everybody's.
    """

    home: Path
    config: Path
    data: Path
    state: Path
    cache: Path
    managed: Path

    @property
    def auth_file(self) -> Path:
        """The credentials `opencode auth login` stores."""
        return self.data / "auth.json"

    @property
    def recent_models_file(self) -> Path:
        """The models chosen last, newest first, for all folders together."""
        return self.state / "model.json"

    @property
    def models_cache(self) -> Path:
        """The model catalogue as Opencode fetched it last."""
        return self.cache / "models.json"


def agent_folders(environ: Mapping[str, str], *, platform: str = sys.platform) -> AgentFolders:
    """Opencode's folders as it would work them out itself from `environ`.

    `platform` is a value of `sys.platform`.
    """
    home = home_folder(environ, platform=platform)

    def base(variable: str, *default: str) -> Path:
        chosen = environ.get(variable)
        return Path(chosen or home.joinpath(*default)) / APP

    return AgentFolders(
        home=home,
        config=base("XDG_CONFIG_HOME", ".config"),
        data=base("XDG_DATA_HOME", ".local", "share"),
        state=base("XDG_STATE_HOME", ".local", "state"),
        cache=base("XDG_CACHE_HOME", ".cache"),
        managed=Path(managed_folder(environ, platform=platform)),
    )


def home_folder(environ: Mapping[str, str], *, platform: str = sys.platform) -> Path:
    """The home folder as Node's and Bun's `os.homedir()` see it."""
    chosen = environ.get("USERPROFILE" if platform == "win32" else "HOME")
    return Path(chosen) if chosen else Path.home()


def managed_folder(environ: Mapping[str, str], *, platform: str = sys.platform) -> PurePath:
    """The folder an administrator writes to."""
    if platform == "win32":
        return PureWindowsPath(environ.get("ProgramData") or "C:\\ProgramData") / APP
    if platform == "darwin":
        return PurePosixPath("/Library/Application Support") / APP
    return PurePosixPath("/etc") / APP


def managed_preferences(user: str, *, platform: str = sys.platform) -> tuple[PurePath, ...]:
    """Where macOS puts preferences a device management server set; nothing elsewhere."""
    if platform != "darwin":
        return ()
    root = PurePosixPath("/Library/Managed Preferences")
    name = "ai.opencode.managed.plist"
    return (root / user / name, root / name)


def database_file(
    environ: Mapping[str, str], folders: AgentFolders, *, platform: str = sys.platform
) -> Path | None:
    """Opencode's SQLite file; `None` when the user keeps it in memory.

    `OPENCODE_DB` is taken as Opencode takes it: absolute, or relative to its data folder.
    """
    chosen = environ.get("OPENCODE_DB")
    if not chosen:
        return folders.data / "opencode.db"
    if chosen == ":memory:":
        return None
    flavour = PureWindowsPath if platform == "win32" else PurePosixPath
    return Path(chosen) if flavour(chosen).is_absolute() else folders.data / chosen


def content_limit(*, platform: str = sys.platform) -> int:
    """How long one environment variable may be, with room for its name.

    Linux allows 128 KiB (`MAX_ARG_STRLEN`), in bytes; Windows 32,767 characters.
    """
    return 30_000 if platform == "win32" else 120 * 1024
