"""The person's own time zone by name, and the instants its days begin at.

The invariant: a day is a day of the calendar in that zone, also where the clocks change: it may
have 23 or 25 hours, and its first instant is the earliest one that bears its date.
"""

import os
import time
import zoneinfo
from datetime import date, datetime
from pathlib import Path

_LOCALTIME = Path("/etc/localtime")
_TIMEZONE = Path("/etc/timezone")


def local_zone_name() -> str:
    """The IANA name of this machine's time zone.

    `TZ` first, then the system's settings. Where none names a zone, a fixed zone with today's
    offset (`Etc/GMT-3`), or `UTC` where that does not exist either.
    """
    for name in (os.environ.get("TZ", "").removeprefix(":"), _linked_name(), _written_name()):
        if name and _is_zone(name):
            return name
    offset_s = time.localtime().tm_gmtoff
    hours, rest_s = divmod(offset_s, 3600)
    fixed = f"Etc/GMT{-hours:+d}" if hours and not rest_s else "UTC"
    return fixed if _is_zone(fixed) else "UTC"


def day_start_us(day: date, zone_name: str) -> int:
    """The first instant of a day in a zone, in UTC microseconds."""
    # Where midnight is skipped or comes twice, `fold=0` gives the first instant (PEP 495).
    midnight = datetime(day.year, day.month, day.day, tzinfo=zoneinfo.ZoneInfo(zone_name))
    return int(midnight.timestamp()) * 1_000_000


def local_day(time_us: int, zone_name: str) -> date:
    """The day of an instant in a zone."""
    return datetime.fromtimestamp(time_us / 1_000_000, zoneinfo.ZoneInfo(zone_name)).date()


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
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True
