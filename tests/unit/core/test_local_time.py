"""The zone of the machine by name, and its days."""

from datetime import UTC, date, datetime

import pytest

from opencode_gate.core import local_time
from opencode_gate.core.local_time import day_start_us, local_day, local_zone_name


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


def test_a_zone_without_a_name_keeps_its_offset(monkeypatch, tmp_path) -> None:
    """A POSIX rule in `TZ` is no IANA name: its offset of today is kept."""
    import time

    monkeypatch.setattr(local_time, "_LOCALTIME", tmp_path / "none")
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
        # Midnight came twice here: the day began with the first.
        (date(2026, 11, 1), "America/Havana", "2026-11-01T00:00:00-04:00"),
    ],
)
def test_a_day_begins_with_its_first_instant(day, zone, start) -> None:
    assert day_start_us(day, zone) == _us(start)
    assert local_day(day_start_us(day, zone), zone) == day
    assert local_day(day_start_us(day, zone) - 1, zone) < day
