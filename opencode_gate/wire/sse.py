"""Server-sent events as bytes: where one ends, and what its data is.

The format is that of https://html.spec.whatwg.org/multipage/server-sent-events.html: lines end
in CR LF, LF or CR, a blank line ends an event. The idea: most chunks end where an event ends,
and then the very same object goes on; and most events look like the one before. The invariant:
everything pushed comes out again, in order and unchanged, as complete events or as the tail.
"""

import re
from functools import lru_cache
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


class EventForm:
    """How events look that have one line of data: `head`, the data, and two line ends.

    Attributes:
        head: ends in `data: `; before that there is at most the line with the event's name.
    """

    __slots__ = ("_between", "_ends", "_head_bytes", "_line_ends", "_tail_bytes", "head", "tail")

    def __init__(self, head: bytes, tail: bytes) -> None:
        self.head = head
        self.tail = tail
        self._between = tail + head
        self._head_bytes = len(head)
        self._tail_bytes = -len(tail)
        self._line_ends = (head + tail).count(b"\n")
        self._ends = (head + tail).count(b"\r")

    def data_of_all(self, chunk: bytes) -> list[bytes] | None:
        """The data of each event in `chunk`; `None` unless all of it is events of this form."""
        if not chunk.startswith(self.head) or not chunk.endswith(self.tail):
            return None
        inner = chunk[self._head_bytes : self._tail_bytes]
        if b"\n" not in inner and b"\r" not in inner:
            return [inner]
        data = inner.split(self._between)
        events = len(data)
        # So many line ends has the form itself, hence there are none in the data.
        if chunk.count(b"\n") != events * self._line_ends:
            return None
        return data if chunk.count(b"\r") == events * self._ends else None

    def place_of(self, data: bytes, data_of_all: list[bytes]) -> tuple[int, int]:
        """Where the event of that very data starts and ends in the chunk it came in."""
        start = end = 0
        for one in data_of_all:
            start, end = end, end + len(one) + len(self._between)
            if one is data:
                break
        return start, end


USUAL_FORM = EventForm(b"data: ", b"\n\n")
_HEAD_BYTES_MAX = 128


def form_of(block: bytes, event: "Event") -> EventForm:
    """What an event looks like, so that those like it can be read at once; the usual form where
    it has none of its own.
    """
    start, end, data = event
    tail = b"\r\n\r\n" if block.endswith(b"\r\n\r\n", start, end) else b"\n\n"
    head_end = end - len(tail) - len(data)
    if head_end - start > _HEAD_BYTES_MAX:
        return USUAL_FORM
    head = block[start:head_end]
    if head + data + tail != block[start:end]:
        return USUAL_FORM
    name, line_end, field = head.rpartition(tail[len(tail) // 2 :])
    if field != b"data: ":
        return USUAL_FORM
    if line_end and (not name.startswith(b"event:") or b"\n" in name or b"\r" in name):
        return USUAL_FORM
    return _form(head, tail)


@lru_cache(64)
def _form(head: bytes, tail: bytes) -> EventForm:
    return EventForm(head, tail)


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
