"""The border to providers: what the pipeline sends, what it gets back, how it fails.

The pipeline knows only these names. `http_client.HttpUpstream` speaks to real providers,
`practice.PracticeUpstream` is the scripted model; neither is visible from the other side of
`Upstream`.

A body is either read, or pushed: whoever sends a request may be called back with the head of its
answer, and give what takes the body, part by part, as it comes from the network.

The invariant: bytes of a response body come out as the provider sent them (only the chunked
framing is taken off), and a body that did not end cleanly raises, it never just stops.
"""

from collections.abc import Callable
from typing import Literal, Protocol, TypeAlias

import msgspec

RawHeaders: TypeAlias = list[tuple[bytes, bytes]]
"""Header fields in their original order and case."""

FailureKind: TypeAlias = Literal["dns", "connect", "tls", "timeout", "reset", "protocol", "proxy"]


class UpstreamRequest(msgspec.Struct, kw_only=True):
    """One request to a provider, complete in memory.

    Attributes:
        scheme: `http` or `https`.
        host: a name or an address, IPv6 without brackets.
        target: raw path and query as they go on the request line, already percent-encoded.
        headers: end-to-end fields. `Host`, `Content-Length`, `Transfer-Encoding` and
            `Connection` are set by the client; given ones are left out.
        dialled_s: filled in by whoever sends it: how long it waited for a connection.
        is_waiting: kept by whoever sends it: it waits for its first one, so that no provider has
            seen it.
    """

    method: str
    scheme: str
    host: str
    port: int
    target: bytes
    headers: RawHeaders
    body: bytes
    dialled_s: float = 0.0
    is_waiting: bool = False


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


WhenReady: TypeAlias = Callable[[Callable[[], object]], None]
"""Has a deed called once when more can be taken."""

Sink: TypeAlias = Callable[[bytes, bool], WhenReady | None]
"""Takes a part of a body, and whether the body has come to its clean end with it.

The end may come alone, with no bytes. Whoever has enough for now returns how to tell when there is
room again: until then nothing is pushed, the provider is held back, and its silence is none.
"""

OnHead: TypeAlias = Callable[["UpstreamResponse"], Sink | None]
"""Looks at the head of an answer the moment it is here; `None` leaves the body to be read."""


class UpstreamResponse(Protocol):
    """An answer whose head has arrived."""

    @property
    def status(self) -> int:
        """The HTTP status, never 1xx."""
        ...

    @property
    def headers(self) -> RawHeaders:
        """The header fields; trailers are dropped."""
        ...

    @property
    def sent_s(self) -> float:
        """When the request had been handed to the network, on the monotonic clock."""
        ...

    @property
    def arrived_s(self) -> float:
        """When the head of the answer was here, on the monotonic clock."""
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

    async def send(
        self, request: UpstreamRequest, *, header_timeout_s: float, on_head: OnHead | None = None
    ) -> UpstreamResponse:
        """Sends `request` and waits for the head of the answer.

        Where `on_head` is asked and gives a sink, it waits until the whole body has been pushed;
        an upstream need not ask it. What `on_head` or the sink raises is raised here, and the
        answer given up.

        Raises:
            UpstreamFailure: no head came, or a pushed body was cut, for the reason in `kind`.
        """
        ...

    async def close(self) -> None:
        """Closes every connection, also those of unfinished answers."""
        ...
