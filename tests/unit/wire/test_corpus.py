"""Every recorded answer, at every chunk size and cut at every event."""

import functools
import gzip
import json
import re
import zlib

import brotli
import pytest

from opencode_gate.core.semconv import UsageQuality
from opencode_gate.core.usage import TokenUsage
from tests.support.wire_corpus import EVENT_END, Case, cases, relayed, reported_after, seen

STREAMS = cases("sse")
BODIES = cases("json")
LARGE_BYTES = 200_000
PACKERS = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": functools.partial(brotli.compress, quality=5),
}

each_stream = pytest.mark.parametrize("case", STREAMS, ids=lambda case: case.name)
each_body = pytest.mark.parametrize("case", BODIES, ids=lambda case: case.name)


def test_the_corpus_has_streams_and_bodies_of_every_format():
    for found, least in ((STREAMS, 15), (BODIES, 4)):
        formats = [case.route.wire_format for case in found]
        assert len(set(formats)) == 4
        assert sum("captured from" in case.source for case in found) >= 8
        assert all(formats.count(wire_format) >= least for wire_format in formats)


@pytest.mark.parametrize("case", STREAMS + BODIES, ids=lambda case: case.name)
def test_every_answer_says_where_it_is_from(case: Case):
    """A page of a vendor, the shapes of an official SDK, or a program it was captured from; only
    what no program of the field sends is made up."""
    assert re.search(r"https://|\(PyPI\) types/|^captured from |^a proxy's ", case.source)


@each_stream
@pytest.mark.parametrize("chunk_bytes", [1, 2, 3, 7, 64, 1 << 30])
def test_chunk_size_changes_neither_counts_nor_bytes(case: Case, chunk_bytes: int):
    """However the network cuts a stream, the counts are those written down for it, and the
    client receives the upstream's bytes but for the repair that is written down."""
    meter = case.meter()
    if len(case.upstream) > LARGE_BYTES:
        chunk_bytes *= 997
    received, end = relayed(meter, case.upstream, chunk_bytes)
    assert seen(meter) == case.expected
    assert received == case.client
    assert end.is_complete == (case.ends_at_event is not None)


@each_stream
def test_a_stream_cut_at_any_event_is_told_from_a_complete_one(case: Case):
    """A clean end of the upstream before the answer's own end never becomes one for the client,
    and counts read until then are never taken for final ones."""
    for number, match in enumerate(EVENT_END.finditer(case.upstream), start=1):
        meter = case.meter()
        received, end = relayed(meter, case.upstream[: match.end()], 1 << 30)
        assert end.is_complete == (
            case.ends_at_event is not None and number >= case.ends_at_event
        ), f"after event {number}"
        usage = reported_after(case, number)
        metering = meter.metering()
        assert (metering.usage_quality is UsageQuality.REPORTED) == (usage is not None)
        if usage is not None:
            assert metering.usage == TokenUsage(**usage)
        if not case.is_repaired:
            assert received == case.upstream[: match.end()]


@each_stream
def test_a_stream_cut_anywhere_does_not_raise_and_loses_no_byte(case: Case):
    step = max(1, len(case.upstream) // (400 if len(case.upstream) < LARGE_BYTES else 20))
    for length in range(0, len(case.upstream), step):
        received, _ = relayed(case.meter(), case.upstream[:length], 64 * 1024)
        if not case.is_repaired:
            assert received == case.upstream[:length]


@each_stream
@pytest.mark.parametrize("encoding", list(PACKERS))
def test_a_compressed_stream_is_counted_and_never_touched(case: Case, encoding: str):
    """An upstream that compresses against our wish is read along; what would need a repair
    cannot be given a clean end."""
    packed = PACKERS[encoding](case.upstream)
    meter = case.meter(content_encoding=encoding)
    received, end = relayed(meter, packed, 33)
    assert received == packed
    assert seen(meter) == {**case.expected, "repaired": None}
    needs_repair = case.expected["repaired"] is not None
    assert end.is_complete == (case.ends_at_event is not None and not needs_repair)


@each_stream
def test_a_chunk_that_ends_with_an_event_goes_on_as_the_same_object(case: Case):
    if case.is_repaired or not EVENT_END.search(case.upstream):
        return
    end = [match.end() for match in EVENT_END.finditer(case.upstream)][-1]
    chunk = case.upstream[:end]
    if chunk.endswith((b"\n\n", b"\r\n\r\n")):
        assert case.meter().relay(chunk) is chunk


@each_body
@pytest.mark.parametrize("chunk_bytes", [1, 7, 1 << 30])
@pytest.mark.parametrize("encoding", [None, *PACKERS])
def test_a_plain_body_is_counted(case: Case, chunk_bytes: int, encoding: str | None):
    body = case.upstream if encoding is None else PACKERS[encoding](case.upstream)
    meter = case.meter(streamed=False, content_encoding=encoding)
    for start in range(0, len(body), chunk_bytes):
        meter.observe_body(body[start : start + chunk_bytes])
    assert meter.end().tail == b""
    assert seen(meter) == case.expected


@pytest.mark.parametrize("case", STREAMS + BODIES, ids=lambda case: case.name)
def test_the_raw_usage_is_kept_as_json(case: Case):
    """The provider's own usage object stays readable beside the normalised counts."""
    meter = case.meter(streamed=case in STREAMS)
    if case in STREAMS:
        relayed(meter, case.upstream, 1 << 30)
    else:
        meter.observe_body(case.upstream)
        meter.end()
    raw = meter.metering().raw_usage
    assert (raw is not None) == bool(case.expected["usage"])
    if raw is not None:
        assert isinstance(json.loads(raw), dict)
