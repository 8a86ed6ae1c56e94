"""The work of a request may not grow unnoticed: counted, not timed, so it is the same everywhere.

The bounds are the counts on the day they were last set, by Python version, with 10 % slack. A
change that needs more raises them on purpose, in the same commit; one that needs a good deal
less lowers them. `bench/latency.py` tells what a count means in microseconds.
"""

import sys
from pathlib import Path

import pytest

from tests.support.request_cost import instructions_of_a_request, instructions_of_an_event

SLACK = 1.10

BOUNDS = {
    (3, 11): {
        "plain": 4_675,
        "plain, governed": 7_298,
        "streamed": 29_320,
        "streamed, governed": 33_756,
        "event": 270,
    },
    (3, 12): {
        "plain": 4_313,
        "plain, governed": 6_802,
        "streamed": 27_092,
        "streamed, governed": 31_310,
        "event": 250,
    },
    (3, 13): {
        "plain": 4_333,
        "plain, governed": 6_805,
        "streamed": 28_483,
        "streamed, governed": 32_668,
        "event": 270,
    },
}
NEWEST = max(BOUNDS)
"""What a Python is held to that has no counts of its own yet."""


@pytest.mark.parametrize("kind", ["plain", "plain, governed", "streamed", "streamed, governed"])
async def test_a_request_costs_no_more_than_it_did(kind: str, tmp_path: Path) -> None:
    """An 8 kB chat request with its answer, plain and as a stream of 50 chunks.

    Governed, three budgets, two rate limits and a list of models have a say in it.
    """
    counted = await instructions_of_a_request(
        tmp_path, stream=kind.startswith("streamed"), is_governed=kind.endswith("governed")
    )
    _assert_allowed(kind, counted)


def test_metering_an_event_costs_no_more_than_it_did() -> None:
    """A long answer has thousands of events, and each one passes through the meter."""
    _assert_allowed("event", instructions_of_an_event())


def _assert_allowed(kind: str, counted: int) -> None:
    allowed = int(BOUNDS.get(sys.version_info[:2], BOUNDS[NEWEST])[kind] * SLACK)
    assert counted <= allowed, f"{kind}: {counted} instructions, {allowed} allowed"
