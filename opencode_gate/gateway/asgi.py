"""The names of ASGI 3 (https://asgi.readthedocs.io/en/latest/specs/main.html), and its two ends.

A request is read to its end, and a client that leaves is noticed. ASGI tells of the latter only
to whoever keeps calling `receive`, which takes a task per request; a server that offers the
extension `CLIENT_LEFT` calls back instead.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from opencode_gate.core.tasks import spawn
from opencode_gate.wire.facts import BadBody

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

CLIENT_LEFT: Final = "ogate.client_left"
"""In `scope["extensions"]`: takes what to call once if the connection is lost from here on."""

BODY_LIMIT_BYTES = 256 * 1024 * 1024


class ClientGone(Exception):
    """The client left before its request was complete."""


async def whole_body(receive: Receive) -> bytes:
    """The body of a request.

    Raises:
        ClientGone: it never came to its end.
        BadBody: it is beyond any sense.
    """
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGone
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        return body
    parts, size_bytes = [body], len(body)
    while message.get("more_body", False):
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        parts.append(message.get("body", b""))
        size_bytes += len(parts[-1])
        if size_bytes > BODY_LIMIT_BYTES:
            raise BadBody("the request is larger than 256 MiB")
    return b"".join(parts)


def when_client_leaves(
    scope: Scope, receive: Receive, deed: Callable[[], object]
) -> asyncio.Task[None] | None:
    """Has `deed` called when the client goes away; a task to cancel where one had to be started.

    Only for a request whose body has been read. `deed` may be called after the request's end.
    """
    tell = scope.get("extensions", {}).get(CLIENT_LEFT)
    if tell is None:
        return spawn(_watch(receive, deed), name="client-watch")
    tell(deed)
    return None


async def _watch(receive: Receive, deed: Callable[[], object]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    deed()
