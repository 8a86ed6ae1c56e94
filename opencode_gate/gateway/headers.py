"""What passes from one side to the other, header by header.

The agent that was configured for a provider puts its token where that provider wants the key, so
the key takes the token's place there. A client that holds a virtual key may be any program:
whatever place it chose, the key is sent where the wire format has it.

The invariant: a token leaves this machine in no header and no query, a provider's key reaches no
provider but its own, and every other end-to-end header passes as it came.
"""

import time
from collections.abc import Iterable, Sequence
from email.utils import parsedate_to_datetime
from urllib.parse import quote

from opencode_gate.catalog.provider_facts import WIRE_BY_NPM
from opencode_gate.catalog.rows import ProviderRow
from opencode_gate.core.secrets import Secret
from opencode_gate.core.semconv import WireFormat

RETRY_AFTER_LIMIT_S = 60.0

Headers = list[tuple[bytes, bytes]]

_HOP_BY_HOP = frozenset(
    (
        b"connection",
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

_PASSED_AT_TIMES = frozenset((b"content-length", b"retry-after", b"retry-after-ms"))
_OURS = b"x-ogate-"
_VIRTUAL_KEY = b"ogk-"
_CREDENTIALS = frozenset((b"authorization", b"x-api-key", b"x-goog-api-key", b"api-key"))


def request_headers(
    client: Iterable[tuple[bytes, bytes]],
    row: ProviderRow,
    token: bytes,
    key: Secret | None,
    wire_format: WireFormat = WireFormat.UNKNOWN,
) -> Headers:
    """The headers towards the provider: the credential swapped, `identity` asked for."""
    secret = key.reveal().encode() if key is not None else None
    placed: Headers = []
    if token.startswith(_VIRTUAL_KEY):
        client = [field for field in client if field[0] not in _CREDENTIALS]
        if secret is not None and row.auth_header is None:
            placed = _credential(secret, row, wire_format)
    own: dict[bytes, bytes] = {}
    set_anew = _SET_ANEW
    if row.headers:
        own = {extra.lower().encode(): text.encode() for extra, text in row.headers.items()}
        set_anew = _SET_ANEW.union(own)
    sent: Headers = []
    for field in client:
        name, value = field
        if name in set_anew or name.startswith(_OURS):
            continue
        if token in value:
            if secret is None or row.auth_header is not None:
                continue
            field = name, value.replace(token, secret)
        sent.append(field)
    sent.append((b"accept-encoding", b"identity"))
    sent.extend(placed)
    if secret is not None and row.auth_header is not None:
        name = row.auth_header.lower().encode()
        bearer = name.endswith(b"authorization")
        sent.append((name, b"Bearer " + secret if bearer else secret))
    sent.extend(own.items())
    return sent


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


def response_headers(upstream: Iterable[tuple[bytes, bytes]], *, keep_length: bool) -> Headers:
    """The headers towards the client.

    A `retry-after` of more than a minute is dropped: Opencode would wait it out in silence.
    """
    passed: Headers = []
    for field in upstream:
        name = field[0].lower()
        if name in _HOP_BY_HOP:
            continue
        if name in _PASSED_AT_TIMES:
            is_passed = keep_length if name == b"content-length" else _is_short(name, field[1])
            if not is_passed:
                continue
        passed.append(field)
    return passed


def _is_short(name: bytes, value: bytes) -> bool:
    try:
        delay = float(value) / (1000 if name.endswith(b"-ms") else 1)
    except ValueError:
        try:
            delay = parsedate_to_datetime(value.decode("latin-1")).timestamp() - time.time()
        except (ValueError, OverflowError):
            return False
    return delay <= RETRY_AFTER_LIMIT_S


def by_name(headers: Sequence[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """The first value of each header, by its lower-case name."""
    return {name.lower(): value for name, value in reversed(headers)}
