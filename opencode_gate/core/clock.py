"""Time: UTC microseconds for what is recorded, monotonic seconds for how long things took.

Everything that needs the time takes a `Clock`, so that a test can stop it.
"""

import time
from typing import Protocol


class Clock(Protocol):
    """A source of time."""

    def now_us(self) -> int:
        """Microseconds since the Unix epoch, UTC."""
        ...

    def monotonic_s(self) -> float:
        """Seconds that never run backwards; only differences mean something."""
        ...


class SystemClock:
    """The machine's own clock."""

    __slots__ = ()

    def now_us(self) -> int:
        """Microseconds since the Unix epoch, UTC."""
        return time.time_ns() // 1000

    # Asked several times a request: without a call of ours in between.
    monotonic_s = staticmethod(time.monotonic)
