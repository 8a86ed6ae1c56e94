"""What a served gateway tells launchers: what it routes, and the sessions they open and end.

    GET  /health                  200 while it serves; the only answer that needs no key
    GET  /ogate/v1/offer          the routed providers the key may use, without addresses
    POST /ogate/v1/sessions       a session under a virtual key: its token
    POST /ogate/v1/session/end    ends the token's session: its record and all its exchanges

The invariants: nobody reads of a session but who holds its token; a session's id is taken once;
what is written down of a session was said by its launcher, but for the times and the key.
"""

import asyncio
import functools
import zoneinfo
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Final, Protocol, TypeVar

import msgspec

from opencode_gate.core.clock import Clock
from opencode_gate.core.errors import GateError, PolicyDenied, UsageError
from opencode_gate.gateway.downstream import ClientGone, ClientRequest
from opencode_gate.gateway.refusing import refuse
from opencode_gate.governance.admission import Caller
from opencode_gate.governance.policy import Budget, Rules
from opencode_gate.governance.served_keys import ServedDoor
from opencode_gate.governance.session_tokens import is_session_id
from opencode_gate.governance.standing import BudgetStanding
from opencode_gate.ledger.records import ExchangeRecord, SessionRecord
from opencode_gate.wire.routes import UNKNOWN_ROUTE

HEALTH: Final = "/health"
CONTROL: Final = "/ogate/"
BODY_LIMIT_BYTES: Final = 65536

_Text = Annotated[str, msgspec.Meta(max_length=4096)]
_T = TypeVar("_T")


class SessionBook(Protocol):
    """The ledger as far as sessions of launchers are concerned; called in threads, may block."""

    def begin(self, session: SessionRecord, own: Rules | None, *, operator: str) -> bool:
        """Writes down the start of a session with rules of its own; false if its id is taken."""
        ...

    def end(self, session_id: str, exit_status: int | None) -> None:
        """Writes down its end, which is now."""
        ...

    def account(self, session_id: str, virtual_key: str | None) -> "SessionAccount":
        """A session and all its exchanges that have ended, once they are in the ledger."""
        ...


class SessionWish(msgspec.Struct, kw_only=True):
    """What a launcher says of the session it opens.

    Attributes:
        budget_usd: what it may cost at most, on top of all other rules.
    """

    id: _Text
    user: _Text
    agent: _Text
    agent_version: _Text | None = None
    directory: _Text
    project: _Text
    repository: _Text | None = None
    branch: _Text | None = None
    commit: _Text | None = None
    time_zone: _Text = "UTC"
    budget_usd: Decimal | None = None


class SessionEnd(msgspec.Struct):
    """How it ended, as far as the launcher knows."""

    exit_status: int | None = None


class SessionOpened(msgspec.Struct):
    """The answer: what the agent is given in place of a provider's key."""

    session_id: str
    token: str


class SessionAccount(msgspec.Struct):
    """All of an ended session, and how the budgets above it stand."""

    session: SessionRecord
    exchanges: list[ExchangeRecord]
    budgets: tuple[BudgetStanding, ...] = ()


class NoSuchPath(PolicyDenied):
    """The path is none of those above."""

    http_status = 404
    error_type = "not_found_error"


class BadWish(UsageError):
    """The body says something that makes no sense."""

    http_status = 400
    error_type = "invalid_request_error"


class Control:
    """Answers paths below `/ogate/`, and `/health`."""

    __slots__ = ("_book", "_clock", "_door", "_offers", "_served_id")

    def __init__(
        self,
        door: ServedDoor,
        book: SessionBook,
        offers: Mapping[str, msgspec.Raw],
        clock: Clock,
        *,
        session_id: str,
    ) -> None:
        """Control over what `door` lets in.

        Args:
            offers: by provider, what launchers are told of it.
            session_id: the server's own session, under which bare keys are written down.
        """
        self._door = door
        self._book = book
        self._offers = offers
        self._clock = clock
        self._served_id = session_id

    def is_for(self, path: str) -> bool:
        """Whether a path is answered here and not by a provider."""
        return path == HEALTH or path.startswith(CONTROL)

    async def serve(self, request: ClientRequest) -> None:
        """Answers one request."""
        try:
            if request.path == HEALTH:
                answer = b'{"status":"ok"}'
            else:
                # Nobody without a key has a body kept; and a key may go while one comes.
                self._door.admit(request.headers, request.query)
                body = await request.body()
                caller = self._door.admit(request.headers, request.query)
                answer = await self._answer(request.method, request.path, caller, body)
        except ClientGone:
            return
        except GateError as refusal:
            refuse(request, UNKNOWN_ROUTE, refusal)
            return
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(answer)).encode()),
            (b"cache-control", b"no-store"),
        ]
        request.begin(200, headers)
        request.end(answer)

    async def _answer(self, method: str, path: str, caller: Caller, body: bytes) -> bytes:
        match method, path.removeprefix(CONTROL):
            case "GET", "v1/offer":
                offers = self._offers.items()
                found = [offer for name, offer in offers if self._door.may_use(caller, name)]
                return msgspec.json.encode({"version": 1, "providers": found})
            case "POST", "v1/sessions":
                return await self._begin(caller, _read(body, SessionWish))
            case "POST", "v1/session/end":
                return await self._end(caller, _read(body, SessionEnd))
        raise NoSuchPath("no-route", "this gateway has no such path", hint="see ogate serve --help")

    async def _begin(self, caller: Caller, wish: SessionWish) -> bytes:
        if caller.session_id != self._served_id:
            raise BadWish("usage", "a session is opened with a virtual key, not within another")
        if not is_session_id(wish.id):
            raise BadWish("usage", "the id of a session is a ULID")
        token = self._door.token_for(wish.id, caller)
        own = None if wish.budget_usd is None else _capped(wish.budget_usd)
        begin = functools.partial(
            self._book.begin, self._record(wish), own, operator=f"vkey {caller.virtual_key}"
        )
        if not await asyncio.to_thread(begin):
            raise BadWish("usage", "there is a session of that id already")
        return msgspec.json.encode(SessionOpened(wish.id, token))

    async def _end(self, caller: Caller, end: SessionEnd) -> bytes:
        if caller.session_id == self._served_id:
            raise BadWish("usage", "a session is ended with its own token")
        self._door.end(caller.session_id)
        await asyncio.to_thread(self._book.end, caller.session_id, end.exit_status)
        account = await asyncio.to_thread(self._book.account, caller.session_id, caller.virtual_key)
        account.exchanges = [_without_the_servers_own(one) for one in account.exchanges]
        return msgspec.json.encode(account)

    def _record(self, wish: SessionWish) -> SessionRecord:
        return SessionRecord(
            id=wish.id,
            user=_printable(wish.user),
            agent=_printable(wish.agent),
            agent_version=_if_said(wish.agent_version),
            directory=_printable(wish.directory),
            project=_printable(wish.project),
            repository=_if_said(wish.repository),
            branch=_if_said(wish.branch),
            commit=_if_said(wish.commit),
            time_zone=_zone_name(wish.time_zone),
            started_at_us=self._clock.now_us(),
        )


def _read(body: bytes, kind: type[_T]) -> _T:
    if len(body) > BODY_LIMIT_BYTES:
        raise BadWish("bad-body", "the request is larger than 64 KiB")
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadWish("bad-body", f"the request is not understood: {error}") from error


def _capped(budget_usd: Decimal) -> Rules:
    try:
        return Rules(budgets=(Budget(window="session", usd=budget_usd),))
    except ValueError as error:
        raise BadWish("usage", f"such a budget makes no sense: {error}") from error


def _printable(text: str) -> str:
    """It is shown on other people's terminals."""
    return "".join(letter for letter in text if letter.isprintable())


def _if_said(text: str | None) -> str | None:
    return None if text is None else _printable(text)


def _zone_name(name: str) -> str:
    try:
        return zoneinfo.ZoneInfo(name).key
    except (KeyError, ValueError, OSError):
        return "UTC"


def _without_the_servers_own(exchange: ExchangeRecord) -> ExchangeRecord:
    return msgspec.structs.replace(exchange, credential_name=None, raw_usage=None, charges=())
