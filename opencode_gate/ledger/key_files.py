"""Keys of this installation, each in a file only its owner may read, made at first use.

The invariant: a key that is there whole is never replaced; of several processes that make it at
once, all get the same one.
"""

import os
import secrets
from pathlib import Path

from opencode_gate.config.paths import private_folder
from opencode_gate.core.ids import new_ulid

KEY_BYTES = 32


def kept_key(file: Path) -> bytes:
    """The key in a file, made (0600) if there is none.

    Raises:
        ConfigError: its folder cannot be made.
        OSError: the file cannot be read or written.
    """
    key = read_key(file)
    if key is None:
        _make(file)
        key = read_key(file)
    if key is None:
        raise OSError(f"{file} is no key, and cannot be made one")
    return key


def read_key(file: Path) -> bytes | None:
    """The key in a file, `None` where there is no whole one.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        key = file.read_bytes()
    except FileNotFoundError:
        return None
    return key if len(key) == KEY_BYTES else None


def _make(file: Path) -> None:
    """Puts a new key there whole; of several processes that do so, the first one's stays."""
    private_folder(file.parent)
    draft = file.with_name(f".{file.name}.{new_ulid()}")
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0)
    descriptor = os.open(draft, flags, 0o600)
    try:
        with open(descriptor, "wb") as opened:
            opened.write(secrets.token_bytes(KEY_BYTES))
        try:
            os.link(draft, file)
        except OSError:
            # It is there: whole, by another process, or cut short by what else was done to it.
            # Or this disk has no hard links.
            if read_key(file) is None:
                os.replace(draft, file)
    finally:
        draft.unlink(missing_ok=True)
