"""What one session will be, decided before anything is started.

The invariant: a plan is complete and checked: every model that is named can be reached through
the gateway or is named to the user with the command that mends it, because Opencode's own
message would be "Unexpected server error".
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from opencode_gate.agents.opencode.arguments import AgentArguments
from opencode_gate.agents.opencode.configuration import session_config
from opencode_gate.agents.opencode.database import has_organisation, last_model, last_session
from opencode_gate.agents.opencode.environment import hidden_variables
from opencode_gate.agents.opencode.folders import database_file
from opencode_gate.agents.opencode.in_force import Overruled, overruled_settings
from opencode_gate.agents.opencode.jsonc import JsonObject
from opencode_gate.agents.opencode.locate import Installation
from opencode_gate.catalog.practice import PRACTICE_ID
from opencode_gate.catalog.provider_facts import secret_variables
from opencode_gate.catalog.rows import ProviderRow
from opencode_gate.config.settings import Settings
from opencode_gate.core.clock import Clock
from opencode_gate.core.errors import UsageError
from opencode_gate.core.ids import new_ulid
from opencode_gate.core.local_time import local_zone_name
from opencode_gate.credentials.resolve import CredentialSource, locate
from opencode_gate.ledger.records import SessionRecord
from opencode_gate.session.choices import Choice
from opencode_gate.session.discovery import Discovery, UsableProvider
from opencode_gate.session.naming import (
    RunRequest,
    named_models,
    require_model,
    require_provider,
)
from opencode_gate.session.operator import os_user
from opencode_gate.session.project import project_of, text_of
from opencode_gate.session.run_rules import NO_RULES, RunRules, is_pure, require_no_way_round
from opencode_gate.session.told_models import stated_costs, told_models


class RunPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One session, ready to be started.

    Attributes:
        sources: where the key of each routed provider lies.
        key_names: the names of those that have one.
        models: per provider, the models Opencode does not know itself.
        costs: per provider and model, the prices that Opencode's own configuration states.
        model: `provider/model`, only if it was chosen now.
        direct: subscriptions that do not pass the gateway.
        without_key: routed providers that are used without any key.
        key_variables: environment variables that hold a routed provider's key.
        hidden: those of them that Opencode will not see.
        warnings: what the user should know before it starts.
        rules: what the session may do and spend.
        resumes: the conversation that is taken up again, `None` for a new one or if nobody says.
        agent_catalogue: all models, in the form Opencode reads; only called when the
            configuration is too long for one variable.
    """

    session: SessionRecord
    agent: Installation
    agent_arguments: tuple[str, ...]
    rows: tuple[ProviderRow, ...]
    sources: Mapping[str, CredentialSource]
    key_names: Mapping[str, str]
    models: Mapping[str, Mapping[str, JsonObject]]
    costs: Mapping[str, Mapping[str, JsonObject]]
    model: str | None
    small_model: str | None
    direct: tuple[str, ...]
    without_key: tuple[str, ...]
    key_variables: tuple[str, ...]
    hidden: tuple[str, ...]
    disable_default_plugins: bool
    rules: RunRules
    resumes: str | None
    warnings: tuple[str, ...]
    agent_catalogue: Callable[[], JsonObject]


def unanswered_sign_ins(discovery: Discovery) -> tuple[str, ...]:
    """Providers with both a subscription and a key, about which nobody has been asked yet."""
    return tuple(
        provider_id
        for provider_id, answer in discovery.sign_ins.items()
        if answer is None and provider_id in discovery.usable
    )


def make_plan(
    request: RunRequest,
    arguments: AgentArguments,
    chosen: Choice | None,
    *,
    remembered: Choice | None,
    discovery: Discovery,
    settings: Settings,
    agent: Installation,
    folder: Path,
    environ: Mapping[str, str],
    clock: Clock,
    rules: RunRules = NO_RULES,
    warnings: tuple[str, ...] = (),
) -> RunPlan:
    """The plan of a session.

    `chosen` is what was chosen now, by flags or in the wizard; `remembered` what was chosen
    last in this folder.

    Raises:
        GateError: something that is asked for cannot be reached through the gateway, or a hard
            rule is above the session and something would pass it by.
    """
    direct = _direct(discovery)
    named = named_models(arguments, discovery, environ, folder)
    wanted = {provider_id for provider_id, _ in named}
    wanted.update(choice.provider_id for choice in (remembered, chosen) if choice is not None)
    routed = _routed(discovery, direct, wanted)
    for provider_id, model_id in named:
        if provider_id not in direct:
            require_provider(provider_id, discovery)
            if model_id is not None:
                require_model(provider_id, model_id, discovery)
    sources = {provider_id: provider.source for provider_id, provider in routed.items()}
    if request.key_name is not None:
        if chosen is None:
            raise UsageError(
                "usage", "--key needs a provider", hint="add --provider or --model provider/model"
            )
        if chosen.provider_id in direct:
            raise UsageError(
                "usage",
                f"{chosen.provider_id} is used by its subscription, which no key is sent to",
                hint=f"ogate providers edit {chosen.provider_id} --subscription key",
            )
        source = locate(
            routed[chosen.provider_id].row, discovery.index, environ, key_name=request.key_name
        )
        assert source is not None
        sources[chosen.provider_id] = source
    rows = tuple(provider.row for provider in routed.values())
    key_variables = _key_variables(routed, sources, discovery, environ)
    hidden = () if settings.run.keep_env else key_variables
    plugins = discovery.user_config.auth_plugins
    above, overruled = _outranked(discovery, environ, agent, folder, rows, direct, hidden)
    require_no_way_round(
        rules.hard,
        direct=direct,
        plugins=() if is_pure(arguments.is_pure, environ) else plugins,
        overruled=(f"{one.sentence} ({above})" for one in overruled if one.passes_by),
    )
    warnings += tuple(f"{one.sentence}: {above}" for one in overruled)
    uses_keys_instead = any(
        answer == "key" and provider_id in routed
        for provider_id, answer in discovery.sign_ins.items()
    )
    if uses_keys_instead and plugins:
        warnings += (
            f"your plugin {', '.join(plugins)} may send requests past the gateway; "
            "what it sends is named in the summary",
        )
    if uses_keys_instead and direct:
        # The built-in sign-in plugins can only be switched off all together.
        warnings += (
            f"the subscription of {', '.join(direct)} is out of use in this session: a key answers "
            "for another one, and Opencode's sign-in plugins are off for that",
        )
    start = chosen
    if start is None and not named:
        start = _start_of_folder(discovery, environ, folder, {*routed, *direct}, remembered)
    return RunPlan(
        session=_session(agent, folder, clock),
        agent=agent,
        agent_arguments=request.agent_arguments,
        rows=rows,
        sources=sources,
        key_names={
            provider_id: source.key_name
            for provider_id, source in sources.items()
            if source.key_name is not None
        },
        models=told_models(routed, discovery, settings),
        costs=stated_costs(routed),
        model=_name(start, None if start is None else start.model_id),
        small_model=_name(start, None if start is None else start.small_model_id),
        direct=direct,
        without_key=tuple(
            provider_id
            for provider_id, provider in routed.items()
            if sources[provider_id].kind == "none" and provider.row.source == "catalogue"
        ),
        key_variables=key_variables,
        hidden=hidden,
        disable_default_plugins=uses_keys_instead,
        rules=rules,
        resumes=_resumed(arguments, discovery, environ, folder),
        warnings=warnings,
        agent_catalogue=lambda: _agent_catalogue(discovery),
    )


def _resumed(
    arguments: AgentArguments, discovery: Discovery, environ: Mapping[str, str], folder: Path
) -> str | None:
    """The conversation that what stands behind `--` takes up again."""
    if arguments.session is None and arguments.continue_last:
        return last_session(database_file(environ, discovery.folders), folder)
    return arguments.session


def _start_of_folder(
    discovery: Discovery,
    environ: Mapping[str, str],
    folder: Path,
    reachable: set[str],
    remembered: Choice | None,
) -> Choice | None:
    """Where a session starts when nobody says: with the model last used in this folder.

    Opencode itself keeps one list for all folders. A model the user has configured goes first,
    as it would without ogate.
    """
    configured = discovery.user_config.model
    if configured is not None and configured.partition("/")[0] in reachable:
        return None
    last = last_model(database_file(environ, discovery.folders), folder)
    if last is None or last.provider_id not in reachable:
        is_there = remembered is not None and remembered.provider_id in reachable
        return remembered if is_there else None
    is_same = remembered is not None and remembered.provider_id == last.provider_id
    return Choice(
        provider_id=last.provider_id,
        model_id=last.model_id,
        small_model_id=remembered.small_model_id if is_same and remembered is not None else None,
    )


def _outranked(
    discovery: Discovery,
    environ: Mapping[str, str],
    agent: Installation,
    folder: Path,
    rows: tuple[ProviderRow, ...],
    direct: tuple[str, ...],
    hidden: tuple[str, ...],
) -> tuple[str, tuple[Overruled, ...]]:
    """What configurations that Opencode puts above the session's own change, and what they are."""
    sources = [str(file) for file in discovery.user_config.managed]
    if has_organisation(database_file(environ, discovery.folders)):
        sources.append("the organisation of your Opencode account")
    if not sources:
        return "", ()
    config = session_config(rows, origin="http://127.0.0.1:1", direct=direct)
    overruled = overruled_settings(agent.path, environ, folder, config, hidden=hidden)
    if overruled is None:
        overruled = (Overruled("Opencode does not say what is in force", passes_by=True),)
    return f"something outranks ogate's configuration ({', '.join(sources)})", overruled


def _direct(discovery: Discovery) -> tuple[str, ...]:
    """Subscriptions left as they are: by the user's answer, or since there is no key instead."""
    return tuple(
        provider_id
        for provider_id, answer in discovery.sign_ins.items()
        if answer == "direct" or (answer is None and provider_id not in discovery.usable)
    )


def _routed(
    discovery: Discovery, direct: tuple[str, ...], wanted: set[str]
) -> dict[str, UsableProvider]:
    """What goes through the gateway: everything usable that the user's Opencode has enabled.

    Never a subscription that is left direct, not even one that is asked for by name.
    """
    only = discovery.user_config.enabled_providers
    never = discovery.user_config.disabled_providers
    return {
        provider_id: provider
        for provider_id, provider in discovery.usable.items()
        if provider_id not in direct
        and (
            provider_id in wanted
            or (
                provider_id not in never
                and (only is None or provider_id in only)
                and provider_id != PRACTICE_ID
            )
        )
    }


def _session(agent: Installation, folder: Path, clock: Clock) -> SessionRecord:
    project = project_of(folder)
    return SessionRecord(
        id=new_ulid(),
        user=os_user(),
        agent="opencode",
        agent_version=agent.version,
        directory=text_of(folder),
        project=project.name,
        repository=project.repository,
        branch=project.branch,
        commit=project.commit,
        time_zone=local_zone_name(),
        started_at_us=clock.now_us(),
    )


def _name(choice: Choice | None, model_id: str | None) -> str | None:
    return None if choice is None or model_id is None else f"{choice.provider_id}/{model_id}"


def _key_variables(
    routed: Mapping[str, UsableProvider],
    sources: Mapping[str, CredentialSource],
    discovery: Discovery,
    environ: Mapping[str, str],
) -> tuple[str, ...]:
    names = [name for provider in routed.values() for name in provider.row.secret_env]
    for provider_id in routed:
        names += discovery.user_config.key_variables.get(provider_id, ())
    names += [source.variable for source in sources.values() if source.variable is not None]
    return hidden_variables(environ, secret_variables(tuple(names)))


def _agent_catalogue(discovery: Discovery) -> JsonObject:
    """The whole catalogue, as models.dev writes it."""
    catalogue: JsonObject = {}
    for row in discovery.catalogue.providers().values():
        if row.source == "catalogue":
            catalogue[row.id] = {
                "id": row.id,
                "name": row.name,
                "env": list(row.env),
                "npm": row.npm,
                "api": row.base_url,
                "models": {
                    model.id: model.raw for model in discovery.catalogue.models(row.id).values()
                },
            }
    return catalogue
