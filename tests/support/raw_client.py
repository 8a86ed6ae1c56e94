"""A client that says exactly what it is told to, to a server in the same process."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator

from opencode_gate.gateway.downstream import ClientRequest, Handler
from opencode_gate.gateway.http_server import HttpServer

HOST = b"Host: gateway.example\r\n"


def request(
    body: bytes = b"", *fields: bytes, method: bytes = b"POST", target: bytes = b"/echo"
) -> bytes:
    """A well-formed request with a body of known length."""
    head = b"".join(field + b"\r\n" for field in fields)
    length = b"Content-Length: %d\r\n" % len(body) if body or method == b"POST" else b""
    return b"%b %b HTTP/1.1\r\n%b%b%b\r\n%b" % (method, target, HOST, length, head, body)


async def echo(client: ClientRequest) -> None:
    """Answers with the body, its length announced."""
    body = await client.body()
    client.begin(200, [(b"content-length", b"%d" % len(body))])
    client.end(body)


def begun_until(left: asyncio.Event) -> Handler:
    """Begins an answer, and goes on with it until the client has left."""

    async def handler(client: ClientRequest) -> None:
        client.on_left(left.set)
        client.begin(200, [])
        client.write(b"begun")
        await left.wait()

    return handler


class Raw:
    """One connection of a client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()

    async def answer(self) -> tuple[int, dict[bytes, bytes], bytes]:
        """One answer: its status, its headers, its body."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        line, *lines = head[:-4].split(b"\r\n")
        headers = dict(field.split(b": ", 1) for field in lines)
        body = b""
        if b"content-length" in headers:
            body = await self.reader.readexactly(int(headers[b"content-length"]))
        elif headers.get(b"transfer-encoding") == b"chunked":
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                body += (await self.reader.readexactly(size + 2))[:-2]
            assert await self.reader.readexactly(2) == b"\r\n"
        return int(line.split()[1]), headers, body

    async def rest(self) -> bytes:
        """All that still comes, to the end of the connection."""
        return await self.reader.read()

    async def is_closed(self) -> bool:
        """Waits for the server to close, and says whether nothing came before."""
        with contextlib.suppress(ConnectionError):
            return await self.reader.read() == b""
        return True

    def close(self) -> None:
        self.writer.close()


class Served:
    """A server on a real socket."""

    def __init__(self, server: HttpServer, port: int, tls: ssl.SSLContext | None) -> None:
        self.server = server
        self.port = port
        self._tls = tls
        self._clients: list[Raw] = []

    async def client(self, *, receive_bytes: int | None = None) -> Raw:
        connected = socket.socket()
        if receive_bytes is not None:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        connected.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connected, ("127.0.0.1", self.port))
        host = None if self._tls is None else "localhost"
        client = Raw(
            *await asyncio.open_connection(
                sock=connected, ssl=self._tls, server_hostname=host, limit=receive_bytes or 1 << 20
            )
        )
        self._clients.append(client)
        return client

    async def told(self, *pieces: bytes) -> bytes:
        """All that comes of some bytes, to the end of the connection."""
        client = await self.client()
        await client.send(*pieces)
        return await client.rest()

    def close(self) -> None:
        for client in self._clients:
            client.close()


@contextlib.asynccontextmanager
async def serving(
    handler: Handler = echo,
    *,
    tls: ssl.SSLContext | None = None,
    client_tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Served]:
    """A server that has `handler` answer; stopped at the end."""
    server = HttpServer(handler, tls=tls)
    listening = socket.create_server(("127.0.0.1", 0), backlog=2048)
    await server.start([listening])
    served = Served(server, listening.getsockname()[1], client_tls)
    try:
        yield served
    finally:
        served.close()
        server.stop()
        await server.wait_stopped()
        listening.close()
