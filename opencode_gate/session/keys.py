"""Opens the keys of a session before the agent starts, and reads them once it is on its way.

The invariant: one key that cannot be read does not stop the others; its provider answers with
the reason.
"""

import contextlib
from collections.abc import Mapping
from typing import Protocol

from opencode_gate.catalog.header_values import sent_headers
from opencode_gate.catalog.rows import ProviderRow
from opencode_gate.config.paths import Paths
from opencode_gate.core.clock import SystemClock
from opencode_gate.core.errors import ConfigError, CredentialError
from opencode_gate.core.secrets import Secret
from opencode_gate.credentials.encrypted_file import AskPassphrase
from opencode_gate.credentials.resolve import CredentialSource, fetch
from opencode_gate.credentials.vault import Vault
from opencode_gate.session.launch import KeysRead


class Routed(Protocol):
    """The providers of a plan, and where their keys lie."""

    @property
    def rows(self) -> tuple[ProviderRow, ...]:
        """Every routed provider."""
        ...

    @property
    def sources(self) -> Mapping[str, CredentialSource]:
        """By provider, where its key lies."""
        ...

    @property
    def key_names(self) -> Mapping[str, str]:
        """By provider, the name of its key, where it has one."""
        ...


def open_vault(
    plan: Routed,
    paths: Paths,
    environ: Mapping[str, str],
    ask_passphrase: AskPassphrase | None,
) -> Vault:
    """The vault of a session; asks for its passphrase while the terminal is still ours.

    Raises:
        CredentialError: the passphrase is wrong, or the encrypted file is damaged.
        KeyboardInterrupt: the person left.
    """
    vault = Vault(paths, environ, ask_passphrase=ask_passphrase)
    is_used = any(source.kind == "file" for source in plan.sources.values())
    if is_used and ask_passphrase is not None and vault.stores.file.needs_passphrase:
        vault.stores.file.unlock()
    return vault


def read_keys(
    plan: Routed, vault: Vault, environ: Mapping[str, str], agent_secrets: Mapping[str, Secret]
) -> KeysRead:
    """The keys of all routed providers, and why those that are missing are."""
    keys: dict[str, str] = {}
    problems: dict[str, str] = {}
    headers: dict[str, dict[str, str]] = {}
    for row in plan.rows:
        source = plan.sources[row.id]
        try:
            secret = fetch(
                source, row, stores=vault.stores, environ=environ, agent_secrets=agent_secrets
            )
            headers[row.id] = sent_headers(row.headers, environ)
        except (CredentialError, ConfigError) as error:
            problems[row.id] = error.message
            continue
        if secret:
            keys[row.id] = secret.reveal()
    # Tags for lists; not worth a session.
    with contextlib.suppress(ConfigError, CredentialError):
        used = [(row_id, name) for row_id, name in plan.key_names.items() if row_id in keys]
        vault.index.mark_used(used, at_us=SystemClock().now_us())
    return KeysRead(keys=keys, problems=problems, headers=headers)
