"""The clients of the bench, against its own origin."""

import contextlib
from collections.abc import Iterator

import pytest

from bench.latency import CHUNKED, Client, UnexpectedAnswer, answer_bytes, template
from bench.load import clients
from bench.origin import CHUNKS, EVENT_MARK, FIREHOSE_CHUNKS
from bench.programs import Origin, Running, origin

_WITHOUT_CONTENT = 3


@pytest.fixture(scope="module")
def provider() -> Iterator[Origin]:
    with origin() as running:
        yield running


def _direct(provider: Origin) -> Running:
    return Running(provider.pid, provider.port)


@pytest.mark.parametrize("body_bytes", [2048, 8192, 300_000])
@pytest.mark.parametrize("stream", [False, True])
def test_a_request_of_any_size_gets_its_whole_answer(
    provider: Origin, body_bytes: int, stream: bool
) -> None:
    client = Client(_direct(provider))
    pieces = template(_direct(provider), "a, b", stream=stream, body_bytes=body_bytes)
    before = provider.counts().get("a-b", 0)
    with contextlib.closing(client):
        for _ in range(3):
            times, answer = client.exchange(pieces, stream=stream)
            assert 0 < times.first <= times.whole
            assert answer.count(EVENT_MARK) == (CHUNKS - _WITHOUT_CONTENT if stream else 0)
    assert provider.counts()["a-b"] == before + 3


def test_every_event_of_parallel_streams_is_counted(provider: Origin) -> None:
    """Also of those that come in as many pieces as the system likes."""
    way = _direct(provider)
    pieces = template(way, "firehose", stream=True, body_bytes=2048, mode="firehose")
    with clients() as many:
        load = many.load(way.port, pieces, stream=True, connections=4, warm_s=0.0, seconds=0.3)
    assert load.failure is None
    assert load.events >= len(load.whole) * (FIREHOSE_CHUNKS - _WITHOUT_CONTENT) > 0
    assert provider.counts()["firehose"] == load.sent


def test_another_answer_is_no_figure(provider: Origin) -> None:
    way = _direct(provider)
    pieces = [b"GET /v1/models HTTP/1.1\r\nx: ", b"\r\n\r\n"]
    client = Client(way)
    with contextlib.closing(client), pytest.raises(UnexpectedAnswer):
        client.ask(pieces, stream=True)


def test_the_length_of_an_answer_is_known_from_its_head() -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-LENGTH: 12\r\nx: y\r\n\r\n"
    assert answer_bytes(head[:-1]) is None
    assert answer_bytes(head + b"abc") == len(head) + 12
    assert answer_bytes(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n") == CHUNKED
