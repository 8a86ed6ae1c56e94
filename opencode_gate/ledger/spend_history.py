"""What is usual for a person, looked up beside the event loop when first asked for.

The invariant: asking never waits; until it is known, nothing is.
"""

import threading
from collections.abc import Callable

from opencode_gate.core.clock import Clock
from opencode_gate.core.errors import LedgerError

KNOWN_FOR_S = 3600.0


class SpendHistory:
    """The usual spending of whoever a ledger belongs to.

    Args:
        look_up: blocks while it reads the ledger.
    """

    def __init__(self, look_up: Callable[[], int | None], clock: Clock) -> None:
        self._look_up = look_up
        self._clock = clock
        self._usual: int | None = None
        self._look_at_s = float("-inf")

    def usual_nano_usd_per_minute(self) -> int | None:
        """What is known of it now; the first question has it looked up, and one an hour later."""
        now_s = self._clock.monotonic_s()
        if now_s >= self._look_at_s:
            self._look_at_s = now_s + KNOWN_FOR_S
            threading.Thread(target=self._look, name="spend-history", daemon=True).start()
        return self._usual

    def _look(self) -> None:
        try:
            self._usual = self._look_up()
        except LedgerError:
            # Spending is then not watched; what the ledger suffers from is told elsewhere.
            self._usual = None
