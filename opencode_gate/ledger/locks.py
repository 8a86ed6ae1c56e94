"""A lock on an open file that the kernel lets go of when its process dies, however it dies.

The invariant: a lock that can be taken means that nobody alive holds the file.
"""

import os
import sys
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
    import time

    # Far behind any content: Windows locks byte ranges and forbids reading what is locked.
    _LOCKED_OFFSET = 1 << 30
    _LOOK_AGAIN_S = 0.0005

    def try_lock(descriptor: int) -> bool:
        """Takes the lock of an open file if nobody holds it; it lives as long as the file."""
        os.lseek(descriptor, _LOCKED_OFFSET, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def lock(descriptor: int) -> None:
        """Takes the lock of an open file, as soon as nobody holds it. For moments only."""
        while not try_lock(descriptor):
            time.sleep(_LOOK_AGAIN_S)

    def unlock(descriptor: int) -> None:
        """Lets go of the lock of an open file."""
        os.lseek(descriptor, _LOCKED_OFFSET, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)
else:
    import fcntl

    def try_lock(descriptor: int) -> bool:
        """Takes the lock of an open file if nobody holds it; it lives as long as the file."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def lock(descriptor: int) -> None:
        """Takes the lock of an open file, as soon as nobody holds it. For moments only."""
        fcntl.flock(descriptor, fcntl.LOCK_EX)

    def unlock(descriptor: int) -> None:
        """Lets go of the lock of an open file."""
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def is_same_file(descriptor: int, path: Path) -> bool:
    """Whether `path` still names the open file, and not nothing or a successor."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def replace_locked(descriptor: int, path: Path, content: bytes) -> int:
    """Puts a new file in place of a locked one, which is closed; the new one, locked, to append to.

    Raises:
        OSError: it cannot be, as always on Windows, where the old one is open; it is as it was.
    """
    draft = _draft_of(path)
    flags = os.O_CREAT | os.O_TRUNC | os.O_RDWR | os.O_APPEND | getattr(os, "O_BINARY", 0)
    new = os.open(draft, flags, 0o600)
    try:
        lock(new)
        left = memoryview(content)
        while left:
            left = left[os.write(new, left) :]
        os.replace(draft, path)
    except OSError:
        os.close(new)
        draft.unlink(missing_ok=True)
        raise
    os.close(descriptor)
    return new


def remove_locked(descriptor: int, path: Path) -> None:
    """Removes a locked file and closes it, in the order the platform allows."""
    # Whoever died while it was replaced left it.
    _draft_of(path).unlink(missing_ok=True)
    if sys.platform == "win32":
        os.close(descriptor)
        path.unlink(missing_ok=True)
    else:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _draft_of(path: Path) -> Path:
    return path.with_suffix(".new")
