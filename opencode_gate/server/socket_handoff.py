"""Handing a listening socket to a child process: by inheritance, on Windows by duplication.

POSIX children inherit the descriptor; Windows needs the child's process id first
(https://docs.python.org/3/library/socket.html#socket.socket.share).
"""

import base64
import socket
import sys


def pack(listener: socket.socket, child_pid: int) -> str:
    """What a child needs to open `listener`; on POSIX the child must have inherited it."""
    if sys.platform == "win32":
        return base64.b64encode(listener.share(child_pid)).decode()
    return str(listener.fileno())


def unpack(packed: str) -> socket.socket:
    """The listening socket, in the child."""
    if sys.platform == "win32":
        return socket.fromshare(base64.b64decode(packed))
    return socket.socket(fileno=int(packed))
