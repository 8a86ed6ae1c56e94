"""The border to clients: what the pipeline reads of a request, and how it answers.

The pipeline knows only these names; `http_server` speaks to real clients on the other side.

The invariants: an answer whose handler returns without `end` cuts the client's connection, which
is how an agent learns that it has not got the whole of it; nothing is read of a request, and
nothing written of an answer, beyond a bounded buffer.
"""

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeAlias

ClientHeaders: TypeAlias = list[tuple[bytes, bytes]]
"""Header fields in their order; names in lower case."""

BODY_LIMIT_BYTES = 256 * 1024 * 1024


class ClientGone(Exception):
    """The client left before its request was complete."""


class ClientRequest(Protocol):
    """One request of a client, and the way its answer goes.

    Attributes:
        path: without the query, percent-decoded as UTF-8; `raw_path` as it came.
        query: what stands behind `?`, as it came.
        fields: the last value of each header.
        received_s: when the last of it had come, on the monotonic clock: its head, or its body.
        head_left_s: when the head of the answer left, where it did so alone.
    """

    method: str
    path: str
    raw_path: bytes
    query: bytes
    headers: ClientHeaders
    fields: dict[bytes, bytes]
    received_s: float
    head_left_s: float | None

    async def body(self) -> bytes:
        """The whole body; asked for once.

        Raises:
            ClientGone: it never came to its end.
            BadBody: it is beyond any sense.
        """
        ...

    def on_left(self, deed: Callable[[], object]) -> None:
        """Has `deed` called once if the client is lost before the answer's end."""
        ...

    def begin(self, status: int, headers: ClientHeaders) -> None:
        """The head of the answer; it leaves with the first part, or with the turn of the loop."""
        ...

    def write(self, part: bytes) -> None:
        """A part of the body, sent at once; nothing where the client is gone."""
        ...

    def end(self, part: bytes = b"") -> None:
        """The last part, and the clean end."""
        ...

    @property
    def is_full(self) -> bool:
        """More waits to be sent than the buffer may hold: the writer has to wait."""
        ...

    def when_drained(self, deed: Callable[[], object]) -> None:
        """Has `deed` called once when it is full no more; also when the client is lost."""
        ...


Handler: TypeAlias = Callable[[ClientRequest], Awaitable[None]]
"""Answers one request."""
