"""Connections to each of several processes that serve one address."""

import contextlib
import http.client
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.served_gateway import ServedGateway

_ENOUGH = 200
"""So many connections in a row do not all go to one of a few processes."""


class KeptConnection(http.client.HTTPConnection):
    """One that stays with its process: it is neither closed between requests nor made anew."""

    auto_open = 0

    def close(self) -> None:
        """Nothing; see `end`."""

    def end(self) -> None:
        """Closes it."""
        super().close()


@dataclass
class OneWorker(ServedGateway):
    """A running gateway, through one of its processes."""

    kept: KeptConnection | None = None
    pid: int = 0

    def connect(self) -> http.client.HTTPConnection:
        assert self.kept is not None
        return self.kept


@contextlib.contextmanager
def each_worker(gateway: ServedGateway) -> Iterator[dict[int, OneWorker]]:
    """The gateway through a connection to each of its processes, by their ids."""
    opened: list[KeptConnection] = []
    found: dict[int, OneWorker] = {}
    pids = gateway.workers
    try:
        while len(found) < len(pids):
            assert len(opened) < _ENOUGH, f"only {list(found)} of {pids} are given connections"
            kept = KeptConnection("127.0.0.1", gateway.port, timeout=30)
            kept.connect()
            opened.append(kept)
            one = OneWorker(gateway.process, gateway.port, gateway.scheme, kept=kept)
            # Answered, so that it is accepted, and some process has it.
            assert one.ask("GET", "/health").status == 200
            one.pid = _holder(kept.sock, pids)
            found.setdefault(one.pid, one)
        yield found
    finally:
        for kept in opened:
            kept.end()


def _holder(client: socket.socket, pids: list[int]) -> int:
    """Which process has the other end of a connection, as the kernel's tables say."""
    here, there = (_as_shown(*client.getsockname()), _as_shown(*client.getpeername()))
    for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        fields = line.split()
        if (fields[1], fields[2]) == (there, here):
            inode = f"socket:[{fields[9]}]"
            for pid in pids:
                for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                    with contextlib.suppress(FileNotFoundError):
                        if str(descriptor.readlink()) == inode:
                            return pid
    raise AssertionError(f"nobody holds {there} -> {here}")


def _as_shown(host: str, port: int) -> str:
    (number,) = struct.unpack("=I", socket.inet_aton(host))
    return f"{number:08X}:{port:04X}"
