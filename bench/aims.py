"""What the figures are held against: the aims, and the other gateways."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from bench.cells import DIRECT
from bench.figures import time_text
from bench.summary import FLOOR

OURS = "ogate"
RIVALS = ("tensorzero", "ferrogw", "portkey", "litellm")

_MOST_P50, _MOST_P99 = 2.5, 5.0
_LARGE, _MOST_OVER_NGINX_S = "1 MB", 1e-3
_SLOWEST, _TIMES_SLOWEST = "litellm", 40
_LEAST = {
    "plain requests a second, one core": 3000,
    "plain requests a second, all cores": 5000,
    "events a second, one core": 60_000,
}
_TWO_WORKERS = "ogate, two workers"
_MOST_RESIDENT_MIB = 70

Figures = Mapping[str, Any]


class Aim(NamedTuple):
    """One aim and what came out."""

    name: str
    wanted: str
    measured: str
    is_met: bool


class Loss(NamedTuple):
    """In what another gateway does better."""

    way: str
    what: str
    theirs: str
    ours: str


def cells_of(document: Figures) -> dict[str, Figures]:
    """Sequential cells and parallel ones, by name."""
    return {**document["sequential"], **document["parallel"]}


def judged_by(cell: Figures) -> str:
    """The time a cell is judged by: to the first content, or to the end of a plain answer."""
    return "first" if "first" in cell["ways"][DIRECT] else "whole"


def aims(document: Figures) -> Iterator[Aim]:
    """Every aim that this run can tell something about."""
    for name, cell in cells_of(document).items():
        yield from _beside_nginx(name, cell)
    yield from _beside_slowest(document)
    for name, least in _LEAST.items():
        ways = document["throughput"].get(name, {"ways": {}})["ways"]
        way = _TWO_WORKERS if "all cores" in name else OURS
        if way in ways:
            found = ways[way]["median"]
            yield Aim(name, f"≥ {least:,}", f"{found:,.0f}", found >= least)
    soak = list(document["memory"].get("soak", {}).items())[1:2]
    for when, processes in soak:
        mib = processes[0]["resident"] / 1024
        wanted = f"≤ {_MOST_RESIDENT_MIB} MiB"
        yield Aim(f"resident {when}", wanted, f"{mib:.0f} MiB", mib <= _MOST_RESIDENT_MIB)


def _beside_nginx(name: str, cell: Figures) -> Iterator[Aim]:
    what = judged_by(cell)
    told = "first content" if what == "first" else "answer"
    ours = cell["ways"].get(OURS, {}).get(what, {})
    if "times_nginx_p50" not in ours:
        return
    value, slow = ours["times_nginx_p50"][0], ours["times_nginx_p99"]
    if _LARGE in name:
        over_s = ours["added_p50_s"] - cell["ways"][FLOOR][what]["added_p50_s"]
        wanted = f"≤ {time_text(_MOST_OVER_NGINX_S)} more than nginx"
        yield Aim(
            f"{name}: {told}, median", wanted, time_text(over_s), over_s <= _MOST_OVER_NGINX_S
        )
    else:
        wanted = f"≤ {_MOST_P50:g} × nginx"
        yield Aim(f"{name}: {told}, median", wanted, f"{value:.1f} ×", value <= _MOST_P50)
    wanted = f"≤ {_MOST_P99:g} × nginx"
    yield Aim(f"{name}: {told}, p99", wanted, f"{slow:.1f} ×", slow <= _MOST_P99)


def _beside_slowest(document: Figures) -> Iterator[Aim]:
    for name in ("plain, 8 kB", "streamed, 8 kB"):
        cell = document["sequential"][name]
        ways = cell["ways"]
        if _SLOWEST in ways and OURS in ways:
            both = [ways[way][judged_by(cell)]["added_p50_s"] for way in (_SLOWEST, OURS)]
            share = both[0] / both[1]
            wanted = f"LiteLLM adds ≥ {_TIMES_SLOWEST} times that"
            yield Aim(f"{name}, median", wanted, f"{share:.0f} times", share >= _TIMES_SLOWEST)


def losses(document: Figures) -> Iterator[Loss]:
    """Everything in which one of the others does better."""
    for name, cell in cells_of(document).items():
        what = judged_by(cell)
        for way, theirs, ours in _both(cell["ways"]):
            for kind, label in (("added_p50_s", "median"), ("added_p99_s", "p99")):
                if theirs[what][kind] < ours[what][kind]:
                    times = [time_text(each[what][kind]) for each in (theirs, ours)]
                    yield Loss(way, f"adds less in “{name}” ({label})", *times)
    for name, kind_of in document["throughput"].items():
        for way, theirs, ours in _both(kind_of["ways"]):
            if theirs["median"] > ours["median"]:
                rates = [f"{each['median']:,.0f}" for each in (theirs, ours)]
                yield Loss(way, f"does more in “{name}”", *rates)
    for way, theirs, ours in _both(document["memory"]["after"]):
        if sum(theirs) < sum(ours):
            sizes = [f"{sum(each) / 1024:.0f} MiB" for each in (theirs, ours)]
            yield Loss(way, "takes less memory after this run", *sizes)


def _both(ways: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Each of the others beside ours, where both are there."""
    for way in RIVALS:
        if way in ways and OURS in ways:
            yield way, ways[way], ways[OURS]
