"""Many clients at once, in a process of their own: each asks anew when its answer is whole.

`python -m bench.load` takes orders as lines of JSON on its stdin and answers each with a line.
A client does next to nothing with what it receives: it looks for the first content and for the
end, and counts events by a byte that stands in each of them once.
"""

import asyncio
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, cast

from bench.latency import CHUNKED, FIRST_CONTENT, LAST_CHUNK, answer_bytes
from bench.origin import EVENT_MARK

_DRAIN_S = 5.0
_KEPT_BYTES = 16


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be asked.

    Attributes:
        pieces: a template of `bench.latency`.
        first_number: of the first request; the next ones count on.
        connections: each with one request at a time, the first of them spread over `warm_s`.
        warm_s: what ends earlier is not counted.
        seconds: what ends within so long after that is.
    """

    port: int
    pieces: list[bytes]
    first_number: int
    stream: bool
    connections: int
    warm_s: float
    seconds: float


@dataclass(slots=True)
class Load:
    """What came of it.

    Attributes:
        first: seconds to the first content, of each request counted; `whole` to the end.
        events: that came within the time counted.
        sent: requests in all, counted or not.
        failure: what went wrong first, if anything did; then figures mean nothing.
    """

    first: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    events: int = 0
    sent: int = 0
    seconds: float = 0.0
    failure: str | None = None


class _Run:
    """The state that the clients of one order share."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.load = Load(seconds=order.seconds)
        self.counts_from = time.perf_counter() + order.warm_s
        self.counts_to = self.counts_from + order.seconds
        self.running = 0
        self.idle = asyncio.Event()

    def request(self) -> bytes:
        number = self.order.first_number + self.load.sent
        self.load.sent += 1
        return (b"%09d" % number).join(self.order.pieces)


class _Client(asyncio.Protocol):
    def __init__(self, run: _Run) -> None:
        self._run = run
        self._transport: asyncio.Transport | None = None
        self._started = self._first = 0.0
        self._length: int | None = None
        self._received = b""
        self._received_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._started:
            self._fail(f"connection closed after {self._received[:300]!r}")

    def ask(self) -> None:
        """Sends the next request."""
        if self._transport is None:
            return
        self._first = 0.0
        self._length = None
        self._received = b""
        self._received_bytes = 0
        self._run.running += 1
        request = self._run.request()
        self._started = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Looks for the first content and for the end."""
        run = self._run
        now = time.perf_counter()
        self._received_bytes += len(data)
        received = self._received + data
        if run.order.stream and run.counts_from <= now <= run.counts_to:
            run.load.events += data.count(EVENT_MARK)
        if self._length is None:
            self._length = answer_bytes(received)
            if not received.startswith(b"HTTP/1.1 200"[: len(received)]):
                self._fail(f"answer {received[:300]!r}")
                return
        if not self._first and (not run.order.stream or FIRST_CONTENT in received):
            self._first = now
        is_end = (
            received.endswith(LAST_CHUNK)
            if self._length == CHUNKED
            else self._received_bytes == self._length
        )
        if is_end:
            self._end(now)
        else:
            is_before_content = self._length is None or not self._first
            self._received = received if is_before_content else received[-_KEPT_BYTES:]

    def _end(self, now: float) -> None:
        run = self._run
        if run.counts_from <= now <= run.counts_to:
            run.load.first.append(self._first - self._started)
            run.load.whole.append(now - self._started)
        self._started = 0.0
        run.running -= 1
        if now < run.counts_to:
            self.ask()
        elif not run.running:
            run.idle.set()

    def _fail(self, why: str) -> None:
        run = self._run
        run.load.failure = run.load.failure or why
        self._started = 0.0
        run.running -= 1
        if not run.running:
            run.idle.set()


async def _carry_out(order: Order) -> Load:
    loop = asyncio.get_running_loop()
    run = _Run(order)
    try:
        made = [
            await loop.create_connection(lambda: _Client(run), "127.0.0.1", order.port)
            for _ in range(order.connections)
        ]
    except OSError as problem:
        run.load.failure = str(problem)
        return run.load
    run.counts_from = time.perf_counter() + order.warm_s
    run.counts_to = run.counts_from + order.seconds
    for number, (_, client) in enumerate(made):
        loop.call_later(order.warm_s * number / order.connections, client.ask)
    await asyncio.sleep(order.warm_s + order.seconds)
    if run.running:
        try:
            await asyncio.wait_for(run.idle.wait(), _DRAIN_S)
        except TimeoutError:
            run.load.failure = f"{run.running} answers had not ended {_DRAIN_S:g} s after the rest"
    for transport, _ in made:
        transport.close()
    await asyncio.sleep(0)
    return run.load


def _write(line: bytes) -> None:
    """All of a line, however little the pipe takes at once: a text stream may drop the rest."""
    descriptor = sys.stdout.fileno()
    os.set_blocking(descriptor, True)
    while line:
        line = line[os.write(descriptor, line) :]


def main() -> None:
    """Carries out one order after the other until stdin ends."""
    import uvloop

    gc.disable()
    for line in sys.stdin:
        said = json.loads(line)
        said["pieces"] = [piece.encode("latin-1") for piece in said["pieces"]]
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            load = runner.run(_carry_out(Order(**said)))
        _write(json.dumps(asdict(load)).encode() + b"\n")
        gc.collect()


class Clients:
    """The process with the clients."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = process.pid
        self._next_number = 100_000_000

    def load(self, port: int, pieces: Sequence[bytes], **how: Any) -> Load:
        """Has one order carried out, as `Order` says."""
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the clients have no pipes")
        order = {"port": port, "first_number": self._next_number, **how}
        order["pieces"] = [piece.decode("latin-1") for piece in pieces]
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        load = Load(**json.loads(self._process.stdout.readline()))
        self._next_number += load.sent
        return load


@contextmanager
def clients() -> Iterator[Clients]:
    """Starts the process with the clients."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.load"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Clients(process)
    finally:
        if process.stdin is not None and process.stdout is not None:
            process.stdin.close()
            process.wait(30)
            process.stdout.close()


if __name__ == "__main__":
    main()
