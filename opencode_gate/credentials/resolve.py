"""Which key a provider is used with: found without reading it, then read.

The order: the key named with `--key`, the provider's default key, its usual environment
variable, the agent's own store. The invariant: `locate` opens no store and imports no
keyring; it runs on every start, over every provider.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

import msgspec

from opencode_gate.core.errors import CredentialError
from opencode_gate.core.secrets import Secret
from opencode_gate.credentials.entries import PLACE_WORDS

if TYPE_CHECKING:
    from opencode_gate.credentials.entries import CredentialEntry
    from opencode_gate.credentials.index import CredentialIndex
    from opencode_gate.credentials.stores import Stores

SourceKind: TypeAlias = Literal[
    "keyring", "file", "env", "agent-auth", "agent-config", "gateway", "none"
]
AgentKeyKind: TypeAlias = Literal["agent-auth", "agent-config"]

_LABELS: dict[str, str] = {
    **PLACE_WORDS,
    "agent-auth": "Opencode's auth.json",
    "agent-config": "Opencode's configuration",
    "none": "no key needed",
}


class ProviderFacts(Protocol):
    """What this package needs to know of a provider; the catalogue's row has it all."""

    @property
    def id(self) -> str:
        """The id keys are filed under."""
        ...

    @property
    def name(self) -> str:
        """The name people know it by."""
        ...

    @property
    def key_env(self) -> Sequence[str]:
        """The environment variables that usually hold its key."""
        ...

    @property
    def keyless(self) -> bool:
        """Whether it can be used without a key."""
        ...


class CredentialSource(msgspec.Struct, frozen=True, kw_only=True):
    """Where a provider's key lies.

    Attributes:
        kind: the place; `none` for a provider that needs no key, `gateway` for one whose key a
            gateway elsewhere has.
        label: the place in words, for a screen.
        key_name: the name of a key that `ogate` keeps, else `None`.
        variable: the environment variable that holds it, if one does.
    """

    kind: SourceKind
    label: str
    key_name: str | None = None
    variable: str | None = None


def locate(
    row: ProviderFacts,
    index: "CredentialIndex",
    environ: Mapping[str, str],
    *,
    key_name: str | None = None,
    agent_keys: Mapping[str, AgentKeyKind] | None = None,
) -> CredentialSource | None:
    """Where the key for a provider lies, `None` where there is none.

    Args:
        key_name: the key asked for; no other one is taken then.
        agent_keys: the providers the agent has a key for, and where.

    Raises:
        CredentialError: no key of that name, or its variable is not set.
    """
    if key_name is not None:
        source = _stored(index.require(row.id, key_name), environ)
        if source is None:
            raise _unset(row, index.require(row.id, key_name))
        return source
    default = index.default(row.id)
    source = _stored(default, environ) if default is not None else None
    if source is not None:
        return source
    for variable in row.key_env:
        if environ.get(variable, "").strip():
            return CredentialSource(kind="env", label=variable, variable=variable)
    if agent_keys is not None and row.id in agent_keys:
        kind = agent_keys[row.id]
        return CredentialSource(kind=kind, label=_LABELS[kind])
    if row.keyless:
        return CredentialSource(kind="none", label=_LABELS["none"])
    return None


def fetch(
    source: CredentialSource,
    row: ProviderFacts,
    *,
    stores: "Stores",
    environ: Mapping[str, str],
    agent_secrets: Mapping[str, Secret] | None = None,
) -> Secret:
    """Reads the key; an empty one for a provider that needs none.

    Raises:
        CredentialError: it is not there any more, its store cannot be opened, or it cannot be
            sent in a header.
    """
    secret: Secret | None = None
    match source.kind:
        case "none" | "gateway":
            return Secret("")
        case "env":
            from opencode_gate.credentials.stores import from_environment

            secret = from_environment(environ, source.variable or "")
        case "keyring" | "file":
            secret = stores.of(source.kind).get(row.id, source.key_name or "")
        case "agent-auth" | "agent-config":
            secret = (agent_secrets or {}).get(row.id)
    if secret is None:
        raise _gone(source, row)
    if not secret.reveal().isprintable():
        # A line break in it would end the header it is sent in.
        raise CredentialError(
            "bad-credential",
            f"the key of {row.id} in {source.label} has control characters in it",
            hint=f"set it again; `ogate keys test {row.id}` checks it",
        )
    return secret


def missing_credential(row: ProviderFacts, index: "CredentialIndex") -> CredentialError:
    """The error for a provider without a key: where `ogate` looked, and what adds one."""
    places = ['the OS keyring (service "ogate")', *row.key_env, _LABELS["agent-auth"]]
    default = index.default(row.id)
    if default is not None and default.variable is not None:
        places.insert(1, f"{default.variable} (the key {default.name!r})")
    looked = ", ".join(places[:-1]) + f" and {places[-1]}"
    return CredentialError(
        "missing-credential",
        f"no credential for {row.id}",
        details=(f"ogate looked in {looked}.",),
        hint=f"ogate keys add {row.id}",
    )


def _stored(entry: "CredentialEntry", environ: Mapping[str, str]) -> CredentialSource | None:
    if entry.store == "env":
        variable = entry.variable or ""
        if not environ.get(variable, "").strip():
            return None
        return CredentialSource(kind="env", label=variable, key_name=entry.name, variable=variable)
    label = f"{_LABELS[entry.store]} ({entry.name})"
    return CredentialSource(kind=entry.store, label=label, key_name=entry.name)


def _unset(row: ProviderFacts, entry: "CredentialEntry") -> CredentialError:
    return CredentialError(
        "missing-credential",
        f"the key {entry.name!r} of {row.id} is the variable {entry.variable}, which is not set",
        hint=f"export {entry.variable}=… in this shell, or `ogate keys add {row.id}`",
    )


def _gone(source: CredentialSource, row: ProviderFacts) -> CredentialError:
    if source.kind in ("keyring", "file"):
        return CredentialError(
            "missing-credential",
            f"the key {source.key_name!r} of {row.id} is no longer in the {_LABELS[source.kind]}",
            hint=f"`ogate keys rotate {row.id} {source.key_name}` stores it again",
        )
    return CredentialError(
        "missing-credential",
        f"the key of {row.id} is no longer in {source.label}",
        hint=f"ogate keys add {row.id}",
    )
