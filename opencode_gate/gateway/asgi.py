"""A bridge from an ASGI 3 server to a handler of `downstream`.

ASGI tells of a client that leaves only to whoever keeps calling `receive`, which takes a task per
request; a server that offers the extension `CLIENT_LEFT` calls back instead.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from opencode_gate.core.tasks import spawn
from opencode_gate.gateway.downstream import (
    BODY_LIMIT_BYTES,
    ClientGone,
    ClientHeaders,
    Handler,
)
from opencode_gate.wire.facts import BadBody

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

CLIENT_LEFT: Final = "ogate.client_left"
"""In `scope["extensions"]`: takes what to call once if the connection is lost from here on."""


def asgi_application(handler: Handler) -> Application:
    """The handler as a bare ASGI 3 callable."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = AsgiRequest(scope, receive)
        pump = spawn(request.pump(send), name="answer")
        try:
            await handler(request)
            request.stop()
            await pump
        finally:
            pump.cancel()
            if request.watch is not None:
                request.watch.cancel()

    return application


class AsgiRequest:
    """One request that came by ASGI. Implements `ClientRequest`."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.raw_path: bytes = scope["raw_path"]
        self.query: bytes = scope["query_string"]
        self.headers: ClientHeaders = list(scope["headers"])
        self.received_s = time.monotonic()
        self.watch: asyncio.Task[None] | None = None
        self._scope = scope
        self._receive = receive
        self._messages: list[MutableMapping[str, Any]] = []
        self._woken = asyncio.Event()
        self._drained: list[Callable[[], object]] = []
        self._is_over = False

    async def body(self) -> bytes:
        """See `ClientRequest.body`."""
        parts, size_bytes, has_more = [], 0, True
        while has_more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            parts.append(message.get("body", b""))
            size_bytes += len(parts[-1])
            if size_bytes > BODY_LIMIT_BYTES:
                raise BadBody("the request is larger than 256 MiB")
            has_more = message.get("more_body", False)
        return b"".join(parts)

    def on_left(self, deed: Callable[[], object]) -> None:
        """See `ClientRequest.on_left`."""
        tell = self._scope.get("extensions", {}).get(CLIENT_LEFT)
        if tell is None:
            self.watch = spawn(self._watch(deed), name="client-watch")
        else:
            tell(deed)

    def begin(self, status: int, headers: ClientHeaders) -> None:
        """See `ClientRequest.begin`."""
        self._put({"type": "http.response.start", "status": status, "headers": headers})

    def write(self, part: bytes) -> None:
        """See `ClientRequest.write`."""
        self._put({"type": "http.response.body", "body": part, "more_body": True})

    def end(self, part: bytes = b"") -> None:
        """See `ClientRequest.end`."""
        self._put({"type": "http.response.body", "body": part, "more_body": False})

    @property
    def is_full(self) -> bool:
        """See `ClientRequest.is_full`."""
        return len(self._messages) > 16

    def when_drained(self, deed: Callable[[], object]) -> None:
        """See `ClientRequest.when_drained`."""
        self._drained.append(deed)

    def stop(self) -> None:
        """Nothing more will be put."""
        self._is_over = True
        self._woken.set()

    async def pump(self, send: Send) -> None:
        """Sends what is put, in its order."""
        while True:
            while self._messages:
                await send(self._messages.pop(0))
            drained, self._drained = self._drained, []
            for deed in drained:
                deed()
            if self._is_over:
                return
            self._woken.clear()
            await self._woken.wait()

    def _put(self, message: MutableMapping[str, Any]) -> None:
        self._messages.append(message)
        self._woken.set()

    async def _watch(self, deed: Callable[[], object]) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        deed()
