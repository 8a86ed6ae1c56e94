"""How much memory the gateway process takes: fresh, after a day's worth of requests, at its peak.

    python -m bench.memory [--requests 2000] [--out FOLDER]

Linux only: it reads `/proc/PID/status` and `smaps_rollup`. The proportional size (PSS) counts
pages shared with other processes once among them; the resident size is what `top` shows.
"""

import argparse
import tempfile
from pathlib import Path

from bench.figures import publish, table
from bench.latency import Client
from bench.programs import gateway, origin


def sizes_kib(pid: int) -> dict[str, int]:
    """Resident, proportional and peak resident size of a process."""
    lines = Path(f"/proc/{pid}/status").read_text() + Path(f"/proc/{pid}/smaps_rollup").read_text()
    fields = {
        name: int(rest.split()[0])
        for name, _, rest in (line.partition(":") for line in lines.splitlines())
        if name in ("VmRSS", "VmHWM", "Pss")
    }
    return {"resident": fields["VmRSS"], "proportional": fields["Pss"], "peak": fields["VmHWM"]}


def main() -> None:
    """Measures and reports."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--out", type=Path, help="folder for memory.json and memory.md")
    arguments = parser.parse_args()
    measured = {}
    with (
        tempfile.TemporaryDirectory(prefix="ogate-bench-") as folder,
        origin() as provider,
        gateway(provider.port, Path(folder)) as running,
    ):
        measured["ready"] = sizes_kib(running.pid)
        client = Client(running)
        for stream, name in ((False, "plain requests"), (True, "streams")):
            for _ in range(arguments.requests):
                client.ask(stream=stream)
            measured[f"after {arguments.requests} {name}"] = sizes_kib(running.pid)
        client.close()
        many = [Client(running) for _ in range(50)]
        for client in many:
            client.ask(stream=True)
        measured["with 50 connections"] = sizes_kib(running.pid)
        for client in many:
            client.close()
    rows = [
        [when, *(f"{kib / 1024:.1f} MiB" for kib in sizes.values())]
        for when, sizes in measured.items()
    ]
    text = table(["gateway process", "resident", "proportional", "peak"], rows)
    publish("memory", {"unit": "KiB", **measured}, text, arguments.out)


if __name__ == "__main__":
    main()
