"""What is known about a key without the key."""

from typing import Final, Literal, TypeAlias

import msgspec

CredentialStoreName: TypeAlias = Literal["keyring", "file", "env"]

GATEWAY_KEYS: Final = "gateway:"
"""Virtual keys of gateways elsewhere are filed under this and the host, beside provider keys."""

PLACE_WORDS: dict[str, str] = {
    "keyring": "OS keyring",
    "file": "encrypted file",
    "env": "environment",
}
"""Where a key lies, in words for people."""


class CredentialEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One named key of one provider, as the index lists it.

    Attributes:
        store: where the secret lies; `env` means the variable `variable` is read at launch.
        last_four: the last four characters, for display.
        is_default: used when no `--key` is given.
    """

    provider_id: str
    name: str
    store: CredentialStoreName
    variable: str | None = None
    last_four: str | None = None
    is_default: bool = False
    added_at_us: int
    last_used_at_us: int | None = None
    last_tested_at_us: int | None = None
    last_test_result: str | None = None
