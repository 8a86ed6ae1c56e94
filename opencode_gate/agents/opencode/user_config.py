"""What the user's own Opencode configuration means for a session through the gateway.

Custom providers are taken over with their address, key and models; a built-in provider that the
user sends elsewhere goes on being sent there. The invariant: a project's files can add a
provider of their own, but can neither move a provider the user or the catalogue knows nor name
one of the user's keys; a key leaves this module only as a `Secret`.
"""

import json
import os
import re
from collections.abc import Collection, Iterable, Mapping
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from opencode_gate.agents.opencode.config_files import (
    AGENT_KINDS,
    ConfigSource,
    config_folders,
    config_sources,
    files_in,
    filled_in,
    managed_files,
    models_filled_in,
    project_root,
    variables_in,
)
from opencode_gate.agents.opencode.configuration import merge_config
from opencode_gate.agents.opencode.folders import (
    AgentFolders,
    agent_folders,
    managed_preferences,
)
from opencode_gate.agents.opencode.jsonc import JsonObject, as_object
from opencode_gate.catalog.rows import ModelPrice, ModelRow, ProviderRow
from opencode_gate.core.secrets import Secret

# Not compiled: most starts use none of these.
_AUTH_PLUGIN_NAME: Final = (
    r"(?i)auth|oauth|login|subscription|codex|antigravity|copilot|claude-(?:max|pro|code)"
)
_AUTH_PLUGIN_CODE: Final = r"\bauth\s*:\s*\{[^}]*\bprovider\b|\bauth\.loader\b"
_PLUGIN_SUFFIXES: Final = (".js", ".ts", ".mjs", ".mts")
_MAX_PLUGIN_BYTES: Final = 512 * 1024
_FRONT_MATTER_MODEL: Final = r"(?m)^model:\s*[\"']?([^\s\"'#]+)"


class CustomProvider(msgspec.Struct, frozen=True, kw_only=True):
    """A provider as the configuration describes it.

    Attributes:
        row: how it is reached; for one that the catalogue knows too, see `over`.
        models: those it lists, with the prices it states.
    """

    row: ProviderRow
    models: Mapping[str, ModelRow]

    def over(self, row: ProviderRow) -> ProviderRow:
        """The catalogue's `row`, reached where the user's configuration says."""
        variables = self.row.key_env
        return msgspec.structs.replace(
            row,
            base_url=self.row.base_url or row.base_url,
            key_env=tuple(dict.fromkeys([*variables, *row.key_env])),
            secret_env=tuple(dict.fromkeys([*variables, *row.secret_env])),
            why_not=None if self.row.base_url else row.why_not,
            missing_variables=() if self.row.base_url else row.missing_variables,
            wire_bases={} if self.row.base_url else row.wire_bases,
        )


class UserConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What was found, all configurations merged.

    Attributes:
        custom: providers with an address of their own.
        keys: API keys it contains, by provider id.
        key_variables: the variables those keys are taken from.
        models: the models it lists, by provider id.
        enabled_providers: the only ones the user wants, `None` for all.
        agent_models: the model of each agent that names one.
        auth_plugins: plugins that look as if they sign in somewhere, and so send requests
            past the gateway.
        managed: an administrator's files, which outrank a session's configuration.
    """

    custom: tuple[CustomProvider, ...] = ()
    keys: Mapping[str, Secret] = msgspec.field(default_factory=dict)
    key_variables: Mapping[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    models: Mapping[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    model: str | None = None
    small_model: str | None = None
    enabled_providers: tuple[str, ...] | None = None
    disabled_providers: tuple[str, ...] = ()
    agent_models: Mapping[str, str] = msgspec.field(default_factory=dict)
    agent_folders: tuple[Path, ...] = ()
    auth_plugins: tuple[str, ...] = ()
    managed: tuple[Path, ...] = ()


def read_user_config(
    environ: Mapping[str, str],
    *,
    folder: Path | None = None,
    catalogue_ids: Collection[str] | None = None,
    reserved_variables: Collection[str] = (),
) -> UserConfig:
    """The user's and the project's configuration as they are in force in `folder`.

    Args:
        folder: where Opencode will work, the current folder by default.
        catalogue_ids: providers the catalogue knows; a project's own providers are taken over
            only when this is given, and none of these among them.
        reserved_variables: variables that hold a provider's key; a project's provider that
            asks for one of them does not get it.
    """
    folder = Path.cwd() if folder is None else folder
    folders = agent_folders(environ)
    sources = list(config_sources(environ, folders, folder))
    reader = _ProviderReader(
        environ=environ,
        root=project_root(folder),
        catalogue_ids=catalogue_ids,
        reserved_variables=frozenset(reserved_variables),
    )
    merged: JsonObject = {}
    for source in sources:
        fill = partial(reader.filled_in, source=source)
        merged = merge_config(merged, models_filled_in(source.config, fill))
        reader.read(source)
    places = config_folders(environ, folders, folder)
    return UserConfig(
        custom=tuple(reader.custom()),
        keys=reader.keys,
        key_variables=reader.variables,
        models={
            provider_id: tuple(as_object(as_object(entry).get("models")))
            for provider_id, entry in as_object(merged.get("provider")).items()
        },
        model=_model_name(merged.get("model")),
        small_model=_model_name(merged.get("small_model")),
        enabled_providers=_strings(merged.get("enabled_providers")),
        disabled_providers=_strings(merged.get("disabled_providers")) or (),
        agent_models=_agent_models(merged),
        agent_folders=tuple(path for path, _ in places),
        auth_plugins=_auth_plugins(sources, [path for path, _ in places]),
        managed=managed_files(
            folders, [Path(file) for file in managed_preferences(environ.get("USER", ""))]
        ),
    )


def agent_model(user_config: UserConfig, name: str) -> str | None:
    """The model an agent of the user's is bound to (`provider/model`), `None` if to none."""
    model = user_config.agent_models.get(name)
    for folder in user_config.agent_folders:
        for kind in ("agent", "agents", "mode", "modes"):
            file = folder / kind / f"{name}.md"
            try:
                text = file.read_text(encoding="utf-8", errors="replace")
            except (OSError, ValueError):
                continue
            model = _front_matter_model(text) or model
    return model


def known_models(folders: AgentFolders, provider_id: str) -> frozenset[str]:
    """The models Opencode fetched for a provider since, which our catalogue may lack.

    Without the deprecated ones: Opencode fetches them and leaves them out.
    """
    try:
        catalogue = json.loads(folders.models_cache.read_bytes())
    except (OSError, ValueError):
        return frozenset()
    provider = as_object(as_object(catalogue).get(provider_id))
    return frozenset(
        model_id
        for model_id, model in as_object(provider.get("models")).items()
        if as_object(model).get("status") != "deprecated"
    )


class _ProviderReader:
    """Collects `provider` entries over all sources, later ones over earlier ones."""

    def __init__(
        self,
        *,
        environ: Mapping[str, str],
        root: Path,
        catalogue_ids: Collection[str] | None,
        reserved_variables: frozenset[str],
    ) -> None:
        self.keys: dict[str, Secret] = {}
        self._environ = environ
        self._root = root
        self._catalogue_ids = catalogue_ids
        self._reserved = reserved_variables
        self._entries: dict[str, JsonObject] = {}
        self._addresses: dict[str, str] = {}
        self.variables: dict[str, tuple[str, ...]] = {}
        self._of_project: dict[str, bool] = {}

    def read(self, source: ConfigSource) -> None:
        """Takes over the providers of one configuration."""
        for provider_id, value in as_object(source.config.get("provider")).items():
            entry = as_object(value)
            if source.is_project and not self._is_projects_own(provider_id):
                continue
            self._of_project.setdefault(provider_id, source.is_project)
            self._entries[provider_id] = merge_config(self._entries.get(provider_id, {}), entry)
            self._read_options(provider_id, entry, source)

    def filled_in(self, text: str, *, source: ConfigSource) -> str:
        """`text` with its references filled in, as far as its source may have them read."""
        may_read = self._may_read(text, source)
        return filled_in(text, self._environ, source.folder) if may_read else text

    def custom(self) -> Iterable[CustomProvider]:
        """Every provider that has an address."""
        for provider_id, entry in self._entries.items():
            address = self._addresses.get(provider_id)
            if not address:
                continue
            variables = self.variables.get(provider_id, ())
            row = ProviderRow(
                id=provider_id,
                name=_string(entry.get("name")) or provider_id,
                base_url=address.rstrip("/"),
                npm=_string(entry.get("npm")),
                env=variables,
                key_env=variables,
                secret_env=variables,
                source="agent",
            )
            yield CustomProvider(
                row=row,
                models={
                    model_id: _model_row(provider_id, model_id, as_object(model))
                    for model_id, model in as_object(entry.get("models")).items()
                },
            )

    def _is_projects_own(self, provider_id: str) -> bool:
        """A provider that nobody but the project knows."""
        if self._catalogue_ids is None or provider_id in self._catalogue_ids:
            return False
        return self._of_project.get(provider_id, True)

    def _read_options(self, provider_id: str, entry: JsonObject, source: ConfigSource) -> None:
        options = as_object(entry.get("options"))
        address = _string(options.get("baseURL")) or _string(entry.get("api"))
        if address is not None and self._may_read(address, source):
            self._addresses[provider_id] = filled_in(address, self._environ, source.folder)
        listed = _strings(entry.get("env"))
        if listed is not None:
            self.variables[provider_id] = self._allowed(listed, source)
        key = _string(options.get("apiKey"))
        if key is None or not self._may_read(key, source):
            return
        named = variables_in(key)
        if named:
            self.variables[provider_id] = named
        text = filled_in(key, self._environ, source.folder)
        if text:
            self.keys[provider_id] = Secret(text)
        else:
            self.keys.pop(provider_id, None)

    def _allowed(self, variables: tuple[str, ...], source: ConfigSource) -> tuple[str, ...]:
        if not source.is_project:
            return variables
        return tuple(name for name in variables if name not in self._reserved)

    def _may_read(self, text: str, source: ConfigSource) -> bool:
        """A project may not ask for the user's keys, nor for files outside of itself."""
        if not source.is_project:
            return True
        if self._reserved.intersection(variables_in(text)):
            return False
        # Outside of a repository nothing says where the project ends.
        root = os.path.realpath(self._root if self._root.name else source.folder)
        files = files_in(text, self._environ, source.folder)
        return all(Path(os.path.realpath(file)).is_relative_to(root) for file in files)


def _model_row(provider_id: str, model_id: str, entry: JsonObject) -> ModelRow:
    limit = as_object(entry.get("limit"))
    cost = as_object(entry.get("cost"))
    price = ModelPrice(
        input=_amount(cost.get("input")),
        output=_amount(cost.get("output")),
        cache_read=_amount(cost.get("cache_read")),
        cache_write=_amount(cost.get("cache_write")),
    )
    return ModelRow(
        provider_id=provider_id,
        id=model_id,
        name=_string(entry.get("name")) or model_id,
        family=_string(entry.get("family")),
        context_tokens=_count(limit.get("context")),
        output_tokens=_count(limit.get("output")),
        tool_call=_flag(entry.get("tool_call")),
        reasoning=_flag(entry.get("reasoning")),
        npm=_string(as_object(entry.get("provider")).get("npm")),
        price=price if cost else None,
        raw=entry,
    )


def _agent_models(config: JsonObject) -> dict[str, str]:
    models: dict[str, str] = {}
    for key in AGENT_KINDS:
        for name, entry in as_object(config.get(key)).items():
            model = _model_name(as_object(entry).get("model"))
            if model is not None:
                models[name] = model
    return models


def _model_name(value: object) -> str | None:
    """`provider/model`, also out of the forms of Opencode 2 that 1.18 understands."""
    entry = as_object(value)
    provider_id, model_id = _string(entry.get("providerID")), _string(entry.get("model"))
    if provider_id is not None and model_id is not None:
        return f"{provider_id}/{model_id}"
    name = _string(value)
    return None if name is None else name.partition("#")[0]


def _front_matter_model(text: str) -> str | None:
    """The `model` of a Markdown agent's YAML head."""
    if not text.startswith("---"):
        return None
    head, closed, _ = text[3:].partition("\n---")
    match = re.search(_FRONT_MATTER_MODEL, head) if closed else None
    return match.group(1) if match else None


def _auth_plugins(sources: Iterable[ConfigSource], folders: Iterable[Path]) -> tuple[str, ...]:
    """Plugins that look as if they sign in somewhere: by their name, or by their code."""
    found: dict[str, None] = {}
    for source in sources:
        listed = source.config.get("plugin")
        for plugin in listed if isinstance(listed, list) else ():
            spec = plugin[0] if isinstance(plugin, list) and plugin else plugin
            if isinstance(spec, str) and re.search(_AUTH_PLUGIN_NAME, spec.rsplit("/", 1)[-1]):
                found[spec] = None
    for folder in folders:
        for kind in ("plugin", "plugins"):
            for file in _files_in(folder / kind):
                if file.suffix in _PLUGIN_SUFFIXES and _signs_in(file):
                    found[str(file)] = None
    return tuple(found)


def _files_in(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _signs_in(file: Path) -> bool:
    try:
        if file.stat().st_size > _MAX_PLUGIN_BYTES:
            return bool(re.search(_AUTH_PLUGIN_NAME, file.name))
        code = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return bool(re.search(_AUTH_PLUGIN_CODE, code))


def _string(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _strings(value: object) -> tuple[str, ...] | None:
    if not isinstance(value, list):
        return None
    return tuple(item for item in value if isinstance(item, str))


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _count(value: object) -> int | None:
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _amount(value: object) -> Decimal | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return Decimal(repr(value)) if is_number else None
