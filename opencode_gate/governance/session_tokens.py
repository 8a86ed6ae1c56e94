"""Tokens of sessions at a served gateway: `ogs-<session>-<public part of the key>-<MAC>`.

A launcher trades its virtual key for one, and the agent only ever sees that. Nothing is stored:
the MAC, by a key of the server's own, covers the session and the hash of the virtual key's
secret, so that a token outlives a restart of the server and falls with its virtual key, also
where that is given a new secret.
"""

import hashlib
import hmac
import re
from typing import Final, NamedTuple

SESSION_TOKEN_PREFIX: Final = "ogs-"

_ULID: Final = r"[0-7][0-9A-HJKMNP-TV-Z]{25}"
_SHAPE: Final = re.compile(rf"{SESSION_TOKEN_PREFIX}({_ULID})-([A-Za-z0-9]{{12}})-([0-9a-f]{{64}})")
_SESSION_ID: Final = re.compile(_ULID)


class TokenParts(NamedTuple):
    """What a session token says, not yet believed."""

    session_id: str
    public_id: str
    mac: str


def token_parts(token: str) -> TokenParts | None:
    """The parts of a session token's text, `None` where it is none."""
    shape = _SHAPE.fullmatch(token)
    return None if shape is None else TokenParts(shape[1], shape[2], shape[3])


def is_session_id(text: str) -> bool:
    """Whether a text is a ULID, as sessions have for names."""
    return _SESSION_ID.fullmatch(text) is not None


class SessionTokens:
    """Makes and believes session tokens with a key of the server's own."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        self._key = key

    def issue(self, session_id: str, *, public_id: str, secret_hash: str) -> str:
        """The token of a session under a virtual key."""
        mac = self._mac(session_id, public_id, secret_hash)
        return f"{SESSION_TOKEN_PREFIX}{session_id}-{public_id}-{mac}"

    def is_genuine(self, parts: TokenParts, secret_hash: str) -> bool:
        """Whether it was issued here under the virtual key of that hash; in constant time."""
        expected = self._mac(parts.session_id, parts.public_id, secret_hash)
        return hmac.compare_digest(expected, parts.mac)

    def _mac(self, session_id: str, public_id: str, secret_hash: str) -> str:
        said = f"{session_id}\n{public_id}\n{secret_hash}".encode()
        return hmac.new(self._key, said, hashlib.sha256).hexdigest()
