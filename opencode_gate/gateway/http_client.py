"""The client towards providers: HTTP/1.1 over kept connections, made for one thing only.

One exchange costs: a look into the pool, one write, one awaited future, and one call for each
network read of the body (docs/decisions/0002-own-upstream-client.md has the measurements). It has
no redirects, no cookies, no decompression and no total timeout: the client of the gateway decides
about all of these.

A kept connection that dies at once, before any byte of the answer, is replaced once by a fresh
one: the provider closed it as idle while the request was on its way (RFC 9112 §9.3.1). That is
likely, not certain: a request whose bytes had left counts as sent, whatever the fresh one comes to.
Nothing else is retried here: who dies later may have worked on the answer, and bill it.
"""

import asyncio
import ssl
import time
from collections.abc import Callable
from typing import Final

from opencode_gate.config.proxies import ProxyRules
from opencode_gate.config.tls import provider_context
from opencode_gate.gateway.dialling import Destination, dial
from opencode_gate.gateway.http_connection import HttpConnection
from opencode_gate.gateway.http_response import HttpResponse
from opencode_gate.gateway.upstream import OnHead, UpstreamFailure, UpstreamRequest

_OWN_FIELDS: Final = frozenset(
    (b"host", b"content-length", b"transfer-encoding", b"connection", b"proxy-authorization")
)
_OWN_BEGINNINGS: Final = tuple(b"\n" + name + b":" for name in _OWN_FIELDS)
_LINE: Final = b": ".join
_TARGETS_REMEMBERED: Final = 64
_TARGET_REMEMBERED_BYTES: Final = 512
_BODILESS: Final = frozenset(("GET", "HEAD", "DELETE", "OPTIONS"))


class _Origin:
    """A scheme, host and port: its idle connections and the parts of a head that never change."""

    __slots__ = ("destination", "fields", "idle", "starts", "target_prefix")

    def __init__(self, destination: Destination) -> None:
        self.destination = destination
        self.idle: list[HttpConnection] = []
        authority = destination.authority
        if destination.is_default_port:
            authority = authority.rpartition(":")[0]
        host = authority.encode("idna") if not authority.startswith("[") else authority.encode()
        self.fields = b" HTTP/1.1\r\nHost: " + host
        self.target_prefix = b""
        proxy = destination.proxy
        if proxy is not None and destination.scheme == "http":
            # Absolute form (RFC 9112 §3.2.2); https goes through a tunnel instead.
            self.target_prefix = b"http://" + host
            if proxy.authorization is not None:
                value = proxy.authorization.reveal().encode("ascii")
                self.fields += b"\r\nProxy-Authorization: " + value
        self.fields += b"\r\n"
        self.starts: dict[tuple[str, bytes], bytes] = {}

    def start(self, method: str, target: bytes) -> bytes:
        """The request line and the fields that are the same each time; remembered, if short.

        Raises:
            UpstreamFailure: `protocol`, they would break out of its line.
        """
        line = b"%b %b%b" % (method.encode("ascii"), self.target_prefix, target)
        if line.count(b" ") != 1 or b"\n" in line or b"\r" in line:
            raise _broken_line()
        start = line + self.fields
        if len(target) <= _TARGET_REMEMBERED_BYTES:
            if len(self.starts) >= _TARGETS_REMEMBERED:
                self.starts.clear()
            self.starts[method, target] = start
        return start


class HttpUpstream:
    """Real providers. Implements `Upstream`.

    Args:
        proxies: which origins are reached through a proxy.
        tls_context: makes the context for `https`; called once, in a thread, when first needed.
        read_timeout_s: the longest silence inside a body somebody waits for.
        connect_timeout_s: for name, connection, tunnel and TLS together.
        idle_s: how long an unused connection is kept.
        idle_connections: how many unused ones are kept per origin.
        idle_race_s: how soon after a request a connection dies that was closed as idle.
    """

    def __init__(
        self,
        *,
        proxies: ProxyRules,
        tls_context: Callable[[], ssl.SSLContext] = provider_context,
        read_timeout_s: float = 300.0,
        connect_timeout_s: float = 30.0,
        idle_s: float = 55.0,
        idle_connections: int = 64,
        idle_race_s: float = 2.0,
    ) -> None:
        self._proxies = proxies
        self._make_tls_context = tls_context
        self._read_timeout_s = read_timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._idle_s = idle_s
        self._idle_connections = idle_connections
        self._idle_race_s = idle_race_s
        self._origins: dict[tuple[str, str, int], _Origin] = {}
        self._connections: set[HttpConnection] = set()
        self._tls_lock = asyncio.Lock()
        self._tls_context: ssl.SSLContext | None = None
        self._all_lost: asyncio.Future[None] | None = None

    @property
    def open_connections(self) -> int:
        """How many connections stand, in use or idle."""
        return len(self._connections)

    async def send(
        self, request: UpstreamRequest, *, header_timeout_s: float, on_head: OnHead | None = None
    ) -> HttpResponse:
        """See `Upstream.send`."""
        origin = self._origins.get((request.scheme, request.host, request.port))
        if origin is None:
            origin = self._add_origin(request)
        head = _head(request, origin)
        is_head_request = request.method == "HEAD"
        has_left = False
        kept = _take(origin.idle)
        if kept is not None:
            race_ends_s = time.monotonic() + self._idle_race_s
            try:
                return await kept.exchange(
                    head,
                    request.body,
                    is_head_request=is_head_request,
                    header_timeout_s=header_timeout_s,
                    on_head=on_head,
                )
            except UpstreamFailure as failure:
                is_race = time.monotonic() < race_ends_s
                if failure.kind != "reset" or kept.has_received or not is_race:
                    raise
                has_left = failure.bytes_sent
        began_s = time.monotonic()
        request.is_waiting = not has_left
        try:
            fresh = await self._connect(origin, min(self._connect_timeout_s, header_timeout_s))
            request.is_waiting = False
            request.dialled_s = time.monotonic() - began_s
            return await fresh.exchange(
                head,
                request.body,
                is_head_request=is_head_request,
                header_timeout_s=header_timeout_s,
                on_head=on_head,
            )
        except UpstreamFailure as failure:
            failure.bytes_sent |= has_left
            raise

    async def close(self) -> None:
        """See `Upstream.close`."""
        if not self._connections:
            return
        self._all_lost = asyncio.get_running_loop().create_future()
        for connection in list(self._connections):
            connection.abort("the gateway is closing")
        await self._all_lost

    def _add_origin(self, request: UpstreamRequest) -> _Origin:
        destination = Destination(
            scheme=request.scheme,
            host=request.host,
            port=request.port,
            proxy=self._proxies.proxy_for(request.scheme, request.host, request.port),
        )
        try:
            origin = _Origin(destination)
        except UnicodeError as error:
            message = f"{request.host!r} is no host name"
            raise UpstreamFailure("dns", message, bytes_sent=False) from error
        self._origins[request.scheme, request.host, request.port] = origin
        return origin

    async def _connect(self, origin: _Origin, timeout_s: float) -> HttpConnection:
        idle = origin.idle

        def released(connection: HttpConnection) -> None:
            if len(idle) < self._idle_connections and self._all_lost is None:
                idle.append(connection)
                connection.rest(self._idle_s)
            else:
                connection.abort("enough idle connections")

        def lost(connection: HttpConnection) -> None:
            self._connections.discard(connection)
            if connection in idle:
                idle.remove(connection)
            if self._all_lost is not None and not self._connections and not self._all_lost.done():
                self._all_lost.set_result(None)

        connection = HttpConnection(
            peer=origin.destination.authority,
            read_timeout_s=self._read_timeout_s,
            released=released,
            lost=lost,
        )
        await dial(
            origin.destination, connection, context=self._shared_tls_context, timeout_s=timeout_s
        )
        if self._all_lost is not None:
            connection.abort("the gateway is closing")
        elif connection.is_usable:
            self._connections.add(connection)
        return connection

    async def _shared_tls_context(self) -> ssl.SSLContext:
        async with self._tls_lock:
            if self._tls_context is None:
                self._tls_context = await asyncio.to_thread(self._make_tls_context)
            return self._tls_context


def _take(idle: list[HttpConnection]) -> HttpConnection | None:
    """The connection used last: the others get their chance to expire."""
    while idle:
        connection = idle.pop()
        if connection.is_usable:
            return connection
    return None


def _head(request: UpstreamRequest, origin: _Origin) -> bytes:
    """The request line and fields, ready to be written.

    Raises:
        UpstreamFailure: `protocol`, where a value would break out of its line.
    """
    start = origin.starts.get((request.method, request.target))
    if start is None:
        start = origin.start(request.method, request.target)
    fields = request.headers
    given = b"\r\n".join(map(_LINE, fields))
    lowered = b"\n" + given.lower()
    # They are hardly ever there, and one search each costs less than a loop over the fields.
    if any(map(lowered.__contains__, _OWN_BEGINNINGS)):
        fields = [field for field in fields if field[0].lower() not in _OWN_FIELDS]
        given = b"\r\n".join(map(_LINE, fields))
    if fields:
        given += b"\r\n"
    lines = len(fields)
    if given.count(b"\n") != lines or given.count(b"\r") != lines:
        raise _broken_line()
    body = request.body
    if body or request.method not in _BODILESS:
        return b"%b%bContent-Length: %d\r\n\r\n" % (start, given, len(body))
    return start + given + b"\r\n"


def _broken_line() -> UpstreamFailure:
    message = "a line break in a header or a space in the path"
    return UpstreamFailure("protocol", message, bytes_sent=False)
