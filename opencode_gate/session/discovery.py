"""What can be used now, found without reading a single key.

*Routed* are all providers with a usable credential, local servers that answer, keyless ones the
user configured, and the custom providers of the user's own Opencode configuration: never just
the one a session starts with, because switching models inside Opencode must need nothing. The
invariant: nothing here opens a keyring, reaches a network beyond this machine, or writes.
"""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from opencode_gate.agents.opencode.auth import AuthFile, read_auth
from opencode_gate.agents.opencode.folders import AgentFolders, agent_folders
from opencode_gate.agents.opencode.user_config import UserConfig, read_user_config
from opencode_gate.catalog.catalogue import Catalogue, open_catalogue
from opencode_gate.catalog.local_servers import find_local_servers
from opencode_gate.catalog.rows import ModelRow, ProviderRow
from opencode_gate.config.paths import Paths
from opencode_gate.config.settings import Settings
from opencode_gate.credentials.index import CredentialIndex
from opencode_gate.credentials.resolve import AgentKeyKind, CredentialSource, locate

_NO_KEY = CredentialSource(kind="none", label="Opencode's configuration, no key")
_LOCAL = CredentialSource(kind="none", label="local server")


class UsableProvider(msgspec.Struct, frozen=True, kw_only=True):
    """A provider that can be routed.

    Attributes:
        models: those that are not the catalogue's; `None` where they are.
        is_new_to_agent: Opencode has to be told of these models.
    """

    row: ProviderRow
    source: CredentialSource
    models: Mapping[str, ModelRow] | None = None
    is_new_to_agent: bool = False


class Discovery(msgspec.Struct, frozen=True, kw_only=True):
    """What was found, by provider id.

    Attributes:
        usable: can be routed.
        sign_ins: providers with a stored subscription sign-in, and the remembered answer.
    """

    catalogue: Catalogue
    index: CredentialIndex
    folders: AgentFolders
    auth: AuthFile
    user_config: UserConfig
    usable: Mapping[str, UsableProvider]
    sign_ins: Mapping[str, str | None]


def discover(
    paths: Paths,
    settings: Settings,
    environ: Mapping[str, str],
    *,
    folder: Path | None = None,
    probe_local: bool = True,
    routed: Mapping[str, UsableProvider] | None = None,
) -> Discovery:
    """Everything usable on this machine in `folder`, by default the current one.

    `routed` is what a gateway elsewhere routes; it takes the place of what is usable here.

    Raises:
        GateError: a file of the user's cannot be understood.
    """
    catalogue = open_catalogue(paths, settings, environ)
    index = CredentialIndex(paths)
    folders = agent_folders(environ)
    auth = read_auth(folders.auth_file, environ)
    rows = catalogue.providers()
    user_config = read_user_config(
        environ,
        folder=folder,
        catalogue_ids=rows.keys(),
        reserved_variables={name for row in rows.values() for name in row.secret_env},
    )
    custom = {provider.row.id: provider for provider in user_config.custom}
    usable: dict[str, UsableProvider] = {}
    agent_keys = _agent_keys(auth, user_config)
    for row in rows.values() if routed is None else ():
        if row.id in custom:
            row = custom[row.id].over(row)
        source = None if row.why_not else locate(row, index, environ, agent_keys=agent_keys)
        if source is not None and row.base_url is not None:
            is_own = row.source in ("config", "builtin")
            usable[row.id] = UsableProvider(
                row=row,
                source=source,
                models=catalogue.models(row.id) if is_own else None,
                is_new_to_agent=is_own,
            )
    for provider_id, provider in custom.items():
        if provider_id not in rows and routed is None:
            # Without a key Opencode would use it without one too.
            source = locate(provider.row, index, environ, agent_keys=agent_keys)
            usable[provider_id] = UsableProvider(
                row=provider.row,
                source=_NO_KEY if source is None else source,
                models=provider.models,
            )
    for server in find_local_servers() if probe_local and routed is None else ():
        if server.row.id not in usable:
            usable[server.row.id] = UsableProvider(
                row=server.row, source=_LOCAL, models=server.models, is_new_to_agent=True
            )
    return Discovery(
        catalogue=catalogue,
        index=index,
        folders=folders,
        auth=auth,
        user_config=user_config,
        usable=usable if routed is None else routed,
        sign_ins={
            provider_id: _remembered_answer(settings, provider_id) for provider_id in auth.oauth
        },
    )


def _agent_keys(auth: AuthFile, user_config: UserConfig) -> dict[str, AgentKeyKind]:
    kinds: dict[str, AgentKeyKind] = dict.fromkeys(auth.keys, "agent-auth")
    kinds.update(dict.fromkeys(user_config.keys, "agent-config"))
    return kinds


def _remembered_answer(settings: Settings, provider_id: str) -> str | None:
    said = settings.providers.get(provider_id)
    return None if said is None else said.subscription
