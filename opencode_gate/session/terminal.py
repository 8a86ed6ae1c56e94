"""The terminal as the session found it, for when the agent cannot put it back.

Opencode restores the screen itself, except when it is killed or crashes.
"""

import contextlib
import sys
from collections.abc import Callable


def remember_terminal(reset_sequence: str) -> Callable[[], None]:
    """Takes note of the terminal's modes; calling the result puts them back."""
    if sys.platform == "win32" or not sys.stdin.isatty():
        return lambda: None
    import termios

    descriptor = sys.stdin.fileno()
    modes = termios.tcgetattr(descriptor)

    def restore() -> None:
        with contextlib.suppress(OSError, termios.error):
            termios.tcsetattr(descriptor, termios.TCSADRAIN, modes)
        if sys.stdout.isatty():
            sys.stdout.write(reset_sequence)
            sys.stdout.flush()

    return restore
