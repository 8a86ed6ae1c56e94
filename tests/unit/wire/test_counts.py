import json
from decimal import Decimal

import msgspec
import pytest

from opencode_gate.wire.counts import (
    amount_usd,
    first_count,
    later_usage,
    merged_json,
    remainder,
    token_count,
)


@pytest.mark.parametrize(
    ("value", "count"),
    [
        (0, 0),
        (7, 7),
        (7.0, 7),
        (Decimal("7.0"), 7),
        (7.5, None),
        (-1, None),
        (True, None),
        ("7", None),
        (None, None),
        ([], None),
        (float("nan"), None),
        (float("inf"), None),
        (Decimal("1e999999"), None),
        (2**53 + 1, None),
        pytest.param(10**5000, None, id="huge"),
    ],
)
def test_only_whole_numbers_are_counts(value, count):
    """A count that is no count is unknown; it is never read as zero."""
    assert token_count(value) == count


def test_a_zero_is_found_before_what_comes_after_it():
    assert first_count(None, 0, 7) == 0
    assert first_count(None, "x") is None


def test_what_is_left_of_a_whole():
    assert remainder(10, 3, None, 2) == (5, False)
    assert remainder(10, 11) == (0, True)
    assert remainder(0) == (0, False)
    assert remainder(None, 3) == (None, False)


@pytest.mark.parametrize(
    ("value", "amount"),
    [
        (0, Decimal(0)),
        (Decimal("0.0034170000000000003"), Decimal("0.0034170000000000003")),
        ("0.25", Decimal("0.25")),
        (-1, None),
        (True, None),
        ("free", None),
        ("nan", None),
        ("inf", None),
        ("1e999999999", None),
        pytest.param(10**5000, None, id="huge"),
        (None, None),
        ({}, None),
    ],
)
def test_only_finite_amounts_are_amounts(value, amount):
    assert amount_usd(value) == amount


def test_a_later_usage_replaces_what_it_says_and_keeps_what_it_does_not():
    first = later_usage({}, b'{"a":1,"b":2,"d":{"x":1,"y":2}}')
    second = later_usage(first, b'{"a":0,"b":null,"c":3,"d":{"x":5,"y":null}}')
    assert second == {"a": 0, "b": 2, "c": 3, "d": {"x": 5, "y": 2}}
    assert first == {"a": 1, "b": 2, "d": {"x": 1, "y": 2}}


def test_a_cost_keeps_every_digit():
    assert later_usage({}, b'{"cost":0.1000000000000000055}')["cost"] == Decimal(
        "0.1000000000000000055"
    )


def test_numbers_beyond_reason_do_not_break_the_reading():
    usage = later_usage({}, b'{"a":1e99999999999999999999,"b":3}')
    assert token_count(usage.get("a")) is None
    assert usage["b"] == 3


def test_usage_that_is_no_object_is_refused():
    with pytest.raises(msgspec.DecodeError):
        later_usage({}, b"[1]")


def test_raw_usage_stays_as_it_came_when_there_is_one():
    text = b'{ "a" : 1.50, "b":"\\ud83d" }'
    assert merged_json(text, text) == text.decode()
    assert json.loads(merged_json(text, b'{"c":1}')) == {"a": 1.5, "b": "\ufffd", "c": 1}
