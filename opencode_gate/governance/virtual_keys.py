"""Virtual keys as text: `ogk-<12 public>-<48 secret>`, letters and digits.

The public part names a key in lists and logs; of the secret only a salted hash is kept. The
secret has 285 bits of chance in it, so that one round of SHA-256 is as good as many. The
invariant: comparing takes as long for a wrong secret as for the right one, and for a key that
does not exist as for one that does.
"""

import hashlib
import hmac
import re
import secrets
import string
from typing import Final, NamedTuple

VIRTUAL_KEY_PREFIX: Final = "ogk-"

_ALPHABET: Final = string.ascii_letters + string.digits
_PUBLIC_CHARS: Final = 12
_SECRET_CHARS: Final = 48
_SHAPE: Final = re.compile(
    rf"{VIRTUAL_KEY_PREFIX}([A-Za-z0-9]{{{_PUBLIC_CHARS}}})-([A-Za-z0-9]{{{_SECRET_CHARS}}})"
)
NO_HASH: Final = f"{'0' * 32}${'0' * 64}"
"""Compared with where a key is unknown, so that it takes as long; no secret hashes to it."""


class NewVirtualKey(NamedTuple):
    """A key just made: `token` is shown once, the other two are kept."""

    token: str
    public_id: str
    secret_hash: str


class KeyParts(NamedTuple):
    """The parts of a virtual key's text."""

    public_id: str
    secret: str


def new_virtual_key(*, public_id: str | None = None) -> NewVirtualKey:
    """A key nobody has had; with `public_id` a new secret for a key that is rotated."""
    public = public_id or _chance(_PUBLIC_CHARS)
    secret = _chance(_SECRET_CHARS)
    return NewVirtualKey(f"{VIRTUAL_KEY_PREFIX}{public}-{secret}", public, hashed(secret))


def hashed(secret: str) -> str:
    """`<salt>$<SHA-256 of salt and secret>` with a salt of its own, in hexadecimal digits."""
    salt = secrets.token_bytes(16)
    return f"{salt.hex()}${_digest(salt, secret)}"


def verify(secret_hash: str, secret: str) -> bool:
    """True where `secret` is the one that was hashed; compared in constant time."""
    salt, _, expected = secret_hash.partition("$")
    try:
        digest = _digest(bytes.fromhex(salt), secret)
    except ValueError:
        return False
    return hmac.compare_digest(digest.encode(), expected.encode())


def key_parts(token: str) -> KeyParts | None:
    """The parts of a virtual key, `None` where the text is none."""
    shape = _SHAPE.fullmatch(token)
    return None if shape is None else KeyParts(shape[1], shape[2])


def _digest(salt: bytes, secret: str) -> str:
    return hashlib.sha256(salt + secret.encode()).hexdigest()


def _chance(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))
