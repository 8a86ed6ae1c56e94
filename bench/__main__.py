"""Everything side by side in one run: `python -m bench [--quick] [--out FILE]`.

Asked directly, through nginx, through our gateway in its ways, and through those of others that
are installed. `docs/performance.md` says what the figures mean and is written from the document
this makes (`python -m bench.report`). Linux only.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import opencode_gate
from bench import cells, memory, rivals
from bench.certificates import make_certificates
from bench.figures import machine
from bench.latency import Client, UnexpectedAnswer, tag_of, template
from bench.load import Clients, clients
from bench.origin import EVENT_MARK
from bench.processes import descendants, enter_private_network, sizes_kib
from bench.programs import (
    Absent,
    Origin,
    Running,
    Upstream,
    gateway,
    nginx,
    origin,
    rows_in,
    served_gateway,
)
from bench.summary import cell_figures, throughput_figures

TWO_WORKERS = "ogate, two workers"
_EVENTS = 47
_SLOW_ONES = ("litellm",)
_WARM_UP_S = 3.0
_WARM_UP_REQUESTS = 300

Start = Callable[[Upstream, Path], AbstractContextManager[Running]]


def programs(*, is_private: bool) -> dict[str, Start]:
    """How each program is started, in the order of the tables."""

    def governed(upstream: Upstream, folder: Path) -> AbstractContextManager[Running]:
        return gateway(upstream, folder, is_governed=True)

    def two_workers(upstream: Upstream, folder: Path) -> AbstractContextManager[Running]:
        return served_gateway(upstream, folder, "--workers", "2")

    def rival(start: Callable[..., AbstractContextManager[Running]]) -> Start:
        return lambda upstream, folder: start(upstream, folder, is_private=is_private)

    return {
        "nginx": nginx,
        "ogate": gateway,
        "ogate, governed": governed,
        "ogate serve": served_gateway,
        TWO_WORKERS: two_workers,
        "tensorzero": rival(rivals.tensorzero),
        "ferrogw": rival(rivals.ferrogw),
        "portkey": rival(rivals.portkey),
        "litellm": rival(rivals.litellm),
    }


@dataclass(slots=True)
class Field:
    """Everything that runs before one upstream."""

    ways: dict[str, Running]
    absent: dict[str, str] = field(default_factory=dict)


@contextmanager
def field_before(
    upstream: Upstream, pid: int, folder: Path, starts: Mapping[str, Start]
) -> Iterator[Field]:
    """Starts all programs, and sees that each passes a whole stream on."""
    with ExitStack() as stack:
        ready = Field({} if upstream.trusted else {cells.DIRECT: Running(pid, upstream.port)})
        for name, start in starts.items():
            _say(f"starting {name}")
            try:
                way = stack.enter_context(start(upstream, folder / tag_of(name)))
                _check(name, way)
            except (Absent, UnexpectedAnswer, OSError) as problem:
                ready.absent[name] = str(problem)
                _say(f"{name} is left out: {problem}")
            else:
                ready.ways[name] = way
        yield ready


def _check(name: str, way: Running) -> None:
    """Raises `UnexpectedAnswer` unless every event comes through; then warms the program up."""
    client = Client(way)
    streamed, plain = (template(way, name, stream=kind, body_bytes=8192) for kind in (True, False))
    _, answer = client.exchange(streamed, stream=True)
    if answer.count(EVENT_MARK) != _EVENTS:
        raise UnexpectedAnswer(f"{answer.count(EVENT_MARK)} of {_EVENTS} events came through")
    ends = time.monotonic() + _WARM_UP_S
    for _ in range(_WARM_UP_REQUESTS):
        client.ask(plain, stream=False)
        client.ask(streamed, stream=True)
        if time.monotonic() > ends:
            break
    client.close()


@dataclass(frozen=True, slots=True)
class Scope:
    """How much is measured: rounds, and requests in each."""

    sequential: tuple[cells.Cell, ...]
    parallel: tuple[cells.ParallelCell, ...]
    rounds: int
    requests: int
    block_s: float
    throughput_rounds: int
    throughput_s: float
    soak_parts: int


FULL = Scope(
    cells.SEQUENTIAL,
    cells.PARALLEL,
    rounds=10,
    requests=100,
    block_s=0.2,
    throughput_rounds=2,
    throughput_s=2.0,
    soak_parts=2,
)
QUICK = Scope(
    tuple(cell for cell in cells.SEQUENTIAL if cell.name in cells.QUICK),
    tuple(cell for cell in cells.PARALLEL if cell.streams == 64),
    rounds=6,
    requests=60,
    block_s=0.15,
    throughput_rounds=1,
    throughput_s=1.0,
    soak_parts=0,
)


def measure(scope: Scope, starts: Mapping[str, Start], folder: Path) -> dict[str, Any]:
    """The whole document but for the machine."""
    trusted, served = make_certificates(folder / "certificates")
    document: dict[str, Any] = {"sequential": {}, "parallel": {}, "throughput": {}}
    with origin(served) as provider, clients() as load:
        before = Upstream(provider.port)
        with field_before(before, provider.pid, folder / "plain", starts) as ready:
            ways = {name: way for name, way in ready.ways.items() if name != TWO_WORKERS}
            document["absent"] = dict(ready.absent)
            document["versions"] = versions()
            document["memory"] = {"fresh": sizes(ways)}
            for cell in scope.sequential:
                if not cell.is_tls:
                    document["sequential"][cell.name] = _sequential(cell, ways, scope)
            for beside in scope.parallel:
                _say(beside.name)
                told = cells.parallel(beside, ways, load)
                document["parallel"][beside.name] = cell_figures(told, ["first"])
            document["throughput"] = _throughput(scope, ready.ways, provider, load)
            document["memory"]["after"] = sizes(ways)
        document["rows"] = ledger_rows(ready.ways, provider)
        secured = [cell for cell in scope.sequential if cell.is_tls]
        if secured and provider.tls_port is not None:
            before = Upstream(provider.tls_port, trusted)
            few = {name: start for name, start in starts.items() if name != TWO_WORKERS}
            with field_before(before, provider.pid, folder / "tls", few) as ready:
                direct = {cells.DIRECT: Running(provider.pid, provider.port)}
                for cell in secured:
                    told_cell = _sequential(cell, direct | ready.ways, scope)
                    told_cell["absent"] |= ready.absent
                    document["sequential"][cell.name] = told_cell
    if scope.soak_parts:
        _say("soak")
        document["memory"]["soak"] = memory.measure(scope.soak_parts, folder / "soak")
    return document


def _sequential(cell: cells.Cell, ways: Mapping[str, Running], scope: Scope) -> dict[str, Any]:
    _say(cell.name)
    measured = cells.sequential(
        cell, ways, rounds=scope.rounds, requests=scope.requests, block_s=scope.block_s
    )
    return cell_figures(measured, ["first", "whole"] if cell.stream else ["whole"])


def _throughput(
    scope: Scope, ways: Mapping[str, Running], provider: Origin, load: Clients
) -> dict[str, Any]:
    told = {}
    one_core = {name: way for name, way in ways.items() if name != TWO_WORKERS}
    several = {name: way for name, way in ways.items() if name in ("ogate serve", TWO_WORKERS)}
    for name, chosen, stream, is_pinned in (
        ("plain requests a second, one core", one_core, False, True),
        ("events a second, one core", one_core, True, True),
        ("plain requests a second, all cores", several, False, False),
    ):
        _say(name)
        rates = cells.throughput(
            chosen,
            load,
            [provider.pid],
            stream=stream,
            rounds=scope.throughput_rounds,
            seconds=scope.throughput_s,
            is_pinned=is_pinned,
        )
        told[name] = throughput_figures(rates)
    return told


def sizes(ways: Mapping[str, Running]) -> dict[str, Any]:
    """Resident memory by program, in KiB, of each of its processes."""
    told = {}
    for name, way in ways.items():
        processes = [] if name == cells.DIRECT else descendants(way.pid)
        if processes:
            told[name] = [sizes_kib(pid)["resident"] for pid in processes]
    return told


def ledger_rows(ways: Mapping[str, Running], provider: Origin) -> dict[str, dict[str, int]]:
    """Of each gateway with a ledger that has ended: its rows, and the requests it sent on."""
    counts = provider.counts()
    return {
        name: {"requests": counts.get(tag_of(name), 0), "rows": rows_in(way.ledger)}
        for name, way in ways.items()
        if way.ledger is not None
    }


def versions() -> dict[str, str]:
    """What was measured."""
    told = {"ogate": opencode_gate.__version__, **rivals.VERSIONS}
    try:
        said = subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=True).stderr
    except OSError:
        return told
    found = re.search(r"/(\S+)", said)
    return told | ({"nginx": found[1]} if found else {})


def _rounded(value: Any) -> Any:
    """The same with every time to ten nanoseconds, which no clock here is good for."""
    if isinstance(value, float):
        return round(value, 8)
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, list) else value


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def main() -> None:
    """Measures and writes the document."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="a few cells, without the slowest")
    parser.add_argument("--only", help="names of programs, separated by semicolons")
    parser.add_argument("--out", type=Path, default=Path("performance.json"))
    arguments = parser.parse_args()
    if sys.platform != "linux":
        sys.exit("this bench reads the kernel's files about processes: it needs Linux")
    before = machine()
    is_private = enter_private_network()
    starts = programs(is_private=is_private)
    left_out: dict[str, str] = {}
    if arguments.only:
        starts = {name: starts[name] for name in arguments.only.split(";")}
    elif arguments.quick:
        starts = {name: start for name, start in starts.items() if name not in _SLOW_ONES}
        left_out |= dict.fromkeys(_SLOW_ONES, "too slow for a quick run")
    scope = QUICK if arguments.quick else FULL
    started = time.time()
    with tempfile.TemporaryDirectory(prefix="ogate-bench-") as folder:
        document = measure(scope, starts, Path(folder))
    document = {
        "version": 2,
        "day": time.strftime("%Y-%m-%d", time.gmtime(started)),
        "minutes": round((time.time() - started) / 60, 1),
        "is_quick": arguments.quick,
        "is_private_network": is_private,
        "machine": before,
        **document,
        "absent": document["absent"] | left_out,
    }
    text = json.dumps(_rounded(document), indent=1)
    arguments.out.write_text(text + "\n", encoding="utf-8")
    _say(f"written to {arguments.out}")


if __name__ == "__main__":
    main()
