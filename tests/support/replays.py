"""Answers of the corpus replayed through a gateway process, each ended in one of many ways.

A replay is one request of a client of our own through the gateway to an upstream of our own,
which sends the recorded bytes in chunks of a size, stops behind some of them and then holds the
connection, so that a whole batch can be ended at one moment. Before that, `everything_was_read`
makes sure that the gateway has taken in all that was sent: what is told of a replay then does
not depend on timing.
"""

import asyncio
import gzip
import json
import re
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import brotli

from opencode_gate.core.semconv import WireFormat
from opencode_gate.core.tasks import spawn
from tests.support.gateway import TOKEN, RunningGateway
from tests.support.scripted_upstream import Peer, ScriptedUpstream, scripted
from tests.support.wire_corpus import Case

PATIENCE_S = 60.0
PROVIDER = "acme"
WHOLE_BYTES = 1 << 30

_PATHS = {
    (WireFormat.OPENAI_CHAT, "sse"): "/v1/chat/completions",
    (WireFormat.OPENAI_RESPONSES, "sse"): "/v1/responses",
    (WireFormat.ANTHROPIC_MESSAGES, "sse"): "/v1/messages",
    (WireFormat.GEMINI_GENERATE, "sse"): "/v1beta/models/m:streamGenerateContent?alt=sse",
    (WireFormat.OPENAI_CHAT, "json"): "/v1/chat/completions",
    (WireFormat.OPENAI_RESPONSES, "json"): "/v1/responses",
    (WireFormat.ANTHROPIC_MESSAGES, "json"): "/v1/messages",
    (WireFormat.GEMINI_GENERATE, "json"): "/v1beta/models/m:generateContent",
}
_PACKERS: dict[str | None, Callable[[bytes], bytes]] = {
    None: bytes,
    "gzip": lambda body: gzip.compress(body, mtime=0),
    "deflate": zlib.compress,
    "br": lambda body: brotli.compress(body, quality=5),
}


class Ending(StrEnum):
    """How an exchange ends once the upstream has sent what it was told to send."""

    WHOLE = "whole"
    FIN = "upstream's FIN, which without a length is a clean end"
    CUT = "upstream's FIN before the last chunk"
    RST = "upstream's RST"
    LEAVES = "client leaves"
    SIGTERM = "gateway stops"
    SIGKILL = "gateway is killed"


HELD = frozenset({Ending.RST, Ending.LEAVES, Ending.SIGTERM, Ending.SIGKILL})


@dataclass(eq=False, slots=True)
class Replay:
    """One answer on its way; `received` and `is_clean` are what the client got of it."""

    number: int
    case: Case
    ending: Ending
    cut: int = WHOLE_BYTES
    chunk_bytes: int = WHOLE_BYTES
    encoding: str | None = None
    received: bytes = b""
    is_clean: bool = False
    held: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def conversation(self) -> str:
        return f"ses_replay{self.number}"

    @property
    def sent(self) -> bytes:
        """What the upstream sends."""
        return _PACKERS[self.encoding](self.case.upstream)[: self.cut]

    @property
    def status(self) -> int:
        """A plain error answer is one by its status too."""
        return 404 if self.case.kind == "json" and self.case.expected["error_type"] else 200

    @property
    def whole_events(self) -> int:
        """How many events of the stream are complete in what is sent."""
        if self.encoding is not None:
            return len(self.case.event_ends)
        return sum(end <= self.cut for end in self.case.event_ends)

    def __str__(self) -> str:
        return (
            f"{self.case.name}, {self.ending}, cut at {self.cut} of {len(self.case.upstream)}, "
            f"chunks of {self.chunk_bytes}, {self.encoding}"
        )


class ReplayUpstream:
    """Sends each request what the replay it names is to be sent."""

    def __init__(self) -> None:
        self._replays: dict[str, Replay] = {}

    def expect(self, replays: Iterable[Replay]) -> None:
        self._replays.update((str(replay.number), replay) for replay in replays)

    async def script(self, peer: Peer) -> None:
        while (received := await peer.request()) is not None:
            names = received.values(b"x-replay")
            if not names:
                await peer.answer(b'{"object":"list","data":[]}')
                continue
            replay = self._replays.pop(names[0].decode())
            await self._answer(peer, replay)
            if replay.ending is not Ending.WHOLE:
                return

    async def _answer(self, peer: Peer, replay: Replay) -> None:
        sent = replay.sent
        is_chunked = replay.ending is not Ending.FIN
        kind = "text/event-stream" if replay.case.kind == "sse" else "application/json"
        head = f"HTTP/1.1 {replay.status} Said\r\ncontent-type: {kind}\r\n"
        if replay.encoding is not None:
            head += f"content-encoding: {replay.encoding}\r\n"
        head += "transfer-encoding: chunked\r\n" if is_chunked else "connection: close\r\n"
        await peer.send(head.encode() + b"\r\n")
        for start in range(0, len(sent), replay.chunk_bytes):
            piece = sent[start : start + replay.chunk_bytes]
            await peer.send(b"%x\r\n%b\r\n" % (len(piece), piece) if is_chunked else piece)
        if replay.ending is Ending.WHOLE:
            await peer.send(b"0\r\n\r\n")
        elif replay.ending in HELD:
            while peer.writer.transport.get_write_buffer_size():
                await asyncio.sleep(0)
            replay.held.set()
            await replay.ended.wait()
            if replay.ending is Ending.RST:
                await peer.rst()
            else:
                await peer.closed()


@asynccontextmanager
async def replay_upstream() -> AsyncIterator[tuple[ReplayUpstream, ScriptedUpstream]]:
    upstream = ReplayUpstream()
    async with scripted(upstream.script) as server:
        yield upstream, server


async def replayed(
    batch: Sequence[Replay],
    upstream: ReplayUpstream,
    upstream_port: int,
    gateway: RunningGateway,
    stop_gateway: Callable[[], object] | None = None,
) -> None:
    """Sends a batch at once; the held ones among it end together.

    Args:
        stop_gateway: what ends those that the gateway ends.
    """
    upstream.expect(batch)
    clients = [spawn(_client(replay, gateway), name="client of a replay") for replay in batch]
    held = [replay for replay in batch if replay.ending in HELD]
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*(replay.held.wait() for replay in held))
        if held:
            await everything_was_read(gateway, upstream_port)
            if stop_gateway is not None:
                stop_gateway()
            for replay in held:
                replay.ended.set()
        await asyncio.gather(*clients)


async def everything_was_read(gateway: RunningGateway, upstream_port: int) -> None:
    """Returns when the gateway has read all that upstreams have sent, and dealt with it."""
    deadline = time.monotonic() + PATIENCE_S
    while _unread_bytes(upstream_port):
        assert time.monotonic() < deadline, "the gateway does not read what is sent to it"
        await asyncio.sleep(0.001)
    # A request takes the gateway several turns of its loop, more than to relay what it has read.
    for _ in range(2):
        await _ask(gateway, f"GET /p/{PROVIDER}/v1/models", b"", "")


def _unread_bytes(upstream_port: int) -> int:
    """Bytes between upstream and gateway that the gateway has not read, both ends' queues."""
    unread = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, _, queues, *_ = line.split()
        to_send, to_read = (int(size, 16) for size in queues.split(":"))
        if int(local.partition(":")[2], 16) == upstream_port:
            unread += to_send
        if int(remote.partition(":")[2], 16) == upstream_port:
            unread += to_read
    return unread


async def _client(replay: Replay, gateway: RunningGateway) -> None:
    case = replay.case
    path = f"/p/{PROVIDER}" + _PATHS[case.route.wire_format, case.kind]
    leaves = replay.ended if replay.ending is Ending.LEAVES else None
    fields = f"x-replay: {replay.number}\r\nx-session-id: {replay.conversation}\r\n"
    answer = await _ask(gateway, f"POST {path}", _request_body(case), fields, leaves=leaves)
    head, _, body = answer.partition(b"\r\n\r\n")
    if re.search(rb"(?i)transfer-encoding: chunked", head):
        replay.received, replay.is_clean = _dechunked(body)
    else:
        length = re.search(rb"(?i)content-length: (\d+)", head)
        replay.received = body
        replay.is_clean = length is None or len(body) == int(length[1])


def _request_body(case: Case) -> bytes:
    body: dict[str, object] = {"model": "m", "max_tokens": 64, "input": [], "messages": []}
    if case.kind == "sse":
        body["stream"] = True
        if not case.asked_for_usage:
            body["stream_options"] = {"include_usage": True}
    return json.dumps(body).encode()


async def _ask(
    gateway: RunningGateway,
    what: str,
    body: bytes,
    fields: str,
    *,
    leaves: asyncio.Event | None = None,
) -> bytes:
    """All bytes of an answer, also of one that was cut; or all until the client leaves."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(
        f"{what} HTTP/1.1\r\nhost: 127.0.0.1:{gateway.port}\r\nauthorization: Bearer {TOKEN}\r\n"
        f"{fields}connection: close\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        + body
    )
    received = bytearray()
    reading = spawn(_read(reader, received), name="reader of an answer")
    try:
        if leaves is None:
            await reading
        else:
            await leaves.wait()
    finally:
        reading.cancel()
        # A client that is killed resets its connection.
        writer.transport.abort()
    return bytes(received)


async def _read(reader: asyncio.StreamReader, received: bytearray) -> None:
    try:
        while data := await reader.read(65536):
            received += data
    except ConnectionError:
        pass


def _dechunked(body: bytes) -> tuple[bytes, bool]:
    """The content of a chunked body as far as it came, and whether it came to its end."""
    pieces = []
    position = 0
    while (line_end := body.find(b"\r\n", position)) >= 0:
        size = int(body[position:line_end], 16)
        if size == 0:
            return b"".join(pieces), True
        start = line_end + 2
        pieces.append(body[start : start + size])
        position = start + size + 2
    return b"".join(pieces), False
