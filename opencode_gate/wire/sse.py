"""Server-sent events as bytes: where one ends, and what its data is.

The format is that of https://html.spec.whatwg.org/multipage/server-sent-events.html: lines end
in CR LF, LF or CR, a blank line ends an event. The idea: most chunks end where an event ends,
and then the very same object goes on. The invariant: everything pushed comes out again, in
order and unchanged, either as complete events or as the tail.
"""

import re
from collections.abc import Iterator

_EVENT_END = re.compile(rb"(?:\r\n|\n|\r(?!\n)){2}")
_LINE_END = re.compile(rb"\r\n|\n|\r")
_CR, _LF, _SPACE = b"\r\n "
_OVERLAP = 3
"""How far an end of event can reach back into earlier chunks: all but the last byte of
`\\r\\n\\r\\n`."""


class EventBuffer:
    """Cuts a stream of chunks at the ends of events.

    Attributes:
        held: how many bytes of an unfinished event are kept.
        passed: how many leading bytes of the block `push` gave last were already given away by
            `release`; whoever uses it sets it back to 0.
    """

    __slots__ = ("_parts", "_released", "held", "passed")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._released = 0
        self.held = 0
        self.passed = 0

    def push(self, chunk: bytes) -> bytes:
        """The complete events that `chunk` brings to an end, `b""` if it ends none."""
        if not self.held:
            end = _last_event_end(chunk)
            if end == len(chunk):
                return chunk
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
        tail = self.unfinished()[self._released :]
        self._released = self.held
        return tail

    def drop(self) -> bytes:
        """What of the unfinished event was not given away yet; nothing stays held."""
        tail = self.release()
        self._parts.clear()
        self.held = self._released = 0
        return tail

    def _hold(self, chunk: bytes) -> None:
        if chunk:
            self._parts.append(chunk)
            self.held += len(chunk)

    def _last_bytes(self) -> bytes:
        last = self._parts[-1]
        if len(last) < _OVERLAP and len(self._parts) > 1:
            last = b"".join(self._parts[-_OVERLAP:])
        return last[-_OVERLAP:]

    def _cut(self, chunk: bytes, end: int) -> bytes:
        self._parts.append(chunk)
        whole = b"".join(self._parts)
        cut = len(whole) - len(chunk) + end
        self._parts.clear()
        self.held = 0
        self.passed, self._released = self._released, 0
        self._hold(whole[cut:])
        return whole[:cut]


def _last_event_end(block: bytes) -> int:
    """The index behind the last complete event in `block`, 0 if none ends in it.

    A CR at the very end decides nothing yet: an LF may follow.
    """
    if b"\r" not in block:
        found = block.rfind(b"\n\n")
        return found + 2 if found >= 0 else 0
    undecided = block.endswith(b"\r")
    end = 0
    for match in _EVENT_END.finditer(block, 0, len(block) - undecided):
        end = match.end()
    return end


def events(block: bytes) -> Iterator[tuple[int, int]]:
    """Start and end of each event in a block of complete events."""
    start = 0
    if b"\r" in block:
        for match in _EVENT_END.finditer(block):
            yield start, match.end()
            start = match.end()
        return
    while True:
        found = block.find(b"\n\n", start)
        if found < 0:
            return
        yield start, found + 2
        start = found + 2


def data_of(block: bytes, start: int, end: int) -> bytes | None:
    """The data of the event at `start:end`, `None` if it has none (a comment, a bare name)."""
    found = block.find(b"data:", start, end)
    if found < 0:
        return None
    line_end = block.find(b"\n", found, end)
    opens_line = found == start or block[found - 1] == _LF
    if opens_line and line_end == end - 2 and block[line_end - 1] != _CR:
        return block[found + 6 if block[found + 5] == _SPACE else found + 5 : line_end]
    return data_of_lines(block[start:end])


def data_of_lines(event: bytes) -> bytes | None:
    """The data of one event of any form, also of an unfinished one."""
    values: list[bytes] = []
    for line in _LINE_END.split(event.removeprefix(b"\xef\xbb\xbf")):
        field, _, value = line.partition(b":")
        if field == b"data":
            values.append(value.removeprefix(b" "))
    return b"\n".join(values) if values else None
