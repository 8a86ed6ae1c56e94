"""Limits hold for every span of their length, and the time to wait is exact."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencode_gate.governance.policy import Owner, RateLimit
from opencode_gate.governance.rates import PER_S, RateMeter

CORE = Owner("team", "core")
CI = Owner("vkey", "ci")


def requests(amount: int, per: str = "minute", **fields) -> RateLimit:
    return RateLimit(requests=amount, per=per, **fields)


def tokens(amount: int, per: str = "minute", **fields) -> RateLimit:
    return RateLimit(tokens=amount, per=per, **fields)


def test_requests_fit_until_the_limit_and_again_when_the_first_is_a_minute_old() -> None:
    meter, limit = RateMeter(), requests(2)
    for now_s in (0.0, 25.0):
        assert meter.wait_s(CORE, limit, now_s) == 0
        meter.take([(CORE, limit)], now_s)
    assert meter.wait_s(CORE, limit, 30.0) == 30.0
    assert meter.wait_s(CORE, limit, 59.9) == pytest.approx(0.1)
    assert meter.wait_s(CORE, limit, 60.0) == 0
    meter.take([(CORE, limit)], 60.0)
    assert meter.wait_s(CORE, limit, 61.0) == 24.0


def test_tokens_wait_until_enough_of_them_are_forgotten() -> None:
    meter, limit = RateMeter(), tokens(1_000)
    for now_s, amount in ((0.0, 300), (10.0, 400), (20.0, 300)):
        meter.take([(CORE, limit)], now_s, amount)
    assert meter.wait_s(CORE, limit, 30.0, 300) == 30.0
    assert meter.wait_s(CORE, limit, 30.0, 301) == 40.0
    assert meter.wait_s(CORE, limit, 30.0, 1_000) == 50.0


def test_more_tokens_than_the_whole_limit_fit_when_nothing_else_counts() -> None:
    """Else such a request would wait for ever."""
    meter, limit = RateMeter(), tokens(1_000)
    assert meter.wait_s(CORE, limit, 0.0, 5_000) == 0
    meter.take([(CORE, limit)], 0.0, 5_000)
    assert meter.wait_s(CORE, limit, 1.0, 1) == 59.0


def test_tokens_are_settled_to_what_they_really_were() -> None:
    meter, limit = RateMeter(), tokens(1_000)
    ticket = meter.take([(CORE, limit)], 0.0, 900)
    assert meter.wait_s(CORE, limit, 1.0, 200) == 59.0
    ticket.settle(100)
    assert meter.wait_s(CORE, limit, 1.0, 900) == 0
    ticket.settle(1_000)
    assert meter.wait_s(CORE, limit, 1.0, 1) == 59.0


def test_settling_what_no_longer_counts_changes_nothing() -> None:
    meter, limit = RateMeter(), tokens(1_000)
    old = meter.take([(CORE, limit)], 0.0, 900)
    assert meter.wait_s(CORE, limit, 60.0, 1_000) == 0
    meter.take([(CORE, limit)], 60.0, 1_000)
    old.settle(5)
    assert meter.wait_s(CORE, limit, 61.0, 1) == 59.0


def test_only_so_many_run_at_once_and_a_slot_is_freed_once() -> None:
    meter, limit = RateMeter(), RateLimit(concurrent=2)
    first, _ = (meter.take([(CORE, limit)], 0.0) for _ in range(2))
    assert meter.wait_s(CORE, limit, 1e9) == math.inf
    first.release()
    first.release()
    assert meter.wait_s(CORE, limit, 0.0) == 0
    meter.take([(CORE, limit)], 0.0)
    assert meter.wait_s(CORE, limit, 0.0) == math.inf


def test_a_request_is_held_back_by_the_limit_that_takes_longest() -> None:
    meter = RateMeter()
    limits = [(CI, requests(1)), (CORE, requests(1, "hour")), (CORE, tokens(10))]
    assert meter.most_waited(limits, 0.0, 5) == (0, None)
    meter.take(limits, 0.0, 5)
    assert meter.most_waited(limits, 1.0, 5) == (3_599.0, limits[1])
    assert meter.most_waited(limits[:1], 1.0, 5) == (59.0, limits[0])


def test_owners_and_measures_are_counted_apart() -> None:
    meter = RateMeter()
    meter.take([(CORE, requests(1))], 0.0)
    assert meter.wait_s(CI, requests(1), 0.0) == 0
    assert meter.wait_s(CORE, requests(1, "hour"), 0.0) == 0
    assert meter.wait_s(CORE, tokens(1), 0.0, 1) == 0


def test_a_limit_that_is_changed_has_counted_already() -> None:
    meter = RateMeter()
    for _ in range(3):
        meter.take([(CORE, requests(5))], 0.0)
    assert meter.wait_s(CORE, requests(2), 1.0) == 59.0
    assert meter.wait_s(CORE, requests(4), 1.0) == 0


def test_shadow_counts_and_holds_nobody_back() -> None:
    meter = RateMeter()
    shadow = (CORE, requests(1, mode="shadow"))
    assert meter.shadowed([shadow], 0.0) == []
    for _ in range(3):
        assert meter.most_waited([shadow], 0.0) == (0, None)
        meter.take([shadow], 0.0)
    assert meter.shadowed([shadow], 1.0) == [shadow]
    assert meter.wait_s(*shadow, 1.0) == 59.0
    assert meter.shadowed([shadow], 60.0) == []


def test_what_nobody_uses_any_more_is_forgotten_and_what_counts_is_not() -> None:
    meter = RateMeter()
    daily, slots = requests(1, "day"), RateLimit(concurrent=1)
    held = meter.take([(CORE, daily), (CORE, slots)], 0.0)
    for number in range(20_000):
        meter.take([(Owner("session", str(number)), requests(1))], number / 10)
    assert len(meter._logs) < 6_000
    assert len(meter._gauges) < 6_000
    assert meter.wait_s(CORE, daily, 2_000.0) == 86_400 - 2_000
    assert meter.wait_s(CORE, slots, 2_000.0) == math.inf
    held.release()
    assert meter.wait_s(CORE, slots, 2_000.0) == 0


steps = st.lists(
    st.tuples(st.integers(0, 40), st.integers(1, 60), st.integers(0, 60)), min_size=1, max_size=40
)


@given(limit=st.integers(1, 8), steps=steps)
def test_no_span_of_the_length_has_more_requests_than_the_limit(limit, steps) -> None:
    meter, rule = RateMeter(), requests(limit)
    admitted: list[int] = []
    now_s = 0
    for gap_s, _, _ in steps:
        now_s += gap_s
        wait_s = meter.wait_s(CORE, rule, now_s)
        if wait_s == 0:
            meter.take([(CORE, rule)], now_s)
            admitted.append(now_s)
        else:
            # Exact: a moment earlier it does not fit yet.
            for earlier_s, fits in ((wait_s - 1, False), (wait_s, True)):
                at_s = now_s + earlier_s
                counted = sum(1 for one in admitted if one > at_s - 60)
                assert (counted < limit) is fits
    for start_s in admitted:
        assert sum(1 for one in admitted if start_s <= one < start_s + 60) <= limit


@given(limit=st.integers(10, 100), steps=steps)
def test_no_span_of_the_length_has_more_tokens_than_the_limit(limit, steps) -> None:
    """As long as what a request takes is no more than was thought."""
    meter, rule = RateMeter(), tokens(limit)
    admitted: list[tuple[int, int]] = []
    now_s = 0
    for gap_s, thought, taken in steps:
        now_s += gap_s
        thought = min(thought, limit)
        wait_s = meter.wait_s(CORE, rule, now_s, thought)
        counted = sum(amount for at_s, amount in admitted if at_s > now_s - 60)
        assert (wait_s == 0) is (counted + thought <= limit)
        if wait_s == 0:
            ticket = meter.take([(CORE, rule)], now_s, thought)
            ticket.settle(min(thought, taken))
            admitted.append((now_s, min(thought, taken)))
        else:
            later = [amount for at_s, amount in admitted if at_s > now_s + wait_s - 60]
            assert sum(later) + thought <= limit
            before = [amount for at_s, amount in admitted if at_s > now_s + wait_s - 61]
            assert sum(before) + thought > limit


@given(
    limit=st.integers(1, 5),
    events=st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=60),
)
def test_never_more_run_at_once_than_the_limit(limit, events) -> None:
    meter, rule = RateMeter(), RateLimit(concurrent=limit)
    running, ended = [], []
    for begins, which in events:
        if begins:
            fits = meter.wait_s(CORE, rule, 0.0) == 0
            assert fits is (len(running) < limit)
            if fits:
                running.append(meter.take([(CORE, rule)], 0.0))
        elif running:
            ticket = running.pop(which % len(running))
            ended.append(ticket)
            ticket.release()
        for ticket in ended:
            ticket.release()
    for ticket in running:
        ticket.release()
    assert meter.wait_s(CORE, rule, 0.0) == 0


def test_every_length_of_time_of_a_limit_is_known() -> None:
    assert [PER_S[per] for per in ("minute", "hour", "day")] == [60, 3_600, 86_400]


def test_what_fits_at_once_is_taken_from_all_limits_or_from_none() -> None:
    """Those in shadow too: somebody has to say that they would have held it back."""
    meter = RateMeter()
    limits = ((CORE, requests(2)), (CI, RateLimit(concurrent=1)), (CI, tokens(100)))
    first = meter.take_now(limits, 0.0, 60)
    assert first is not None
    assert meter.take_now(limits, 1.0, 10) is None
    first.release()
    assert meter.take_now(limits, 1.0, 60) is None
    assert meter.wait_s(CORE, requests(2), 1.0) == 0
    assert meter.take_now(limits, 1.0, 40) is not None
    shadowed = ((CORE, requests(2, mode="shadow")),)
    assert meter.take_now(shadowed, 1.0) is None
    assert meter.take_now(shadowed, 60.0) is not None


@given(
    st.lists(st.tuples(st.floats(0, 0.02), st.integers(1, 40)), min_size=1, max_size=400),
    st.integers(1, 4_000),
)
def test_a_long_log_lets_no_more_pass_than_a_short_one(asked, limit) -> None:
    """Where it no longer tells each moment from the next, it takes them for later."""
    meter, limits = RateMeter(), ((CORE, tokens(limit)),)
    now_s, admitted = 0.0, []
    for number in range(600):
        meter.take(limits, number / 10_000, 1)
    for pause_s, amount in asked * 3:
        now_s += pause_s + 0.06
        if meter.take_now(limits, now_s, amount) is not None:
            admitted.append((now_s, amount))
    for at_s, _ in admitted:
        within = [amount for when_s, amount in admitted if at_s <= when_s < at_s + 60]
        assert sum(within) <= max(limit, within[0])


def test_what_a_limit_remembers_is_bounded_however_much_it_allows() -> None:
    """A million requests a day would else be a million entries."""
    meter, limits = RateMeter(), ((CORE, requests(10**9, "day")), (CORE, tokens(10**12)))
    for number in range(30_000):
        ticket = meter.take_now(limits, number * 0.5, 3)
        assert ticket is not None
        ticket.settle(2)
    assert all(len(log.entries) <= 512 + 4_096 for log in meter._logs.values())
    assert meter._logs[CORE, "requests", "day"].total == 30_000
    # As in a minute before, and in the grain that counts as later.
    assert 240 <= meter._logs[CORE, "tokens", "minute"].total < 1_300
