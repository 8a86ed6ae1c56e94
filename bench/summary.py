"""From times to figures: what a program adds to asking directly, and in multiples of nginx.

`added` at the median is the median over rounds of a program's median less the direct one's of
the same round. `added` at the 99th percentile is the 99th percentile of all its times less the
direct median: a slow moment of the machine is in everybody's alike, it is not subtracted.
"""

import statistics
from collections.abc import Sequence
from typing import Any

from bench.cells import DIRECT, Measured, Round, Sample, Throughput
from bench.figures import bootstrap, percentile

FLOOR = "nginx"
_OURS = "ogate"
_P99_RESAMPLES = 300


def _times(sample: Sample, what: str) -> list[float]:
    return sample.first if what == "first" else sample.whole


def _medians(rounds: Sequence[Round], what: str) -> list[dict[str, float]]:
    return [
        {way: statistics.median(_times(sample, what)) for way, sample in each.items()}
        for each in rounds
    ]


def added_p50(medians: Sequence[dict[str, float]], way: str) -> float:
    """What a way adds to the direct median, from each round's medians."""
    return statistics.median(each[way] - each[DIRECT] for each in medians)


def added_p99(rounds: Sequence[Round], way: str, what: str) -> float:
    """How far the 99th percentile of a way's times is above the direct median."""
    times = [time for each in rounds for time in _times(each[way], what)]
    direct = [time for each in rounds for time in _times(each[DIRECT], what)]
    return percentile(times, 0.99) - statistics.median(direct)


def _figures(rounds: Sequence[Round], way: str, what: str) -> dict[str, Any]:
    medians = _medians(rounds, what)
    times = [time for each in rounds for time in _times(each[way], what)]
    told: dict[str, Any] = {
        "p50_s": statistics.median(times),
        "p99_s": percentile(times, 0.99),
    }
    if way == DIRECT:
        return told
    told["added_p50_s"] = added_p50(medians, way)
    told["added_p99_s"] = added_p99(rounds, way, what)
    if way != FLOOR and FLOOR in rounds[0]:
        of_floor = bootstrap(
            medians, lambda some: _of(added_p50(some, way), added_p50(some, FLOOR))
        )
        told["times_nginx_p50"] = [of_floor.value, of_floor.low, of_floor.high]
        told["times_nginx_p99"] = _of(told["added_p99_s"], added_p99(rounds, FLOOR, what))
        if way.startswith(_OURS):
            slow = bootstrap(
                rounds,
                lambda some: _of(added_p99(some, way, what), added_p99(some, FLOOR, what)),
                resamples=_P99_RESAMPLES,
            )
            told["times_nginx_p99_interval"] = [slow.low, slow.high]
    return told


def _of(value: float, floor: float) -> float:
    """A ratio of added times; of a floor that noise has made vanish, that of a microsecond."""
    return value / max(floor, 1e-6)


def cell_figures(measured: Measured, whats: Sequence[str]) -> dict[str, Any]:
    """A cell as it goes into the document: by program, its times and processor time.

    Args:
        whats: which times, `first` (content) and `whole`.
    """
    rounds = measured.rounds
    by_way: dict[str, Any] = {}
    for way in sorted(rounds[0]):
        requests = sum(len(each[way].whole) for each in rounds)
        cpu_s = sum(each[way].cpu for each in rounds) / requests
        by_way[way] = {"requests": requests, "cpu_s_per_request": cpu_s}
        by_way[way] |= {what: _figures(rounds, way, what) for what in whats}
    return {"ways": by_way, "absent": measured.absent}


def throughput_figures(told: Throughput) -> dict[str, Any]:
    """By program the median of the rounds, and the least and the most."""
    return {
        "ways": {
            way: {"median": statistics.median(rates), "least": min(rates), "most": max(rates)}
            for way, rates in told.per_s.items()
        },
        "absent": told.absent,
    }
