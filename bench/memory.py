"""How much memory our gateway takes: fresh, after a day's worth of requests, and whether it grows.

    python -m bench.memory [--soak 3] [--out FOLDER]

One part of the soak is 10,000 plain requests and 1,000 streams, with a pause after every 500 in
which the ledger is brought up to date; what waits for that when there is no pause is held in
memory, up to a bound, and is what the burst shows. Linux only. The proportional
size counts a page that several processes share once among them; the resident size is what
`top` shows.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from bench.figures import publish, table
from bench.latency import Client, template
from bench.processes import descendants, settle, sizes_kib
from bench.programs import Running, Upstream, gateway, origin

REQUESTS = 10_000
STREAMS = 1_000
_BURST = 5_000
_WITHOUT_PAUSE = 500
_CONNECTIONS = 50


def measure(parts: int, folder: Path) -> dict[str, Any]:
    """By moment, the sizes of each process of a gateway, the one that serves first."""
    measured = {}
    with (
        origin() as provider,
        gateway(Upstream(provider.port), folder) as running,
    ):
        measured["ready"] = _sizes(running)
        client = Client(running)
        asked = {
            stream: template(running, "memory", stream=stream, body_bytes=8192)
            for stream in (False, True)
        }
        for part in range(1, parts + 1):
            for stream, count in ((False, REQUESTS), (True, STREAMS)):
                for number in range(1, count + 1):
                    client.ask(asked[stream], stream=stream)
                    if number % _WITHOUT_PAUSE == 0:
                        settle(running.pid, lag_s=running.lag_s)
            done = f"after {REQUESTS * part:,} requests and {STREAMS * part:,} streams"
            measured[done] = _sizes(running)
        for _ in range(_BURST):
            client.ask(asked[False], stream=False)
        measured[f"after {_BURST:,} more without a pause"] = _sizes(running)
        client.close()
        many = [Client(running) for _ in range(_CONNECTIONS)]
        for client in many:
            client.ask(asked[True], stream=True)
        measured[f"with {_CONNECTIONS} connections"] = _sizes(running)
        for client in many:
            client.close()
    return measured


def _sizes(running: Running) -> list[dict[str, int]]:
    return [sizes_kib(pid) for pid in descendants(running.pid)]


def shown(measured: dict[str, Any]) -> str:
    """The sizes as a table."""
    rows = []
    for when, processes in measured.items():
        serving, others = processes[0], processes[1:]
        sizes = [*serving.values(), sum(each["resident"] for each in others)]
        rows.append([when, *(f"{kib / 1024:.1f} MiB" for kib in sizes)])
    headings = ["gateway", "resident", "proportional", "peak", "other processes, resident"]
    return table(headings, rows)


def main() -> None:
    """Measures and reports."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--soak", type=int, default=1, metavar="N", help="parts of the soak")
    parser.add_argument("--out", type=Path, help="folder for memory.json and memory.md")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ogate-bench-") as folder:
        measured = measure(arguments.soak, Path(folder))
    publish("memory", {"unit": "KiB", **measured}, shown(measured), arguments.out)


if __name__ == "__main__":
    main()
