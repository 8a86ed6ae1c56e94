"""The application: keeps web pages out, then hands the request to where it belongs.

The invariant: only a request that was addressed to this gateway by a name of its own is served,
so a page in a browser cannot reach it through a host name that resolves to its address.
"""

import ipaddress
from collections.abc import Awaitable, Iterable

from opencode_gate.gateway.control import Control
from opencode_gate.gateway.downstream import ClientRequest
from opencode_gate.gateway.pipeline import Pipeline

_LOOPBACK = (b"127.0.0.1", b"localhost", b"[::1]")
_LOOPBACK_WITH_PORT = tuple(name + b":" for name in _LOOPBACK)


class App:
    """A `downstream.Handler`.

    Args:
        control: of a served gateway, `None` for one session's own.
        names: host names a served gateway goes by; `*.team.example` for all of one level.
    """

    __slots__ = ("_control", "_names", "_pipeline")

    def __init__(
        self, pipeline: Pipeline, control: Control | None = None, *, names: Iterable[str] = ()
    ) -> None:
        self._pipeline = pipeline
        self._control = control
        self._names = frozenset(name.lower() for name in names)

    def __call__(self, request: ClientRequest) -> Awaitable[None]:
        """What answers one request: no coroutine of its own, a wake-up goes through all of them."""
        headers = request.fields
        if not self._is_ours(headers.get(b"host", b"")) or b"origin" in headers:
            return _bare(request, 403, b"this gateway serves programs, under its own name only\n")
        if b"upgrade" in headers and not _is_optional(headers):
            # 426 makes clients that try a WebSocket first fall back at once.
            return _bare(request, 426, b"this gateway speaks HTTP/1.1 only\n")
        if self._control is not None and self._control.is_for(request.path):
            return self._control.serve(request)
        return self._pipeline.serve(request)

    def _is_ours(self, host: bytes) -> bool:
        host = host.lower()
        if host in _LOOPBACK or host.startswith(_LOOPBACK_WITH_PORT):
            return True
        return self._control is not None and self._is_served_name(host)

    def _is_served_name(self, host: bytes) -> bool:
        """One of the names, or any address: what a page's own name resolves to is not one."""
        text = host.decode("latin-1")
        name = text.partition("]")[0][1:] if text.startswith("[") else text.partition(":")[0]
        if name in self._names or "*." + name.partition(".")[2] in self._names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _is_optional(headers: dict[bytes, bytes]) -> bool:
    """Whether the client goes on in HTTP/1.1 all the same: Java's offers HTTP/2 at first.

    A body in chunks is not read behind such an offer.
    """
    return headers[b"upgrade"].lower() == b"h2c" and b"transfer-encoding" not in headers


async def _bare(client: ClientRequest, status: int, text: bytes) -> None:
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(text)).encode())]
    client.begin(status, headers)
    client.end(text)
