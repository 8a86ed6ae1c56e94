import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencode_gate.wire.sse import EventBuffer, data_of, events

FRAGMENTS = [b"data: a", b"data:b", b"event: x", b": c", b"id", b"\n", b"\r\n", b"\r", b"\n\n"]
streams = st.lists(st.sampled_from(FRAGMENTS) | st.binary(max_size=4), max_size=30).map(b"".join)


def chunked(stream: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    return [stream[start:end] for start, end in itertools.pairwise(edges)]


def all_data(blocks: list[bytes]) -> list[bytes]:
    return [data for block in blocks for _, _, data in events(block)]


@given(stream=streams, cuts=st.lists(st.integers(0, 1000), max_size=20))
def test_nothing_is_lost_reordered_or_read_differently_however_it_is_cut(stream, cuts):
    """Bytes come out as they went in, and the events are those of the stream in one piece."""
    buffer, whole = EventBuffer(), EventBuffer()
    blocks = [buffer.push(chunk) for chunk in chunked(stream, cuts)]
    in_one_piece = whole.push(stream)
    assert b"".join(blocks).rstrip(b"\r\n") == in_one_piece.rstrip(b"\r\n")
    assert all_data(blocks) == all_data([in_one_piece])
    assert b"".join(blocks) + buffer.drop() == stream


def reference_events(stream: bytes) -> list[bytes]:
    """The specification's own algorithm, line by line, on a stream without undecided CRs."""
    text = stream.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    found: list[bytes] = []
    values: list[bytes] = []
    for line in text.split(b"\n")[:-1]:
        if not line:
            if b"\n".join(values):
                found.append(b"\n".join(values))
            values = []
        field, _, value = line.partition(b":")
        if field == b"data":
            values.append(value.removeprefix(b" "))
    return found


@given(stream=streams.filter(lambda stream: not stream.endswith(b"\r")))
def test_events_are_those_of_the_specification(stream):
    assert all_data([EventBuffer().push(stream)]) == reference_events(stream)


@given(stream=streams, cuts=st.lists(st.integers(0, 1000), max_size=20), every=st.integers(1, 5))
def test_releasing_early_gives_each_byte_away_once(stream, cuts, every):
    """What an unfinished event gave away is not given again when the event ends."""
    buffer = EventBuffer()
    sent = b""
    for number, chunk in enumerate(chunked(stream, cuts)):
        block = buffer.push(chunk)
        sent += block[buffer.passed :]
        buffer.passed = 0
        if number % every == 0:
            sent += buffer.release()
    assert sent + buffer.drop() == stream


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (b"data: x\n\n", b"x"),
        (b"data:x\n\n", b"x"),
        (b"data:  x\n\n", b" x"),
        (b"data\n\n", None),
        (b"data:\n\n", None),
        (b"data: \n\n", None),
        (b"event: data: x\n\n", None),
        (b": data: x\n\n", None),
        (b"event: e\nid: 1\ndata: x\nretry: 1\n\n", b"x"),
        (b"data: a\ndata: b\n\n", b"a\nb"),
        (b"\xef\xbb\xbfdata: x\n\n", b"x"),
        (b"datax: y\n\n", None),
        (b"data: x", b"x"),
        (b"", None),
    ],
)
def test_the_data_of_one_event(event, data):
    assert data_of(event) == data
    if event.endswith(b"\n\n"):
        assert [found for _, _, found in events(event)] == ([] if data is None else [data])
        found = events(event.replace(b"\n", b"\r\n"))
        assert [each for _, _, each in found] == ([] if data is None else [data])
