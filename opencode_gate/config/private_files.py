"""Files that only their owner may read, replaced whole or not at all.

The invariant: a reader sees the old bytes or the new ones, never a part of either, and the
bytes are never readable by others, not even while they are being written.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from opencode_gate.config.paths import private_folder
from opencode_gate.core.errors import ConfigError
from opencode_gate.core.ids import new_ulid


def replace_private(path: Path, content: bytes, *, is_cache: bool = False) -> None:
    """Puts `content` at `path`, 0600, in one step that survives a crash.

    A cache may be lost in a crash: nobody waits for the disk then.

    Raises:
        ConfigError: the folder or the file cannot be written.
    """
    private_folder(path.parent)
    draft = path.with_name(f".{path.name}.{new_ulid()}")
    try:
        _write_new(draft, content, is_cache=is_cache)
        os.replace(draft, path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        # Also on Ctrl-C: a draft that was not renamed must not stay behind.
        with contextlib.suppress(OSError):
            draft.unlink()


def _write_new(path: Path, content: bytes, *, is_cache: bool) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)
        if not is_cache:
            file.flush()
            os.fsync(file.fileno())


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Holds the lock beside `path`, so that two processes do not undo each other's change.

    Raises:
        ConfigError: the lock file cannot be made, or on Windows not be had in ten seconds.
    """
    private_folder(path.parent)
    try:
        descriptor = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        _lock(descriptor, path)
        yield
    finally:
        # Closing gives the lock back, on every platform.
        os.close(descriptor)


def _unwritable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        "folder-unwritable",
        f"cannot write {path}: {error.strerror}",
        hint="make the folder writable, or set OGATE_HOME to one that is",
    )


if sys.platform == "win32":

    def _lock(descriptor: int, path: Path) -> None:
        import msvcrt

        try:
            # Waits ten seconds: Windows has no wait without end.
            msvcrt.locking(descriptor, msvcrt.LK_LOCK, 1)
        except OSError as error:
            raise _unwritable(path, error) from error

else:

    def _lock(descriptor: int, path: Path) -> None:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX)
