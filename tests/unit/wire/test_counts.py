import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from opencode_gate.wire.counts import (
    Counts,
    CountsReader,
    Tokens,
    Usages,
    amount_usd,
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


def test_what_is_left_of_a_whole():
    assert remainder(10, 3, 2) == (5, False)
    assert remainder(10, None, 2) == (8, False)
    assert remainder(10, 11) == (0, True)
    assert remainder(0, None) == (0, False)
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


class Inner(msgspec.Struct):
    x: Tokens = None
    y: Tokens = None


class Some(Counts):
    a: Tokens = None
    b: Tokens = None
    c: Tokens = None
    d: Inner | None = None
    details: Any = None


READER = CountsReader(Some)


def told(*texts: bytes) -> Some:
    usages = Usages(READER)
    for text in texts:
        assert usages.take(msgspec.Raw(text))
    return usages.counts()


def test_a_later_usage_replaces_what_it_says_and_keeps_what_it_does_not():
    counts = told(b'{"a":1,"b":2,"d":{"x":1,"y":2}}', b'{"a":0,"b":null,"c":3,"d":{"x":5}}')
    assert counts == Some(a=0, b=2, c=3, d=Inner(x=5, y=2))


def test_counts_that_come_with_every_event_are_those_of_the_last():
    """Also where something was told before them that they do not repeat."""
    told_often = [b'{"a":%d,"d":{"x":%d}}' % (n, n) for n in range(50)]
    assert told(b'{"b":7,"d":{"y":8}}', *told_often) == Some(a=49, b=7, d=Inner(x=49, y=8))


def test_the_same_usage_as_before_is_not_read_again(monkeypatch):
    texts = []

    class Counting(CountsReader):
        def read(self, text):
            texts.append(text)
            return super().read(text)

    usages = Usages(Counting(Some))
    for number in range(1000):
        usages.take(msgspec.Raw(b'{"a":%d}' % number))
    assert usages.counts() == Some(a=999)
    assert len(texts) == 2


def test_a_null_is_no_usage():
    usages = Usages(READER)
    assert not usages.take(msgspec.Raw(b"null"))
    assert (usages.raw(), usages.counts()) == (None, Some())


@pytest.mark.parametrize("strange", [b'"7"', b"-1", b"7.5", b"true", b"{}", b"[1]", b"1e9999"])
@pytest.mark.parametrize("place", [b'"b":%b', b'"d":{"x":%b,"y":6}', b'"d":%b'])
def test_one_strange_member_costs_no_other(strange, place):
    counts = told(b'{"a":5,' + place % strange + b',"c":7}')
    assert (counts.a, counts.b, counts.c) == (5, None, 7)
    assert counts.d is None or counts.d in (Inner(), Inner(y=6))
    if b'"y"' in place:
        assert counts.d == Inner(y=6)


def test_a_whole_number_may_be_written_with_a_fraction():
    assert told(b'{"a":7.0,"d":{"x":1e2}}') == Some(a=7, d=Inner(x=100))


def test_a_cost_keeps_every_digit():
    cost = told(b'{"cost":0.1000000000000000055}').reported_cost_usd()
    assert cost == Decimal("0.1000000000000000055")


def test_numbers_beyond_reason_do_not_break_the_reading():
    assert told(b'{"a":1e99999999999999999999,"b":3}') == Some(b=3)


def test_usage_that_is_no_object_is_refused():
    with pytest.raises(msgspec.DecodeError):
        Usages(READER).take(msgspec.Raw(b"[1]"))


def test_digits_that_make_it_no_usage_cost_only_that_one():
    """Looked at as text they differ from good ones in nothing but digits."""
    usages = Usages(READER)
    usages.take(msgspec.Raw(b'{"a":1,"z":"\\u0041"}'))
    usages.take(msgspec.Raw(b'{"a":2,"z":"\\u00"}'))
    assert usages.counts() in (Some(), Some(a=1), Some(a=2))
    assert usages.raw() is not None
    usages.take(msgspec.Raw(b'{"b":3}'))
    assert usages.counts().b == 3


def test_raw_usage_stays_as_it_came_when_there_is_one():
    text = b'{ "a" : 1.50, "b":"\\ud83d" }'
    assert merged_json(text, text) == text.decode()
    assert json.loads(merged_json(text, b'{"c":1}')) == {"a": 1.5, "b": "\ufffd", "c": 1}
