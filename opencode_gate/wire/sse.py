"""Server-sent events as bytes: where one ends, and what its data is.

The format is that of https://html.spec.whatwg.org/multipage/server-sent-events.html: lines end
in CR LF, LF or CR, a blank line ends an event. The idea: most chunks end where an event ends,
and then the very same object goes on. The invariant: everything pushed comes out again, in
order and unchanged, either as complete events or as the tail.
"""

import re
from typing import TypeAlias

_EVENT_END = re.compile(rb"(?:\r\n|\n|\r(?!\n)){2}")
_LINE_END = re.compile(rb"\r\n|\n|\r")
UNDECIDED_ENDS = (b"\r\r", b"\n\r")
"""How a complete event can look while it is still open whether an LF follows its last CR."""
_COMMON_ENDS = (b"\n\n", b"\r\n\r\n")
_LF, _SPACE = b"\n "
_OVERLAP = 3
"""How far an end of event can reach back into earlier chunks: all but the last byte of
`\\r\\n\\r\\n`."""


Event: TypeAlias = tuple[int, int, bytes]
"""Where an event that carries data starts and ends in its block, and the data."""


class EventBuffer:
    """Cuts a stream of chunks at the ends of events.

    Attributes:
        held: how many bytes of an unfinished event are kept.
        passed: how many leading bytes of the block `push` gave last were already given away by
            `release`; whoever uses it sets it back to 0.
    """

    __slots__ = ("_parts", "_released", "_released_parts", "held", "passed")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._released = self._released_parts = 0
        self.held = 0
        self.passed = 0

    def push(self, chunk: bytes) -> bytes:
        """The complete events that `chunk` brings to an end, `b""` if it ends none."""
        if not self.held:
            if chunk.endswith(_COMMON_ENDS):
                return chunk
            end = _last_event_end(chunk)
            self._hold(chunk[end:])
            return chunk[:end]
        reach = self._last_bytes()
        end = _last_event_end(reach + chunk)
        if end < len(reach):
            self._hold(chunk)
            return b""
        return self._cut(chunk, end - len(reach))

    def unfinished(self) -> bytes:
        """All of the event that has not ended."""
        return b"".join(self._parts)

    def release(self) -> bytes:
        """What of the unfinished event was not given away yet; it stays held for reading."""
        tail = b"".join(self._parts[self._released_parts :])
        self._released_parts = len(self._parts)
        self._released = self.held
        return tail

    def drop(self) -> bytes:
        """What of the unfinished event was not given away yet; nothing stays held."""
        tail = self.release()
        self._parts.clear()
        self.held = self._released = self._released_parts = 0
        return tail

    def _hold(self, chunk: bytes) -> None:
        if chunk:
            self._parts.append(chunk)
            self.held += len(chunk)

    def _last_bytes(self) -> bytes:
        last = self._parts[-1]
        if len(last) < _OVERLAP:
            last = b"".join(self._parts[-_OVERLAP:])
        return last[-_OVERLAP:]

    def _cut(self, chunk: bytes, end: int) -> bytes:
        self._parts.append(chunk)
        whole = b"".join(self._parts)
        cut = len(whole) - len(chunk) + end
        self._parts.clear()
        self.passed = self._released
        self.held = self._released = self._released_parts = 0
        self._hold(whole[cut:])
        return whole[:cut]


def _last_event_end(block: bytes) -> int:
    """The index behind the last complete event in `block`, 0 if none ends in it.

    A CR at the very end decides nothing yet: an LF may follow.
    """
    if b"\r" not in block:
        found = block.rfind(b"\n\n")
        return found + 2 if found >= 0 else 0
    end = 0
    for match in _EVENT_END.finditer(block, 0, len(block) - block.endswith(b"\r")):
        end = match.end()
    return end


def events(block: bytes) -> list[Event]:
    """The events with data in a block of complete events (comments and bare names have none)."""
    if b"\r" not in block:
        size = len(block)
        if block.startswith(b"data: ") and 6 < block.find(b"\n") == size - 2:
            # Nearly every block is a single event of a single line.
            return [(0, size, block[6:-2])]
        separator = b"\n\n"
    elif block.count(b"\r") == block.count(b"\r\n") == block.count(b"\n"):
        separator = b"\r\n\r\n"
    else:
        return _mixed_events(block)
    found_events: list[Event] = []
    start = 0
    while (stop := block.find(separator, start)) >= 0:
        end = stop + len(separator)
        field = block.find(b"data:", start, stop)
        if field >= 0:
            if (field == start or block[field - 1] == _LF) and block.find(b"\n", field, stop) < 0:
                value = field + 5
                data = block[value + (block[value] == _SPACE) : stop]
                if data:
                    found_events.append((start, end, data))
            else:
                _append_lines(found_events, block, start, end)
        start = end
    return found_events


def _mixed_events(block: bytes) -> list[Event]:
    """The same where line ends differ."""
    found_events: list[Event] = []
    start = 0
    for match in _EVENT_END.finditer(block):
        _append_lines(found_events, block, start, match.end())
        start = match.end()
    return found_events


def _append_lines(found_events: list[Event], block: bytes, start: int, end: int) -> None:
    data = data_of(block[start:end])
    if data is not None:
        found_events.append((start, end, data))


def data_of(event: bytes) -> bytes | None:
    """The data of one event of any form, also of an unfinished one; `None` if there is none."""
    values: list[bytes] = []
    for line in _LINE_END.split(event.removeprefix(b"\xef\xbb\xbf")):
        field, _, value = line.partition(b":")
        if field == b"data":
            values.append(value.removeprefix(b" "))
    return b"\n".join(values) or None
