"""Every place on disk that `ogate` uses, by platform convention.

`OGATE_HOME` puts everything below one folder. The invariant: folders are made 0700 and nothing
below them is readable by others.
"""

import os
from pathlib import Path
from typing import NamedTuple

from opencode_gate.core.errors import ConfigError


class Paths(NamedTuple):
    """The folders of one user: settings, data (ledger, key index), cache, run folders."""

    config: Path
    data: Path
    cache: Path
    runtime: Path

    @property
    def config_file(self) -> Path:
        """The user's settings."""
        return self.config / "config.toml"

    @property
    def ledger_file(self) -> Path:
        """The SQLite ledger."""
        return self.data / "ledger.db"

    @property
    def journals(self) -> Path:
        """Journals of gateway processes, one file each."""
        return self.data / "journals"

    @property
    def prompt_key(self) -> Path:
        """The key of the hashes that tell what requests were made of."""
        return self.data / "prompt-hashes.key"

    @property
    def audit_key(self) -> Path:
        """The key that seals the audit trail; `ledger.audit` knows it by the ledger's folder."""
        return self.data / "audit.key"

    @property
    def audit_head(self) -> Path:
        """How far the audit trail had come, outside the ledger."""
        return self.data / "ledger.audit-head"

    @property
    def serve_key(self) -> Path:
        """The key that a served gateway makes the tokens of sessions with."""
        return self.data / "serve.key"

    @property
    def credentials_index(self) -> Path:
        """Which keys exist and where; never a key itself."""
        return self.data / "credentials.json"

    @property
    def credentials_file(self) -> Path:
        """The encrypted credential file, for machines without a keyring."""
        return self.data / "credentials.enc"

    @property
    def choices_file(self) -> Path:
        """What was chosen last, per project folder."""
        return self.data / "choices.json"

    @property
    def completion_index(self) -> Path:
        """Values for shell completion, one `kind<TAB>value<TAB>description` a line."""
        return self.cache / "completion.tsv"

    @property
    def catalogue(self) -> Path:
        """The refreshed catalogue; the bundled one is used while it is absent."""
        return self.cache / "catalogue.zip"

    @property
    def private_agent(self) -> Path:
        """Where `--install` puts a private copy of Opencode."""
        return self.data / "opencode"


def paths() -> Paths:
    """The folders in force, from `OGATE_HOME` or the platform."""
    home = os.environ.get("OGATE_HOME")
    if home:
        root = Path(home).expanduser().absolute()
        return Paths(
            config=root / "config", data=root / "data", cache=root / "cache", runtime=root / "run"
        )
    import platformdirs

    dirs = platformdirs.PlatformDirs("ogate", appauthor=False)
    return Paths(
        config=Path(dirs.user_config_dir),
        data=Path(dirs.user_data_dir),
        cache=Path(dirs.user_cache_dir),
        runtime=Path(dirs.user_cache_dir) / "run",
    )


def private_folder(folder: Path) -> Path:
    """`folder`, made if need be, open to its owner alone; folders above it that are missing, too.

    Raises:
        ConfigError: it cannot be made.
    """
    try:
        _make(folder)
    except OSError as error:
        raise ConfigError(
            "folder-unwritable",
            f"cannot make {folder}: {error.strerror}",
            hint="set OGATE_HOME to a folder you can write",
        ) from error
    return folder


def _make(folder: Path) -> None:
    # `mkdir(parents=True)` gives its mode to the last folder alone, and the others to everybody.
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except FileNotFoundError:
        _make(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
