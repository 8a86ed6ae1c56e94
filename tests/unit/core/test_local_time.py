"""The zone of the machine by name, and its days."""

from datetime import UTC, date, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from opencode_gate.core import local_time
from opencode_gate.core.local_time import day_start_us, local_day, local_zone_name, offset_spans


def _us(text: str) -> int:
    return round(datetime.fromisoformat(text).astimezone(UTC).timestamp() * 1_000_000)


@pytest.mark.parametrize("name", ["Europe/Berlin", ":Asia/Kolkata", "UTC"])
def test_the_variable_names_the_zone(monkeypatch, name) -> None:
    monkeypatch.setenv("TZ", name)
    assert local_zone_name() == name.removeprefix(":")


def test_the_systems_link_is_read_where_there_is_no_variable(monkeypatch, tmp_path) -> None:
    monkeypatch.delenv("TZ", raising=False)
    link = tmp_path / "localtime"
    link.symlink_to("/usr/share/zoneinfo/Asia/Tokyo")
    monkeypatch.setattr(local_time, "_LOCALTIME", link)
    assert local_zone_name() == "Asia/Tokyo"


def test_a_file_in_the_variable_is_of_a_zone_or_the_systems_own(monkeypatch, tmp_path) -> None:
    """As in `TZ=:/etc/localtime`."""
    link = tmp_path / "localtime"
    link.symlink_to("/usr/share/zoneinfo/Asia/Tokyo")
    monkeypatch.setattr(local_time, "_LOCALTIME", link)
    monkeypatch.setenv("TZ", ":/etc/localtime")
    assert local_zone_name() == "Asia/Tokyo"
    monkeypatch.setenv("TZ", ":/usr/share/zoneinfo/Europe/Berlin")
    assert local_zone_name() == "Europe/Berlin"


def test_a_zone_without_a_name_keeps_its_offset(monkeypatch, tmp_path) -> None:
    """A POSIX rule in `TZ` is no IANA name: its offset of today is kept, not the system's."""
    import time

    link = tmp_path / "localtime"
    link.symlink_to("/usr/share/zoneinfo/Asia/Tokyo")
    monkeypatch.setattr(local_time, "_LOCALTIME", link)
    monkeypatch.setattr(local_time, "_TIMEZONE", tmp_path / "none")
    monkeypatch.setenv("TZ", "<+03>-3")
    time.tzset()
    try:
        assert local_zone_name() == "Etc/GMT-3"
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("day", "zone", "start"),
    [
        (date(2026, 11, 21), "Europe/Berlin", "2026-11-21T00:00:00+01:00"),
        (date(2026, 3, 30), "Europe/Berlin", "2026-03-30T00:00:00+02:00"),
        # Midnight was skipped here: the day began at one o'clock.
        (date(2018, 11, 4), "America/Sao_Paulo", "2018-11-04T01:00:00-02:00"),
        # And here from half an hour before it on, for an hour.
        (date(1919, 3, 31), "America/Toronto", "1919-03-31T00:30:00-04:00"),
        # Midnight came twice here: the day began with the first.
        (date(2026, 11, 1), "America/Havana", "2026-11-01T00:00:00-04:00"),
    ],
)
def test_a_day_begins_with_its_first_instant(day, zone, start) -> None:
    assert day_start_us(day, zone) == _us(start)
    assert local_day(day_start_us(day, zone), zone) == day
    assert local_day(day_start_us(day, zone) - 1, zone) < day


@pytest.mark.parametrize(
    "zone_name", ["UTC", "Europe/Berlin", "America/Havana", "Asia/Kathmandu", "Africa/Casablanca"]
)
def test_offset_spans_are_seamless_and_agree_with_the_calendar(zone_name) -> None:
    """Local hours by arithmetic are those of the zone, on both sides of every change."""
    zone = ZoneInfo(zone_name)
    first_us, end_us = _us("2025-01-01T00:00:01.5+00:00"), _us("2027-01-01T00:00:00+00:00") + 7
    spans = offset_spans(first_us, end_us, zone)
    assert spans[0][0] == first_us
    assert spans[-1][1] == end_us
    assert all(before[1] == after[0] for before, after in pairwise(spans))
    assert all(before[2] != after[2] for before, after in pairwise(spans))
    for start_us, stop_us, offset_us in spans:
        for time_us in (start_us, (start_us + stop_us) // 2, stop_us - 1):
            local = datetime.fromtimestamp(time_us // 1_000_000, zone)
            assert (time_us + offset_us) // 3_600_000_000 % 24 == local.hour
            assert (time_us + offset_us) // 86_400_000_000 == (local.date() - date(1970, 1, 1)).days


def test_a_span_may_end_within_the_second_its_clock_changes_in() -> None:
    """The last span is not longer than what was asked for; no time has no spans."""
    change_us = _us("2026-10-25T01:00:00+00:00")
    zone = ZoneInfo("Europe/Berlin")
    assert offset_spans(change_us - 5, change_us + 5, zone) == [
        (change_us - 5, change_us, 7_200_000_000),
        (change_us, change_us + 5, 3_600_000_000),
    ]
    assert offset_spans(change_us - 5, change_us, zone) == [
        (change_us - 5, change_us, 7_200_000_000)
    ]
    assert offset_spans(change_us, change_us, zone) == []
