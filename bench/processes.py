"""What programs take of the machine: processor time, memory, cores. Linux only.

A program is a process with all its descendants, found anew each time it is looked at.
"""

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

_CPUCLOCK_OF_PROCESS = 2
_LOOK_S = 0.05
_QUIET_SHARE = 0.02
_CLONE_NEWUSER, _CLONE_NEWNET = 0x1000_0000, 0x4000_0000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1


def descendants(pid: int) -> list[int]:
    """The process and whatever it started, directly or not, and has not ended."""
    found = [pid] if _is_alive(pid) else []
    for parent in found:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for task in Path(f"/proc/{parent}/task").iterdir():
                children = (task / "children").read_text().split()
                found += [int(child) for child in children if _is_alive(int(child))]
    return found


def _is_alive(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return text[text.rindex(")") + 2] != "Z"


def cpu_s(pid: int) -> float:
    """The processor time of a program so far, in user and kernel mode, to the nanosecond.

    The kernel's clock of a process is read by its number (`clock_getcpuclockid` of the C
    library computes it alike): the ticks in `/proc/PID/stat` are too coarse. What ended is
    forgotten, so only differences over a time in which nothing ended mean something.
    """
    total = 0.0
    for each in descendants(pid):
        with contextlib.suppress(OSError):
            total += time.clock_gettime((~each << 3) | _CPUCLOCK_OF_PROCESS)
    return total


def sizes_kib(pid: int) -> dict[str, int]:
    """Resident, proportional and peak resident size of one process.

    The proportional size counts a page that several processes share once among them.
    """
    lines = Path(f"/proc/{pid}/status").read_text() + Path(f"/proc/{pid}/smaps_rollup").read_text()
    fields = {
        name: int(rest.split()[0])
        for name, _, rest in (line.partition(":") for line in lines.splitlines())
        if name in ("VmRSS", "VmHWM", "Pss")
    }
    return {"resident": fields["VmRSS"], "proportional": fields["Pss"], "peak": fields["VmHWM"]}


def pin(pid: int, cores: set[int]) -> None:
    """Every thread of a program runs on `cores` from now on, and so will what it starts."""
    for each in descendants(pid):
        with contextlib.suppress(FileNotFoundError):
            for task in os.listdir(f"/proc/{each}/task"):
                with contextlib.suppress(ProcessLookupError):
                    os.sched_setaffinity(int(task), cores)


def settle(pid: int, *, lag_s: float, at_most_s: float = 3.0) -> None:
    """Waits until a program works no more on what it was asked, as far as can be seen.

    Args:
        lag_s: after so long it will have begun with what it put off.
        at_most_s: then it is left alone, whatever it does.
    """
    time.sleep(lag_s)
    ends = time.monotonic() + at_most_s
    before = cpu_s(pid)
    while time.monotonic() < ends:
        time.sleep(_LOOK_S)
        now = cpu_s(pid)
        if now - before < _QUIET_SHARE * _LOOK_S:
            return
        before = now


def enter_private_network() -> bool:
    """Moves this process and what it will start to a network of its own, with only a loopback.

    Nothing outside can reach it then, whatever address a program binds. True if that is allowed
    here; it needs to be root or the right to make user namespaces.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    uid, gid = os.getuid(), os.getgid()
    if libc.unshare(_CLONE_NEWNET) != 0:
        if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
            return False
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        asked = struct.pack("16sh14x", b"lo", 0)
        flags: int = struct.unpack("16sh14x", fcntl.ioctl(any_socket, _SIOCGIFFLAGS, asked))[1]
        asked = struct.pack("16sh14x", b"lo", flags | _IFF_UP)
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, asked)
    return True


@contextlib.contextmanager
def cores_kept_awake() -> Iterator[None]:
    """No core sleeps meanwhile: on each spins a process that gives way to any other at once.

    A virtual machine hands a core that sleeps back to its host, and a request that wakes four
    of them one after the other waits for that.
    """
    spinning = []
    try:
        for core in os.sched_getaffinity(0):
            pid = os.fork()
            if pid == 0:
                _spin(core)
            spinning.append(pid)
        yield
    finally:
        for pid in spinning:
            os.kill(pid, 9)
            os.waitpid(pid, 0)


def _spin(core: int) -> None:
    parent = os.getppid()
    os.sched_setaffinity(0, {core})
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    while os.getppid() == parent:
        pass
    os._exit(0)
