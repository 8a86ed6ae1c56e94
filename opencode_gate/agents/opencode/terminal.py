"""Undoing what Opencode's screen leaves behind when it is killed or crashes.

Either leaves the alternate screen, mouse reporting and bracketed paste on. The invariant:
the string below only switches things off, so sending it twice or for nothing does no harm.
"""

from typing import Final

RESET: Final = (
    "\x1b[?1003l\x1b[?1002l\x1b[?1000l\x1b[?1006l\x1b[?2004l\x1b[?2026l\x1b[?2027l\x1b[?2031l"
    "\x1b[<u\x1b[?1049l\x1b[?25h\x1b[0m\x1b[>4;0m\x1b[0 q"
)
"""Mouse, paste, synchronised output, grapheme, theme and keyboard modes off, main screen back."""
