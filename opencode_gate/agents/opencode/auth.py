"""Opencode's own `auth.json`, read and never written.

It holds API keys and sign-ins to subscriptions (`oauth`). The invariant: a key leaves this
module only as a `Secret`, and a broken file is an empty one: Opencode treats it the same way.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import msgspec

from opencode_gate.core.secrets import Secret


class AuthFile(msgspec.Struct, frozen=True, kw_only=True):
    """What is stored, by provider id.

    Attributes:
        keys: API keys.
        oauth: providers with a stored sign-in; their built-in plugin rewrites the address.
    """

    keys: Mapping[str, Secret] = msgspec.field(default_factory=dict)
    oauth: tuple[str, ...] = ()


def read_auth(auth_file: Path, environ: Mapping[str, str]) -> AuthFile:
    """What Opencode would find: `OPENCODE_AUTH_CONTENT` if set, else the file."""
    try:
        text = environ.get("OPENCODE_AUTH_CONTENT") or auth_file.read_bytes()
        document = json.loads(text)
    except (OSError, ValueError):
        return AuthFile()
    if not isinstance(document, dict):
        return AuthFile()
    keys: dict[str, Secret] = {}
    oauth: list[str] = []
    for name, entry in document.items():
        if not isinstance(entry, dict):
            continue
        # Opencode itself drops the slashes at the end of an id.
        provider_id = name.rstrip("/")
        kind, key = entry.get("type"), entry.get("key")
        if kind == "api" and isinstance(key, str) and key:
            keys[provider_id] = Secret(key)
        elif kind == "oauth":
            oauth.append(provider_id)
    return AuthFile(keys=keys, oauth=tuple(oauth))
