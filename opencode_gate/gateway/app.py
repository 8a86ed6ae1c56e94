"""The ASGI application: keeps web pages out, then hands the request to the pipeline.

The invariant: only a request that was addressed to this machine by name is served, so a page
in a browser cannot reach the gateway through a host name that resolves to 127.0.0.1.
"""

from opencode_gate.gateway.asgi import Receive, Scope, Send
from opencode_gate.gateway.pipeline import Pipeline

_LOOPBACK = (b"127.0.0.1", b"localhost", b"[::1]")
_LOOPBACK_WITH_PORT = tuple(name + b":" for name in _LOOPBACK)


class App:
    """A bare ASGI 3 callable."""

    __slots__ = ("_pipeline",)

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one connection's request."""
        if scope["type"] != "http":
            return
        headers = dict(scope["headers"])  # the server has made the names lower-case
        if not _is_loopback(headers.get(b"host", b"")) or b"origin" in headers:
            await _bare(send, 403, b"this gateway serves programs on this machine only\n")
        elif b"upgrade" in headers:
            # 426 makes clients that try a WebSocket first fall back at once.
            await _bare(send, 426, b"this gateway speaks HTTP/1.1 only\n")
        else:
            await self._pipeline.serve(scope, receive, send)


def _is_loopback(host: bytes) -> bool:
    return host in _LOOPBACK or host.startswith(_LOOPBACK_WITH_PORT)


async def _bare(send: Send, status: int, text: bytes) -> None:
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text, "more_body": False})
