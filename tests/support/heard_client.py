"""A client without a network: it asks once, and remembers what it was answered."""

import time
from collections.abc import Callable

from opencode_gate.gateway.downstream import ClientGone, ClientHeaders


class HeardClient:
    """Implements `ClientRequest`.

    Attributes:
        answers: what was written, a part a call; one that would be empty is left out.
        is_whole: whether the answer was ended.
    """

    def __init__(
        self,
        path: str,
        body: bytes | None = b"",
        *,
        method: str = "POST",
        query: bytes = b"",
        headers: ClientHeaders | None = None,
    ) -> None:
        self.method = method
        self.path = path
        self.raw_path = path.encode()
        self.query = query
        self.headers = [] if headers is None else headers
        self.fields = dict(self.headers)
        self.received_s = time.monotonic()
        self.head_left_s: float | None = None
        self.status: int | None = None
        self.answer_headers: ClientHeaders = []
        self.answers: list[bytes] = []
        self.is_whole = False
        self.is_full = False
        self.leave: Callable[[], object] = lambda: None
        self.drain: Callable[[], object] = lambda: None
        self._body = body

    @property
    def answer(self) -> bytes:
        return b"".join(self.answers)

    async def body(self) -> bytes:
        if self._body is None:
            raise ClientGone
        return self._body

    def on_left(self, deed: Callable[[], object]) -> None:
        self.leave = deed

    def begin(self, status: int, headers: ClientHeaders) -> None:
        assert self.status is None
        self.status = status
        self.answer_headers = headers

    def write(self, part: bytes) -> None:
        assert self.status is not None
        assert not self.is_whole
        self.answers.append(part)

    def end(self, part: bytes = b"") -> None:
        assert self.status is not None
        assert not self.is_whole
        if part:
            self.answers.append(part)
        self.is_whole = True

    def when_drained(self, deed: Callable[[], object]) -> None:
        self.drain = deed
