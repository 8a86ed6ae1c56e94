"""Through a real gateway process: bytes, credentials, endings and the rows they leave."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from opencode_gate.catalog.rows import ProviderRow
from opencode_gate.config.settings import RunawaySettings
from opencode_gate.core.semconv import (
    CostQuality,
    ExchangeStatus,
    Operation,
    UsageQuality,
    WireFormat,
)
from tests.support.gateway import TOKEN, RunningGateway, running_gateway
from tests.support.scripted_upstream import Peer, Script, ScriptedUpstream, scripted

SAME_QUESTIONS = RunawaySettings().same_questions

KEY = "sk-real-0123456789abcdefghij"

CHAT_EVENTS = [
    b'data: {"id":"c1","model":"m-2026","choices":[{"index":0,"delta":{"role":"assistant"},'
    b'"finish_reason":null}]}\n\n',
    b'data: {"id":"c1","model":"m-2026","choices":[{"index":0,"delta":{"content":"Hej v\xc3\xa4"},'
    b'"finish_reason":null}]}\n\n',
    b'data: {"id":"c1","model":"m-2026","choices":[{"index":0,"delta":{"content":"rld"},'
    b'"finish_reason":null}]}\n\n',
    b'data: {"id":"c1","model":"m-2026","choices":[{"index":0,"delta":{},'
    b'"finish_reason":"stop"}]}\n\n',
]
CHAT_USAGE = (
    b'data: {"id":"c1","model":"m-2026","choices":[],"usage":{"prompt_tokens":1237,'
    b'"completion_tokens":41,"total_tokens":1278,"prompt_tokens_details":{"cached_tokens":1024},'
    b'"completion_tokens_details":{"reasoning_tokens":17}}}\n\n'
)
DONE = b"data: [DONE]\n\n"


class Proxied:
    """A scripted provider with a gateway before it and a client for it."""

    def __init__(
        self, upstream: ScriptedUpstream, gateway: RunningGateway, client: httpx.AsyncClient
    ) -> None:
        self.upstream = upstream
        self.gateway = gateway
        self.client = client

    def request(self, path: str, body: bytes, **headers: str) -> httpx.Request:
        return self.client.build_request(
            "POST",
            self.gateway.url("acme", path),
            content=body,
            headers={
                "authorization": f"Bearer {TOKEN}",
                "content-type": "application/json",
                **{name.replace("_", "-"): value for name, value in headers.items()},
            },
        )

    async def send(self, path: str, body: bytes | dict[str, Any], **headers: str) -> httpx.Response:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.client.send(self.request(path, raw, **headers))

    def settled(self) -> Any:
        """The one row the test left."""
        self.gateway.finish()
        (row,) = self.gateway.exchanges()
        return row


@pytest.fixture
async def proxied(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """`async with proxied(script) as it`: everything closed again behind it."""
    stack: list[Any] = []

    async def start(script: Script, **row: Any) -> Proxied:
        server = scripted(script)
        upstream = await server.__aenter__()
        stack.append(server)
        fields = {"base_url": f"http://127.0.0.1:{upstream.port}/v1", **row}
        running = running_gateway(
            [ProviderRow(id="acme", name="Acme", **fields)], keys={"acme": KEY}
        )
        gateway = await asyncio.to_thread(running.__enter__)
        client = httpx.AsyncClient(timeout=20)
        stack.extend((running, client))
        return Proxied(upstream, gateway, client)

    yield start
    for opened in reversed(stack):
        if isinstance(opened, httpx.AsyncClient):
            await opened.aclose()
        elif hasattr(opened, "__aexit__"):
            await opened.__aexit__(None, None, None)
        else:
            opened.__exit__(None, None, None)


def streaming(*parts: bytes, status: bytes = b"200 OK", end: bytes = b"0\r\n\r\n") -> Script:
    """A chunked event stream, one chunk a part."""

    async def script(peer: Peer) -> None:
        while await peer.request() is not None:
            await peer.send(
                b"HTTP/1.1 " + status + b"\r\nContent-Type: text/event-stream\r\n"
                b"x-request-id: req_7\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
            for part in parts:
                await peer.send(b"%x\r\n%b\r\n" % (len(part), part))
            await peer.send(end)

    return script


CHAT_BODY = (
    b'{ "model":"m",  "stream":true,"stream_options":{"include_usage":true},'
    b'"messages":[{"role":"user","content":"\\u00e4 \xc3\xa4"}] }'
)


async def test_a_stream_passes_byte_for_byte_and_leaves_the_reported_counts(proxied: Any) -> None:
    sent = [*CHAT_EVENTS, CHAT_USAGE, DONE]
    it = await proxied(streaming(*sent))
    answer = await it.send("/v1/chat/completions", CHAT_BODY, x_session_id="ses_9", x_custom="1")
    assert answer.content == b"".join(sent)
    assert answer.headers["x-request-id"] == "req_7"
    (received,) = it.upstream.requests
    assert received.body == CHAT_BODY
    assert received.line == b"POST /v1/chat/completions HTTP/1.1"
    assert received.values(b"authorization") == [b"Bearer " + KEY.encode()]
    assert received.values(b"accept-encoding") == [b"identity"]
    assert received.values(b"x-custom") == [b"1"]
    assert TOKEN.encode() not in received.head
    row = it.settled()
    assert row.status is ExchangeStatus.COMPLETED
    assert (row.usage.input_uncached, row.usage.cache_read) == (213, 1024)
    assert (row.usage.output, row.usage.reasoning) == (41, 17)
    assert row.usage_quality is UsageQuality.REPORTED
    assert (row.request_model, row.response_model) == ("m", "m-2026")
    assert row.conversation_id == "ses_9"
    assert row.time_to_first_chunk_us is not None
    assert row.cost_nano_usd is None
    assert row.cost_quality is CostQuality.UNKNOWN


async def test_usage_is_asked_for_and_its_extra_chunk_taken_out_again(proxied: Any) -> None:
    it = await proxied(streaming(*CHAT_EVENTS, CHAT_USAGE, DONE))
    answer = await it.send("/v1/chat/completions", b'{"model":"m","stream":true,"messages":[]}')
    assert answer.content == b"".join([*CHAT_EVENTS, DONE])
    (received,) = it.upstream.requests
    assert json.loads(received.body)["stream_options"] == {"include_usage": True}
    row = it.settled()
    assert (row.usage.input_tokens, row.usage_quality) == (1237, UsageQuality.REPORTED)


async def test_a_provider_that_refuses_the_question_is_not_asked_again(proxied: Any) -> None:
    async def script(peer: Peer) -> None:
        while (received := await peer.request()) is not None:
            if b"stream_options" in received.body:
                body = b'{"error":{"message":"Unrecognized field stream_options"}}'
                await peer.send(
                    b"HTTP/1.1 422 Unprocessable\r\nContent-Type: application/json\r\n"
                    b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
                )
            else:
                stream = b"".join([*CHAT_EVENTS, DONE])
                await peer.answer(stream, b"Content-Type: text/event-stream")

    it = await proxied(script)
    for _ in range(2):
        answer = await it.send("/v1/chat/completions", b'{"model":"m","stream":true,"messages":[]}')
        assert answer.content == b"".join([*CHAT_EVENTS, DONE])
    asked = [b"stream_options" in received.body for received in it.upstream.requests]
    assert asked == [True, False, False]
    it.gateway.finish()
    first, second = it.gateway.exchanges()
    assert (first.attempts, second.attempts) == (2, 1)
    assert first.usage_quality is UsageQuality.ESTIMATED


@pytest.mark.parametrize("padding", [0, 3_000_000])
async def test_another_400_reaches_the_client_as_it_is(proxied: Any, padding: int) -> None:
    """However long it is."""
    body = b'{"error":{"message":"no such model","type":"invalid_request_error"}}' + b" " * padding

    async def script(peer: Peer) -> None:
        while await peer.request() is not None:
            await peer.send(
                b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\n"
                b"x-request-id: req_1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
            )

    it = await proxied(script)
    answer = await it.send("/v1/chat/completions", b'{"model":"m","stream":true,"messages":[]}')
    assert (answer.status_code, answer.content) == (400, body)
    assert answer.headers["x-request-id"] == "req_1"
    row = it.settled()
    assert (row.status, row.error_type) == (ExchangeStatus.UPSTREAM_ERROR, "http_400")
    assert row.cost_nano_usd == 0


async def test_a_provider_that_points_elsewhere_has_answered_nothing(proxied: Any) -> None:
    """An address that has moved is passed on as it is, and costs nothing."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(
            b"HTTP/1.1 308 Permanent Redirect\r\nLocation: https://acme.example/\r\n"
            b"Content-Length: 0\r\n\r\n"
        )
        await peer.closed()

    it = await proxied(script)
    answer = await it.send("/v1/chat/completions", {"model": "m", "messages": []})
    assert (answer.status_code, answer.headers["location"]) == (308, "https://acme.example/")
    row = it.settled()
    assert (row.status, row.error_type) == (ExchangeStatus.UPSTREAM_ERROR, "http_308")
    assert (row.cost_nano_usd, row.usage.input_tokens) == (0, None)


async def test_a_400_that_is_cut_is_a_400_and_costs_nothing(proxied: Any) -> None:
    """Its beginning is read ahead; the client is still told the status, and that it was cut."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b'HTTP/1.1 400 Bad Request\r\nContent-Length: 99\r\n\r\n{"error"')
        await peer.fin()

    it = await proxied(script)
    received = b""
    with pytest.raises(httpx.RemoteProtocolError):
        async with it.client.stream(
            "POST",
            it.gateway.url("acme", "/v1/chat/completions"),
            content=b'{"model":"m","stream":true,"messages":[]}',
            headers={"authorization": f"Bearer {TOKEN}"},
        ) as answer:
            assert answer.status_code == 400
            async for chunk in answer.aiter_raw():
                received += chunk
    assert received == b'{"error"'
    row = it.settled()
    assert (row.status, row.error_type) == (ExchangeStatus.UPSTREAM_ERROR, "http_400")
    assert (row.http_status, row.cost_nano_usd, row.attempts) == (400, 0, 1)


@pytest.mark.parametrize("ending", ["fin", "rst"])
async def test_a_stream_cut_upstream_is_cut_for_the_client_and_estimated(
    proxied: Any, ending: str
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        for part in CHAT_EVENTS[:3]:
            await peer.send(b"%x\r\n%b\r\n" % (len(part), part))
        await peer.reader.read(1) if ending == "never" else None
        await (peer.fin() if ending == "fin" else peer.rst())

    it = await proxied(script)
    received = b""
    with pytest.raises(httpx.RemoteProtocolError):
        async with it.client.stream(
            "POST",
            it.gateway.url("acme", "/v1/chat/completions"),
            content=CHAT_BODY,
            headers={"authorization": f"Bearer {TOKEN}"},
        ) as answer:
            async for chunk in answer.aiter_raw():
                received += chunk
    assert b"".join(CHAT_EVENTS).startswith(received)
    row = it.settled()
    assert (row.status, row.error_type) == (ExchangeStatus.UPSTREAM_ERROR, "reset")
    assert row.usage_quality is UsageQuality.ESTIMATED
    assert row.usage.input_tokens is not None
    assert row.usage.input_tokens > 0


async def test_a_clean_end_without_a_terminal_marker_is_no_clean_end(proxied: Any) -> None:
    it = await proxied(streaming(*CHAT_EVENTS[:3]))
    with pytest.raises(httpx.RemoteProtocolError):
        await it.send("/v1/chat/completions", CHAT_BODY)
    row = it.settled()
    assert (row.status, row.error_type) == (ExchangeStatus.UPSTREAM_ERROR, "no_terminal")


async def test_an_error_inside_a_stream_reaches_the_client_and_is_recorded(proxied: Any) -> None:
    """It is passed on whole, with a clean end: a cut could lose the words the client shows."""
    error = b'data: {"error":{"message":"gone","type":"overloaded_error"}}\n\n'
    it = await proxied(streaming(*CHAT_EVENTS[:3], error))
    answer = await it.send("/v1/chat/completions", CHAT_BODY)
    assert answer.content == b"".join([*CHAT_EVENTS[:3], error])
    row = it.settled()
    assert (row.status, row.error_type) == (ExchangeStatus.UPSTREAM_ERROR, "overloaded_error")
    assert row.usage_quality is UsageQuality.ESTIMATED


async def test_an_error_body_called_an_event_stream_reaches_the_client(proxied: Any) -> None:
    body = b'{"error":{"message":"no credit","type":"insufficient_quota"}}'
    it = await proxied(streaming(body, status=b"402 Payment Required"))
    answer = await it.send("/v1/chat/completions", CHAT_BODY)
    assert (answer.status_code, answer.content) == (402, body)
    row = it.settled()
    assert (row.status, row.error_type) == (ExchangeStatus.UPSTREAM_ERROR, "http_402")


async def test_an_unknown_finish_reason_is_mended_before_the_marker(proxied: Any) -> None:
    odd = CHAT_EVENTS[3].replace(b'"stop"', b'"eos"')
    it = await proxied(streaming(*CHAT_EVENTS[:3], odd, CHAT_USAGE, DONE))
    answer = await it.send("/v1/chat/completions", CHAT_BODY)
    added = answer.content.removeprefix(b"".join([*CHAT_EVENTS[:3], odd, CHAT_USAGE]))
    assert added.endswith(DONE)
    assert b'"finish_reason":"stop"' in added.replace(b" ", b"")
    row = it.settled()
    assert (row.status, row.finish_reason) == (ExchangeStatus.COMPLETED, "eos")
    assert row.repaired is not None


async def test_a_client_that_leaves_ends_the_upstream_too(proxied: Any) -> None:
    upstream_saw_end = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        for part in CHAT_EVENTS[:3]:
            await peer.send(b"%x\r\n%b\r\n" % (len(part), part))
        await peer.closed()
        upstream_saw_end.set()

    it = await proxied(script)
    async with it.client.stream(
        "POST",
        it.gateway.url("acme", "/v1/chat/completions"),
        content=CHAT_BODY,
        headers={"authorization": f"Bearer {TOKEN}"},
    ) as answer:
        async for _ in answer.aiter_raw():
            break
    await asyncio.wait_for(upstream_saw_end.wait(), 10)
    row = it.settled()
    assert row.status is ExchangeStatus.CLIENT_DISCONNECTED
    assert row.usage_quality is UsageQuality.ESTIMATED


async def test_a_client_that_hangs_up_on_the_end_of_the_answer_has_had_it_all(
    proxied: Any,
) -> None:
    """OpenAI's own client does, before the stream itself has ended."""
    upstream_saw_end = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        for part in (*CHAT_EVENTS, CHAT_USAGE, DONE):
            await peer.send(b"%x\r\n%b\r\n" % (len(part), part))
        await peer.closed()
        upstream_saw_end.set()

    it = await proxied(script)
    received = b""
    async with it.client.stream(
        "POST",
        it.gateway.url("acme", "/v1/chat/completions"),
        content=CHAT_BODY,
        headers={"authorization": f"Bearer {TOKEN}"},
    ) as answer:
        async for part in answer.aiter_raw():
            received += part
            if DONE in received:
                break
    await asyncio.wait_for(upstream_saw_end.wait(), 10)
    row = it.settled()
    assert row.status is ExchangeStatus.COMPLETED
    assert (row.usage.input_tokens, row.usage.output) == (1237, 41)


async def test_a_client_that_leaves_before_the_headers_ends_the_upstream_too(proxied: Any) -> None:
    asked, upstream_saw_end = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        asked.set()
        await peer.closed()
        upstream_saw_end.set()

    it = await proxied(script)
    sending = asyncio.get_running_loop().create_task(it.send("/v1/chat/completions", CHAT_BODY))
    await asyncio.wait_for(asked.wait(), 10)
    sending.cancel()
    await asyncio.wait_for(upstream_saw_end.wait(), 10)
    row = it.settled()
    assert row.status is ExchangeStatus.CLIENT_DISCONNECTED


async def test_a_json_answer_to_a_streaming_request_is_a_final_400(proxied: Any) -> None:
    async def script(peer: Peer) -> None:
        while await peer.request() is not None:
            await peer.answer(b'{"choices":[]}', b"Content-Type: application/json")

    it = await proxied(script)
    answer = await it.send("/v1/chat/completions", CHAT_BODY)
    assert answer.status_code == 400
    assert answer.headers["x-should-retry"] == "false"
    assert "did not stream" in answer.json()["error"]["message"]
    row = it.settled()
    assert (row.status, row.error_type) == (ExchangeStatus.UPSTREAM_ERROR, "protocol")
    assert row.usage_quality is UsageQuality.ESTIMATED
    assert not row.streamed, "a plain answer is billed whole, and budgets are charged for that"


async def test_a_long_retry_after_is_dropped_and_a_short_one_kept(proxied: Any) -> None:
    waits = iter((b"7", b"3600"))

    async def script(peer: Peer) -> None:
        while await peer.request() is not None:
            await peer.send(
                b"HTTP/1.1 429 Too Many\r\nRetry-After: " + next(waits) + b"\r\n"
                b"Content-Length: 2\r\n\r\n{}"
            )

    it = await proxied(script)
    first = await it.send("/v1/chat/completions", CHAT_BODY)
    second = await it.send("/v1/chat/completions", CHAT_BODY)
    assert (first.status_code, first.headers.get("retry-after")) == (429, "7")
    assert (second.status_code, second.headers.get("retry-after")) == (429, None)


async def test_what_is_no_known_operation_passes_and_is_recorded_as_other(proxied: Any) -> None:
    it = await proxied(_echo_path)
    answer = await it.send("/v1/embeddings?x=%2F", b"\x00\x01not json")
    assert answer.content == b"\x00\x01not json"
    assert it.upstream.requests[0].line == b"POST /v1/embeddings?x=%2F HTTP/1.1"
    row = it.settled()
    assert (row.operation, row.wire_format) == (Operation.OTHER, WireFormat.UNKNOWN)
    assert row.status is ExchangeStatus.COMPLETED


async def _echo_path(peer: Peer) -> None:
    while (received := await peer.request()) is not None:
        await peer.answer(received.body)


async def test_outside_the_providers_address_there_is_a_clear_404(proxied: Any) -> None:
    it = await proxied(_echo_path)
    answer = await it.send("/admin/keys", b"{}")
    assert answer.status_code == 404
    assert answer.headers["x-should-retry"] == "false"
    assert it.upstream.requests == []
    assert it.gateway.finish()["exchanges"] == 0


@pytest.mark.parametrize("path", ["/p/acme/v1/models", "/p/nobody/v1/models", "/elsewhere"])
async def test_without_the_token_nothing_is_learned(proxied: Any, path: str) -> None:
    """Neither which providers there are nor which paths lead to them."""
    it = await proxied(_echo_path)
    answer = await it.client.get(f"http://127.0.0.1:{it.gateway.port}{path}")
    assert answer.status_code == 401
    assert "acme" not in answer.text
    assert it.upstream.requests == []


async def test_a_body_no_provider_could_take_is_a_400_and_a_denied_row(proxied: Any) -> None:
    it = await proxied(_echo_path)
    answer = await it.send("/v1/chat/completions", b"{nonsense")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad-body")
    row = it.settled()
    assert (row.status, row.denial) == (ExchangeStatus.DENIED, "bad-body")


async def test_a_conversation_that_asks_the_same_again_and_again_is_stopped(proxied: Any) -> None:
    """Also when each request has the half answers to the ones before behind its question."""
    it = await proxied(streaming(*CHAT_EVENTS, CHAT_USAGE, DONE))
    turns = [{"role": "user", "content": "hi"}]
    answers = []
    for _ in range(2 * SAME_QUESTIONS + 1):
        body = {"model": "m", "stream": True, "messages": turns}
        answers.append(await it.send("/v1/chat/completions", body, x_session_id="ses_1"))
        turns.append({"role": "assistant", "content": "half"})
    assert [answer.status_code for answer in answers] == [200] * 2 * SAME_QUESTIONS + [402]
    assert answers[-1].headers["x-should-retry"] == "false"
    assert len(it.upstream.requests) == 2 * SAME_QUESTIONS


async def test_a_provider_that_is_not_there_is_a_502_that_names_it(proxied: Any) -> None:
    it = await proxied(_echo_path, base_url="http://127.0.0.1:9/v1")
    answer = await it.send("/v1/chat/completions", CHAT_BODY)
    assert answer.status_code == 502
    assert "acme" in answer.json()["error"]["message"]
    row = it.settled()
    assert (row.status, row.error_type) == (ExchangeStatus.UPSTREAM_ERROR, "connect")
    assert row.cost_nano_usd == 0


async def test_a_key_that_could_not_be_read_is_said_in_the_wire_format() -> None:
    row = ProviderRow(id="acme", name="Acme", base_url="http://127.0.0.1:9/v1")
    with running_gateway([row], problems={"acme": "the OS keyring is locked"}) as gateway:
        async with httpx.AsyncClient() as client:
            answer = await client.post(
                gateway.url("acme", "/v1/messages"),
                json={"model": "m", "messages": [], "max_tokens": 1},
                headers={"x-api-key": TOKEN},
            )
        assert answer.status_code == 401
        document = answer.json()
        assert document["type"] == "error"
        assert "keyring is locked" in document["error"]["message"].replace("\u2060", "")


async def test_pages_in_a_browser_are_kept_out(proxied: Any) -> None:
    it = await proxied(_echo_path)
    rebound = await it.send("/v1/models", b"", host="evil.example")
    foreign = await it.send("/v1/models", b"", origin="https://evil.example")
    assert (rebound.status_code, foreign.status_code) == (403, 403)
    assert it.upstream.requests == []


@pytest.mark.parametrize("host", ["LOCALHOST", "LocalHost:8080"])
async def test_a_host_has_no_case(proxied: Any, host: str) -> None:
    """Nor has the machine's own name (RFC 9110, section 4.2.3)."""
    it = await proxied(_echo_path)
    assert (await it.send("/v1/models", b"", host=host)).status_code == 200


async def test_a_websocket_is_told_to_come_back_over_http(proxied: Any) -> None:
    it = await proxied(_echo_path)
    answer = await it.send(
        "/v1/responses", b"", connection="upgrade", upgrade="websocket", sec_websocket_version="13"
    )
    assert answer.status_code == 426
