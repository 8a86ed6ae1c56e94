"""What passes from one side to the other, header by header.

The agent that was configured for a provider puts its token where that provider wants the key, so
the key takes the token's place there. A client that holds a virtual key may be any program:
whatever place it chose, the key is sent where the wire format has it.

The invariant: a token leaves this machine in no header and no query, a provider's key reaches no
provider but its own, and every other end-to-end header passes as it came.
"""

import time
from email.utils import parsedate_to_datetime
from itertools import compress
from operator import itemgetter
from urllib.parse import quote

from opencode_gate.catalog.provider_facts import WIRE_BY_NPM
from opencode_gate.catalog.rows import ProviderRow
from opencode_gate.core.secrets import Secret
from opencode_gate.core.semconv import WireFormat

RETRY_AFTER_LIMIT_S = 60.0

Field = tuple[bytes, bytes]
Headers = list[Field]
OfNote = dict[bytes | None, Field]

_FIELDS_REMEMBERED = 64
_NAMES_REMEMBERED = 512
_VALUE_REMEMBERED_BYTES = 256

_HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"http2-settings",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
"""They speak of one connection and are never passed on (RFC 9110, section 7.6.1)."""

_CONNECTION = b"connection"
_USUAL_OPTIONS = frozenset((b"keep-alive", b"Keep-Alive", b"close", b"Close"))

_SET_ANEW = _HOP_BY_HOP | {
    b"host",
    b"content-length",
    b"expect",
    b"accept-encoding",
    # A request is what its method says: a listing must not become a generation on its way.
    b"x-http-method-override",
    b"x-http-method",
    b"x-method-override",
}

_PAUSES = frozenset((b"retry-after", b"retry-after-ms"))
_NOTED = _PAUSES | {b"content-length", b"content-type", b"content-encoding"}
_name_of = itemgetter(0)
_OURS = b"x-ogate-"
_VIRTUAL_KEY = b"ogk-"
_CREDENTIALS = frozenset((b"authorization", b"x-api-key", b"x-goog-api-key", b"api-key"))


class _NamesFields(Exception):
    """Ends the look at remembered fields: one names others that are not passed on either."""


class FieldSwap(dict[Field, Field | None]):
    """What becomes of each header that one caller sends to one provider, remembered.

    An agent sends the same headers over and over: those it has sent before cost nothing but a
    look. What is remembered is bounded, and no longer value is.

    Attributes:
        key: the provider's key it was made with.
    """

    __slots__ = ("_added", "_is_dropped", "_secret", "_token", "key")

    def __init__(
        self,
        row: ProviderRow,
        token: bytes,
        key: Secret | None,
        wire_format: WireFormat = WireFormat.UNKNOWN,
    ) -> None:
        super().__init__()
        self.key = key
        self._token = token
        self._is_dropped = _SET_ANEW
        secret = key.reveal().encode() if key is not None else None
        self._secret = secret if row.auth_header is None else None
        self._added: Headers = [(b"accept-encoding", b"identity")]
        if token.startswith(_VIRTUAL_KEY):
            self._is_dropped |= _CREDENTIALS
            if self._secret is not None:
                self._added += _credential(self._secret, row, wire_format)
        if secret is not None and row.auth_header is not None:
            name = row.auth_header.lower().encode()
            bearer = name.endswith(b"authorization")
            self._added.append((name, b"Bearer " + secret if bearer else secret))
        own = {extra.lower().encode(): text.encode() for extra, text in row.headers.items()}
        self._is_dropped |= own.keys()
        self._added += own.items()

    def headers(self, client: Headers) -> Headers:
        """The headers towards the provider: the credential swapped, `identity` asked for."""
        try:
            return [*filter(None, map(self.__getitem__, client)), *self._added]
        except _NamesFields:
            named = _named_by_connection(client)
            return self.headers([field for field in client if field[0] not in named])

    def __missing__(self, field: Field) -> Field | None:
        name, value = field
        if name == b"content-length":
            return None  # another one each time
        if name == _CONNECTION and not _named_by_connection([field]) <= self._is_dropped:
            raise _NamesFields
        if name in self._is_dropped or name.startswith(_OURS):
            sent = None
        elif self._token not in value:
            sent = field
        elif self._secret is None:
            sent = None
        else:
            sent = name, value.replace(self._token, self._secret)
        if len(value) <= _VALUE_REMEMBERED_BYTES:
            if len(self) >= _FIELDS_REMEMBERED:
                self.clear()
            self[field] = sent
        return sent


def request_headers(
    client: Headers,
    row: ProviderRow,
    token: bytes,
    key: Secret | None,
    wire_format: WireFormat = WireFormat.UNKNOWN,
) -> Headers:
    """The headers of one request towards the provider; see `FieldSwap`."""
    return FieldSwap(row, token, key, wire_format).headers(client)


def _credential(secret: bytes, row: ProviderRow, wire_format: WireFormat) -> Headers:
    """The provider's key where its wire format has it; where the path tells none, the row's."""
    if wire_format is WireFormat.UNKNOWN:
        wire_format = WireFormat(row.wire or WIRE_BY_NPM.get(row.npm or "", wire_format))
    bearer = (b"authorization", b"Bearer " + secret)
    if wire_format is WireFormat.GEMINI_GENERATE:
        return [(b"x-goog-api-key", secret)]
    if wire_format is WireFormat.ANTHROPIC_MESSAGES:
        anthropic = (b"x-api-key", secret)
        is_native = WIRE_BY_NPM.get(row.npm or "", wire_format) == wire_format
        # Those who speak it beside another format may know only that one's place.
        return [anthropic] if is_native else [anthropic, bearer]
    return [bearer]


def request_query(query: bytes, row: ProviderRow, token: bytes, key: Secret | None) -> bytes:
    """The query towards the provider, with the token in it (`?key=`) swapped or dropped."""
    if token not in query:
        return query
    if key is not None and row.auth_header is None and not token.startswith(_VIRTUAL_KEY):
        return query.replace(token, quote(key.reveal(), safe="").encode())
    return b"&".join(part for part in query.split(b"&") if token not in part)


def _named_by_connection(fields: Headers) -> frozenset[bytes]:
    """The fields that are not passed on, as `Connection` says; itself is one of them."""
    options = b",".join(value for name, value in fields if name.lower() == _CONNECTION)
    named = frozenset(map(bytes.strip, options.lower().split(b",")))
    return (named | {_CONNECTION}) - {b"", b"close"}


class _Kinds(dict[bytes, bytes | None]):
    """By its name as it came, what a header of an answer is: nothing where it is not passed on.

    That is `None` for `Connection`, which may name more of them.
    """

    def __missing__(self, name: bytes) -> bytes | None:
        lowered = name.lower()
        kind: bytes | None = lowered if lowered in _NOTED else b"other"
        if lowered in _HOP_BY_HOP:
            kind = None if lowered == _CONNECTION else b""
        if len(self) < _NAMES_REMEMBERED and len(name) <= _VALUE_REMEMBERED_BYTES:
            self[name] = kind
        return kind


_KINDS = _Kinds()


def described(answer: Headers) -> tuple[OfNote, Headers]:
    """The headers of an answer that are looked at, by name, and those that are end-to-end.

    Of a header that stands there twice the first counts.
    """
    kinds = [*map(_KINDS.__getitem__, map(_name_of, answer))]
    of_note = dict(zip(kinds[::-1], answer[::-1], strict=True))
    if None in of_note and (of_note[None][1] not in _USUAL_OPTIONS or kinds.count(None) > 1):
        named = _named_by_connection(answer)
        return of_note, [
            field for field in compress(answer, kinds) if field[0].lower() not in named
        ]
    return of_note, [*compress(answer, kinds)]


def response_headers(of_note: OfNote, end_to_end: Headers, *, keep_length: bool) -> Headers:
    """The headers of an answer towards the client, out of what was `described`.

    A `retry-after` of more than a minute is dropped: Opencode would wait it out in silence.
    """
    passed = end_to_end
    if not keep_length and b"content-length" in of_note:
        passed = [field for field in passed if _KINDS[field[0]] != b"content-length"]
    if not _PAUSES.isdisjoint(of_note):
        passed = [field for field in passed if _is_short(_KINDS[field[0]], field[1])]
    return passed


def _is_short(name: bytes | None, value: bytes) -> bool:
    """False for a header that asks for a longer pause than a client should make."""
    if name is None or name not in _PAUSES:
        return True
    try:
        delay = float(value) / (1000 if name.endswith(b"-ms") else 1)
    except ValueError:
        try:
            delay = parsedate_to_datetime(value.decode("latin-1")).timestamp() - time.time()
        except (ValueError, OverflowError):
            return False
    return delay <= RETRY_AFTER_LIMIT_S
