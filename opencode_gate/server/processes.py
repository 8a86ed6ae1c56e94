"""Ending another process by number; on Linux never a stranger that got the number later."""

import os
import signal
import sys
from pathlib import Path


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
            descriptor = os.pidfd_open(pid)
            try:
                if start_time(pid) != started:
                    return False
                signal.pidfd_send_signal(descriptor, signal.SIGTERM)
            finally:
                os.close(descriptor)
        else:
            os.kill(pid, signal.SIGTERM)
    except OSError:
        return False
    return True
