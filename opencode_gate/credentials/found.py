"""Keys that lie elsewhere and are used as they are, or copied into ogate's own store.

The environment and the agent's own file are read, never written. The invariant: a found key
is offered once a provider, and not when the provider already has a stored key.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

import msgspec

from opencode_gate.core.secrets import Secret
from opencode_gate.credentials.index import CredentialIndex
from opencode_gate.credentials.resolve import ProviderFacts
from opencode_gate.credentials.stores import from_environment

FoundKind = Literal["env", "agent-auth"]


class FoundKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key that is not `ogate`'s own.

    Attributes:
        label: where it lies, in words.
        variable: the environment variable it is in, if it is in one.
    """

    provider_id: str
    kind: FoundKind
    label: str
    secret: Secret
    variable: str | None = None


def find_keys(
    rows: Iterable[ProviderFacts],
    index: CredentialIndex,
    environ: Mapping[str, str],
    agent_secrets: Mapping[str, Secret],
) -> Iterator[FoundKey]:
    """The keys `ogate` would use for providers that have none of its own, in `rows`' order."""
    for row in rows:
        if index.entries(row.id):
            continue
        found = _in_environment(row, environ)
        if found is None and row.id in agent_secrets:
            found = FoundKey(
                provider_id=row.id,
                kind="agent-auth",
                label="Opencode's auth.json",
                secret=agent_secrets[row.id],
            )
        if found is not None:
            yield found


def _in_environment(row: ProviderFacts, environ: Mapping[str, str]) -> FoundKey | None:
    for variable in row.key_env:
        secret = from_environment(environ, variable)
        if secret is not None:
            return FoundKey(
                provider_id=row.id, kind="env", label=variable, secret=secret, variable=variable
            )
    return None
