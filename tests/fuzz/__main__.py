"""See `runner`."""

import argparse

from tests.fuzz.edges import EDGES
from tests.fuzz.runner import run

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("edges", nargs="*", help=f"{', '.join(EDGES)}; all if none")
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    for name in asked.edges or EDGES:
        report = run(EDGES[name](), asked.inputs, asked.seed)
        print(
            f"{name}: {report.inputs:,} inputs, {report.outcomes:,} outcomes, nothing broken, "
            f"{report.seconds:.0f} s, {report.grown_kib:,} KiB grown",
            flush=True,
        )
