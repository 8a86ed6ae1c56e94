"""The work per request does not grow unnoticed.

Counted are calls of functions, Python's and C's, between a request's first byte and its record:
a number that is the same on every run and every machine, unlike time. A change that needs more
raises the figure here and says why in its commit.
"""

import asyncio
import sys
from types import FrameType
from typing import Any

import pytest

from opencode_gate.catalog.rows import ProviderRow
from opencode_gate.config.paths import paths
from opencode_gate.core.clock import SystemClock
from opencode_gate.gateway.app import App
from opencode_gate.gateway.pipeline import Pipeline
from opencode_gate.gateway.upstream import UpstreamRequest
from opencode_gate.ledger.journal import Journal
from opencode_gate.ledger.records import ExchangeRecord
from opencode_gate.routing.targets import RouteTable
from tests.support.gateway import TOKEN, session_record

SLACK = 1.10
REQUESTS = 20

PLAIN_CALLS = 411
STREAM_CALLS = 2177
STREAM_EVENTS = 50

PLAIN_BODY = (
    b'{"id":"1","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},'
    b'"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":7}}'
)
EVENT = b'data: {"id":"1","choices":[{"index":0,"delta":{"content":"word "}}]}\n\n'
LAST = (
    b'data: {"id":"1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n',
    b'data: {"id":"1","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":50}}\n\n'
    b"data: [DONE]\n\n",
)


class _Answer:
    """An answer that is there already: what is counted is ours alone."""

    def __init__(self, content_type: bytes, parts: tuple[bytes, ...]) -> None:
        self.status = 200
        self.headers = [(b"content-type", content_type), (b"x-request-id", b"r")]
        self._parts = iter(parts)

    async def read(self) -> bytes:
        return next(self._parts, b"")

    def abort(self) -> None:
        return None


class _Upstream:
    def __init__(self, content_type: bytes, parts: tuple[bytes, ...]) -> None:
        self._answer = (content_type, parts)

    async def send(self, request: UpstreamRequest, *, header_timeout_s: float) -> _Answer:
        return _Answer(*self._answer)

    async def close(self) -> None:
        return None


class _Recorder:
    """Writes the real journal; folding happens in another thread and is not the request's."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.opened = journal.opened
        self.progressed = journal.progressed

    def finished(self, record: ExchangeRecord, body: bytes) -> None:
        self._journal.finished(record)


def _app(upstream: _Upstream, journal: Journal) -> App:
    return App(
        Pipeline(
            session_id="s",
            token=TOKEN.encode(),
            routes=RouteTable(
                [ProviderRow(id="acme", name="Acme", base_url="http://127.0.0.1:9/v1")]
            ),
            keys={},
            key_names={},
            upstream=upstream,
            builtin_upstreams={},
            recorder=_Recorder(journal),
            clock=SystemClock(),
        )
    )


async def _request(app: App, body: bytes) -> bytes:
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/p/acme/v1/chat/completions",
        "raw_path": b"/p/acme/v1/chat/completions",
        "query_string": b"",
        "headers": [
            (b"host", b"127.0.0.1:1"),
            (b"authorization", b"Bearer " + TOKEN.encode()),
            (b"content-type", b"application/json"),
            (b"user-agent", b"opencode/1.18.33"),
            (b"x-session-affinity", b"ses_1"),
            (b"x-session-id", b"ses_1"),
            (b"content-length", b"%d" % len(body)),
        ],
    }
    asked = iter([{"type": "http.request", "body": body, "more_body": False}])
    sent = bytearray()

    async def receive() -> dict[str, Any]:
        message = next(asked, None)
        if message is None:
            await asyncio.Event().wait()
            raise AssertionError
        return message

    async def send(message: Any) -> None:
        sent.extend(message.get("body", b""))

    await app(scope, receive, send)
    # The watcher of the client ends within the turn.
    await asyncio.sleep(0)
    return bytes(sent)


def _calls_of(app: App, bodies: list[bytes]) -> int:
    """Function calls per request, the first one (imports, caches) left out."""
    calls = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        if event in ("call", "c_call"):
            calls += 1

    async def work() -> None:
        await _request(app, bodies[0])
        sys.setprofile(count)
        try:
            for body in bodies[1:]:
                assert await _request(app, body)
        finally:
            sys.setprofile(None)

    asyncio.run(work())
    return round(calls / (len(bodies) - 1))


@pytest.fixture
def journal() -> Journal:
    return Journal.create(paths().journals, session=session_record())


def _bodies(text: str) -> list[bytes]:
    return [text.replace("N", str(number)).encode() for number in range(REQUESTS + 1)]


def test_a_plain_request_costs_no_more_calls_than_it_did(journal: Journal) -> None:
    app = _app(_Upstream(b"application/json", (PLAIN_BODY,)), journal)
    calls = _calls_of(app, _bodies('{"model":"m","messages":[{"role":"user","content":"N"}]}'))
    assert calls <= PLAIN_CALLS * SLACK, f"{calls} calls, the bar is {PLAIN_CALLS}"


def test_a_streamed_request_costs_no_more_calls_than_it_did(journal: Journal) -> None:
    app = _app(_Upstream(b"text/event-stream", (EVENT,) * STREAM_EVENTS + LAST), journal)
    body = (
        '{"model":"m","stream":true,"stream_options":{"include_usage":true},'
        '"messages":[{"role":"user","content":"N"}]}'
    )
    calls = _calls_of(app, _bodies(body))
    assert calls <= STREAM_CALLS * SLACK, f"{calls} calls, the bar is {STREAM_CALLS}"
