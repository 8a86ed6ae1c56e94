"""Identifiers: ULIDs (https://github.com/ulid/spec), sortable by the time they were made.

The invariant: two ids of one process never compare in another order than they were made in.
"""

import os
import time

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
_RANDOM_BITS = 80

_last = 0


def new_ulid() -> str:
    """A fresh ULID: 26 characters, 48 bits of milliseconds and 80 random bits."""
    global _last
    value = (time.time_ns() // 1_000_000) << _RANDOM_BITS | int.from_bytes(os.urandom(10))
    _last = value = max(value, _last + 1)
    return "".join([_PAIRS[value >> shift & 1023] for shift in range(120, -1, -10)])
