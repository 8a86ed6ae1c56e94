"""Which window of a budget an instant lies in.

The idea: calendar windows are the days of the owner's zone put together, so a day has 23 or 25
hours where the clocks change; rolling windows are plain lengths of time since they were made.
The invariants: the windows of a budget follow each other without gap or overlap, whatever the
zone does to its clocks; a clock that is set back opens no window again.
"""

import zoneinfo
from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta
from types import MappingProxyType
from typing import NamedTuple

from opencode_gate.core.errors import ConfigError
from opencode_gate.core.local_time import day_start_us, offset_spans
from opencode_gate.governance.policy import Budget, Window

_SECOND_US = 1_000_000
_HOUR_US = 3_600 * _SECOND_US
_DAY_US = 24 * _HOUR_US

ROLLING_US: Mapping[Window, int] = MappingProxyType(
    {
        "hour": _HOUR_US,
        "day": _DAY_US,
        "week": 7 * _DAY_US,
        "month": 30 * _DAY_US,
        "quarter": 90 * _DAY_US,
        "year": 365 * _DAY_US,
    }
)
"""How long a rolling window is, in microseconds."""


class WindowSpan(NamedTuple):
    """A window from `start_us` until before `end_us`, UTC microseconds.

    Both are of the one window there is, 0 and `None`, where a budget never begins anew.
    """

    start_us: int
    end_us: int | None


ENDLESS = WindowSpan(0, None)

_CACHED_MAX = 1024
_cached: dict[tuple[str, bool, int | None, str], WindowSpan] = {}


def window_of(budget: Budget, at_us: int, zone_name: str) -> WindowSpan:
    """The window of a budget that holds an instant; for a rolling one, its first at the earliest.

    Args:
        at_us: UTC microseconds.
        zone_name: the IANA name of the owner's zone.

    Raises:
        ConfigError: there is no such zone.
    """
    window = budget.window
    if window == "session" or window == "total":
        return ENDLESS
    key = (window, budget.rolling, budget.since_us, zone_name)
    span = _cached.get(key)
    if span is not None and span[0] <= at_us < span[1]:  # type: ignore[operator]  # has an end
        return span
    if budget.rolling:
        assert budget.since_us is not None
        span = _rolling(budget.since_us, at_us, ROLLING_US[window])
    else:
        span = _calendar(window, at_us, zone_name)
    if len(_cached) >= _CACHED_MAX:
        _cached.clear()
    _cached[key] = span
    return span


def later(span: WindowSpan, latest_start_us: int) -> WindowSpan:
    """The window to charge where one from `latest_start_us` on was used before.

    It is `span`, unless that began earlier: then the clock was set back, or the owner's zone was
    changed, and the window used before goes on. Its end is exact if it is that of `span`, else it
    is as long as `span` is.
    """
    if span.end_us is None or latest_start_us <= span.start_us:
        return span
    if latest_start_us < span.end_us:
        return WindowSpan(latest_start_us, span.end_us)
    return WindowSpan(latest_start_us, latest_start_us + span.end_us - span.start_us)


def _rolling(since_us: int, at_us: int, length_us: int) -> WindowSpan:
    start_us = since_us + max(0, (at_us - since_us) // length_us) * length_us
    return WindowSpan(start_us, start_us + length_us)


def follows_calendar(budget: Budget) -> bool:
    """Whether its windows are those of the calendar, which its owner's time zone decides."""
    return not budget.rolling and budget.window not in ("session", "total")


def zone_named(name: str) -> zoneinfo.ZoneInfo:
    """The time zone of an IANA name.

    Raises:
        ConfigError: there is no such zone.
    """
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ConfigError("bad-policy", f"there is no time zone {name!r}") from error


def _calendar(window: Window, at_us: int, zone_name: str) -> WindowSpan:
    zone = zone_named(zone_name)
    if window == "hour":
        return _hour(at_us, zone)
    kind = _KINDS[window]
    first = kind.first_of(datetime.fromtimestamp(at_us // _SECOND_US, zone).date())
    # Where midnight comes twice, an instant can bear a date whose next has begun already.
    if at_us >= day_start_us(kind.next(first), zone_name):
        first = kind.next(first)
    return WindowSpan(day_start_us(first, zone_name), day_start_us(kind.next(first), zone_name))


def _hour(at_us: int, zone: zoneinfo.ZoneInfo) -> WindowSpan:
    """The hour of the clock, cut where the clock is changed."""
    local = datetime.fromtimestamp(at_us // _SECOND_US, zone)
    into_us = at_us % _SECOND_US + (local.minute * 60 + local.second) * _SECOND_US
    start_us = at_us - into_us
    for span_start_us, span_end_us, _ in offset_spans(start_us, start_us + _HOUR_US, zone):
        if span_start_us <= at_us < span_end_us:
            return WindowSpan(span_start_us, span_end_us)
    return WindowSpan(start_us, start_us + _HOUR_US)


def _monday(day: date) -> date:
    return day - timedelta(days=day.weekday())


def _quarter(day: date) -> date:
    return date(day.year, 3 * ((day.month - 1) // 3) + 1, 1)


class _Kind(NamedTuple):
    first_of: Callable[[date], date]
    days_max: int

    def next(self, first: date) -> date:
        """The first day of the window after the one that begins with `first`."""
        return self.first_of(first + timedelta(days=self.days_max))


_KINDS: Mapping[Window, _Kind] = MappingProxyType(
    {
        "day": _Kind(lambda day: day, 1),
        "week": _Kind(_monday, 7),
        "month": _Kind(lambda day: day.replace(day=1), 31),
        "quarter": _Kind(_quarter, 92),
        "year": _Kind(lambda day: date(day.year, 1, 1), 366),
    }
)
"""The first day of the window a day lies in, and how many days such a window has at most."""
