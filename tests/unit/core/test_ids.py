"""Ids are ULIDs, all different, and in the order they were made in."""

import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from opencode_gate.core.ids import new_ulid

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def _ms(ulid: str) -> int:
    value = 0
    for letter in ulid[:10]:
        value = value * 32 + ALPHABET.index(letter)
    return value


def test_ids_are_ulids_in_the_order_they_were_made_in() -> None:
    ids = [new_ulid() for _ in range(2000)]
    assert ids == sorted(set(ids))
    assert all(re.fullmatch(f"[0-7][{ALPHABET}]{{25}}", one) for one in ids)


def test_an_id_tells_when_it_was_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ahead of the clock only where more were made than it has milliseconds for."""
    later_ns = time.time_ns() + 3600 * 10**9
    monkeypatch.setattr(time, "time_ns", lambda: later_ns)
    assert _ms(new_ulid()) == later_ns // 1_000_000


@pytest.mark.parametrize("step_ns", [0, -1_000_000])
def test_a_clock_that_stands_or_runs_backwards_spoils_no_order(
    monkeypatch: pytest.MonkeyPatch, step_ns: int
) -> None:
    now_ns = time.time_ns()

    def stepped() -> int:
        nonlocal now_ns
        now_ns += step_ns
        return now_ns

    monkeypatch.setattr(time, "time_ns", stepped)
    ids = [new_ulid() for _ in range(1000)]
    assert ids == sorted(set(ids))


def test_threads_share_no_id() -> None:
    """And each of them gets its own in order."""
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: [new_ulid() for _ in range(1000)], range(8)))
    assert all(one == sorted(one) for one in made)
    assert len({ulid for one in made for ulid in one}) == 8000
