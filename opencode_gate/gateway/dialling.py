"""Opening a connection to a provider: names, address families, proxy tunnels, TLS.

Not on the hot path: connections are kept. Every way to fail becomes an `UpstreamFailure`
with `bytes_sent=False`, since a request is written only to a connection that stands.

Addresses are tried a quarter of a second apart and the first that answers wins (RFC 8305): on
a machine with broken IPv6, a provider with both families would otherwise cost minutes.
"""

import asyncio
import ipaddress
import os
import socket
import ssl
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any, Final, TypeAlias, TypeVar, cast

from opencode_gate.config.proxies import Proxy
from opencode_gate.core.tasks import spawn
from opencode_gate.gateway.upstream import FailureKind, UpstreamFailure

ATTEMPT_DELAY_S: Final = 0.25
_TUNNEL_HEAD_LIMIT_BYTES: Final = 16 * 1024

_T = TypeVar("_T")
_Address: TypeAlias = tuple[socket.AddressFamily, tuple[Any, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where a connection leads, and through whom."""

    scheme: str
    host: str
    port: int
    proxy: Proxy | None

    @property
    def authority(self) -> str:
        """`host:port`, an IPv6 address in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def is_default_port(self) -> bool:
        """Whether the scheme alone tells the port."""
        return self.port == (443 if self.scheme == "https" else 80)


async def dial(
    destination: Destination,
    protocol: asyncio.Protocol,
    *,
    context: Callable[[], Coroutine[Any, Any, ssl.SSLContext]],
    timeout_s: float,
) -> None:
    """Connects `protocol`; for `https` it is connected above TLS.

    Raises:
        UpstreamFailure: of kind `dns`, `connect`, `proxy` or `tls`.
    """
    try:
        async with asyncio.timeout(timeout_s):
            await _dial(destination, protocol, context)
    except TimeoutError as error:
        message = f"no connection to {destination.authority} within {timeout_s:g} s"
        raise UpstreamFailure("connect", message, bytes_sent=False) from error


async def _dial(
    destination: Destination,
    protocol: asyncio.Protocol,
    context: Callable[[], Coroutine[Any, Any, ssl.SSLContext]],
) -> None:
    loop = asyncio.get_running_loop()
    proxy = destination.proxy
    if destination.scheme != "https":
        if proxy is None:
            connected = await _open(destination.host, destination.port)
        else:
            connected = await _open_proxy(proxy)
        await loop.create_connection(lambda: protocol, sock=connected)
        return
    tls = await _tls(destination, context())
    if proxy is None:
        connected = await _open(destination.host, destination.port)
        handshake = loop.create_connection(
            lambda: protocol, sock=connected, ssl=tls, server_hostname=destination.host
        )
        await _tls(destination, handshake)
        return
    transport = await _tunnel(destination, proxy)
    above = await _tls(
        destination,
        loop.start_tls(transport, protocol, tls, server_hostname=destination.host),
    )
    if above is None:
        raise _failure("tls", f"{destination.authority} closed the connection inside TLS")
    protocol.connection_made(above)


async def _tls(destination: Destination, step: Coroutine[Any, Any, _T]) -> _T:
    try:
        return await step
    except ssl.SSLCertVerificationError as error:
        raise _failure(
            "tls",
            f"the certificate of {destination.authority} is not trusted: {error.verify_message}",
        ) from error
    except OSError as error:
        if isinstance(error, TimeoutError):
            raise
        raise _failure("tls", f"TLS with {destination.authority} failed: {error}") from error


async def _open_proxy(proxy: Proxy) -> socket.socket:
    if proxy.unusable is not None:
        raise _failure("proxy", proxy.unusable)
    try:
        return await _open(proxy.host, proxy.port)
    except UpstreamFailure as failure:
        raise _failure("proxy", f"the proxy cannot be reached: {failure}") from failure


async def _tunnel(destination: Destination, proxy: Proxy) -> asyncio.Transport:
    """A connection through the proxy on which TLS can begin (RFC 9110 §9.3.6)."""
    connected = await _open_proxy(proxy)
    loop = asyncio.get_running_loop()
    transport, tunnel = await loop.create_connection(lambda: _Tunnel(loop), sock=connected)
    authority = destination.authority.encode("idna")
    request = b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n" % (authority, authority)
    if proxy.authorization is not None:
        value = proxy.authorization.reveal().encode("ascii")
        request += b"Proxy-Authorization: %b\r\n" % value
    transport.write(request + b"\r\n")
    try:
        status = await tunnel.status
    except BaseException:
        transport.abort()
        raise
    if not 200 <= status < 300:
        transport.abort()
        why = "wants other credentials" if status == 407 else f"answered {status}"
        raise _failure("proxy", f"the proxy {why} for {destination.authority}")
    return transport


class _Tunnel(asyncio.Protocol):
    """Waits for the proxy's answer to CONNECT."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.status: asyncio.Future[int] = loop.create_future()
        self._head = b""

    def data_received(self, data: bytes) -> None:
        """Collects the head; the other end of the tunnel may not speak before we do."""
        if self.status.done():
            return
        self._head += data
        end = self._head.find(b"\r\n\r\n")
        if end < 0 and len(self._head) <= _TUNNEL_HEAD_LIMIT_BYTES:
            return
        version, _, rest = self._head.partition(b" ")
        code = rest[:3]
        if end < 0 or not version.startswith(b"HTTP/1.") or not code.isdigit():
            self.status.set_exception(_failure("proxy", "the proxy does not speak HTTP/1.1"))
        else:
            self.status.set_result(int(code))

    def connection_lost(self, error: Exception | None) -> None:
        """A proxy that hangs up has refused."""
        if not self.status.done():
            self.status.set_exception(_failure("proxy", "the proxy closed the connection"))


async def _open(host: str, port: int) -> socket.socket:
    addresses = await _addresses(host, port)
    attempts: set[asyncio.Task[socket.socket]] = set()
    errors: list[OSError] = []
    waiting: set[asyncio.Task[socket.socket]] = set()
    try:
        for place, (family, address) in enumerate(addresses, start=1):
            attempt = spawn(_connect(family, address), name=f"connect to {host}")
            attempts.add(attempt)
            waiting.add(attempt)
            is_last = place == len(addresses)
            while waiting:
                delay_s = None if is_last else ATTEMPT_DELAY_S
                done, waiting = await asyncio.wait(
                    waiting, timeout=delay_s, return_when=asyncio.FIRST_COMPLETED
                )
                winner = _winner(done, errors)
                if winner is not None:
                    attempts.discard(winner)
                    return winner.result()
                if not is_last:
                    break
    finally:
        for attempt in attempts:
            attempt.add_done_callback(_close_loser)
            attempt.cancel()
    error = errors[0] if errors else OSError("no address")
    why = os.strerror(error.errno) if error.errno is not None else str(error)
    raise _failure("connect", f"cannot connect to {host} port {port}: {why}") from error


def _winner(
    done: set[asyncio.Task[socket.socket]], errors: list[OSError]
) -> asyncio.Task[socket.socket] | None:
    winner = None
    for attempt in done:
        error = attempt.exception()
        if isinstance(error, OSError):
            errors.append(error)
        elif error is not None:
            raise error
        else:
            winner = attempt
    return winner


def _close_loser(attempt: asyncio.Task[socket.socket]) -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()


async def _connect(family: socket.AddressFamily, address: tuple[Any, ...]) -> socket.socket:
    connecting = socket.socket(family, socket.SOCK_STREAM)
    try:
        connecting.setblocking(False)
        connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connecting.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        await asyncio.get_running_loop().sock_connect(connecting, address)
    except BaseException:
        connecting.close()
        raise
    return connecting


async def _addresses(host: str, port: int) -> list[_Address]:
    """The addresses of `host`, families alternating, in the resolver's order."""
    try:
        literal = ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        family = socket.AF_INET if literal.version == 4 else socket.AF_INET6
        return [(family, (host, port))]
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise _failure("dns", f"the name {host} cannot be resolved") from error
    first = [entry for entry in found if entry[0] == found[0][0]]
    second = [entry for entry in found if entry[0] != found[0][0]]
    ordered = chain.from_iterable(zip_longest(first, second))
    return [
        (cast("socket.AddressFamily", entry[0]), entry[4]) for entry in ordered if entry is not None
    ]


def _failure(kind: FailureKind, message: str) -> UpstreamFailure:
    return UpstreamFailure(kind, message, bytes_sent=False)
