"""What the wizard is offered and what it may do, made from what was found.

The invariant: nothing is stored or called before the person's step asks for it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from opencode_gate.agents.opencode.environment import hidden_variables
from opencode_gate.catalog.familiar import key_page
from opencode_gate.config.editing import set_values
from opencode_gate.config.paths import Paths
from opencode_gate.config.settings import Settings
from opencode_gate.core.errors import CredentialError
from opencode_gate.core.secrets import Secret
from opencode_gate.credentials.entries import PLACE_WORDS
from opencode_gate.credentials.index import DEFAULT_NAME
from opencode_gate.credentials.resolve import fetch
from opencode_gate.credentials.testing import test_key
from opencode_gate.credentials.vault import KeepingStore, Vault
from opencode_gate.session.discovery import Discovery, UsableProvider
from opencode_gate.session.options import (
    ModelOption,
    Offer,
    ProviderGroup,
    ProviderOption,
    model_options,
)


class Setup:
    """The offer of one folder, and the deeds behind it (`session.options.Deeds`)."""

    def __init__(
        self,
        discovery: Discovery,
        paths: Paths,
        settings: Settings,
        environ: Mapping[str, str],
        *,
        last_used: Mapping[str, str],
        is_complete: bool = False,
    ) -> None:
        """`is_complete`: nothing can be added here to what was found."""
        self._discovery = discovery
        self._paths = paths
        self._settings = settings
        self._environ = environ
        self._last_used = last_used
        self._is_complete = is_complete
        self._vault = Vault(paths, environ)

    def offer(self, folder: Path, agent_version: str | None, *, budget: str = "") -> Offer:
        """All the wizard needs to know before its first screen; `budget` as `Offer` has it."""
        usable = self._discovery.usable.values()
        variables = [name for found in usable for name in found.row.secret_env]
        return Offer(
            folder=folder,
            agent_version=agent_version,
            providers=tuple(self._options()),
            key_store=PLACE_WORDS[self._store()],
            keys_in_use=()
            if self._settings.run.keep_env
            else hidden_variables(self._environ, variables),
            budget=budget,
        )

    def _options(self) -> list[ProviderOption]:
        options = [_usable_option(found) for found in self._discovery.usable.values()]
        for row in self._discovery.catalogue.providers().values():
            if row.id in self._discovery.usable or self._is_complete:
                continue
            options.append(
                ProviderOption(
                    id=row.id,
                    name=row.name,
                    group=ProviderGroup.UNSUPPORTED if row.why_not else ProviderGroup.OTHER,
                    needs_key=True,
                    key_page=key_page(row),
                    key_variable=row.key_env[0] if row.key_env else None,
                    missing_variables=row.missing_variables,
                    why_not=row.why_not,
                )
            )
        return options

    def models_of(self, provider_id: str) -> Sequence[ModelOption]:
        """The provider's models, best first; the one last used here on top."""
        found = self._discovery.usable.get(provider_id)
        models = None if found is None else found.models
        if models is None and provider_id in self._discovery.catalogue.providers():
            models = self._discovery.catalogue.models(provider_id)
        rows = [] if models is None else list(models.values())
        if found is not None and found.source.kind == "none" and found.row.source == "catalogue":
            # Without an account only the free ones answer.
            rows = [row for row in rows if row.price is not None and row.price.input == 0]
        return model_options(rows, last_used=self._last_used.get(provider_id))

    def check_key(self, provider_id: str, key: Secret) -> str | None:
        """Asks the provider about a key: `None` when it works, else what is wrong."""
        verdict = test_key(self._discovery.catalogue.provider(provider_id), key)
        return None if verdict.result in ("ok", "unclear") else verdict.detail

    def store_key(self, provider_id: str, key: Secret) -> None:
        """Keeps a key for later sessions, as the provider's default."""
        name = DEFAULT_NAME
        if self._vault.index.find(provider_id, name) is not None:
            self._vault.rotate(provider_id, name, key)
        else:
            self._vault.add(provider_id, name, key, store=self._store(), make_default=True)

    def store_variables(self, provider_id: str, variables: Mapping[str, str]) -> None:
        """Keeps the settings a provider's address needs."""
        set_values(
            self._paths,
            {
                ("providers", provider_id, "variables", name): value
                for name, value in variables.items()
            },
        )

    def import_key(self, provider_id: str) -> str:
        """Copies a found key into ogate's own store; says where it lies now."""
        found = self._discovery.usable[provider_id]
        secret = fetch(
            found.source,
            found.row,
            stores=self._vault.stores,
            environ=self._environ,
            agent_secrets={**self._discovery.auth.keys, **self._discovery.user_config.keys},
        )
        self.store_key(provider_id, secret)
        return PLACE_WORDS[self._store()]

    def _store(self) -> KeepingStore:
        """The keyring; where there is none, the encrypted file with a key file."""
        try:
            return self._vault.keeping_store()
        except CredentialError:
            return "file"


def _usable_option(found: UsableProvider) -> ProviderOption:
    row, kind = found.row, found.source.kind
    where, group = found.source.label, ProviderGroup.READY
    if row.source == "builtin":
        where, group = "scripted practice model, no key", ProviderGroup.PRACTICE
    elif row.source == "local":
        group = ProviderGroup.LOCAL
    elif kind == "none" and row.source == "catalogue":
        where, group = "free, no account", ProviderGroup.FREE
    return ProviderOption(
        id=row.id,
        name=row.name,
        group=group,
        where=where,
        key_page=key_page(row),
        can_import=kind in ("env", "agent-auth", "agent-config"),
    )
