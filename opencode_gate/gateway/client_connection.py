"""One client's HTTP/1.1 connection: a protocol around the parser of Node (llhttp).

The idea: no streams and no queue of messages; the parser's callbacks fill the request, and what
a client may do wrong is looked at where it has been done, so that a plain request is a short way.
A large body goes past the parser: its length is known, and so is its end.

Invariants: requests are answered in the order they came, one at a time, and little more is read
while one waits; what waits to be read or to be sent is bounded; after bytes whose meaning is in
doubt nothing of the connection is believed any more; an answer that was not brought to its end
never looks as if it were whole.
"""

import asyncio
import logging
from time import monotonic
from typing import TYPE_CHECKING, Final

import httptools

from opencode_gate.gateway.client_head import check_coding, check_hosts, check_old, split_target
from opencode_gate.gateway.client_line import BODY_SILENCE_S, HEAD_S, IDLE_S, ClientLine
from opencode_gate.gateway.client_request import STATUS_LINES, UNTIL_CLOSE, HttpRequest, too_large
from opencode_gate.gateway.downstream import BODY_LIMIT_BYTES, ClientGone, ClientHeaders

if TYPE_CHECKING:
    from opencode_gate.gateway.http_server import HttpServer

HEAD_LIMIT_BYTES: Final = 64 * 1024
AHEAD_LIMIT_BYTES: Final = 64 * 1024
"""Of what asks on, so much more is read: who is not read from is not seen to leave."""

_DEAF: Final = -1

_logger = logging.getLogger(__name__)


class ClientConnection(ClientLine):
    """Hears one client out, and has `server` answer."""

    __slots__ = (
        "_ahead_bytes",
        "_can_stay",
        "_current",
        "_has_ended",
        "_head_left_bytes",
        "_headers",
        "_incoming",
        "_parser",
        "_parts",
        "_raw_left_bytes",
        "_refusal",
        "_server",
        "_url",
        "_waiting",
        "on_body",
        "on_url",
    )

    def __init__(self, server: "HttpServer") -> None:
        super().__init__()
        self._server = server
        # The parser looks its callbacks up once: these cost one call in C.
        self._url: list[bytes] = []
        self.on_url = self._url.append
        self._parts: list[bytes] = []
        self.on_body = self._parts.append
        self._headers: ClientHeaders = []
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self._head_left_bytes = HEAD_LIMIT_BYTES
        self._has_ended = False
        self._incoming: HttpRequest | None = None
        self._current: HttpRequest | None = None
        self._waiting: list[HttpRequest] = []
        self._ahead_bytes = self._raw_left_bytes = self._refusal = 0
        self._can_stay = True

    # Called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is there, and should say something."""
        super().connection_made(transport)
        self._server.came(self)

    def data_received(self, data: bytes) -> None:
        """One network read."""
        if self._waiting:
            self._ahead_bytes += len(data)
            if self._ahead_bytes > AHEAD_LIMIT_BYTES:
                self._transport.pause_reading()  # type: ignore[union-attr]
        if self._raw_left_bytes:
            self._received_raw(data)
            return
        if len(data) > self._head_left_bytes and self._incoming is None:
            # A head beyond the limit must not pass because it came in one piece.
            left_bytes = self._head_left_bytes
            self.data_received(data[:left_bytes])
            self.data_received(data[left_bytes:])
            return
        try:
            self._parser.feed_data(data)  # type: ignore[union-attr]
        except httptools.HttpParserUpgrade as upgrade:
            self._decline(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._not_understood()
        else:
            if self._has_ended:
                self._has_ended = False
                if self._incoming is not None:
                    self._unfinished(len(data))
            else:
                self._unfinished(len(data))

    def pause_writing(self) -> None:
        """More waits to be sent than should."""
        self._is_full = True
        if self._current is not None:
            self._current.is_full = True

    def resume_writing(self) -> None:
        """There is room again."""
        self._is_full = False
        if self._current is not None:
            self._current.drain()
        else:
            self._next()

    def eof_received(self) -> None:
        """It says no more, and so counts as gone: the transport sends what it has, and closes."""
        if self._current is not None and self._current.left_bytes == UNTIL_CLOSE:
            self._reset()  # a clean end would be that of the answer

    def connection_lost(self, error: Exception | None) -> None:
        """The client is gone."""
        super().connection_lost(error)
        self._parser = None  # which knows this object: nothing is left to the garbage collector
        self._raw_left_bytes = _DEAF
        self._incoming = None
        self._waiting.clear()
        self._server.lost(self)
        current, self._current = self._current, None
        if current is not None:
            current.lose()

    # Called by the parser

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the head; a trailer too, which is dropped at the end of its message."""
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Makes the request, unless it is one that must not be served."""
        parser: httptools.HttpRequestParser = self._parser  # type: ignore[assignment]
        self._head_left_bytes = HEAD_LIMIT_BYTES
        url = self._url.pop()
        if self._url:
            url = b"".join((*self._url, url))
            self._url.clear()
        headers, self._headers = self._headers, []
        fields = dict(headers)
        method = parser.get_method()
        is_old = parser.get_http_version() != "1.1"
        if is_old:
            check_old(parser.get_http_version(), method)
        if len(fields) != len(headers) or b"host" not in fields:
            check_hosts(headers, is_old=is_old)
        path, raw_path, query = split_target(url)
        self._incoming = HttpRequest(
            method.decode(),
            path,
            raw_path,
            query,
            headers,
            fields,
            monotonic(),
            self._can_stay and not is_old and parser.should_keep_alive(),
            is_old,
            self,
            self._transport,
        )

    def on_chunk_header(self) -> None:
        """A body in chunks may be in nothing else, whose end others might see elsewhere."""
        if self._incoming is not None:
            check_coding(self._incoming.headers, is_old=self._incoming.is_old)

    def on_message_complete(self) -> None:
        """The request is whole."""
        request, self._incoming = self._incoming, None
        self._has_ended = True
        if self._headers:
            self._headers = []
        parts = self._parts
        if request is None:
            return
        if request.parts is not None:
            self._head_left_bytes = HEAD_LIMIT_BYTES
            request.parts += parts
            self._whole(request, b"".join(request.parts))
            parts.clear()
            return
        request.content = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        self._take_turn(request)

    # Towards the request

    def ended(self, request: HttpRequest) -> None:
        """The answer is written to its end."""
        request.connection = request.transport = None
        request.left = ()
        if request.drained:
            request.drain()
        self._current = None
        if not request.can_stay:
            self._hang_up()
            return
        self._deadline_s = self.loop.time() + IDLE_S
        if self._waiting or self._refusal:
            self._next()

    def retire(self) -> None:
        """Serves what it has begun with, then closes."""
        self._can_stay = False
        if self._current is not None:
            self._current.can_stay = False
        elif self._waiting or self._incoming is not None:
            self._hang_up()
        else:
            self._close_idle()

    def _is_patient(self) -> bool:
        """Who has asked may wait for the answer; who has not is in the way."""
        return self._current is not None and self._current is not self._incoming

    # Inside

    def _received_raw(self, data: bytes) -> None:
        """More of a sized body, or what nobody listens to."""
        left_bytes, request = self._raw_left_bytes, self._incoming
        if left_bytes == _DEAF or request is None or request.parts is None:
            return
        rest = b""
        if len(data) > left_bytes:
            data, rest = data[:left_bytes], data[left_bytes:]
        self._raw_left_bytes = left_bytes - len(data)
        if request.connection is not None:
            request.parts.append(data)
        if self._raw_left_bytes:
            self._expect_within(BODY_SILENCE_S)
            return
        self._incoming = None
        self._parser = httptools.HttpRequestParser(self)
        self._whole(request, b"".join(request.parts))
        if not request.can_stay:
            self._raw_left_bytes = _DEAF
        elif rest:
            self.data_received(rest)

    def _decline(self, data: bytes) -> None:
        """The last request offers another protocol: it is served, but nothing that follows it."""
        last: HttpRequest = self._waiting[-1] if self._waiting else self._current  # type: ignore[assignment]
        self._stop_hearing()
        last.can_stay = False
        last.size_bytes = int(last.fields.get(b"content-length", 0))
        if last.size_bytes:
            last.content, last.parts = None, []  # the parser takes its body for what follows
            self._incoming, self._raw_left_bytes = last, last.size_bytes
            if data:
                self._received_raw(data)

    def _unfinished(self, size_bytes: int) -> None:
        """A read in which no request has come to its end."""
        request = self._incoming
        if request is None:
            self._unfinished_fields(size_bytes)
            return
        came, parts = b"".join(self._parts), request.parts
        self._parts.clear()
        self._expect_within(BODY_SILENCE_S)
        is_new = parts is None
        if parts is None:
            parts = request.parts = []
            length = request.fields.get(b"content-length")
            if length is not None:
                request.size_bytes = int(length)
                self._raw_left_bytes = request.size_bytes - len(came)
            self._take_turn(request)
        if came and request.connection is not None:
            parts.append(came)
        if not self._raw_left_bytes:
            request.size_bytes += size_bytes
        if request.size_bytes > BODY_LIMIT_BYTES:
            parts.clear()
            self._raw_left_bytes = _DEAF
            if request.waiter is not None and not request.waiter.done():
                request.waiter.set_exception(too_large())
        elif came:
            self._head_left_bytes = HEAD_LIMIT_BYTES
        elif not is_new and not self._raw_left_bytes:
            self._unfinished_fields(size_bytes)

    def _unfinished_fields(self, size_bytes: int) -> None:
        """A read of nothing but fields, of a head or behind a body."""
        is_new = self._head_left_bytes == HEAD_LIMIT_BYTES
        self._head_left_bytes -= size_bytes
        if self._head_left_bytes <= 0:
            self._refusal = 431
            self._not_understood()
        elif is_new and self._current is None:
            self._expect_within(HEAD_S)

    def _whole(self, request: HttpRequest, content: bytes) -> None:
        """The body of a request that had been begun with, or waits, is whole."""
        request.parts = None
        if request.connection is None:
            return
        request.content = content
        request.received_s = monotonic()
        if request.waiter is not None and not request.waiter.done():
            request.waiter.set_result(content)

    def _take_turn(self, request: HttpRequest) -> None:
        if self._current is not None or self._is_full:
            self._waiting.append(request)
            return
        self._current = request
        task = request.task = self.loop.create_task(self._answer(request))
        self._server.tasks.add(task)

    async def _answer(self, request: HttpRequest) -> None:
        try:
            await self._server.handler(request)
        except ClientGone:
            pass
        except Exception:
            _logger.exception("a request could not be answered")
            if request.left_bytes is None:
                request.begin(500, [(b"content-length", b"0")])
                request.end()
        finally:
            self._server.tasks.discard(request.task)
            if request.connection is not None:
                self._cut(request)

    def _next(self) -> None:
        """The turn of the next one that waits."""
        if self._current is not None or self._is_full or self._transport is None:
            return
        if self._waiting:
            self._take_turn(self._waiting.pop(0))
            if not self._waiting:
                self._ahead_bytes = 0
                self._transport.resume_reading()
        elif self._refusal:
            line = STATUS_LINES[self._refusal]
            self._transport.write(line + b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            self._hang_up()

    def _cut(self, request: HttpRequest) -> None:
        """Tells the client that it has not got the whole answer; nothing may follow into it."""
        self._stop_hearing()
        self._waiting, self._refusal = [], 0
        request.flush()
        request.connection = request.transport = None
        self._current = None
        if request.left_bytes == UNTIL_CLOSE:
            self._reset()  # its clean end is the connection's
        else:
            self._close_sent()

    def _not_understood(self) -> None:
        """From here on it is unknown where a request begins: the client is told, in its turn."""
        request = self._incoming
        self._stop_hearing()
        self._refusal = self._refusal or 400
        if request is not None and request is self._current:
            if request.left_bytes is None:
                self._current = None
                request.lose()
            else:
                request.can_stay = False
                self._refusal = 0
        elif request is not None and request in self._waiting:
            self._waiting.remove(request)
        self._next()

    def _stop_hearing(self) -> None:
        self._raw_left_bytes = _DEAF
        self._incoming = None
        self._parts.clear()

    def _hang_up(self) -> None:
        """Closes when all has been sent."""
        is_heard_out = not self._waiting and self._incoming is None and self._raw_left_bytes == 0
        self._stop_hearing()
        self._waiting, self._refusal = [], 0
        if is_heard_out:
            self._close_sent()
        else:
            self._say_goodbye()
