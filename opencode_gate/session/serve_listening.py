"""The address of `ogate serve`, and one listening socket on it for each gateway process.

The idea: on Linux each process has a socket of its own, and the kernel gives each connection to
one of them (https://man7.org/linux/man-pages/man7/socket.7.html, SO_REUSEPORT); elsewhere they
accept from one. The invariants: the first socket is bound alone, so an address that is taken is
said, also where another server would share it; connections to a socket wait in it for as long as
the launcher keeps it, whatever becomes of the process that accepts from it.
"""

import errno
import ipaddress
import socket
import sys
from typing import Any

from opencode_gate.core.errors import GatewayError

_BACKLOG = 1024
_HINTS: dict[int | None, str] = {
    errno.EADDRINUSE: "another ogate serve may run there; --port takes another",
    errno.EACCES: "ports below 1024 are often the system's; --port takes another",
}


def listen_on(host: str, port: int, *, workers: int = 1) -> tuple[socket.socket, ...]:
    """Listening sockets on one address, one for each of so many processes.

    Args:
        host: an address, or a name of it.
        port: 0 for any.

    Raises:
        GatewayError: it cannot be had.
    """
    try:
        family, _, _, _, first = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise _not_listening(host, port, error) from error
    listeners: list[socket.socket] = []
    try:
        listeners.append(_bound(family, first))
        while len(listeners) < workers:
            listeners.append(_another(listeners[0]))
    except OSError as error:
        for listener in listeners:
            listener.close()
        raise _not_listening(host, port, error) from error
    return tuple(listeners)


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own and nobody else's."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _bound(family: int, address: Any, *, is_shared: bool = False) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if sys.platform != "win32":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_shared:
            _share(listener)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _another(first: socket.socket) -> socket.socket:
    """One more on the same address: with a queue of its own on Linux, else with the same one."""
    if sys.platform != "linux":
        # Others take the newest socket for the only one, or none of them.
        return first.dup()
    # Only now: before it listened, another server would have been let onto the address with it.
    _share(first)
    return _bound(first.family, first.getsockname(), is_shared=True)


def _share(listener: socket.socket) -> None:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def _not_listening(host: str, port: int, error: OSError) -> GatewayError:
    return GatewayError(
        "gateway-failed",
        f"cannot listen on {host}:{port}: {error.strerror or error}",
        hint=_HINTS.get(error.errno, "--host takes an address of this machine, or a name of one"),
    )
