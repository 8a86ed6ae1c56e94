"""A request, in the order it happens.

1. identify the wire format and the operation, from the path;
2. authenticate whoever asks, and only then say which provider the path belongs to;
3. read facts from the body, without rewriting it;
4. govern: what rules say of it, and its worst case reserved from the budgets above it;
5. plan where it goes (today: the one provider its path names);
6. attempt: swap the credential, send;
7. relay the provider's own bytes, while the meter reads a copy;
8. finish exactly once, however it ended.

The invariants: the answer's status is never sent before the provider's; after the first content
trouble always aborts the client's connection and never ends it cleanly; a request leaves one
record, whatever way it ended.
"""

import asyncio
from collections.abc import Mapping

from opencode_gate.agents.opencode.answers import conversation_of, kind_of
from opencode_gate.core.clock import Clock
from opencode_gate.core.errors import CredentialError, GateError
from opencode_gate.core.ids import new_ulid
from opencode_gate.core.secrets import Secret
from opencode_gate.core.semconv import (
    ConversationKind,
    ExchangeStatus,
    Operation,
    WireFormat,
)
from opencode_gate.gateway.asked import Asked, as_granted, told_headers
from opencode_gate.gateway.downstream import ClientGone, ClientRequest
from opencode_gate.gateway.exchange import Exchange, Recorder
from opencode_gate.gateway.headers import (
    by_name,
    request_headers,
    request_query,
    response_headers,
)
from opencode_gate.gateway.refusing import answer_failure, refuse, status_of
from opencode_gate.gateway.relay import begun_answer, relay_body, relay_stream
from opencode_gate.gateway.upstream import (
    Upstream,
    UpstreamFailure,
    UpstreamRequest,
    UpstreamResponse,
)
from opencode_gate.governance.admission import Barred, Door
from opencode_gate.governance.decisions import Denied
from opencode_gate.governance.governor import Governor
from opencode_gate.governance.grants import Ask
from opencode_gate.ledger.records import ExchangeRecord
from opencode_gate.routing.targets import Destination, RouteTable
from opencode_gate.wire.facts import BadBody, read_facts
from opencode_gate.wire.meter import ExchangeMeter
from opencode_gate.wire.routes import Route, identify
from opencode_gate.wire.splice import ask_for_usage

HEADER_TIMEOUT_S = 240.0
"""How long a provider may think before its headers; Opencode itself gives up after 300 s."""

PATHS_REMEMBERED = 512


class Pipeline:
    """Serves the requests that `door` lets in. `keys` may change while it runs."""

    def __init__(
        self,
        *,
        door: Door,
        governor: Governor,
        routes: RouteTable,
        keys: Mapping[str, Secret | CredentialError],
        key_names: Mapping[str, str],
        upstream: Upstream,
        builtin_upstreams: Mapping[str, Upstream],
        recorder: Recorder,
        clock: Clock,
    ) -> None:
        self._door = door
        self._governor = governor
        self._routes = routes
        self._keys = keys
        self._key_names = key_names
        self._upstream = upstream
        self._builtin_upstreams = builtin_upstreams
        self._recorder = recorder
        self._clock = clock
        self._never_ask: set[str] = set()
        self._known_paths: dict[tuple[str, bytes], tuple[Route, Destination]] = {}

    async def serve(self, client: ClientRequest) -> None:
        """Answers one request."""
        method, raw_path = client.method, client.raw_path
        known = self._known_paths.get((method, raw_path))
        route = identify(method, client.path) if known is None else known[0]
        barred: Barred | None = None
        try:
            try:
                caller = self._door.admit(client.headers, client.query)
            except Barred as refusal:
                caller, barred = refusal.caller, refusal
            destination = self._destination(method, raw_path, route) if known is None else known[1]
            body = await client.body()
        except ClientGone:
            return
        except GateError as refusal:
            refuse(client, route, barred or refusal)
            return
        started_us = self._clock.now_us()
        try:
            facts = read_facts(route, body) if route.operation is Operation.GENERATE else None
            unreadable = None
        except BadBody as error:
            facts, unreadable = None, error
        asked = Asked(
            caller,
            method,
            destination,
            route,
            client.headers,
            client.query,
            body,
            facts,
        )
        exchange = Exchange(
            self._record_of(asked, started_us),
            body,
            facts,
            self._recorder,
            self._clock,
            self._governor,
        )
        work = asyncio.current_task()
        assert work is not None
        exchange.on_client_left(work.cancel)
        client.on_left(exchange.client_left)
        try:
            await self._serve_admitted(asked, exchange, barred or unreadable, client)
        finally:
            exchange.finish(
                ExchangeStatus.INTERRUPTED,
                error_type="gateway_bug",
                is_billed=exchange.attempts > 0,
            )

    def _destination(self, method: str, raw_path: bytes, route: Route) -> Destination:
        """Where a path leads, remembered: an agent uses very few of them."""
        destination = self._routes.destination(raw_path, route.wire_format)
        if len(self._known_paths) < PATHS_REMEMBERED:
            self._known_paths[method, raw_path] = route, destination
        return destination

    async def _serve_admitted(
        self,
        asked: Asked,
        exchange: Exchange,
        refused: GateError | None,
        client: ClientRequest,
    ) -> None:
        try:
            if refused is not None:
                self._governor.put_down_to(asked.caller, exchange.grant)
                raise refused
            asked = await self._governed(asked, exchange)
            key = self._key_for(asked)
            await self._attempt(asked, exchange, key, client)
        except GateError as refusal:
            if isinstance(refusal, Denied):
                exchange.grant.decisions.append(refusal.decision)
            exchange.http_status = refusal.http_status
            exchange.finish(ExchangeStatus.DENIED, denial=refusal.code, is_billed=False)
            refuse(client, asked.route, refusal)
        except asyncio.CancelledError:
            # Either the client left, or the server is being stopped while the answer streams.
            is_billed = exchange.attempts > 0 and (
                exchange.http_status is None or exchange.http_status < 400
            )
            if exchange.meter is not None and exchange.meter.has_ended:
                # Some clients hang up on `[DONE]`, before the stream itself has ended.
                exchange.finish(ExchangeStatus.COMPLETED)
            elif exchange.has_client_left:
                exchange.finish(ExchangeStatus.CLIENT_DISCONNECTED, is_billed=is_billed)
            else:
                exchange.finish(
                    ExchangeStatus.INTERRUPTED, error_type="gateway_stopped", is_billed=is_billed
                )

    def _record_of(self, asked: Asked, started_us: int) -> ExchangeRecord:
        conversation_id, parent_id = conversation_of(asked.headers)
        facts = asked.facts
        return ExchangeRecord(
            id=new_ulid(),
            session_id=asked.caller.session_id,
            conversation_id=conversation_id,
            parent_conversation_id=parent_id,
            kind=ConversationKind.MAIN if facts is None else kind_of(facts, parent_id),
            operation=asked.route.operation,
            wire_format=asked.route.wire_format,
            provider_name=asked.destination.target.row.id,
            credential_name=self._key_names.get(asked.destination.target.row.id),
            request_model=asked.route.model if facts is None else facts.request_model,
            streamed=facts is not None and facts.stream,
            status=ExchangeStatus.OPEN,
            started_at_us=started_us,
        )

    async def _governed(self, asked: Asked, exchange: Exchange) -> Asked:
        """The request as the rules let it pass: as it came, with a lower limit, another model."""
        grant = exchange.grant
        ask = Ask(
            exchange_id=exchange.id,
            caller=asked.caller,
            provider_id=asked.destination.target.row.id,
            route=asked.route,
            facts=asked.facts,
            body=asked.body,
            conversation_id=exchange.conversation_id,
        )
        await self._governor.admit(ask, grant)
        if grant.model is None and grant.output_limit_tokens is None:
            return asked
        return as_granted(asked, grant)

    def _key_for(self, asked: Asked) -> Secret | None:
        key = self._keys.get(asked.destination.target.row.id)
        if isinstance(key, CredentialError):
            raise key
        return key

    async def _attempt(
        self, asked: Asked, exchange: Exchange, key: Secret | None, client: ClientRequest
    ) -> None:
        """Sends the request and relays its answer."""
        row = asked.destination.target.row
        exchange.opened()
        asks = self._asks_for_usage(asked)
        try:
            response = await self._send(asked, exchange, key, asks_for_usage=asks)
            if asks and response.status in (400, 422):
                refused = await begun_answer(response)
                if b"stream_options" in refused.beginning:
                    refused.abort()
                    self._never_ask.add(row.id)
                    asks = False
                    response = await self._send(asked, exchange, key, asks_for_usage=False)
                else:
                    response = refused
        except UpstreamFailure as failure:
            exchange.http_status = status_of(failure)
            exchange.finish(
                ExchangeStatus.UPSTREAM_ERROR,
                error_type=failure.kind,
                is_billed=failure.bytes_sent,
            )
            answer_failure(client, asked.route, row.id, failure)
            return
        try:
            await self._relay(asked, exchange, response, client, asked_for_usage=asks)
        finally:
            response.abort()

    def _asks_for_usage(self, asked: Asked) -> bool:
        row = asked.destination.target.row
        return (
            asked.route.wire_format is WireFormat.OPENAI_CHAT
            and asked.facts is not None
            and asked.facts.stream
            and not asked.facts.asks_for_usage
            and row.stream_usage == "ask"
            and row.id not in self._never_ask
        )

    async def _send(
        self, asked: Asked, exchange: Exchange, key: Secret | None, *, asks_for_usage: bool
    ) -> UpstreamResponse:
        target = asked.destination.target
        token = asked.caller.token
        query = request_query(asked.query, target.row, token, key)
        exchange.attempts += 1
        upstream = self._builtin_upstreams.get(target.row.id, self._upstream)
        return await upstream.send(
            UpstreamRequest(
                method=asked.method,
                scheme=target.scheme,
                host=target.host,
                port=target.port,
                target=asked.destination.path + (b"?" + query if query else b""),
                headers=request_headers(
                    asked.headers, target.row, token, key, asked.route.wire_format
                ),
                body=ask_for_usage(asked.body) if asks_for_usage else asked.body,
            ),
            # What rules had it wait for counts too: the agent waits for all of it.
            header_timeout_s=HEADER_TIMEOUT_S - exchange.waited_s,
        )

    async def _relay(
        self,
        asked: Asked,
        exchange: Exchange,
        response: UpstreamResponse,
        client: ClientRequest,
        *,
        asked_for_usage: bool,
    ) -> None:
        """Passes the answer on as its kind demands."""
        status = response.status
        described = by_name(response.headers)
        content_type = described.get(b"content-type")
        # Some providers call an error an event stream too; it is a body like any other.
        is_stream = (
            status < 400
            and content_type is not None
            and content_type.startswith(b"text/event-stream")
        )
        if status == 200 and asked.expects_stream and not is_stream:
            # It may well have generated a whole answer, and bill it.
            exchange.http_status = _NotAStream.http_status
            exchange.finish(ExchangeStatus.UPSTREAM_ERROR, error_type="protocol")
            raise _NotAStream(
                "upstream-protocol",
                f"{asked.destination.target.row.id} did not stream: it answered with "
                f"{'no content type' if content_type is None else content_type.decode('latin-1')}",
                hint="check the address with ogate providers show",
            )
        encoding = described.get(b"content-encoding")
        exchange.meter = ExchangeMeter(
            asked.route,
            streamed=is_stream,
            asked_for_usage=asked_for_usage,
            content_encoding=None if encoding is None else encoding.decode("latin-1"),
        )
        exchange.http_status = status
        client.begin(
            status,
            response_headers(response.headers, keep_length=not is_stream)
            + told_headers(exchange.grant),
        )
        try:
            if is_stream:
                await relay_stream(exchange, exchange.meter, response, client)
            else:
                await relay_body(exchange, exchange.meter, response, client)
        except UpstreamFailure as failure:
            exchange.finish(
                ExchangeStatus.UPSTREAM_ERROR,
                error_type=f"http_{status}" if status >= 400 else failure.kind,
                is_billed=status < 400,
            )


class _NotAStream(GateError):
    """The client asked for a stream and must not be given anything else."""

    http_status = 400
    error_type = "upstream_error"
