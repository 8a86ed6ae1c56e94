"""The work of a request may not grow unnoticed: counted, not timed, so it is the same everywhere.

The bounds are the counts on the day they were last set, by Python version, with 5 % slack. A
change that needs more raises them on purpose, in the same commit; one that needs a good deal
less lowers them. `python -m bench` tells what a count means in microseconds.
"""

import gc
import sys
from pathlib import Path

import pytest

from tests.support.request_cost import (
    instructions_of_a_request,
    instructions_of_a_streamed_event,
    instructions_of_an_admission,
    instructions_of_an_event,
    instructions_of_metering_a_plain_answer,
    serve_requests,
)

SLACK = 1.05

BOUNDS = {
    (3, 11): {
        "plain": 3_878,
        "plain, governed": 5_155,
        "streamed": 15_532,
        "streamed, governed": 19_225,
        "streamed event": 228,
        "metering an event": 116,
        "metering a plain answer": 581,
        "admission": 96,
        "admission, governed": 1_265,
    },
    (3, 12): {
        "plain": 3_547,
        "plain, governed": 4_761,
        "streamed": 14_198,
        "streamed, governed": 17_654,
        "streamed event": 208,
        "metering an event": 108,
        "metering a plain answer": 542,
        "admission": 89,
        "admission, governed": 1_196,
    },
    (3, 13): {
        "plain": 3_599,
        "plain, governed": 4_644,
        "streamed": 14_725,
        "streamed, governed": 18_153,
        "streamed event": 217,
        "metering an event": 111,
        "metering a plain answer": 419,
        "admission": 89,
        "admission, governed": 1_171,
    },
}
NEWEST = max(BOUNDS)
"""What a Python is held to that has no counts of its own yet."""


@pytest.mark.parametrize("kind", ["plain", "plain, governed", "streamed", "streamed, governed"])
async def test_a_request_costs_no_more_than_it_did(kind: str, tmp_path: Path) -> None:
    """An 8 kB chat request with its answer, plain and as a stream of 50 chunks.

    From the client's bytes to the finished record, the server's work included. Governed, three
    budgets, two rate limits and a list of models have a say in it.
    """
    counted = await instructions_of_a_request(
        tmp_path, stream=kind.startswith("streamed"), is_governed=kind.endswith("governed")
    )
    _assert_allowed(kind, counted)


async def test_an_event_costs_no_more_than_it_did(tmp_path: Path) -> None:
    """One more event in a stream, all in: from the provider's socket to the client's."""
    _assert_allowed("streamed event", await instructions_of_a_streamed_event(tmp_path))


def test_metering_an_event_costs_no_more_than_it_did() -> None:
    """A long answer has thousands of events, and each one passes through the meter."""
    _assert_allowed("metering an event", instructions_of_an_event())


def test_metering_a_plain_answer_costs_no_more_than_it_did() -> None:
    _assert_allowed("metering a plain answer", instructions_of_metering_a_plain_answer())


@pytest.mark.parametrize("kind", ["admission", "admission, governed"])
async def test_asking_the_rules_costs_no_more_than_it_did(kind: str, tmp_path: Path) -> None:
    counted = await instructions_of_an_admission(tmp_path, is_governed=kind.endswith("governed"))
    _assert_allowed(kind, counted)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_request_leaves_nothing_to_the_garbage_collector(
    stream: bool, tmp_path: Path
) -> None:
    """What knows itself in a circle would keep its body until the collector stops everything."""
    async with serve_requests(tmp_path, stream=stream) as serve:
        await serve(20)
        gc.collect()
        gc.disable()
        try:
            await serve(10)
            assert gc.collect() == 0
        finally:
            gc.enable()


def _assert_allowed(kind: str, counted: int) -> None:
    allowed = int(BOUNDS.get(sys.version_info[:2], BOUNDS[NEWEST])[kind] * SLACK)
    assert counted <= allowed, f"{kind}: {counted} instructions, {allowed} allowed"
