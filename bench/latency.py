"""What the gateway adds to a request, against nginx as a plain reverse proxy.

One sequential client with a kept connection asks directly, through nginx and through the
gateway, interleaved round by round in one run, so that the machine's other load hits all alike.
Only differences and their ratio mean something elsewhere: `added` is the median of a way
minus the direct median of the same round. A second gateway is the same with three budgets, two
rate limits and a list of models above every request.

    python -m bench.latency [--rounds 20] [--requests 100] [--out FOLDER]
"""

import argparse
import itertools
import json
import socket
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.figures import Interval, bootstrap, micros, percentile, publish, table
from bench.programs import TOKEN, Running, gateway, nginx, origin

BODY_BYTES = 8192
GOVERNED = "ogate, governed"
_WARM_UP = 200

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds from the first byte sent to the first content and to the end of the answer."""

    first: float
    whole: float


class Client:
    """A blocking client on one kept connection; it allocates little and waits in the kernel."""

    def __init__(self, way: Running) -> None:
        self._socket = socket.create_connection(("127.0.0.1", way.port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._path = f"{way.prefix}/v1/chat/completions"

    def ask(self, *, stream: bool) -> Times:
        """One request and its whole answer."""
        request = chat_request(self._path, next(_numbers), stream=stream)
        end = b"0\r\n\r\n" if stream else None
        content = b"data: " if stream else b"\r\n\r\n"
        received = b""
        first = 0.0
        started = time.perf_counter()
        self._socket.sendall(request)
        while True:
            data = self._socket.recv(262_144)
            if not data:
                raise RuntimeError(f"connection closed after {received[:300]!r}")
            received += data
            if not first and content in received:
                first = time.perf_counter()
            if received.endswith(end) if end else _is_whole(received):
                break
        ended = time.perf_counter()
        if not received.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"unexpected answer {received[:300]!r}")
        return Times(first - started, ended - started)

    def close(self) -> None:
        """Closes the connection."""
        self._socket.close()


def _is_whole(received: bytes) -> bool:
    head, gap, body = received.partition(b"\r\n\r\n")
    length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
    return bool(gap) and len(body) >= int(length)


def chat_request(path: str, number: int, *, stream: bool) -> bytes:
    """What Opencode sends, at a size of 8 kB.

    The number makes each one the first of a conversation: an agent that asked as often in a
    single one would be stopped.
    """
    filler = "All work and no play makes a dull agent. " * 200
    messages = [
        {"role": "system", "content": filler[: BODY_BYTES - 1100]},
        {"role": "user", "content": f"question {number:09d}"},
    ]
    parameters = {"type": "object", "properties": {"pattern": {"type": "string"}}}
    tools = [
        {"type": "function", "function": {"name": name, "parameters": parameters}}
        for name in ("bash", "edit", "glob", "grep", "list", "read", "write")
    ]
    document: dict[str, object] = {"model": "bench", "max_tokens": 8000, "messages": messages}
    document |= {"tools": tools, "tool_choice": "auto", "stream": stream}
    if stream:
        document["stream_options"] = {"include_usage": True}
    body = json.dumps(document, separators=(",", ":")).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n"
        "Content-Type: application/json\r\nAccept: */*\r\nConnection: keep-alive\r\n"
        "User-Agent: opencode/1.18.33 ai-sdk/provider-utils/4.0.23 runtime/bun/1.3.14\r\n"
        f"Accept-Encoding: gzip, deflate, br, zstd\r\nx-session-id: ses_{number}\r\n"
        f"x-session-affinity: ses_{number}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


Round = dict[str, list[float]]


def measure(ways: dict[str, Running], rounds: int, requests: int, *, stream: bool) -> list[Round]:
    """Rounds of times per way; a streamed round has `… whole` beside the first-token times."""
    clients = {name: Client(way) for name, way in ways.items()}
    for client in clients.values():
        for _ in range(_WARM_UP):
            client.ask(stream=stream)
    measured = []
    for number in range(rounds):
        this_round: Round = {}
        order = list(clients)
        turned = order[number % len(order) :] + order[: number % len(order)]
        for name in turned:
            times = [clients[name].ask(stream=stream) for _ in range(requests)]
            this_round[name] = [time.first for time in times]
            this_round[f"{name} whole"] = [time.whole for time in times]
        measured.append(this_round)
    for client in clients.values():
        client.close()
    return measured


def added(rounds: Sequence[Round], way: str, suffix: str) -> float:
    """The median over rounds of what a way adds to the direct median."""
    return statistics.median(
        statistics.median(each[way + suffix]) - statistics.median(each["direct" + suffix])
        for each in rounds
    )


def ratio(rounds: Sequence[Round], suffix: str, way: str, floor: str) -> Interval:
    """What one way adds, in multiples of what another adds."""
    return bootstrap(rounds, lambda some: added(some, way, suffix) / added(some, floor, suffix))


def report(kind: str, rounds: list[Round], suffix: str) -> tuple[dict[str, object], str]:
    """One table and its numbers."""
    ways = [name for name in rounds[0] if not name.endswith(" whole")]
    ways.sort(key=["direct", "nginx", "ogate", GOVERNED].index)
    rows: list[list[str]] = []
    document: dict[str, object] = {}
    for way in ways:
        pooled = [value for each in rounds for value in each[way + suffix]]
        p50, p99 = statistics.median(pooled), percentile(pooled, 0.99)
        more = added(rounds, way, suffix)
        times = ["", ""]
        for number, (compared, floor) in enumerate((("ogate", "nginx"), (GOVERNED, "ogate"))):
            if way == compared and floor in ways:
                of_floor = ratio(rounds, suffix, way, floor)
                times[number] = f"{of_floor.value:.2f} ({of_floor.low:.2f} to {of_floor.high:.2f})"
                document[f"ratio_to_{floor}"] = [of_floor.value, of_floor.low, of_floor.high]
        rows.append([way, micros(p50), micros(p99), micros(more), *times])
        document[way] = {"p50_s": p50, "p99_s": p99, "added_p50_s": more}
    headings = [kind, "median", "p99", "added, median", "times nginx (95 %)", "times ogate (95 %)"]
    return document, table(headings, rows)


def main() -> None:
    """Measures and reports."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--requests", type=int, default=100, help="per way and round")
    parser.add_argument("--out", type=Path, help="folder for latency.json and latency.md")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ogate-bench-") as folder, ExitStack() as stack:
        provider = stack.enter_context(origin())
        ways = {"direct": provider}
        floor = stack.enter_context(nginx(provider.port, Path(folder, "nginx")))
        if floor is not None:
            ways["nginx"] = floor
        ways["ogate"] = stack.enter_context(gateway(provider.port, Path(folder, "gateway")))
        ways[GOVERNED] = stack.enter_context(
            gateway(provider.port, Path(folder, "governed"), is_governed=True)
        )
        plain = measure(ways, arguments.rounds, arguments.requests, stream=False)
        streamed = measure(ways, arguments.rounds, arguments.requests, stream=True)
    parts = {
        "plain request": report("plain request", plain, " whole"),
        "first token": report("first token of a stream", streamed, ""),
        "whole stream": report("whole stream of 50 chunks", streamed, " whole"),
    }
    document = {name: figures for name, (figures, _) in parts.items()}
    markdown = "\n\n".join(text for _, text in parts.values())
    publish("latency", document, markdown, arguments.out)


if __name__ == "__main__":
    main()
