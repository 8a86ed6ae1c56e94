"""From `--today`, `--week`, `--month`, `--since`, `--until` to a span of time.

The invariant: boundaries are those of the person's own calendar; a week begins on Monday; a day
given to `--until` still counts.
"""

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec

from opencode_gate.core.errors import UsageError
from opencode_gate.core.local_time import day_start_us, local_day


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """A span `[since_us, until_us)` of UTC microseconds, `None` where it has no end.

    `label` names it for people; `time_zone` is the zone its days are counted in.
    """

    label: str
    time_zone: str
    since_us: int | None = None
    until_us: int | None = None

    def is_longer_than_a_day(self, now_us: int) -> bool:
        """True when a plot over its days has something to show."""
        if self.since_us is None:
            return True
        until_us = now_us if self.until_us is None else self.until_us
        first, last = (
            local_day(time_us, self.time_zone) for time_us in (self.since_us, until_us - 1)
        )
        return first < last


def window_document(window: Window) -> dict[str, object]:
    """A window for machines."""
    from opencode_gate.cli.figures import iso_text

    return {
        "since": iso_text(window.since_us),
        "until": iso_text(window.until_us),
        "time_zone": window.time_zone,
    }


def named_window(name: str, *, now_us: int, time_zone: str) -> Window:
    """The window `today`, `week` (since Monday) or `month` (since the 1st), up to now."""
    today = local_day(now_us, time_zone)
    first = {
        "today": today,
        "week": today - timedelta(days=today.weekday()),
        "month": today.replace(day=1),
    }[name]
    label = "today" if name == "today" else f"this {name}"
    return Window(label=label, time_zone=time_zone, since_us=day_start_us(first, time_zone))


def window_between(since: str | None, until: str | None, *, now_us: int, time_zone: str) -> Window:
    """The window between two moments; either may be missing.

    A moment is a day (`2026-11-03`), a time (`2026-11-03T14:00`), `today`, `yesterday`, or a
    number of days back (`7d`).

    Raises:
        UsageError: a moment that is none, or an end before the beginning.
    """
    since_us = _moment_us("--since", since, now_us=now_us, time_zone=time_zone, is_end=False)
    until_us = _moment_us("--until", until, now_us=now_us, time_zone=time_zone, is_end=True)
    if since_us is not None and until_us is not None and until_us <= since_us:
        raise UsageError("usage", f"--until {until} is before --since {since}")
    if since is None and until is None:
        label = "all time"
    else:
        label = " ".join(
            f"{word} {moment}" for word, moment in (("since", since), ("until", until)) if moment
        )
    return Window(label=label, time_zone=time_zone, since_us=since_us, until_us=until_us)


def chosen_window(
    named: Mapping[str, bool],
    since: str | None,
    until: str | None,
    *,
    fallback: str,
    now_us: int,
    time_zone: str,
) -> Window:
    """The one span asked for by `--today` and its like (`named`), or by `--since` and `--until`.

    Raises:
        UsageError: more than one is.
    """
    is_between = since is not None or until is not None
    names = [name for name, is_chosen in named.items() if is_chosen]
    if len(names) > 1 or (names and is_between):
        raise UsageError(
            "usage",
            "more than one span of time",
            hint="give one of --today, --week, --month, or --since and --until",
        )
    if is_between:
        return window_between(since, until, now_us=now_us, time_zone=time_zone)
    return named_window(names[0] if names else fallback, now_us=now_us, time_zone=time_zone)


def _moment_us(
    option: str, text: str | None, *, now_us: int, time_zone: str, is_end: bool
) -> int | None:
    if text is None:
        return None
    known = _day(text, today=local_day(now_us, time_zone)) or _time(text)
    # At either end of the calendar there is no day before or after, which time zones ask for.
    if known is None or not date.min.year < known.year < date.max.year:
        raise UsageError(
            "usage",
            f"{option} {text!r} is not a day or a time",
            hint=f"{option} 2026-11-03, 2026-11-03T14:00, yesterday, or 7d for seven days ago",
        )
    if not isinstance(known, datetime):
        return day_start_us(known + timedelta(days=1) if is_end else known, time_zone)
    if known.tzinfo is None:
        known = known.replace(tzinfo=ZoneInfo(time_zone))
    return round(known.timestamp() * 1_000_000)


def _time(text: str) -> datetime | None:
    """The time that a text names, `None` where it names none."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _day(text: str, *, today: date) -> date | None:
    """The day that a text names, `None` where it names none."""
    if text in ("today", "yesterday"):
        return today - timedelta(days=text == "yesterday")
    if text.endswith("d") and text[:-1].isdecimal() and len(text) <= 6:
        return today - timedelta(days=int(text[:-1]))
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None
