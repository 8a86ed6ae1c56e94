"""The lines ogate puts into a shell's start-up file, and takes out again.

The idea: they stand between two marks that name them, so putting them twice changes nothing and
taking them out leaves the file as it was. The invariant: everything outside the marks, the
file's mode and a symbolic link in its place are kept.
"""

import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from opencode_gate.core.errors import ConfigError, UsageError

Shell: TypeAlias = Literal["bash", "zsh", "fish", "powershell"]
SHELLS: tuple[Shell, ...] = get_args(Shell)
Block: TypeAlias = Literal["alias", "completion"]


def current_shell() -> Shell:
    """The person's shell.

    Raises:
        UsageError: it cannot be told, or is none of ours.
    """
    name = Path(os.environ.get("SHELL", "")).name
    if sys.platform == "win32" and not name:
        return "powershell"
    for shell in SHELLS:
        if name == shell or (shell == "powershell" and name == "pwsh"):
            return shell
    raise UsageError(
        "usage",
        f"the shell {name!r} is not one of ours" if name else "which shell? SHELL is not set",
        hint=f"name one of {', '.join(SHELLS)}",
    )


def start_file(shell: Shell) -> Path:
    """The file a shell reads when it starts for a person."""
    home = Path.home()
    if shell == "bash":
        return home / (".bash_profile" if sys.platform == "darwin" else ".bashrc")
    if shell == "zsh":
        return Path(os.environ.get("ZDOTDIR") or home) / ".zshrc"
    if shell == "fish":
        return fish_folder() / "config.fish"
    if sys.platform == "win32":
        return home / "Documents" / "PowerShell" / "Microsoft.PowerShell_profile.ps1"
    return _config_folder() / "powershell" / "Microsoft.PowerShell_profile.ps1"


def fish_folder() -> Path:
    """Where fish keeps its configuration."""
    return _config_folder() / "fish"


def put_block(file: Path, name: Block, lines: Sequence[str]) -> bool:
    """Puts lines into a start-up file, in the place of older ones; true if that changed it.

    Raises:
        ConfigError: the file cannot be read or written.
    """
    before = _read(file)
    block = "\n".join([_opening(name), *lines, _closing(name)]) + "\n"
    if _pattern(name).search(before):
        after = _pattern(name).sub(lambda _: block, before, count=1)
    else:
        gap = "" if not before else "\n" if before.endswith("\n") else "\n\n"
        after = f"{before}{gap}{block}"
    return _write(file, before, after)


def take_block(file: Path, name: Block) -> bool:
    """Takes our lines out of a start-up file; true if there were any.

    Raises:
        ConfigError: the file cannot be read or written.
    """
    before = _read(file)
    return _write(file, before, _pattern(name, with_gap=True).sub("", before))


def has_block(file: Path, name: Block) -> bool:
    """Whether our lines are in a start-up file; a file that cannot be read has none."""
    try:
        return bool(_pattern(name).search(_read(file)))
    except ConfigError:
        return False


def files_with_block(name: Block, shells: Iterable[Shell] = SHELLS) -> list[Path]:
    """The start-up files that hold our lines."""
    return [file for file in map(start_file, shells) if has_block(file, name)]


def _opening(name: Block) -> str:
    return f"# >>> ogate {name} >>>"


def _closing(name: Block) -> str:
    return f"# <<< ogate {name} <<<"


def _pattern(name: Block, *, with_gap: bool = False) -> re.Pattern[str]:
    """Our block, with the empty line that was put before it if wanted."""
    opening, closing = re.escape(_opening(name)), re.escape(_closing(name))
    gap = r"(?:(?<=\n)\n)?" if with_gap else ""
    return re.compile(rf"{gap}^{opening}$.*?^{closing}$\n?", re.MULTILINE | re.DOTALL)


def _read(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise ConfigError("folder-unwritable", f"cannot read {file}: {error.strerror}") from error


def _write(file: Path, before: str, after: str) -> bool:
    """Replaces the file's content in one step; a link stays, its target changes."""
    if before == after:
        return False
    target = file.resolve()
    fresh = target.with_name(f".{target.name}.ogate")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_bytes(after.encode("utf-8", errors="surrogateescape"))
        if target.exists():
            fresh.chmod(target.stat().st_mode)
        fresh.replace(target)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise ConfigError("folder-unwritable", f"cannot write {file}: {error.strerror}") from error
    return True


def _config_folder() -> Path:
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
