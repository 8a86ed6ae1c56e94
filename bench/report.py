"""`docs/performance.md` and its picture, from the figures of one run: `python -m bench.report`.

With `--check` nothing is written: it fails if a file is not as it would be. `--show FILE` prints
the tables of another run. The text says nothing that the figures do not: what is reached and
where ours loses is worked out anew from each run.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.aims import OURS, RIVALS, aims, cells_of, judged_by, losses
from bench.cells import DIRECT
from bench.figures import table, time_text
from bench.plot import bars

DOCS = Path(__file__).parent.parent / "docs"
FIGURES = DOCS / "performance.json"
PICTURE = "images/performance.svg"
_TEMPLATE = Path(__file__).parent / "performance_template.md"

NAMES = {
    "direct": "direct",
    "nginx": "nginx",
    "ogate": "**ogate**",
    "ogate, governed": "**ogate**, governed",
    "ogate serve": "**ogate serve**",
    "ogate, two workers": "**ogate serve**, two workers",
    "tensorzero": "TensorZero",
    "ferrogw": "ferrogw",
    "portkey": "Portkey",
    "litellm": "LiteLLM",
}
_NO = "–"

Figures = Mapping[str, Any]


def _ordered(names: Sequence[str]) -> list[str]:
    return [name for name in NAMES if name in names]


def _by_cell(
    cells: Mapping[str, Figures], ways: Sequence[str], text: Callable[[Figures, str], str]
) -> str:
    rows = [
        [name, *(text(cell, way) if way in cell["ways"] else _NO for way in ways)]
        for name, cell in cells.items()
    ]
    return table(["", *(NAMES[way] for way in ways)], rows)


def added_table(document: Figures, percent: int) -> str:
    """What each program adds in each cell; beside ours, how many times nginx's that is."""
    cells = cells_of(document)
    ways = _ordered([way for way in present(document) if way != DIRECT])

    def text(cell: Figures, way: str) -> str:
        figures = cell["ways"][way][judged_by(cell)]
        shown = time_text(figures[f"added_p{percent}_s"])
        if not way.startswith(OURS) or f"times_nginx_p{percent}" not in figures:
            return shown
        if percent == 50:
            value, low, high = figures["times_nginx_p50"]
            return f"{shown}, {value:.1f} × ({low:.1f} to {high:.1f})"
        return f"{shown}, {figures['times_nginx_p99']:.1f} ×"

    return _by_cell(cells, ways, text)


def cpu_table(document: Figures) -> str:
    """Processor time per request, of all processes of a program."""
    cells = cells_of(document)
    ways = _ordered([way for way in present(document) if way != DIRECT])
    return _by_cell(
        cells, ways, lambda cell, way: time_text(cell["ways"][way]["cpu_s_per_request"])
    )


def direct_table(document: Figures) -> str:
    """What the machine, the client and the origin take by themselves."""
    rows = []
    for name, cell in cells_of(document).items():
        figures = cell["ways"][DIRECT][judged_by(cell)]
        requests = [way["requests"] for way in cell["ways"].values()]
        counted = f"{min(requests):,} to {max(requests):,}"
        rows.append([name, time_text(figures["p50_s"]), time_text(figures["p99_s"]), counted])
    headings = ["", "direct, median", "direct, p99", "requests to each program"]
    return table(headings, rows)


def whole_table(document: Figures) -> str:
    """What is added to the end of a streamed answer."""
    cells = {
        name: cell for name, cell in document["sequential"].items() if judged_by(cell) == "first"
    }
    ways = _ordered([way for way in present(document) if way != DIRECT])
    return _by_cell(
        cells, ways, lambda cell, way: time_text(cell["ways"][way]["whole"]["added_p50_s"])
    )


def throughput_table(document: Figures) -> str:
    """Requests and events a second."""
    kinds = document["throughput"]
    ways = _ordered(sorted({way for kind in kinds.values() for way in kind["ways"]}))

    def text(kind: Figures, way: str) -> str:
        rate = kind["ways"].get(way)
        if rate is None:
            return _NO
        return f"{rate['median']:,.0f} ({rate['least']:,.0f} to {rate['most']:,.0f})"

    rows = [[NAMES[way], *(text(kind, way) for kind in kinds.values())] for way in ways]
    return table(["", *kinds], rows)


def memory_table(document: Figures) -> str:
    """Resident memory of each program, all its processes added up."""
    before, after = document["memory"]["fresh"], document["memory"]["after"]

    def text(sizes: Sequence[int]) -> str:
        shown = f"{sum(sizes) / 1024:.0f} MiB"
        return f"{shown} in {len(sizes)}" if len(sizes) > 1 else shown

    rows = [[NAMES[way], text(before[way]), text(after[way])] for way in _ordered(after)]
    return table(["resident, in so many processes", "fresh", "after this run"], rows)


def soak_table(document: Figures) -> str:
    """Our gateway's memory over many requests."""
    rows = []
    for when, processes in document["memory"].get("soak", {}).items():
        others = sum(each["resident"] for each in processes[1:])
        serving = processes[0]
        sizes = (serving["resident"], serving["proportional"], serving["peak"], others)
        rows.append([when, *(f"{kib / 1024:.1f} MiB" for kib in sizes)])
    headings = ["the process that serves", "resident", "proportional", "peak", "folding, resident"]
    return table(headings, rows)


def rows_table(document: Figures) -> str:
    """Requests that reached the origin, and rows that the ledger has of them."""
    rows = [
        [NAMES[way], f"{counted['requests']:,}", f"{counted['rows']:,}"]
        for way, counted in document["rows"].items()
    ]
    return table(["", "requests", "rows in the ledger"], rows)


def aims_table(document: Figures) -> str:
    """Each aim, what was measured, and whether it is met."""
    rows = [
        [aim.name, aim.wanted, aim.measured, "yes" if aim.is_met else "**no**"]
        for aim in aims(document)
    ]
    return table(["", "aim", "measured", "met"], rows)


def losses_list(document: Figures) -> str:
    """Where another gateway does better than ours."""
    lines = [
        f"- {NAMES[loss.way]} {loss.what}: {loss.theirs} against {loss.ours}."
        for loss in losses(document)
    ]
    return "\n".join(lines) or "No other gateway is faster in any cell, or takes less memory."


def present(document: Figures) -> list[str]:
    """Every program that is in some cell."""
    return sorted({way for cell in cells_of(document).values() for way in cell["ways"]})


def missing(document: Figures) -> str:
    """What was not measured, and why, as a list."""
    lines = [f"- {NAMES[way]}: {why}" for way, why in document["absent"].items()]
    if not document["is_private_network"]:
        lines.append("- a private network: not allowed there; everything was on loopback")
    told = {**cells_of(document), **document["throughput"]}
    for name, cell in told.items():
        lines += [
            f"- {NAMES[way]} in “{name}”: {why}"
            for way, why in cell["absent"].items()
            if way not in document["absent"]
        ]
    return "\n".join(lines) or "Nothing was left out."


def times_rival(document: Figures) -> str:
    """How many times ours the others add, in the two cells most requests are like."""
    rows = []
    for way in RIVALS:
        row = [NAMES[way]]
        for name in ("plain, 8 kB", "streamed, 8 kB"):
            cell = cells_of(document)[name]
            if way not in cell["ways"]:
                row.append(_NO)
                continue
            both = [cell["ways"][each][judged_by(cell)]["added_p50_s"] for each in (way, OURS)]
            row.append(f"{both[0] / both[1]:.1f} ×")
        rows.append(row)
    return table(["adds, in multiples of ogate", "plain, 8 kB", "first content, 8 kB"], rows)


def tables(document: Figures) -> dict[str, str]:
    """Every table and list by the name that the text has for it."""
    machine = document["machine"]
    programs = ", ".join(
        f"{NAMES[name].strip('*')} {version}"
        for name, version in document["versions"].items()
        if name in present(document)
    )
    virtual = "a virtual machine, " if machine["is_virtual"] else ""
    return {
        "day": document["day"],
        "minutes": f"{document['minutes']:g}",
        "machine": (
            f"{virtual}{machine['cores']} cores of {machine['processor']}, "
            f"{machine['system']}, Python {machine['python']}, "
            f"load {machine['load']:.2f} before the start"
        ),
        "programs": programs,
        "rivals": times_rival(document),
        "aims": aims_table(document),
        "losses": losses_list(document),
        "added": added_table(document, 50),
        "slow": added_table(document, 99),
        "whole": whole_table(document),
        "cpu": cpu_table(document),
        "direct": direct_table(document),
        "throughput": throughput_table(document),
        "memory": memory_table(document),
        "soak": soak_table(document),
        "rows": rows_table(document),
        "missing": missing(document),
    }


def page(document: Figures) -> str:
    """The whole of `docs/performance.md`."""
    told = {**tables(document), "picture": PICTURE}
    return _TEMPLATE.read_text(encoding="utf-8").format(**told)


def picture(document: Figures) -> str:
    """What each program adds to the two cells most requests are like, as SVG."""
    cells = cells_of(document)
    groups = {}
    for title, name in (
        ("plain request, 8 kB", "plain, 8 kB"),
        ("first content", "streamed, 8 kB"),
    ):
        cell = cells[name]
        groups[title] = [
            (NAMES[way].replace("*", ""), cell["ways"][way][judged_by(cell)]["added_p50_s"])
            for way in _ordered(cell["ways"])
            if way != DIRECT
        ]
    return bars("Added to a request, median (logarithmic)", groups, time_text)


def main() -> None:
    """Writes, checks or shows."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="fail if something would change")
    parser.add_argument("--show", type=Path, metavar="FILE", help="print the tables of a run")
    arguments = parser.parse_args()
    document = json.loads((arguments.show or FIGURES).read_text(encoding="utf-8"))
    if arguments.show:
        for name, text in tables(document).items():
            print(f"\n{name}: {text}" if "\n" not in text else f"\n{name}\n\n{text}")
        return
    stale = []
    for path, text in (
        (DOCS / "performance.md", page(document)),
        (DOCS / PICTURE, picture(document)),
    ):
        if arguments.check:
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                stale.append(str(path))
        else:
            path.write_text(text, encoding="utf-8")
    if stale:
        sys.exit(f"not as the figures say: {', '.join(stale)}; run scripts/generate.sh")


if __name__ == "__main__":
    main()
