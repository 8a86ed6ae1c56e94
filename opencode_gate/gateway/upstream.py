"""The border to providers: what the pipeline sends, what it gets back, how it fails.

The pipeline knows only these names. `http_client.HttpUpstream` speaks to real providers,
`practice.PracticeUpstream` is the scripted model; neither is visible from the other side of
`Upstream`.

The invariant: bytes of a response body come out as the provider sent them (only the chunked
framing is taken off), and a body that did not end cleanly raises, it never just stops.
"""

from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

RawHeaders: TypeAlias = list[tuple[bytes, bytes]]
"""Header fields in their original order and case."""

FailureKind: TypeAlias = Literal["dns", "connect", "tls", "timeout", "reset", "protocol", "proxy"]


@dataclass(slots=True, kw_only=True)
class UpstreamRequest:
    """One request to a provider, complete in memory.

    Attributes:
        scheme: `http` or `https`.
        host: a name or an address, IPv6 without brackets.
        target: raw path and query as they go on the request line, already percent-encoded.
        headers: end-to-end fields. `Host`, `Content-Length`, `Transfer-Encoding` and
            `Connection` are set by the client; given ones are left out.
    """

    method: str
    scheme: str
    host: str
    port: int
    target: bytes
    headers: RawHeaders
    body: bytes


class UpstreamFailure(Exception):
    """The provider could not be reached, or its answer did not arrive whole.

    Attributes:
        kind: at which step it failed.
        bytes_sent: whether any byte of the request was given to the network; if not, the
            provider cannot have seen it and trying elsewhere costs nothing twice.

    The message names the host, never the path, a header or a part of the body.
    """

    def __init__(self, kind: FailureKind, message: str, *, bytes_sent: bool) -> None:
        super().__init__(message)
        self.kind = kind
        self.bytes_sent = bytes_sent


class UpstreamResponse(Protocol):
    """An answer whose head has arrived and whose body is read piece by piece."""

    @property
    def status(self) -> int:
        """The HTTP status, never 1xx."""
        ...

    @property
    def headers(self) -> RawHeaders:
        """The header fields; trailers are dropped."""
        ...

    async def read(self) -> bytes:
        """The body bytes that have arrived, at least one; `b""` once at the clean end and after.

        Raises:
            UpstreamFailure: the body was cut, or nothing arrived for too long.
        """
        ...

    def abort(self) -> None:
        """Gives the rest of the body up and closes the connection; nothing after the end."""
        ...


class Upstream(Protocol):
    """Whoever answers requests."""

    async def send(self, request: UpstreamRequest, *, header_timeout_s: float) -> UpstreamResponse:
        """Sends `request` and waits for the head of the answer.

        Raises:
            UpstreamFailure: no head came, for the reason in `kind`.
        """
        ...

    async def close(self) -> None:
        """Closes every connection, also those of unfinished answers."""
        ...
