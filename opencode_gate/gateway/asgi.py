"""The names of ASGI 3 (https://asgi.readthedocs.io/en/latest/specs/main.html), and a body read."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from opencode_gate.wire.facts import BadBody

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

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
