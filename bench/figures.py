"""Medians, intervals, and how they are shown. Times are kept in seconds until they are shown."""

import json
import os
import platform
import random
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of `values` do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]


def bootstrap(
    rounds: Sequence[Any],
    estimate: Callable[[Sequence[Any]], float],
    seed: int = 1,
    resamples: int = _RESAMPLES,
) -> Interval:
    """`estimate` over `rounds`, its interval from resampled rounds (percentile bootstrap)."""
    chosen = random.Random(seed)
    resampled = sorted(estimate([chosen.choice(rounds) for _ in rounds]) for _ in range(resamples))
    low, high = resampled[int(resamples * 0.025)], resampled[int(resamples * 0.975)]
    return Interval(estimate(rounds), low, high)


def median_of(values: Sequence[float]) -> Interval:
    """The median and its interval."""
    return bootstrap(values, statistics.median)


def micros(seconds: float) -> str:
    """Microseconds for reading."""
    return f"{seconds * 1e6:.0f} µs"


def millis(seconds: float) -> str:
    """Milliseconds for reading."""
    return f"{seconds * 1e3:.1f} ms"


def time_text(seconds: float) -> str:
    """Whichever of the two reads better."""
    if abs(seconds) < 1e-3:
        return micros(seconds)
    return millis(seconds) if abs(seconds) < 0.1 else f"{seconds * 1e3:.0f} ms"


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, all but the first column to the right."""
    lines = ["| " + " | ".join(headings) + " |", "|---|" + "---:|" * (len(headings) - 1)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def machine() -> dict[str, object]:
    """Where the figures come from; figures of different machines do not compare."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _field("/proc/cpuinfo", "model name"),
        "memory": _field("/proc/meminfo", "MemTotal"),
        "is_virtual": "hypervisor" in (_field("/proc/cpuinfo", "flags") or ""),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def _field(file: str, name: str) -> str | None:
    """The first field of that name in one of the kernel's files; `None` where there is none."""
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    fields = (line.partition(":") for line in lines)
    return next((text.strip() for field, _, text in fields if field.strip() == name), None)


def keep(name: str, document: dict[str, Any], markdown: str, folder: Path | None) -> None:
    """Writes `NAME.json` and `NAME.md` into `folder`, if there is one."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        whole = {"version": 1, "machine": machine(), **document}
        (folder / f"{name}.json").write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
        (folder / f"{name}.md").write_text(markdown + "\n", encoding="utf-8")
        print(f"written to {folder / name}.json and .md", file=sys.stderr)


def publish(name: str, document: dict[str, Any], markdown: str, folder: Path | None) -> None:
    """Shows a report on stdout and keeps it."""
    print(markdown)
    keep(name, document, markdown, folder)
