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

import msgspec

from opencode_gate.agents.opencode.answers import conversation_in, kind_of
from opencode_gate.catalog.rows import ProviderRow
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
from opencode_gate.gateway.asked import Asked, as_granted
from opencode_gate.gateway.downstream import ClientGone, ClientRequest
from opencode_gate.gateway.exchange import Exchange, Recorder
from opencode_gate.gateway.headers import FieldSwap, request_query
from opencode_gate.gateway.refusing import answer_failure, refuse, status_of
from opencode_gate.gateway.relay import (
    MISUNDERSTOOD,
    Answer,
    UsedUp,
    begun_answer,
    is_refusal,
)
from opencode_gate.gateway.upstream import (
    Upstream,
    UpstreamFailure,
    UpstreamRequest,
    UpstreamResponse,
)
from opencode_gate.governance.admission import Barred, Door
from opencode_gate.governance.decisions import Denied
from opencode_gate.governance.governor import Governor
from opencode_gate.governance.grants import Ask, Grant
from opencode_gate.governance.stopping import BUDGET_STOP
from opencode_gate.ledger.records import ExchangeRecord
from opencode_gate.routing.targets import Destination, RouteTable
from opencode_gate.wire.facts import BadBody, read_facts
from opencode_gate.wire.routes import Route, identify
from opencode_gate.wire.splice import ask_for_usage

HEADER_TIMEOUT_S = 240.0
"""How long a provider may think before its headers; Opencode itself gives up after 300 s."""

PATHS_REMEMBERED = 512
SWAPS_REMEMBERED = 256


class _Known(msgspec.Struct, frozen=True):
    """What a path says, and what follows from it for every request."""

    route: Route
    destination: Destination
    provider_id: str
    credential_name: str | None
    upstream: Upstream
    may_ask_for_usage: bool


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
        self._known_paths: dict[tuple[str, bytes], _Known] = {}
        self._swaps: dict[tuple[str, WireFormat, bytes], FieldSwap] = {}

    async def serve(self, client: ClientRequest) -> None:
        """Answers one request."""
        known = self._known_paths.get((client.method, client.raw_path))
        route = identify(client.method, client.path) if known is None else known.route
        refused: GateError | None = None
        try:
            try:
                caller = self._door.admit(client.headers, client.query)
            except Barred as barred:
                caller, refused = barred.caller, barred
            if known is None:
                known = self._learn(client, route)
            body = await client.body()
        except ClientGone:
            return
        except GateError as refusal:
            refuse(client, route, refused or refusal)
            return
        facts = None
        if route.operation is Operation.GENERATE:
            try:
                facts = read_facts(route, body)
            except BadBody as unreadable:
                refused = refused or unreadable
        asked = Asked(
            caller,
            client.method,
            known.destination,
            route,
            client.headers,
            client.query,
            body,
            facts,
        )
        record = self._record_of(asked, known, client.fields)
        exchange = Exchange(
            record,
            body,
            facts,
            self._recorder,
            self._clock,
            self._governor,
            client.received_s,
            Grant(record.id),
            asyncio.current_task(),
        )
        client.on_left(exchange.client_left)
        try:
            await self._serve_admitted(asked, known, exchange, refused, client)
        finally:
            if not exchange.ended:
                exchange.finish(
                    ExchangeStatus.INTERRUPTED,
                    error_type="gateway_bug",
                    is_billed=exchange.attempts > 0,
                )

    def _learn(self, client: ClientRequest, route: Route) -> _Known:
        """Where a path leads, remembered: an agent uses very few of them."""
        destination = self._routes.destination(client.raw_path, route.wire_format)
        row = destination.target.row
        known = _Known(
            route,
            destination,
            row.id,
            self._key_names.get(row.id),
            self._builtin_upstreams.get(row.id, self._upstream),
            route.wire_format is WireFormat.OPENAI_CHAT and row.stream_usage == "ask",
        )
        if len(self._known_paths) < PATHS_REMEMBERED:
            self._known_paths[client.method, client.raw_path] = known
        return known

    def _record_of(
        self, asked: Asked, known: _Known, fields: Mapping[bytes, bytes]
    ) -> ExchangeRecord:
        conversation_id, parent_id = conversation_in(fields)
        facts, route = asked.facts, known.route
        return ExchangeRecord(
            id=new_ulid(),
            session_id=asked.caller.session_id,
            conversation_id=conversation_id,
            parent_conversation_id=parent_id,
            kind=ConversationKind.MAIN if facts is None else kind_of(facts, parent_id),
            operation=route.operation,
            wire_format=route.wire_format,
            provider_name=known.provider_id,
            credential_name=known.credential_name,
            request_model=route.model if facts is None else facts.request_model,
            streamed=facts is not None and facts.stream,
            status=ExchangeStatus.OPEN,
            started_at_us=self._clock.now_us(),
        )

    async def _serve_admitted(
        self,
        asked: Asked,
        known: _Known,
        exchange: Exchange,
        refused: GateError | None,
        client: ClientRequest,
    ) -> None:
        answer: Answer | None = None
        try:
            if refused is not None:
                self._governor.put_down_to(asked.caller, exchange.grant)
                raise refused
            grant = exchange.grant
            ask = Ask(
                exchange_id=grant.exchange_id,
                caller=asked.caller,
                provider_id=known.provider_id,
                route=known.route,
                facts=asked.facts,
                body=asked.body,
                conversation_id=exchange.record.conversation_id,
            )
            rest = self._governor.decide(ask, grant)
            if rest is not None:
                began_s = self._clock.monotonic_s()
                await rest
                exchange.waited_s = self._clock.monotonic_s() - began_s
            if grant.model is not None or grant.output_limit_tokens is not None:
                asked = as_granted(asked, grant)
            asks_for_usage = known.may_ask_for_usage and self._asks_for_usage(asked, known)
            answer = Answer(client, exchange, asked, asks_for_usage)
            await self._attempt(asked, known, exchange, answer, client)
        except GateError as refusal:
            if isinstance(refusal, Denied):
                exchange.grant.decisions.append(refusal.decision)
            exchange.http_status = refusal.http_status
            exchange.finish(ExchangeStatus.DENIED, denial=refusal.code, is_billed=False)
            refuse(client, known.route, refusal)
        except asyncio.CancelledError:
            self._cancelled(exchange, answer)

    def _cancelled(self, exchange: Exchange, answer: Answer | None) -> None:
        """Either the client left, or the server is being stopped while the answer streams."""
        if answer is not None and answer.is_over:
            answer.settle()
            return
        request = None if answer is None else answer.request
        is_billed = (
            request is not None
            and not request.is_waiting
            and (exchange.http_status is None or not is_refusal(exchange.http_status))
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

    async def _attempt(
        self,
        asked: Asked,
        known: _Known,
        exchange: Exchange,
        answer: Answer,
        client: ClientRequest,
    ) -> None:
        """Sends the request and relays its answer."""
        request = answer.request = self._request(asked, known, answer)
        exchange.opened()
        exchange.attempts = 1
        try:
            # What rules had it wait for counts too: the agent waits for all of it.
            response = await known.upstream.send(
                request,
                header_timeout_s=HEADER_TIMEOUT_S - self._age_s(exchange),
                on_head=answer.begin,
            )
            if not answer.is_over:
                await self._take(asked, known, exchange, answer, response)
            answer.settle()
        except UpstreamFailure as failure:
            if answer.has_begun:
                status = exchange.http_status
                is_error = status is not None and is_refusal(status)
                exchange.finish(
                    ExchangeStatus.UPSTREAM_ERROR,
                    error_type=f"http_{status}" if is_error else failure.kind,
                    is_billed=not is_error,
                )
                return
            exchange.http_status = status_of(failure)
            exchange.finish(
                ExchangeStatus.UPSTREAM_ERROR,
                error_type=failure.kind,
                is_billed=failure.bytes_sent,
            )
            answer_failure(client, known.route, known.provider_id, failure)
        except UsedUp:
            exchange.finish(ExchangeStatus.INTERRUPTED, error_type=BUDGET_STOP)

    async def _take(
        self,
        asked: Asked,
        known: _Known,
        exchange: Exchange,
        answer: Answer,
        response: UpstreamResponse,
    ) -> None:
        """Takes an answer that was not pushed; asks again where ours was a word too many."""
        try:
            if answer.asks_for_usage and response.status in MISUNDERSTOOD:
                response = await begun_answer(response)
                if b"stream_options" in response.beginning:
                    response.abort()
                    self._never_ask.add(known.provider_id)
                    answer.asks_for_usage = False
                    exchange.attempts += 1
                    again = answer.request = self._request(asked, known, answer)
                    response = await known.upstream.send(
                        again,
                        header_timeout_s=HEADER_TIMEOUT_S - self._age_s(exchange),
                        on_head=answer.begin,
                    )
            if not answer.is_over:
                await answer.pull(response)
        finally:
            response.abort()

    def _age_s(self, exchange: Exchange) -> float:
        return self._clock.monotonic_s() - exchange.started_s

    def _asks_for_usage(self, asked: Asked, known: _Known) -> bool:
        """Whether usage is asked for in place of the client, who would not get it."""
        facts = asked.facts
        return (
            facts is not None
            and facts.stream
            and not facts.asks_for_usage
            and known.provider_id not in self._never_ask
        )

    def _request(self, asked: Asked, known: _Known, answer: Answer) -> UpstreamRequest:
        """The request as it goes to the provider.

        Raises:
            CredentialError: the provider's key cannot be read.
        """
        key = self._keys.get(known.provider_id)
        if isinstance(key, CredentialError):
            raise key
        token, target = asked.caller.token, asked.destination.target
        swap = self._swaps.get((known.provider_id, known.route.wire_format, token))
        if swap is None or swap.key is not key:
            swap = self._new_swap(target.row, known.route.wire_format, token, key)
        path = asked.destination.path
        if asked.query:
            query = request_query(asked.query, target.row, token, key)
            path = path + b"?" + query if query else path
        return UpstreamRequest(
            method=asked.method,
            scheme=target.scheme,
            host=target.host,
            port=target.port,
            target=path,
            headers=swap.headers(asked.headers),
            body=_asking_for_usage(asked) if answer.asks_for_usage else asked.body,
        )

    def _new_swap(
        self, row: ProviderRow, wire_format: WireFormat, token: bytes, key: Secret | None
    ) -> FieldSwap:
        if len(self._swaps) >= SWAPS_REMEMBERED:
            self._swaps.clear()
        swap = self._swaps[row.id, wire_format, token] = FieldSwap(row, token, key, wire_format)
        return swap


def _asking_for_usage(asked: Asked) -> bytes:
    has_stream_options = asked.facts is None or asked.facts.has_stream_options
    return ask_for_usage(asked.body, has_stream_options=has_stream_options)
