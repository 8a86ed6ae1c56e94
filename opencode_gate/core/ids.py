"""Identifiers: ULIDs (https://github.com/ulid/spec), sortable by the time they were made.

The idea: randomness is fetched for many ids at once and handed out in ascending order, so that ids
of one millisecond are in order without a look at the one before.

The invariant: two ids of one process never compare in another order than they were made in.
Nothing here forks: a process that did would share what was fetched.
"""

import os
import threading
import time

_ALPHABET = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_LETTERS = bytes(_ALPHABET[value & 31] for value in range(256))
_PAIRS = [chr(first) + chr(second) for first in _ALPHABET for second in _ALPHABET]
_RANDOM_CHARS = 16
_FETCHED = 128

_lock = threading.Lock()
_random: list[str] = []
_last_ms = 0
_long_time = 0
_long_text = ""
_time_text = ""


def new_ulid() -> str:
    """A fresh ULID: 26 characters, 48 bits of milliseconds and 80 random bits."""
    with _lock:
        now_ms = time.time_ns() // 1_000_000
        if now_ms > _last_ms or not _random:
            _turn(now_ms)
        return _time_text + _random.pop()


def _turn(now_ms: int) -> None:
    """To a millisecond that no id has been made in yet, also where the clock stands still."""
    global _last_ms, _long_time, _long_text, _time_text
    _last_ms = now_ms = max(now_ms, _last_ms + 1)
    if now_ms >> 20 != _long_time:
        _long_time = now_ms >> 20
        _long_text = "".join([_PAIRS[now_ms >> shift & 1023] for shift in (40, 30, 20)])
    _time_text = _long_text + _PAIRS[now_ms >> 10 & 1023] + _PAIRS[now_ms & 1023]
    if not _random:
        letters = os.urandom(_RANDOM_CHARS * _FETCHED).translate(_LETTERS).decode("ascii")
        starts = range(0, len(letters), _RANDOM_CHARS)
        fetched = [letters[start : start + _RANDOM_CHARS] for start in starts]
        _random.extend(sorted(fetched, reverse=True))
