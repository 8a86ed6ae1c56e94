"""Windows follow the owner's calendar without gap or overlap, whatever the clocks there do."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from opencode_gate.core.errors import ConfigError
from opencode_gate.governance import windows
from opencode_gate.governance.policy import Budget
from opencode_gate.governance.windows import ENDLESS, WindowSpan, later, window_of

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kolkata",
    "Australia/Lord_Howe",  # half an hour
    "America/Sao_Paulo",  # midnight was skipped, and came twice
    "America/Havana",  # the hour behind midnight comes twice
    "America/St_Johns",  # one minute behind midnight, until 2011
    "America/Toronto",  # half an hour before midnight, in 1919
    "Pacific/Apia",  # a whole day was skipped
    "Pacific/Kwajalein",
    "Africa/Casablanca",
    "Asia/Tehran",
    "Antarctica/Troll",  # two hours
]
CALENDAR = ["hour", "day", "week", "month", "quarter", "year"]


def us(text: str, zone: str = "UTC") -> int:
    moment = datetime.fromisoformat(text)
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=ZoneInfo(zone))
    return round(moment.astimezone(UTC).timestamp() * 1_000_000)


def budget(window: str) -> Budget:
    return Budget(window=window, tokens=1)


def fresh(window: str, at_us: int, zone: str) -> WindowSpan:
    """As `window_of`, from the calendar and not from memory."""
    windows._cached.clear()
    return window_of(budget(window), at_us, zone)


# About once a second hour somewhere between 1919 and 2037, and close to where clocks change.
CHANGES = [
    us("2026-03-29T01:00+00:00"),
    us("2026-10-25T01:00+00:00"),
    us("2026-03-08T07:00+00:00"),
    us("2026-11-01T06:00+00:00"),
    us("2026-10-03T15:30+00:00"),
    us("2027-04-03T15:00+00:00"),
    us("2018-11-04T03:00+00:00"),
    us("2019-02-17T02:00+00:00"),
    us("2026-11-01T05:00+00:00"),
    us("2009-11-01T02:31+00:00"),
    us("1919-03-31T04:30+00:00"),
    us("2011-12-30T10:00+00:00"),
    us("1993-08-21T12:00+00:00"),
    us("2026-02-15T02:00+00:00"),
]
INSTANTS = st.integers(us("1970-01-02"), us("2037-12-01")) | st.builds(
    int.__add__, st.sampled_from(CHANGES), st.integers(-2 * DAY_US, 2 * DAY_US)
)


@given(window=st.sampled_from(CALENDAR), zone=st.sampled_from(ZONES), at_us=INSTANTS)
@example(window="day", zone="America/St_Johns", at_us=us("2009-11-01T02:45"))
@example(window="day", zone="America/Toronto", at_us=us("1919-03-31T04:45"))
@example(window="day", zone="Pacific/Apia", at_us=us("2011-12-30T10:00"))
@example(window="hour", zone="Australia/Lord_Howe", at_us=us("2027-04-03T15:10"))
def test_windows_follow_each_other_without_gap_or_overlap(window, zone, at_us) -> None:
    span = fresh(window, at_us, zone)
    assert span.end_us is not None
    assert span.start_us <= at_us < span.end_us
    assert fresh(window, span.start_us, zone) == span
    assert fresh(window, span.end_us - 1, zone) == span
    assert fresh(window, span.end_us, zone).start_us == span.end_us
    assert fresh(window, span.start_us - 1, zone).end_us == span.start_us


@given(
    window=st.sampled_from(CALENDAR),
    zone=st.sampled_from(ZONES),
    instants=st.lists(INSTANTS, min_size=2, max_size=6),
)
def test_memory_gives_the_window_the_calendar_gives(window, zone, instants) -> None:
    """Also where the clock jumps to and fro."""
    windows._cached.clear()
    remembered = [window_of(budget(window), at_us, zone) for at_us in instants]
    assert remembered == [fresh(window, at_us, zone) for at_us in instants]


@given(zone=st.sampled_from(ZONES), at_us=INSTANTS)
def test_a_day_is_the_time_that_bears_its_date(zone, at_us) -> None:
    """From the first instant of a date on; a date that comes again for a while ends no day."""
    span = fresh("day", at_us, zone)

    def date_of(time_us: int) -> date:
        return datetime.fromtimestamp(time_us // 1_000_000, ZoneInfo(zone)).date()

    first = date_of(span.start_us)
    assert date_of(span.start_us - 1_000_000) < first
    assert date_of(at_us) in (first, first - timedelta(days=1))
    assert date_of(span.end_us) > first


@pytest.mark.parametrize(
    ("window", "at", "zone", "start", "hours"),
    [
        ("day", "2026-03-29T12:00", "Europe/Berlin", "2026-03-29T00:00+01:00", 23),
        ("day", "2026-10-25T12:00", "Europe/Berlin", "2026-10-25T00:00+02:00", 25),
        ("day", "2026-11-21T23:59:59", "Europe/Berlin", "2026-11-21T00:00+01:00", 24),
        ("day", "2026-03-08T12:00", "America/New_York", "2026-03-08T00:00-05:00", 23),
        ("day", "2026-11-01T12:00", "America/New_York", "2026-11-01T00:00-04:00", 25),
        ("day", "2026-11-21T00:00", "Asia/Kolkata", "2026-11-21T00:00+05:30", 24),
        ("day", "2026-10-04T12:00", "Australia/Lord_Howe", "2026-10-04T00:00+10:30", 23.5),
        ("day", "2027-04-04T12:00", "Australia/Lord_Howe", "2027-04-04T00:00+11:00", 24.5),
        ("day", "2018-11-04T12:00", "America/Sao_Paulo", "2018-11-04T01:00-02:00", 23),
        ("day", "2019-02-16T12:00", "America/Sao_Paulo", "2019-02-16T00:00-02:00", 25),
        ("day", "2011-12-31T12:00", "Pacific/Apia", "2011-12-31T00:00+14:00", 24),
        ("day", "1919-03-31T12:00", "America/Toronto", "1919-03-31T00:30-04:00", 23.5),
        # A minute after midnight it was 23:01 again: that hour belongs to the day begun.
        ("day", "2009-11-01T02:45+00:00", "America/St_Johns", "2009-11-01T00:00-02:30", 25),
        ("day", "2009-11-01T02:29+00:00", "America/St_Johns", "2009-10-31T00:00-02:30", 24),
        ("month", "2009-11-01T02:45+00:00", "America/St_Johns", "2009-11-01T00:00-02:30", 721),
        ("week", "2026-12-31T12:00", "Europe/Berlin", "2026-12-28T00:00+01:00", 168),
        ("week", "2027-01-03T23:59", "Europe/Berlin", "2026-12-28T00:00+01:00", 168),
        ("week", "2026-03-25T12:00", "Europe/Berlin", "2026-03-23T00:00+01:00", 167),
        ("month", "2026-02-28T23:59", "Europe/Berlin", "2026-02-01T00:00+01:00", 28 * 24),
        ("month", "2028-02-29T23:59", "Europe/Berlin", "2028-02-01T00:00+01:00", 29 * 24),
        ("month", "2026-03-31T23:59", "Europe/Berlin", "2026-03-01T00:00+01:00", 31 * 24 - 1),
        ("month", "2026-11-30T23:59", "America/New_York", "2026-11-01T00:00-04:00", 721),
        ("quarter", "2026-11-21T12:00", "Europe/Berlin", "2026-10-01T00:00+02:00", 92 * 24 + 1),
        ("quarter", "2028-03-31T23:59", "UTC", "2028-01-01T00:00+00:00", 91 * 24),
        ("year", "2026-12-31T23:59", "Europe/Berlin", "2026-01-01T00:00+01:00", 365 * 24),
        ("year", "2028-02-29T12:00", "Asia/Kolkata", "2028-01-01T00:00+05:30", 366 * 24),
        ("hour", "2026-11-21T12:45", "Asia/Kolkata", "2026-11-21T12:00+05:30", 1),
        ("hour", "2026-10-25T02:30+02:00", "Europe/Berlin", "2026-10-25T02:00+02:00", 1),
        ("hour", "2026-10-25T02:30+01:00", "Europe/Berlin", "2026-10-25T02:00+01:00", 1),
        ("hour", "2026-10-04T02:45+11:00", "Australia/Lord_Howe", "2026-10-04T02:30+11:00", 0.5),
        ("hour", "2027-04-04T01:45+10:30", "Australia/Lord_Howe", "2027-04-04T01:30+10:30", 0.5),
    ],
)
def test_windows_of_the_calendar(window, at, zone, start, hours) -> None:
    start_us = us(start)
    assert fresh(window, us(at, zone), zone) == (start_us, start_us + int(hours * HOUR_US))


@pytest.mark.parametrize("window", ["session", "total"])
def test_what_never_begins_anew_is_one_window(window) -> None:
    assert window_of(budget(window), us("2026-11-21"), "no such zone") == ENDLESS


@pytest.mark.parametrize(
    ("window", "days"), [("day", 1), ("week", 7), ("month", 30), ("quarter", 90), ("year", 365)]
)
def test_rolling_windows_are_lengths_of_time_since_the_budget_was_made(window, days) -> None:
    """Also across a change of the clocks; before its first there is no window."""
    since_us = us("2026-03-28T15:30", "Europe/Berlin")
    rolling = Budget(window=window, tokens=1, rolling=True, since_us=since_us)
    first = WindowSpan(since_us, since_us + days * DAY_US)
    assert window_of(rolling, since_us, "Europe/Berlin") == first
    assert window_of(rolling, first.end_us - 1, "Europe/Berlin") == first
    assert window_of(rolling, first.end_us, "Europe/Berlin").start_us == first.end_us
    assert window_of(rolling, since_us - 5 * DAY_US, "Europe/Berlin") == first


@given(
    window=st.sampled_from(CALENDAR),
    zone=st.sampled_from(ZONES),
    at_us=INSTANTS,
    back_us=st.integers(0, 400 * DAY_US),
)
def test_a_clock_set_back_opens_no_window_again(window, zone, at_us, back_us) -> None:
    used = fresh(window, at_us, zone)
    now = later(fresh(window, at_us - back_us, zone), used.start_us)
    assert now.start_us == used.start_us
    assert now.end_us > now.start_us


def test_a_window_goes_on_to_its_next_end_where_the_owner_moved_east() -> None:
    """What was spent since the old zone's midnight stays spent until the new one's next."""
    at_us = us("2026-11-21T12:00+00:00")
    west = window_of(budget("day"), at_us, "America/New_York")
    east = window_of(budget("day"), at_us, "Europe/Berlin")
    assert east.start_us < west.start_us
    assert later(east, west.start_us) == WindowSpan(west.start_us, east.end_us)
    assert later(west, east.start_us) == west
    assert later(ENDLESS, 5) == ENDLESS


@pytest.mark.parametrize("zone", ["Europe/Berlyn", "", "../etc/passwd", "a\0b", "x" * 5000])
def test_a_zone_that_does_not_exist_is_refused(zone) -> None:
    with pytest.raises(ConfigError) as refused:
        fresh("day", us("2026-11-21"), zone)
    assert refused.value.code == "bad-policy"


def test_memory_is_bounded() -> None:
    windows._cached.clear()
    for since_us in range(3 * windows._CACHED_MAX):
        rolling = Budget(window="day", tokens=1, rolling=True, since_us=since_us)
        window_of(rolling, DAY_US, "UTC")
    assert len(windows._cached) <= windows._CACHED_MAX
