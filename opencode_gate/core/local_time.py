"""The person's own time zone by name, and the instants its days begin at.

The invariant: a day is a day of the calendar in that zone, also where the clocks change: it may
have 23 or 25 hours, and its first instant is the earliest one that bears its date.
"""

import os
import time
from datetime import date, datetime, timedelta, tzinfo
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

_LOCALTIME = Path("/etc/localtime")
_ZONES = Path("/usr/share/zoneinfo")
_TIMEZONE = Path("/etc/timezone")

_STEP_US = 86_400_000_000
"""No zone changes its clocks twice within a day."""


def local_zone_name() -> str:
    """The IANA name of this machine's time zone.

    `TZ` first, then the system's settings. Where none names a zone, or `TZ` is a rule of POSIX, a
    fixed zone with today's offset (`Etc/GMT-3`), or `UTC` where that does not exist either.
    """
    told = os.environ.get("TZ", "").removeprefix(":")
    # It may name a file, of a zone or the system's own; a rule is what all other times obey.
    is_rule = bool(told) and not told.startswith("/")
    in_file = told.partition("zoneinfo/")[2]
    for name in (told,) if is_rule else (in_file, _linked_name(), _written_name()):
        if name and _is_zone(name):
            return name
    offset_s = time.localtime().tm_gmtoff
    hours, rest_s = divmod(offset_s, 3600)
    fixed = f"Etc/GMT{-hours:+d}" if hours and not rest_s else "UTC"
    return fixed if _is_zone(fixed) else "UTC"


def day_start_us(day: date, zone_name: str) -> int:
    """The first instant of a day in a zone, in UTC microseconds."""
    zone = _zone(zone_name)
    midnight = datetime(day.year, day.month, day.day, tzinfo=zone)
    # Where midnight comes twice, `fold=0` gives the first one (PEP 495).
    start_us = int(midnight.timestamp()) * 1_000_000
    if datetime.fromtimestamp(start_us // 1_000_000, zone).replace(fold=0) == midnight:
        return start_us
    # Midnight was skipped: the day begins where the clocks were put forward.
    return offset_spans(start_us - _STEP_US, start_us + 1, zone)[-1][0]


def local_day(time_us: int, zone_name: str) -> date:
    """The day of an instant in a zone."""
    return datetime.fromtimestamp(time_us / 1_000_000, _zone(zone_name)).date()


def local_hour(time_us: int, zone_name: str) -> int:
    """The hour of the day of an instant in a zone."""
    return datetime.fromtimestamp(time_us / 1_000_000, _zone(zone_name)).hour


def offset_spans(first_us: int, end_us: int, zone: tzinfo) -> list[tuple[int, int, int]]:
    """The time from `first_us` until before `end_us` in spans of one UTC offset each.

    A span is `(first microsecond, first microsecond after it, offset in microseconds)`: local
    days and hours within it are plain arithmetic. Empty if there is no time in between.
    """
    spans: list[tuple[int, int, int]] = []
    start_us = first_us
    while start_us < end_us:
        offset_us = _offset_us(start_us, zone)
        change_us = _next_change_us(start_us, end_us, zone)
        spans.append((start_us, change_us, offset_us))
        start_us = change_us
    return spans


def _offset_us(time_us: int, zone: tzinfo) -> int:
    offset = datetime.fromtimestamp(time_us // 1_000_000, zone).utcoffset()
    assert offset is not None, "a zone has an offset at any instant"
    return offset // timedelta(microseconds=1)


def _next_change_us(start_us: int, end_us: int, zone: tzinfo) -> int:
    """The first instant after `start_us` at which the offset is another, else `end_us`."""
    offset_us = _offset_us(start_us, zone)
    same_us = start_us
    while (other_us := min(same_us + _STEP_US, end_us)) < end_us:
        if _offset_us(other_us, zone) != offset_us:
            break
        same_us = other_us
    if _offset_us(other_us, zone) == offset_us:
        return end_us
    # Clocks change at whole seconds.
    same_s, other_s = same_us // 1_000_000, -(-other_us // 1_000_000)
    while other_s - same_s > 1:
        middle_s = (same_s + other_s) // 2
        if _offset_us(middle_s * 1_000_000, zone) == offset_us:
            same_s = middle_s
        else:
            other_s = middle_s
    return min(other_s * 1_000_000, end_us)


def _linked_name() -> str:
    """The zone that `/etc/localtime` links to: the path behind `zoneinfo/`."""
    try:
        target = os.readlink(_LOCALTIME)
    except OSError:
        return ""
    return target.partition("zoneinfo/")[2]


def _written_name() -> str:
    """The zone in `/etc/timezone`, as Debian writes it."""
    try:
        return _TIMEZONE.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _is_zone(name: str) -> bool:
    if _is_in_the_usual_place(name):
        return True
    import zoneinfo

    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def _is_in_the_usual_place(name: str) -> bool:
    """Whether it is found where `zoneinfo` looks first, without what that loads (PEP 615)."""
    path = PurePosixPath(name)
    if "PYTHONTZPATH" in os.environ or path.is_absolute() or ".." in path.parts:
        return False
    try:
        with (_ZONES / path).open("rb") as file:
            return file.read(4) == b"TZif"
    except (OSError, ValueError):
        return False


def _zone(name: str) -> "ZoneInfo":
    # Loading it costs more than the rest of this module's callers at the start of a session.
    from zoneinfo import ZoneInfo

    return ZoneInfo(name)
