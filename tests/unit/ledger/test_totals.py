"""Sums over exchanges: what counts, what is known, and how well."""

import random
from itertools import permutations

import pytest

from opencode_gate.core.errors import UsageError
from opencode_gate.core.semconv import CostQuality, ExchangeStatus, Operation
from opencode_gate.core.usage import TokenUsage
from opencode_gate.ledger.totals import (
    GROUPINGS,
    Totals,
    UsageQuery,
    sum_of,
    total_of,
    worst_quality,
)
from tests.support.ledger_records import an_exchange, random_exchange

UNPRICED = {"cost_nano_usd": None, "cost_quality": CostQuality.UNKNOWN}


def test_nothing_is_unknown_and_not_free():
    """An empty bill is never $0."""
    assert total_of([]) == Totals(
        requests=0, cost_nano_usd=None, cost_quality=CostQuality.UNKNOWN, unknown_cost_requests=0
    )


def test_every_count_is_summed_under_its_own_name():
    """The inclusive names of OpenTelemetry over the disjoint counts."""
    usage = TokenUsage(
        input_uncached=1,
        cache_read=20,
        cache_write_5m=300,
        cache_write_1h=4000,
        output=50000,
        reasoning=600000,
    )
    other = TokenUsage(input_uncached=2, output=7)
    assert total_of(
        [
            an_exchange(usage=usage, cost_nano_usd=3),
            an_exchange(usage=other, cost_nano_usd=2**62),
        ]
    ) == Totals(
        requests=2,
        input_tokens=4323,
        cache_read_input_tokens=20,
        cache_creation_input_tokens=4300,
        output_tokens=50007,
        reasoning_output_tokens=600000,
        cost_nano_usd=2**62 + 3,
        cost_quality=CostQuality.PRICED,
        unknown_cost_requests=0,
    )


def test_a_cost_is_null_only_if_all_are_unknown():
    """Else it is the sum of the known ones, with the number of the others beside it."""
    assert total_of([an_exchange(**UNPRICED)] * 2).cost_nano_usd is None
    assert total_of([an_exchange(**UNPRICED)] * 2).unknown_cost_requests == 2
    mixed = total_of([an_exchange(**UNPRICED), an_exchange(cost_nano_usd=0)])
    assert (mixed.cost_nano_usd, mixed.unknown_cost_requests) == (0, 1)
    assert mixed.cost_quality is CostQuality.UNKNOWN


@pytest.mark.parametrize("order", list(permutations(CostQuality)))
def test_the_quality_is_the_worst_in_any_order(order: tuple[CostQuality, ...]):
    """Reported, priced, estimated, unknown."""
    ranks = list(CostQuality)
    for end in range(1, 5):
        assert worst_quality(order[:end]) is ranks[max(map(ranks.index, order[:end]))]


def test_a_missing_amount_is_unknown_whatever_its_label():
    """A quality without an amount says nothing."""
    records = [an_exchange(cost_nano_usd=None, cost_quality=CostQuality.REPORTED)]
    assert total_of(records).cost_quality is CostQuality.UNKNOWN


@pytest.mark.parametrize("operation", [o for o in Operation if o is not Operation.GENERATE])
def test_only_generation_calls_are_requests(operation: Operation):
    """Other calls add what they are known to cost, and no unknown."""
    free = total_of([an_exchange(operation=operation, **UNPRICED)])
    assert (free.requests, free.unknown_cost_requests) == (0, 0)
    paid = total_of([an_exchange(operation=operation, cost_nano_usd=9)])
    assert (paid.requests, paid.cost_nano_usd) == (0, 9)
    assert paid.cost_quality is CostQuality.PRICED


def test_a_denied_exchange_counts_nowhere():
    """Nothing left the machine."""
    assert total_of([an_exchange(status=ExchangeStatus.DENIED)]) == Totals()


@pytest.mark.parametrize(
    ("http_status", "usage", "unknown"),
    [
        (401, TokenUsage(), 0),
        (502, TokenUsage(), 0),
        (500, TokenUsage(input_uncached=1), 1),
        (200, TokenUsage(), 1),
        (None, TokenUsage(), 1),
    ],
)
def test_a_refusal_without_usage_is_no_unknown_cost(
    http_status: int | None, usage: TokenUsage, unknown: int
):
    """Providers bill answers, not errors; a request it stays."""
    record = an_exchange(
        status=ExchangeStatus.UPSTREAM_ERROR, http_status=http_status, usage=usage, **UNPRICED
    )
    totals = total_of([record])
    assert (totals.requests, totals.unknown_cost_requests) == (1, unknown)


def test_an_unknown_grouping_is_a_usage_error_with_the_known_ones():
    """The command line passes it through."""
    with pytest.raises(UsageError) as caught:
        UsageQuery(by=("model", "modle"))
    assert "'modle'" in caught.value.message
    assert caught.value.hint is not None
    assert all(name in caught.value.hint for name in GROUPINGS)


@pytest.mark.parametrize("name", ["Mars/Phobos", "../etc/passwd", "", "/UTC"])
def test_an_unknown_time_zone_is_a_usage_error(name: str):
    """And no path into the file system."""
    with pytest.raises(UsageError) as caught:
        UsageQuery(time_zone=name)
    assert caught.value.code == "usage"


@pytest.mark.parametrize("seed", range(20))
def test_the_sum_of_parts_is_the_total_of_all(seed: int):
    """However a ledger is taken apart, also where a part has nothing to pay for."""
    chance = random.Random(seed)
    parts = [[random_exchange(chance) for _ in range(chance.randrange(4))] for _ in range(5)]
    assert sum_of(map(total_of, parts)) == total_of(each for part in parts for each in part)
