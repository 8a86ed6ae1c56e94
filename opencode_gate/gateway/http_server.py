"""The gateway's HTTP/1.1 server: takes sockets that are bound already, and stops with grace.

The invariant: after a stop nobody new is let in; what is being answered gets the time it was
given, to its last byte in the client's hands, and is cancelled then.
"""

import asyncio
import socket
import ssl
from collections.abc import Iterable
from typing import Final

from opencode_gate.core.tasks import spawn
from opencode_gate.gateway.client_connection import ClientConnection
from opencode_gate.gateway.downstream import Handler

_BACKLOG: Final = 2048


class HttpServer:
    """Has `handler` answer what clients ask.

    Attributes:
        connections: of all clients, kept by themselves.
        tasks: of all requests being answered.
    """

    __slots__ = (
        "_gone",
        "_hurried",
        "_servers",
        "_stopping",
        "_tls",
        "connections",
        "handler",
        "tasks",
    )

    def __init__(self, handler: Handler, *, tls: ssl.SSLContext | None = None) -> None:
        self.handler = handler
        self.connections: set[ClientConnection] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self._tls = tls
        self._servers: list[asyncio.Server] = []
        self._stopping = asyncio.Event()
        self._hurried = asyncio.Event()
        self._gone = asyncio.Event()

    async def start(self, sockets: Iterable[socket.socket]) -> None:
        """Lets clients in."""
        loop = asyncio.get_running_loop()
        for listening in sockets:
            # What is accepted inherits it; asyncio sets it only where a protocol was named.
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._servers.append(
                await loop.create_server(
                    lambda: ClientConnection(self), sock=listening, ssl=self._tls, backlog=_BACKLOG
                )
            )

    def stop(self, grace_s: float = 0.0) -> None:
        """Lets nobody in; what is in flight gets `grace_s` to end, and no more in a later call."""
        self._stopping.set()
        if grace_s:
            asyncio.get_running_loop().call_later(grace_s, self._hurried.set)
        else:
            self._hurried.set()

    async def wait_stopped(self) -> None:
        """Waits for `stop`, and for what is in flight then."""
        await self._stopping.wait()
        for server in self._servers:
            server.close()
        for connection in tuple(self.connections):
            connection.retire()
        hurried = spawn(self._hurried.wait(), name="hurry")
        ended = spawn(self._all_ended(), name="in-flight")
        await asyncio.wait((ended, hurried), return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        hurried.cancel()
        for task in tuple(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for connection in tuple(self.connections):
            connection.abort()

    def came(self, connection: ClientConnection) -> None:
        """A client is there; it may have been let in before a stop, and have taken its time."""
        self.connections.add(connection)
        if self._stopping.is_set():
            connection.retire()

    def lost(self, connection: ClientConnection) -> None:
        """A client is gone."""
        self.connections.discard(connection)
        if not self.connections:
            self._gone.set()

    async def _all_ended(self) -> None:
        while self.connections:
            self._gone.clear()
            await self._gone.wait()
        while self.tasks:
            await asyncio.wait(self.tasks)
