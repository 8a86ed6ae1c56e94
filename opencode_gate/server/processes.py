"""What a process asks of the system: another's end by its number, and room for many connections.

The invariant: on Linux never a stranger is ended that got the number later.
"""

import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Final

KEEPS_MEMORY: Final = {"MALLOC_MMAP_THRESHOLD_": "4194304", "MALLOC_TRIM_THRESHOLD_": "33554432"}
"""Variables for a gateway's process. By itself glibc gives the memory of a large block back as soon
as it is free, and has the kernel clear new pages for the next: with a prompt of 1 MB that was nine
tenths of the work of reading it. So much is kept instead, as what was gathered for the folding
process becomes free at once; other systems know no such variables."""

_OPEN_FILES = 16_384


def allow_many_connections() -> None:
    """Each stream takes two descriptors; many systems begin with 1,024, and allow more to who asks.

    What is not allowed stays as it was: it is enough for one agent.
    """
    try:
        import resource
    except ImportError:  # Windows counts no descriptors
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def start_time(pid: int) -> str | None:
    """When a process started, in the system's own words; `None` where that cannot be told."""
    if sys.platform == "linux":
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        return stat.rpartition(")")[2].split()[19]
    return None


def terminate(pid: int, started: str | None) -> bool:
    """Sends SIGTERM; on Linux only to the very process that began at `started`."""
    try:
        if sys.platform == "linux":
            return _terminate_itself(pid, started)
        os.kill(pid, signal.SIGTERM)
    except OSError:
        return False
    return True


if sys.platform == "linux":

    def _terminate_itself(pid: int, started: str | None) -> bool:
        try:
            descriptor = os.pidfd_open(pid)
        except (AttributeError, OSError):
            # Not every Python was built for it, nor has every kernel it; or there is no process.
            is_it = start_time(pid) == started
            if is_it:
                os.kill(pid, signal.SIGTERM)
            return is_it
        try:
            is_it = start_time(pid) == started
            if is_it:
                signal.pidfd_send_signal(descriptor, signal.SIGTERM)
            return is_it
        finally:
            os.close(descriptor)
