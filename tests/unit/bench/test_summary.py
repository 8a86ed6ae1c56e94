"""What is said of times that were measured."""

import pytest

from bench.cells import Measured, Round, Sample, Throughput, turned
from bench.summary import cell_figures, throughput_figures


def _round(direct: float, nginx: float, ogate: float) -> Round:
    return {
        "direct": Sample([direct] * 4, [direct * 10] * 4, 0.1),
        "nginx": Sample([nginx] * 4, [nginx * 10] * 4, 0.2),
        "ogate": Sample([ogate] * 4, [ogate * 10] * 4, 0.4),
    }


def test_added_is_held_against_the_direct_time_of_the_same_round() -> None:
    """A round in which the whole machine was slow changes nothing."""
    slow = Measured([_round(1.0, 2.0, 4.0), _round(11.0, 12.0, 14.0), _round(1.0, 2.0, 4.0)])
    ways = cell_figures(slow, ["first", "whole"])["ways"]
    assert ways["ogate"]["first"]["added_p50_s"] == pytest.approx(3.0)
    assert ways["ogate"]["first"]["times_nginx_p50"] == pytest.approx([3.0, 3.0, 3.0])
    assert ways["ogate"]["whole"]["added_p50_s"] == pytest.approx(30.0)
    assert "added_p50_s" not in ways["direct"]["first"]


def test_the_slowest_hundredth_is_held_against_the_direct_median() -> None:
    rounds = [_round(1.0, 2.0, 3.0)]
    rounds[0]["ogate"].first = [3.0] * 97 + [9.0] * 3
    rounds[0]["nginx"].first = [2.0] * 97 + [5.0] * 3
    figures = cell_figures(Measured(rounds), ["first"])["ways"]["ogate"]["first"]
    assert figures["added_p99_s"] == pytest.approx(8.0)
    assert figures["times_nginx_p99"] == pytest.approx(2.0)


def test_processor_time_is_that_of_a_request() -> None:
    ways = cell_figures(Measured([_round(1, 2, 3), _round(1, 2, 3)]), ["whole"])["ways"]
    assert ways["ogate"]["requests"] == 8
    assert ways["ogate"]["cpu_s_per_request"] == pytest.approx(0.1)


def test_without_a_floor_there_is_no_ratio_to_it() -> None:
    alone = _round(1.0, 2.0, 3.0)
    del alone["nginx"]
    figures = cell_figures(Measured([alone]), ["whole"])["ways"]["ogate"]["whole"]
    assert "added_p50_s" in figures
    assert "times_nginx_p50" not in figures


def test_what_is_absent_is_told_with_the_reason() -> None:
    absent = {"litellm": "answer b'500'"}
    assert cell_figures(Measured([_round(1, 2, 3)], absent), ["whole"])["absent"] == absent


def test_a_rate_has_its_spread() -> None:
    told = throughput_figures(Throughput({"nginx": [3.0, 1.0, 8.0]}, {"litellm": "slow"}))
    assert told["ways"] == {"nginx": {"median": 3.0, "least": 1.0, "most": 8.0}}
    assert told["absent"] == {"litellm": "slow"}


def test_every_round_has_everybody_in_an_order_of_its_own() -> None:
    names = dict.fromkeys("abcdef")
    orders = [turned(names, number) for number in range(20)]
    assert all(sorted(order) == list(names) for order in orders)
    assert len({tuple(order) for order in orders}) > 10
    assert orders == [turned(names, number) for number in range(20)]
