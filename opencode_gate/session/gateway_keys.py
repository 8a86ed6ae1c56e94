"""The virtual keys of gateways elsewhere, kept where provider keys are kept.

Looked for in `OGATE_KEY`, as in any client that `ogate env` sets up, then among the stored keys.
"""

from collections.abc import Mapping
from typing import Final

from opencode_gate.agents.opencode.configuration import TOKEN_VARIABLE
from opencode_gate.core.errors import CredentialError
from opencode_gate.core.secrets import Secret
from opencode_gate.credentials.index import DEFAULT_NAME
from opencode_gate.credentials.vault import Vault
from opencode_gate.governance.virtual_keys import VIRTUAL_KEY_PREFIX, key_parts
from opencode_gate.session.remote_gateway import GatewayAddress

KEY_VARIABLE: Final = TOKEN_VARIABLE


def known_key(address: GatewayAddress, vault: Vault, environ: Mapping[str, str]) -> Secret | None:
    """The virtual key for a gateway, `None` where there is none yet.

    Raises:
        CredentialError: it is kept where it cannot be read.
    """
    text = environ.get(KEY_VARIABLE, "").strip()
    # Within a session the variable holds the token of that session.
    if text.startswith(VIRTUAL_KEY_PREFIX):
        return checked(text)
    entry = vault.index.default(address.key_owner)
    return None if entry is None else vault.secret(entry)


def checked(text: str) -> Secret:
    """A virtual key as it was typed.

    Raises:
        CredentialError: it is none.
    """
    if key_parts(text.strip()) is None:
        raise CredentialError(
            "bad-credential",
            "this is not a virtual key: those are ogk-, 12 characters, -, and 48 more",
            hint="whoever runs the gateway makes one: ogate vkeys create NAME",
        )
    return Secret(text.strip())


def keep_key(address: GatewayAddress, vault: Vault, key: Secret) -> None:
    """Keeps a key for later sessions, in the keyring or where there is none in the file.

    Raises:
        CredentialError: no store can take it.
    """
    try:
        store = vault.keeping_store()
    except CredentialError:
        store = "file"
    if vault.index.find(address.key_owner, DEFAULT_NAME) is not None:
        vault.rotate(address.key_owner, DEFAULT_NAME, key)
    else:
        vault.add(address.key_owner, DEFAULT_NAME, key, store=store, make_default=True)


def missing_key(address: GatewayAddress) -> CredentialError:
    """There is no key and nobody can be asked."""
    return CredentialError(
        "missing-credential",
        f"no virtual key for {address.host}",
        details=(f"ogate looked in {KEY_VARIABLE} and among the stored keys.",),
        hint=f"run it once in a terminal, or export {KEY_VARIABLE}=ogk-…",
    )
