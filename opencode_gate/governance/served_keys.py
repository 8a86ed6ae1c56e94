"""Who is let in at a served gateway: holders of virtual keys, and the sessions they opened.

A token is looked for where SDKs put an API key. The invariants: a token is believed only under
the policy of this moment, so a key that is switched off, rotated or removed, and an ended
session, act on the next request; whoever carries no right secret learns nothing, not even
whether a key exists, and takes as long to be told so.
"""

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from opencode_gate.core.clock import Clock
from opencode_gate.governance.admission import Barred, Caller
from opencode_gate.governance.decisions import Decision, Denied
from opencode_gate.governance.models_allowed import check_provider
from opencode_gate.governance.policy import Policy, VirtualKey
from opencode_gate.governance.sentences import key_disabled, key_expired, key_unknown
from opencode_gate.governance.session_tokens import SessionTokens, token_parts
from opencode_gate.governance.virtual_keys import NO_HASH, key_parts, verify

_PLACES: Final = frozenset(
    (
        b"authorization",
        b"x-api-key",
        b"x-goog-api-key",
        b"api-key",
        b"x-ogate-key",
        b"x-ogate-token",
    )
)
_PREFIXES: Final = (b"ogk-", b"ogs-")
_QUERY_KEY: Final = b"key="
_TOKENS_REMEMBERED: Final = 4096
_ENDED_REMEMBERED: Final = 16_384


class _Known(NamedTuple):
    """A token that was believed, until `expires_us`.

    `mark` is that of the ledger in which its session was open; `None` if it has none of its own.
    """

    caller: Caller
    expires_us: int | None
    mark: int | None = None


class ServedDoor:
    """The door of a gateway that serves many people.

    Args:
        policy: the rules of this moment; what it raises refuses the request.
        tokens: for the tokens of sessions.
        is_open: whether a session is in the ledger and has not ended; asked once per token while
            the ledger stays as it is.
        mark: differs from before if that has changed, by whichever process.
        session_id: what requests are written down under that belong to no session.
    """

    def __init__(
        self,
        policy: Callable[[], Policy],
        tokens: SessionTokens,
        is_open: Callable[[str], bool],
        mark: Callable[[], int | None],
        clock: Clock,
        *,
        session_id: str,
    ) -> None:
        self._policy = policy
        self._tokens = tokens
        self._is_open = is_open
        self._mark = mark
        self._clock = clock
        self._session_id = session_id
        self._revision: int | None = None
        self._names: dict[str, str] = {}
        self._known: dict[bytes, _Known] = {}
        self._ended: dict[str, None] = {}

    def admit(self, headers: Iterable[tuple[bytes, bytes]], query: bytes) -> Caller:
        """Whose token the request carries.

        Raises:
            Barred: it carries the token of a key that is switched off or has expired.
            Denied: it carries none that holds, or the rules cannot be read.
        """
        policy = self._policy()
        if policy.revision != self._revision:
            self._turn_to(policy)
        token = _token_in(headers, query)
        known = self._known.get(token)
        if known is None:
            known = self._believed(token, policy)
            if len(self._known) >= _TOKENS_REMEMBERED:
                self._known.clear()
            self._known[token] = known
        elif known.caller.session_id in self._ended:
            raise _unknown()
        elif known.mark is not None and known.mark != (mark := self._mark()):
            # It may have been ended at another gateway process.
            if not self._is_open(known.caller.session_id):
                raise _unknown()
            self._known[token] = known._replace(mark=mark)
        if known.expires_us is not None and self._clock.now_us() >= known.expires_us:
            expired = key_expired(known.caller.virtual_key or "", known.expires_us)
            raise Barred(_refused(expired), known.caller)
        return known.caller

    def token_for(self, session_id: str, caller: Caller) -> str:
        """The token of a session that `caller` opens."""
        assert caller.virtual_key is not None
        key = self._policy().virtual_keys[caller.virtual_key]
        return self._tokens.issue(session_id, public_id=key.public_id, secret_hash=key.secret_hash)

    def may_use(self, caller: Caller, provider_id: str) -> bool:
        """Whether the rules leave the caller any model of a provider."""
        owners = self._policy().owners_of(
            session_id=caller.session_id, user=caller.user, virtual_key=caller.virtual_key
        )
        for owner, rules in owners:
            if rules.models is not None:
                against = check_provider(owner, rules.models, provider_id)
                if against is not None and against.outcome == "deny":
                    return False
        return True

    def end(self, session_id: str) -> None:
        """The tokens of a session are worth nothing from now on."""
        if len(self._ended) >= _ENDED_REMEMBERED:
            # By now the ledger says so of the first of them.
            self._known.clear()
            del self._ended[next(iter(self._ended))]
        self._ended[session_id] = None

    def _turn_to(self, policy: Policy) -> None:
        self._known.clear()
        self._names = {key.public_id: name for name, key in policy.virtual_keys.items()}
        self._revision = policy.revision

    def _believed(self, token: bytes, policy: Policy) -> _Known:
        text = token.decode("ascii", "replace")
        session, parts = token_parts(text), key_parts(text)
        shown = session or parts
        name = None if shown is None else self._names.get(shown.public_id)
        key = None if name is None else policy.virtual_keys[name]
        secret_hash = NO_HASH if key is None else key.secret_hash
        if session is not None:
            is_genuine = self._tokens.is_genuine(session, secret_hash)
        else:
            is_genuine = verify(secret_hash, "" if parts is None else parts.secret)
        if not is_genuine or name is None or key is None:
            raise _unknown()
        session_id = self._session_id
        if session is not None:
            session_id = session.session_id
            if session_id in self._ended or not self._is_open(session_id):
                raise _unknown()
        caller = Caller(session_id, None, name, token)
        try:
            require_usable(name, key, self._clock.now_us())
        except Denied as refusal:
            raise Barred(refusal, caller) from None
        return _Known(caller, key.expires_us, None if session is None else self._mark())


def require_usable(name: str, key: VirtualKey, now_us: int) -> None:
    """Lets a virtual key pass that is switched on and has not expired.

    Raises:
        Denied: it is not, or has.
    """
    if not key.active:
        raise _refused(key_disabled(name))
    expires_us = key.expires_us
    if expires_us is not None and now_us >= expires_us:
        raise _refused(key_expired(name, expires_us))


def _token_in(headers: Iterable[tuple[bytes, bytes]], query: bytes) -> bytes:
    """The one token of a request, wherever an SDK has put it.

    Raises:
        Denied: there is none, or there are two: one of them would be passed on.
    """
    found = b""
    for name, value in headers:
        if name in _PLACES:
            token = value.rstrip().rpartition(b" ")[2]  # RFC 9112, section 5.1
            if token.startswith(_PREFIXES) and token != found:
                if found:
                    raise _unknown()
                found = token
    if _QUERY_KEY in query:
        for part in query.split(b"&"):
            token = part.removeprefix(_QUERY_KEY)
            if token != part and token.startswith(_PREFIXES) and token != found:
                if found:
                    raise _unknown()
                found = token
    if not found:
        raise _unknown()
    return found


def _unknown() -> Denied:
    return _refused(key_unknown())


def _refused(decision: Decision) -> Denied:
    return Denied(decision, http_status=401, error_type="authentication_error")
