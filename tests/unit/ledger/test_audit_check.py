"""An audit trail that is not what was written is found out, with the place."""

import random

import pytest

from opencode_gate.ledger.audit import AuditEvent, AuditSeal, Head
from opencode_gate.ledger.audit_check import Finding, verify

SEAL = AuditSeal(b"k" * 32)
LENGTH = 40


def a_trail(length: int = LENGTH) -> list[AuditEvent]:
    trail: list[AuditEvent] = []
    hash = ""
    for seq in range(1, length + 1):
        document = f'{{"n":{seq}}}'
        hash = SEAL.hash_of(hash, seq, 1000 + seq, "exchange", document)
        trail.append(AuditEvent(seq, 1000 + seq, "exchange", document, hash))
    return trail


def head_of(trail: list[AuditEvent]) -> Head:
    return Head(trail[-1].seq, trail[-1].hash) if trail else Head()


def checked(
    trail: list[AuditEvent], written: list[AuditEvent], *, outside: bool = True
) -> list[Finding]:
    """What is found in a trail of which `written` was written."""
    head = head_of(written)
    return verify(
        sorted(trail),
        SEAL,
        head=(head, SEAL.of_head(head)) if written else None,
        outside=head if outside else None,
    )


def renumbered(trail: list[AuditEvent]) -> list[AuditEvent]:
    return [event._replace(seq=seq) for seq, event in enumerate(trail, start=1)]


@pytest.mark.parametrize("length", [0, 1, 2, LENGTH])
def test_a_sound_trail_has_no_findings(length: int):
    trail = a_trail(length)
    assert checked(trail, trail) == []


@pytest.mark.parametrize("seq", [1, 2, 17, LENGTH])
@pytest.mark.parametrize(
    "change",
    [
        {"document": '{"n":99}'},
        {"at_us": 5},
        {"kind": "refusal"},
        {"hash": "0" * 64},
        {"document": '{"n":99}', "hash": "f" * 64},
    ],
    ids=str,
)
def test_a_changed_event_is_named(seq: int, change: dict[str, object]):
    """Whatever of it was changed; at most the one after it is suspected too."""
    written = a_trail()
    trail = list(written)
    trail[seq - 1] = trail[seq - 1]._replace(**change)  # type: ignore[arg-type]
    found = checked(trail, written)
    assert found[0].seq == seq
    assert all(seq <= finding.until <= seq + 1 for finding in found)


@pytest.mark.parametrize(("first", "last"), [(1, 1), (1, 5), (7, 7), (20, 30), (39, 39)])
def test_missing_events_are_named(first: int, last: int):
    written = a_trail()
    trail = [event for event in written if not first <= event.seq <= last]
    assert checked(trail, written) == [Finding(first, "missing", last)]


@pytest.mark.parametrize(("first", "last"), [(7, 7), (20, 22)])
def test_events_taken_out_and_the_rest_renumbered_are_found(first: int, last: int):
    written = a_trail()
    trail = renumbered([event for event in written if not first <= event.seq <= last])
    found = checked(trail, written)
    assert found[0].seq == first
    assert any("removed before it" in finding.what for finding in found)


@pytest.mark.parametrize(("one", "other"), [(1, 2), (5, 6), (5, 7), (5, 30), (39, 40)])
def test_events_that_changed_places_are_named(one: int, other: int):
    """Both of them, and where each was written."""
    written = a_trail()
    trail = list(written)
    trail[one - 1] = written[other - 1]._replace(seq=one)
    trail[other - 1] = written[one - 1]._replace(seq=other)
    found = {finding.seq: finding.what for finding in checked(trail, written)}
    assert found.pop(one) == f"moved here; it was written as event {other}"
    assert found.pop(other) in (
        f"moved here; it was written as event {one}",
        "not the event that was sealed as the last one",
        "not the event that is known outside",
    )
    assert found == {}


@pytest.mark.parametrize("seq", [1, 2, 20, LENGTH])
def test_an_event_slipped_in_is_found(seq: int):
    """With the rest renumbered, so that no number is there twice."""
    written = a_trail()
    forged = AuditEvent(seq, 7, "exchange", '{"n":"forged"}', "a" * 64)
    trail = renumbered([*written[: seq - 1], forged, *written[seq - 1 :]])
    found = checked(trail, written)
    assert found[0].seq == seq
    assert "without the key" in found[0].what


def test_an_event_put_behind_the_end_is_found():
    written = a_trail()
    forged = AuditEvent(LENGTH + 1, 7, "exchange", "{}", "a" * 64)
    found = checked([*written, forged], written)
    assert {finding.seq for finding in found} == {LENGTH + 1}


@pytest.mark.parametrize("left", [0, 1, 39])
def test_a_cut_off_end_is_found(left: int):
    """By the ledger's own head, and by the one outside."""
    written = a_trail()
    for outside in (True, False):
        [finding, *_] = checked(written[:left], written, outside=outside)
        assert finding.seq == left + 1
        assert finding.until == LENGTH
        assert "cut off" in finding.what


def test_an_earlier_copy_of_the_whole_ledger_is_found_by_the_head_outside():
    """It is sound in itself."""
    written = a_trail()
    earlier = written[:25]
    head = head_of(earlier)
    sealed = (head, SEAL.of_head(head))
    assert verify(earlier, SEAL, head=sealed, outside=None) == []
    [finding] = verify(earlier, SEAL, head=sealed, outside=head_of(written))
    assert (finding.seq, finding.until) == (26, LENGTH)


def test_a_head_that_lags_behind_is_no_finding():
    """A process may die between its commit and the file."""
    written = a_trail()
    head = head_of(written)
    sealed = (head, SEAL.of_head(head))
    assert verify(written, SEAL, head=sealed, outside=head_of(written[:12])) == []


def test_another_history_of_the_same_length_is_found_by_the_head_outside():
    written = a_trail()
    head = head_of(written)
    other = Head(12, "b" * 64)
    [finding] = verify(written, SEAL, head=(head, SEAL.of_head(head)), outside=other)
    assert finding.seq == 12


def test_a_head_without_its_seal_is_found():
    """Also where it was set back to fit a trail that was cut."""
    written = a_trail()
    cut = written[:30]
    [finding] = verify(cut, SEAL, head=(head_of(cut), "c" * 64), outside=None)
    assert finding.seq == 30
    [finding] = verify(cut, SEAL, head=None, outside=None)
    assert finding.seq == 31


def test_another_key_is_told_from_a_change():
    """One finding for all of them."""
    written = a_trail(500)
    head = head_of(written)
    found = verify(written, AuditSeal(b"x" * 32), head=(head, SEAL.of_head(head)), outside=None)
    assert Finding(1, "sealed with another key, or all of them changed", 500) in found


@pytest.mark.parametrize("seed", range(60))
def test_whatever_is_done_to_a_trail_is_found(seed: int):
    """And no sooner than where it was done, but for the head."""
    chance = random.Random(seed)
    written = a_trail(60)
    trail = list(written)
    places = []
    for _ in range(chance.choice((1, 1, 2, 3))):
        at = chance.randrange(len(trail))
        places.append(trail[at].seq)
        match chance.randrange(4):
            case 0:
                trail[at] = trail[at]._replace(document='{"n":0}')
            case 1:
                del trail[at]
            case 2:
                to = chance.randrange(len(trail))
                places.append(trail[to].seq)
                one, other = trail[at], trail[to]
                trail[at], trail[to] = other._replace(seq=one.seq), one._replace(seq=other.seq)
            case _:
                trail[at] = trail[at]._replace(hash=written[chance.randrange(60)].hash)
    if trail == written:
        return
    found = checked(trail, written)
    assert found
    assert found[0].seq >= min(places)
