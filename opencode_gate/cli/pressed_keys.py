"""Single keys from a terminal while something else goes on.

The invariant: the terminal is as it was when the `with` is left, however it is left.
"""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

if sys.platform == "win32":
    import msvcrt

    _LOOK_AGAIN_S = 0.05

    @contextmanager
    def single_keys() -> Iterator[None]:
        """Keys arrive one by one, and are not shown."""
        yield

    def pressed(wait_s: float) -> str:
        """The keys pressed within `wait_s`; returns with the first, else empty."""
        until_s = time.monotonic() + wait_s
        while not msvcrt.kbhit():
            if time.monotonic() > until_s:
                return ""
            time.sleep(_LOOK_AGAIN_S)
        return msvcrt.getwch()
else:
    import select
    import termios
    import tty

    @contextmanager
    def single_keys() -> Iterator[None]:
        """Keys arrive one by one, and are not shown.

        SIGTERM and SIGHUP leave the `with` like Ctrl-C; Ctrl-Z does nothing, because whoever
        stops a full screen leaves the shell with it.
        """
        terminal = sys.stdin.fileno()
        before = termios.tcgetattr(terminal)
        signals = {
            signal.SIGTERM: signal.signal(signal.SIGTERM, _leave),
            signal.SIGHUP: signal.signal(signal.SIGHUP, _leave),
            signal.SIGTSTP: signal.signal(signal.SIGTSTP, signal.SIG_IGN),
        }
        try:
            tty.setcbreak(terminal)
            yield
        finally:
            termios.tcsetattr(terminal, termios.TCSAFLUSH, before)
            for number, handler in signals.items():
                signal.signal(number, handler)

    def pressed(wait_s: float) -> str:
        """The keys pressed within `wait_s`; returns with the first, else empty.

        Raises:
            EOFError: the terminal is gone.
        """
        terminal = sys.stdin.fileno()
        ready, _, _ = select.select([terminal], [], [], wait_s)
        if not ready:
            return ""
        keys = os.read(terminal, 64)
        if not keys:
            raise EOFError("the terminal is gone")
        return keys.decode(errors="replace")

    def _leave(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)
