"""What is measured: a cell is one kind of request under one condition, put to every program.

Rounds are interleaved, in a new order each time, so that the machine's other load hits all
alike.
"""

import os
import random
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

from bench.latency import Client, Times, UnexpectedAnswer, no_collector, template
from bench.load import Clients, Load
from bench.processes import cores_kept_awake, cpu_s, pin, settle
from bench.programs import Running

DIRECT = "direct"
_WARM_UP_S = 0.25
_WARM_UP_REQUESTS = 30
_LEAST_REQUESTS = 4
_UNTIL_QUIET_S = 10.0
"""Who had more to do than it could may need so long until the next one has the machine."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A sequential client.

    Attributes:
        pause_s: between an answer and the next request.
        is_awake: no core of the machine sleeps meanwhile.
    """

    name: str
    stream: bool
    body_bytes: int = 8192
    is_fresh: bool = False
    is_tls: bool = False
    pause_s: float = 0.0
    is_awake: bool = False


@dataclass(frozen=True, slots=True)
class ParallelCell:
    """Streams side by side, their chunks paced, begun evenly over the time that one takes."""

    name: str
    streams: int
    pause_ms: int
    seconds: float
    rounds: int


SEQUENTIAL = (
    Cell("plain, 2 kB", stream=False, body_bytes=2048),
    Cell("plain, 8 kB", stream=False),
    Cell("plain, 64 kB", stream=False, body_bytes=65_536),
    Cell("plain, 1 MB", stream=False, body_bytes=1_048_576),
    Cell("streamed, 2 kB", stream=True, body_bytes=2048),
    Cell("streamed, 8 kB", stream=True),
    Cell("streamed, 64 kB", stream=True, body_bytes=65_536),
    Cell("streamed, 1 MB", stream=True, body_bytes=1_048_576),
    Cell("plain, new connections", stream=False, is_fresh=True),
    Cell("streamed, new connections", stream=True, is_fresh=True),
    Cell("plain, 3 ms between requests", stream=False, pause_s=0.003),
    Cell("plain, cores awake", stream=False, is_awake=True),
    Cell("streamed, cores awake", stream=True, is_awake=True),
    Cell("plain, TLS to the provider", stream=False, is_tls=True),
    Cell("streamed, TLS to the provider", stream=True, is_tls=True),
)
QUICK = ("plain, 8 kB", "streamed, 8 kB", "plain, 1 MB", "streamed, TLS to the provider")
PARALLEL = (
    ParallelCell("8 streams", 8, 10, 2.5, 2),
    ParallelCell("64 streams", 64, 10, 1.5, 2),
    ParallelCell("512 streams", 512, 40, 2.5, 2),
)
STREAM_CHUNKS = 50


@dataclass(slots=True)
class Sample:
    """What one program took in one round: seconds of each request, and of processor in all."""

    first: list[float]
    whole: list[float]
    cpu: float


Round = dict[str, Sample]


@dataclass(slots=True)
class Measured:
    """A cell's rounds, and why programs are not in it."""

    rounds: list[Round] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)


def sequential(
    cell: Cell, ways: Mapping[str, Running], *, rounds: int, requests: int, block_s: float
) -> Measured:
    """A block of `requests` for each program and round, or as many as `block_s` has room for."""
    measured = Measured()
    asked: dict[str, tuple[Client, list[bytes]]] = {}
    with cores_kept_awake() if cell.is_awake else nullcontext():
        for name, way in ways.items():
            pieces = template(way, name, stream=cell.stream, body_bytes=cell.body_bytes)
            try:
                asked[name] = (Client(way, is_fresh=cell.is_fresh), pieces)
            except OSError as problem:
                measured.absent[name] = str(problem)
        for number in range(-1, rounds):
            this_round: Round = {}
            for name in turned(asked, number):
                most = (requests, block_s) if number >= 0 else (_WARM_UP_REQUESTS, _WARM_UP_S)
                try:
                    this_round[name] = _block(cell, ways[name], *asked[name], *most)
                except (UnexpectedAnswer, OSError) as problem:
                    measured.absent[name] = str(problem)
                    asked.pop(name)[0].close()
            if number >= 0:
                measured.rounds.append(this_round)
        for client, _ in asked.values():
            client.close()
    return _of_those_left(measured)


def _of_those_left(measured: Measured) -> Measured:
    """Who fell out in some round is in none."""
    for each in measured.rounds:
        for name in measured.absent:
            each.pop(name, None)
    return measured


def turned(names: Mapping[str, object], number: int) -> list[str]:
    """The names in the order of that round: by chance, and the same in every run."""
    order = list(names)
    random.Random(number).shuffle(order)
    return order


def _block(
    cell: Cell, way: Running, client: Client, pieces: list[bytes], requests: int, block_s: float
) -> Sample:
    before = cpu_s(way.pid)
    times: list[Times] = []
    ends = time.monotonic() + block_s
    with no_collector():
        while len(times) < requests:
            if cell.pause_s:
                time.sleep(cell.pause_s)
            times.append(client.ask(pieces, stream=cell.stream))
            if len(times) >= _LEAST_REQUESTS and time.monotonic() > ends:
                break
    if way.lag_s:
        settle(way.pid, lag_s=way.lag_s)
    spent = cpu_s(way.pid) - before
    return Sample([time.first for time in times], [time.whole for time in times], spent)


def parallel(cell: ParallelCell, ways: Mapping[str, Running], clients: Clients) -> Measured:
    """The cell's rounds; the first content of a stream counts from its request on."""
    measured = Measured()
    mode = f"paced{cell.pause_ms}"
    pieces = {
        name: template(way, name, stream=True, body_bytes=8192, mode=mode)
        for name, way in ways.items()
    }
    stream_s = STREAM_CHUNKS * cell.pause_ms / 1000
    for number in range(cell.rounds):
        this_round: Round = {}
        for name in turned(pieces, number):
            way = ways[name]
            before = cpu_s(way.pid)
            load = clients.load(
                way.port,
                pieces[name],
                stream=True,
                connections=cell.streams,
                warm_s=stream_s * 1.2,
                seconds=cell.seconds,
            )
            settle(way.pid, lag_s=way.lag_s, at_most_s=_UNTIL_QUIET_S)
            if load.failure is not None or not load.whole:
                measured.absent[name] = load.failure or "no answer in time"
                del pieces[name]
                continue
            share = len(load.whole) / load.sent
            spent = (cpu_s(way.pid) - before) * share
            this_round[name] = Sample(load.first, load.whole, spent)
        measured.rounds.append(this_round)
    return _of_those_left(measured)


@dataclass(slots=True)
class Throughput:
    """By program, how much it does in a second, of each round; and why some are not there."""

    per_s: dict[str, list[float]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)


def throughput(
    ways: Mapping[str, Running],
    clients: Clients,
    others: Sequence[int],
    *,
    stream: bool,
    rounds: int,
    seconds: float,
    connections: int = 64,
    is_pinned: bool = True,
) -> Throughput:
    """Requests a second, or of firehose streams events a second.

    Pinned, a program has the first core to itself, with all it starts; the clients and `others`
    (the origin) have the second one.
    """
    told = Throughput()
    cores = sorted(os.sched_getaffinity(0))
    if is_pinned:
        for pid in (*others, clients.pid):
            pin(pid, {cores[-1]})
    mode = "firehose" if stream else "plain"
    left = dict(ways)
    for number in range(rounds):
        for name in turned(left, number):
            way = ways[name]
            if is_pinned and name != DIRECT:
                pin(way.pid, {cores[0]})
            pieces = template(way, name, stream=stream, body_bytes=8192, mode=mode)
            how = {"stream": stream, "connections": connections}
            load = clients.load(way.port, pieces, **how, warm_s=0.5, seconds=seconds)
            settle(way.pid, lag_s=way.lag_s, at_most_s=_UNTIL_QUIET_S)
            if is_pinned and name != DIRECT:
                pin(way.pid, set(cores))
            if load.failure is not None or not load.whole:
                told.absent[name] = load.failure or "no answer in time"
                del left[name]
                continue
            told.per_s.setdefault(name, []).append(_rate(load, stream=stream))
    for pid in (*others, clients.pid):
        pin(pid, set(cores))
    for name in told.absent:
        told.per_s.pop(name, None)
    return told


def _rate(load: Load, *, stream: bool) -> float:
    return (load.events if stream else len(load.whole)) / load.seconds
