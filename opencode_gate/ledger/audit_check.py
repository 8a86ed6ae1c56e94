"""Whether an audit trail is what was written, and where it is not.

The idea: each event is held against its hash, over the hash before it; what does not fit is
looked for near by, so that an event that was moved is told from one that was changed, and
renumbering from forging. The invariants: a sound trail has no findings, any other has at least
one; it is read once, in order, and little of it is remembered.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from opencode_gate.ledger.audit import AuditEvent, AuditSeal, Head

_NEAR = 8
"""How far away the place is looked for that an event was written at."""

_SUSPECTS_LOOKED_AT = 64
"""With more of them something else is wrong, such as the key."""


class Finding(NamedTuple):
    """What is wrong with a trail at event number `seq`, and up to `until` if it is several."""

    seq: int
    what: str
    until: int

    def __str__(self) -> str:
        if self.until > self.seq:
            return f"events {self.seq} to {self.until}: {self.what}"
        return f"event {self.seq}: {self.what}"


def verify(
    events: Iterable[AuditEvent],
    seal: AuditSeal,
    *,
    head: tuple[Head, str] | None,
    outside: Head | None,
) -> list[Finding]:
    """What is wrong, in the order of the trail.

    Args:
        events: all of them, in their order.
        head: the one the ledger keeps, with its seal.
        outside: the one kept outside the ledger; `None` where it is not to be compared.
    """
    check = _Check(seal, {known.seq for known in (head and head[0], outside) if known})
    for event in events:
        check.see(event)
    found = [*check.findings(), *check.of_head(head), *check.of_outside(outside)]
    return sorted(set(found))


class _Place(NamedTuple):
    """Where an event that stands elsewhere was written."""

    event: AuditEvent
    shift: int


class _Check:
    def __init__(self, seal: AuditSeal, watched: set[int]) -> None:
        self._seal = seal
        self._watched = watched
        self._watched_hashes: dict[int, str] = {}
        self._recent: deque[str] = deque([""], maxlen=_NEAR + 1)
        self._last_seq = 0
        self._count = 0
        # By how much the numbers of events are higher than they were written.
        self._shift = 0
        self._displaced: _Place | None = None
        self._suspects: list[AuditEvent] = []
        self._near_suspects: set[str] = set()
        self._near_left = 0
        self._findings: list[Finding] = []

    def see(self, event: AuditEvent) -> None:
        """The next event."""
        self._count += 1
        is_after_gap = self._note_gap(event)
        if event.seq in self._watched:
            self._watched_hashes[event.seq] = event.hash
        if event.kind == "break":
            self._add(event.seq, "here the trail was found not to be what it was known to be")
        before = self._recent[-1]
        if self._fits(event, before, self._shift):
            self._end_displaced()
        elif not is_after_gap:
            self._look_for(event)
        self._recent.append(event.hash)
        if self._near_left:
            self._near_left -= 1
            self._near_suspects.add(event.hash)
        self._last_seq = event.seq

    def findings(self) -> list[Finding]:
        """What is wrong with the events themselves, once all were seen."""
        self._end_displaced()
        moved = self._moved() if len(self._suspects) <= _SUSPECTS_LOOKED_AT else {}
        for seq, written in moved.items():
            # Else it stands where it was written, and what is before it was moved.
            if written != seq:
                self._add(seq, f"moved here; it was written as event {written}")
        changed = [event.seq for event in self._suspects if event.seq not in moved]
        what = "changed, or added by somebody without the key"
        if len(changed) == self._count and self._count > 1:
            what = "sealed with another key, or all of them changed"
        for first, last in _runs(changed):
            self._add(first, what, last)
        return self._findings

    def of_head(self, head: tuple[Head, str] | None) -> Iterator[Finding]:
        """What the ledger's own head says against the events."""
        if head is None:
            if self._count:
                yield self._after_last("the ledger does not say any more where its trail ends")
            return
        (seq, hash), seal = head
        if self._seal.of_head(Head(seq, hash)) != seal:
            yield Finding(seq, "the ledger's word on where its trail ends was changed", seq)
        elif seq > self._last_seq:
            yield Finding(self._last_seq + 1, "cut off from the end", seq)
        elif seq < self._last_seq:
            yield Finding(seq + 1, "added behind the sealed end", self._last_seq)
        elif self._watched_hashes.get(seq) != hash:
            yield Finding(seq, "not the event that was sealed as the last one", seq)

    def of_outside(self, outside: Head | None) -> Iterator[Finding]:
        """What the head kept outside says against the events."""
        if outside is None or outside.seq == 0:
            return
        if outside.seq > self._last_seq:
            what = "cut off from the end, or the ledger is an earlier copy of itself"
            yield Finding(self._last_seq + 1, what, outside.seq)
        elif self._watched_hashes.get(outside.seq) != outside.hash:
            yield Finding(outside.seq, "not the event that is known outside", outside.seq)

    def _after_last(self, what: str) -> Finding:
        return Finding(self._last_seq + 1, what, self._last_seq + 1)

    def _add(self, seq: int, what: str, until: int | None = None) -> None:
        self._findings.append(Finding(seq, what, seq if until is None else until))

    def _note_gap(self, event: AuditEvent) -> bool:
        expected = self._last_seq + 1
        if event.seq > expected:
            self._add(expected, "missing", event.seq - 1)
            return True
        if event.seq < expected:
            self._add(event.seq, "not in order")
        return False

    def _fits(self, event: AuditEvent, before: str, shift: int) -> bool:
        hash = self._seal.hash_of(
            before, event.seq - shift, event.at_us, event.kind, event.document
        )
        return hash == event.hash

    def _look_for(self, event: AuditEvent) -> None:
        """An event that does not fit where it stands."""
        displaced = self._displaced
        if displaced is not None and self._fits(event, self._recent[-1], displaced.shift):
            self._renumbered(displaced)
            return
        self._end_displaced()
        if len(self._suspects) > _SUSPECTS_LOOKED_AT:
            self._suspects.append(event)
            return
        found = self._place_near(event)
        if found is None:
            self._suspects.append(event)
            self._near_suspects |= {*self._recent}
            self._near_left = _NEAR + 1
        elif found != self._shift:
            self._displaced = _Place(event, found)

    def _place_near(self, event: AuditEvent) -> int | None:
        """By how much its number is higher than it was when it was written, if that is found."""
        shifts = sorted(range(-_NEAR, _NEAR + 1), key=abs)
        for shift in (self._shift + each for each in shifts):
            if any(self._fits(event, before, shift) for before in self._recent):
                return shift
        return None

    def _renumbered(self, place: _Place) -> None:
        """The event after a displaced one is displaced like it: from there on, all are."""
        by = place.shift - self._shift
        told = f"{abs(by)} {'added' if by > 0 else 'removed'} before it, and the rest renumbered"
        self._add(place.event.seq, told)
        self._shift = place.shift
        self._displaced = None

    def _end_displaced(self) -> None:
        place, self._displaced = self._displaced, None
        if place is not None:
            written = place.event.seq - place.shift
            self._add(place.event.seq, f"moved here; it was written as event {written}")

    def _moved(self) -> dict[int, int]:
        """Where suspects were written, of those that belong near another one."""
        places = {event.seq for event in self._suspects}
        places |= {seq + step for seq in list(places) for step in (-2, -1, 1, 2)}
        moved = {}
        for event in self._suspects:
            for seq in sorted(places, key=lambda each: abs(each - event.seq)):
                if any(
                    self._fits(event, before, event.seq - seq) for before in self._near_suspects
                ):
                    moved[event.seq] = seq
                    break
        return moved


def _runs(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Numbers in order as first and last of each run without a gap."""
    first = last = None
    for number in numbers:
        if last is None or number != last + 1:
            if first is not None and last is not None:
                yield first, last
            first = number
        last = number
    if first is not None and last is not None:
        yield first, last
