"""A thread that copies large bodies to the folding process while the event loop goes on.

The invariant: only who has the turn touches what is queued, so it leaves in its order whoever
sends; what the process says, and that it has ended, is left to the turns of others.
"""

import concurrent.futures
import contextlib
import threading
from collections.abc import Callable

from opencode_gate.server.folding_link import FoldingLink

LARGE_BYTES = 256 * 1024
"""So much to be sent is not sent by the event loop's thread: the copying would hold it up."""

_WAIT_S = 0.1


class FoldingSender:
    """Sends in a thread of its own, started when first needed.

    Args:
        turn: what whoever queues or sends has to hold.
        link: the process to be sent to; `None` while there is none.
    """

    def __init__(self, turn: threading.Lock, link: Callable[[], FoldingLink | None]) -> None:
        self._turn = turn
        self._link = link
        self._threads: concurrent.futures.ThreadPoolExecutor | None = None
        self.is_sending = False

    def takes(self, link: FoldingLink) -> bool:
        """True if all that is queued is sent here, so that who has the turn need not."""
        if self.is_sending or link.unsent_bytes < LARGE_BYTES:
            return self.is_sending
        if self._threads is None:
            self._threads = concurrent.futures.ThreadPoolExecutor(1, "folding-send")
        # Where no thread is to be had, who has the turn sends.
        with contextlib.suppress(RuntimeError):
            self._threads.submit(self._send)
            self.is_sending = True
        return self.is_sending

    def close(self) -> None:
        """Ends the thread. Blocks; there must be no link any more, and nobody may have the turn."""
        if self._threads is not None:
            self._threads.shutdown()
            self._threads = None

    def _send(self) -> None:
        """Until nothing is left."""
        while (link := self._sent_some()) is not None:
            link.wait_for_room(_WAIT_S)

    def _sent_some(self) -> FoldingLink | None:
        """Who takes more of what is queued later."""
        with self._turn:
            link = self._link()
            with contextlib.suppress(OSError):
                if link is not None:
                    link.send()
                    if link.unsent_bytes:
                        return link
            self.is_sending = False
            return None
