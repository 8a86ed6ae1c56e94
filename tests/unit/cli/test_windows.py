"""Spans of time begin and end with days of the person's own calendar."""

from datetime import UTC, datetime

import pytest

from opencode_gate.cli.windows import chosen_window, named_window, window_between
from opencode_gate.core.errors import UsageError

BERLIN = "Europe/Berlin"


def _us(text: str) -> int:
    return round(datetime.fromisoformat(text).astimezone(UTC).timestamp() * 1_000_000)


# A Saturday, 00:30 in Berlin: still Friday in UTC.
NOW_US = _us("2026-11-21T00:30:00+01:00")


@pytest.mark.parametrize(
    ("name", "since"),
    [
        ("today", "2026-11-21T00:00:00+01:00"),
        ("week", "2026-11-16T00:00:00+01:00"),
        ("month", "2026-11-01T00:00:00+01:00"),
    ],
)
def test_named_windows_begin_at_local_midnight(name, since) -> None:
    window = named_window(name, now_us=NOW_US, time_zone=BERLIN)
    assert (window.since_us, window.until_us) == (_us(since), None)


def test_a_month_begins_before_the_clocks_change() -> None:
    """October begins in summer time although its end is in winter time."""
    window = named_window("month", now_us=_us("2026-10-31T12:00:00+01:00"), time_zone=BERLIN)
    assert window.since_us == _us("2026-10-01T00:00:00+02:00")


@pytest.mark.parametrize(
    ("since", "until", "since_at", "until_at"),
    [
        ("2026-11-03", None, "2026-11-03T00:00:00+01:00", None),
        (None, "2026-11-03", None, "2026-11-04T00:00:00+01:00"),
        ("2026-11-03", "2026-11-03", "2026-11-03T00:00:00+01:00", "2026-11-04T00:00:00+01:00"),
        ("yesterday", "today", "2026-11-20T00:00:00+01:00", "2026-11-22T00:00:00+01:00"),
        ("7d", None, "2026-11-14T00:00:00+01:00", None),
        ("2026-11-03T14:00", None, "2026-11-03T14:00:00+01:00", None),
        ("2026-11-03T14:00Z", None, "2026-11-03T14:00:00+00:00", None),
        ("2026-03-29", "2026-03-29", "2026-03-29T00:00:00+01:00", "2026-03-30T00:00:00+02:00"),
    ],
)
def test_a_day_given_as_the_end_still_counts(since, until, since_at, until_at) -> None:
    window = window_between(since, until, now_us=NOW_US, time_zone=BERLIN)
    assert window.since_us == (None if since_at is None else _us(since_at))
    assert window.until_us == (None if until_at is None else _us(until_at))


@pytest.mark.parametrize("text", ["soon", "", "2026-13-01", "-3d", "d"])
def test_what_is_no_moment_is_refused_with_examples(text) -> None:
    with pytest.raises(UsageError, match="is not a day or a time") as refused:
        window_between(text, None, now_us=NOW_US, time_zone=BERLIN)
    assert "7d" in (refused.value.hint or "")


@pytest.mark.parametrize("text", ["0001-01-01", "9999-12-31", "0001-01-01T00:00+14:00"])
def test_days_at_the_ends_of_the_calendar_are_refused(text) -> None:
    """No zone has a day before the first or after the last, and nobody has used anything then."""
    for since, until in ((text, None), (None, text)):
        with pytest.raises(UsageError, match="is not a day or a time"):
            window_between(since, until, now_us=NOW_US, time_zone="Asia/Tokyo")


@pytest.mark.parametrize("named", [{}, {"today": True}])
def test_an_empty_moment_is_not_left_out_in_silence(named) -> None:
    """`--since "$DAY"` with a variable that is not set must not show another span."""
    with pytest.raises(UsageError):
        chosen_window(named, "", None, fallback="month", now_us=NOW_US, time_zone=BERLIN)


def test_an_end_before_the_beginning_is_refused() -> None:
    with pytest.raises(UsageError, match="before"):
        window_between("2026-11-03", "2026-11-02", now_us=NOW_US, time_zone=BERLIN)


def test_only_longer_windows_have_something_to_plot() -> None:
    today = named_window("today", now_us=NOW_US, time_zone=BERLIN)
    assert not today.is_longer_than_a_day(NOW_US)
    one_day = window_between("2026-11-03", "2026-11-03", now_us=NOW_US, time_zone=BERLIN)
    assert not one_day.is_longer_than_a_day(NOW_US)
    two_days = window_between("2026-11-03", "2026-11-04", now_us=NOW_US, time_zone=BERLIN)
    assert two_days.is_longer_than_a_day(NOW_US)
    assert window_between(None, None, now_us=NOW_US, time_zone=BERLIN).is_longer_than_a_day(NOW_US)
