"""The clients of the bench, against its own origin."""

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from bench.cells import Cell, sequential
from bench.latency import CHUNKED, Client, UnexpectedAnswer, answer_bytes, template
from bench.load import clients
from bench.origin import CHUNKS, EVENT_MARK, FIREHOSE_CHUNKS, plain_answer
from bench.programs import Origin, Running, free_port, origin

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


def _answers(listener: socket.socket, times: int) -> None:
    """A program that answers so many requests and then closes its connection."""
    connected, _ = listener.accept()
    with connected:
        for _ in range(times):
            asked = b""
            while not asked.endswith(b"}"):
                asked += connected.recv(65_536)
            connected.sendall(plain_answer())


def test_who_stops_answering_is_named_and_the_others_are_measured(provider: Origin) -> None:
    """A program that is gone, or dies in the middle, ends neither the cell nor the run."""
    cell = Cell("plain", stream=False, body_bytes=2048)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        dying = threading.Thread(target=_answers, args=(listener, 6))
        dying.start()
        other = Running(provider.pid, listener.getsockname()[1])
        gone = Running(provider.pid, free_port())
        ways = {"direct": _direct(provider), "other": other, "gone": gone}
        told = sequential(cell, ways, rounds=3, requests=4, block_s=60)
        dying.join(10)
    assert sorted(told.absent) == ["gone", "other"]
    assert [list(each) for each in told.rounds] == [["direct"]] * 3
    assert [len(each["direct"].whole) for each in told.rounds] == [4, 4, 4]
