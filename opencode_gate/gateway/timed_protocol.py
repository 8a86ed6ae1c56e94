"""A connection that notices when what it expects does not come in time.

The idea: one timer a connection, moved only when it would ring too late, so that a request costs
none. The invariant: a deadline rings once it has passed, and not before.
"""

import asyncio


class TimedProtocol(asyncio.Protocol):
    """What connections to clients and to providers have in common."""

    __slots__ = ("_deadline_s", "_timer", "_timer_at_s", "loop")

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._deadline_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_s = 0.0

    def _expect_within(self, timeout_s: float) -> None:
        self._deadline_s = self.loop.time() + timeout_s
        if self._timer is None:
            self._arm()
        elif self._timer_at_s > self._deadline_s:
            self._timer.cancel()
            self._arm()

    def _expect_nothing(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_late(self) -> None:
        """The deadline has passed."""
        raise NotImplementedError

    def _arm(self) -> None:
        self._timer_at_s = self._deadline_s
        self._timer = self.loop.call_at(self._deadline_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self.loop.time() < self._deadline_s:
            self._arm()
        else:
            self._too_late()
