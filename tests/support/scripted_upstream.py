"""A provider on a real loopback socket that does exactly what a test's script says.

A script is a coroutine that gets each accepted connection as a `Peer`. Whatever it raises is
raised again when the server is left, so that a script's own assertions count.
"""

import asyncio
import datetime
import ipaddress
import re
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from opencode_gate.core.tasks import spawn


@dataclass(frozen=True)
class Received:
    """A request as it came: raw head without the empty line, and body."""

    head: bytes
    body: bytes

    @property
    def line(self) -> bytes:
        return self.head.partition(b"\r\n")[0]

    def values(self, name: bytes) -> list[bytes]:
        """All values of a header, whatever its case."""
        return re.findall(rb"(?im)^" + re.escape(name) + rb":[ \t]*(.*?)\r?$", self.head)


class Peer:
    """The provider's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.requests: list[Received] = []

    async def request(self) -> Received | None:
        """The next request, `None` once the client has closed."""
        try:
            head = (await self.reader.readuntil(b"\r\n\r\n"))[:-4]
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        length = re.search(rb"(?im)^content-length: (\d+)", head)
        body = await self.reader.readexactly(int(length[1])) if length else b""
        received = Received(head, body)
        self.requests.append(received)
        return received

    async def head(self) -> bytes:
        """Only the head of the next request; its body stays unread."""
        return await self.reader.readuntil(b"\r\n\r\n")

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, body: bytes = b"ok", *fields: bytes) -> None:
        head = b"".join(line + b"\r\n" for line in fields)
        await self.send(
            b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n" % (head, len(body)) + body
        )

    async def fin(self) -> None:
        """A clean end of the connection."""
        self.writer.close()

    async def rst(self) -> None:
        """The end of a peer that crashed."""
        connected = self.writer.get_extra_info("socket")
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def closed(self) -> None:
        """Waits until the client has closed; anything it still sends is dropped."""
        try:
            while await self.reader.read(65536):
                pass
        except ConnectionError:
            pass


Script = Callable[[Peer], Coroutine[Any, Any, None]]


@dataclass
class ScriptedUpstream:
    """A running server. `peers` are its connections in the order they came."""

    port: int
    peers: list[Peer] = field(default_factory=list)

    @property
    def requests(self) -> list[Received]:
        return [request for peer in self.peers for request in peer.requests]


async def echo(peer: Peer) -> None:
    """Answers every request with its own body."""
    while (received := await peer.request()) is not None:
        await peer.answer(received.body)


@asynccontextmanager
async def scripted(
    script: Script = echo, *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[ScriptedUpstream]:
    """Runs `script` for each connection, on a free loopback port."""
    running: list[asyncio.Task[None]] = []

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        upstream.peers.append(peer)
        task = spawn(script(peer), name="script of a peer")
        task.add_done_callback(lambda _: writer.close())
        running.append(task)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    upstream = ScriptedUpstream(server.sockets[0].getsockname()[1])
    try:
        yield upstream
    finally:
        server.close()
        for task in running:
            task.cancel()
        outcomes = await asyncio.gather(*running, return_exceptions=True)
        for peer in upstream.peers:
            peer.writer.transport.abort()
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome


def forward_proxy(port_of: Callable[[bytes], int | None]) -> Script:
    """An HTTP proxy: CONNECT is tunnelled, absolute-form requests are echoed.

    `port_of` gives the loopback port that stands for an authority, `None` to refuse with 403.
    """

    async def script(peer: Peer) -> None:
        while (received := await peer.request()) is not None:
            if not received.line.startswith(b"CONNECT "):
                await peer.answer(received.body)
                continue
            port = port_of(received.line.split(b" ")[1])
            if port is None:
                await peer.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
                return
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            await peer.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
            try:
                await asyncio.gather(_pump(peer.reader, writer), _pump(reader, peer.writer))
            finally:
                writer.transport.abort()
            return

    return script


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    writer.close()


@dataclass(frozen=True)
class Certificates:
    """A certificate authority of the test's own and a server it vouches for.

    `server_file` holds the server's key and certificate.
    """

    authority_file: Path
    server_context: ssl.SSLContext
    server_file: Path


def certificates(folder: Path, *names: str) -> Certificates:
    """Makes a CA and a server certificate for `names` (host names or addresses)."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    now = datetime.datetime.now(datetime.UTC)
    authority_key = ec.generate_private_key(ec.SECP256R1())
    server_key = ec.generate_private_key(ec.SECP256R1())

    def builder(subject: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(name(subject))
            .issuer_name(name("scripted authority"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
        )

    authority = (
        builder("scripted authority", authority_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    alternatives = x509.SubjectAlternativeName([_general_name(text) for text in names])
    server = (
        builder("scripted upstream", server_key)
        .add_extension(alternatives, critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    authority_file = folder / "authority.pem"
    authority_file.write_bytes(authority.public_bytes(pem))
    server_file = folder / "server.pem"
    server_file.write_bytes(
        server_key.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + server.public_bytes(pem)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server_file)
    context.set_alpn_protocols(["h2", "http/1.1"])
    return Certificates(authority_file, context, server_file)


def _general_name(text: str):
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)
