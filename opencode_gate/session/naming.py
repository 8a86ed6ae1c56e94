"""What the names on a command line mean: providers and models, checked before anything starts.

The invariant: a name that cannot be reached through the gateway is answered with the nearest
ones, or with the command that makes it reachable.
"""

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path

import msgspec

from opencode_gate.agents.opencode.arguments import AgentArguments
from opencode_gate.agents.opencode.database import session_model
from opencode_gate.agents.opencode.folders import database_file
from opencode_gate.agents.opencode.user_config import agent_model, known_models
from opencode_gate.catalog.catalogue import unknown_model
from opencode_gate.core.errors import UsageError
from opencode_gate.credentials.resolve import missing_credential
from opencode_gate.session.choices import Choice
from opencode_gate.session.discovery import Discovery, UsableProvider


class RunRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line asks for; `agent_arguments` is what stands behind `--`.

    Attributes:
        budget_usd: what the session may cost at most.
        virtual_key: the name of the virtual key it is to run under.
    """

    provider_id: str | None = None
    model: str | None = None
    small_model: str | None = None
    key_name: str | None = None
    budget_usd: Decimal | None = None
    virtual_key: str | None = None
    agent_arguments: tuple[str, ...] = ()


def requested_choice(request: RunRequest, discovery: Discovery) -> Choice | None:
    """The choice the flags make, `None` if they make none; `model_id` is `None` if none is named.

    Raises:
        GateError: provider or model is unknown, or has no key.
    """
    provider_id, model_id = request.provider_id, request.model
    if provider_id is None and model_id is None:
        return None
    if provider_id is None:
        provider_id, model_id = _split(model_id or "", discovery)
    elif model_id is not None:
        model_id = model_id.removeprefix(f"{provider_id}/")
    provider = require_provider(provider_id, discovery)
    if model_id is None:
        model_id = _only_model(provider, discovery)
    else:
        require_model(provider_id, model_id, discovery)
    small_model_id = request.small_model
    if small_model_id is not None:
        small_model_id = small_model_id.removeprefix(f"{provider_id}/")
        require_model(provider_id, small_model_id, discovery)
    return Choice(provider_id=provider_id, model_id=model_id, small_model_id=small_model_id)


def require_provider(provider_id: str, discovery: Discovery) -> UsableProvider:
    """A provider that can be used.

    Raises:
        GateError: it is unknown, cannot pass the gateway, or has no key.
    """
    usable = discovery.usable.get(provider_id)
    if usable is not None:
        return usable
    row = discovery.catalogue.provider(provider_id)
    if row.why_not is not None:
        raise UsageError(
            "unsupported-provider",
            f"{provider_id} does not work through the gateway: {row.why_not}",
            hint="ogate providers list",
        )
    if row.missing_variables:
        raise UsageError(
            "unsupported-provider",
            f"the address of {provider_id} needs {', '.join(row.missing_variables)}",
            hint=row.command_for_variables,
        )
    if row.base_url is None:
        raise UsageError(
            "unsupported-provider",
            f"no address of {provider_id} is known",
            hint=f"ogate providers edit {provider_id} --base-url URL",
        )
    raise missing_credential(row, discovery.index)


def require_model(provider_id: str, model_id: str, discovery: Discovery) -> None:
    """Checks a model name against all that is known: the catalogue, the user's files, Opencode.

    Raises:
        UsageError: `unknown-model`, with the nearest names.
    """
    provider = discovery.usable.get(provider_id)
    known = dict.fromkeys(discovery.user_config.models.get(provider_id, ()))
    is_deprecated = False
    if provider_id in discovery.catalogue.providers():
        listed = discovery.catalogue.models(provider_id)
        # Opencode leaves these out, and would answer "Unexpected server error".
        is_deprecated = model_id in listed and listed[model_id].status == "deprecated"
        known.update((name, None) for name, row in listed.items() if row.status != "deprecated")
    if provider is not None and provider.models is not None:
        known.update(dict.fromkeys(provider.models))
    if model_id in known or model_id in known_models(discovery.folders, provider_id):
        return
    raise unknown_model(provider_id, model_id, known, is_deprecated=is_deprecated)


def named_models(
    arguments: AgentArguments, discovery: Discovery, environ: Mapping[str, str], folder: Path
) -> list[tuple[str, str | None]]:
    """The models that what stands behind `--` will use, as far as it says."""
    if arguments.model is not None:
        return [_split(arguments.model, discovery)]
    if arguments.agent is not None:
        model = agent_model(discovery.user_config, arguments.agent)
        if model is not None:
            return [_split(model, discovery)]
    if arguments.session is not None or arguments.continue_last:
        found = session_model(
            database_file(environ, discovery.folders),
            arguments.session,
            folder=folder if arguments.continue_last else None,
        )
        if found is not None:
            return [(found.provider_id, None)]
    return []


def _split(model: str, discovery: Discovery) -> tuple[str, str]:
    """`provider/model`, where the model's own name may have slashes too."""
    provider_id, slash, model_id = model.partition("/")
    known = provider_id in discovery.usable or provider_id in discovery.catalogue.providers()
    if slash and known:
        return provider_id, model_id
    nearest = ", ".join(discovery.catalogue.likely_models(model, limit=3))
    raise UsageError(
        "unknown-model",
        f"a model is named provider/model, not {model!r}",
        details=(f"did you mean {nearest}?",) if nearest else (),
        hint="ogate models list",
    )


def _only_model(provider: UsableProvider, discovery: Discovery) -> str | None:
    models = provider.models
    if models is None and provider.row.id in discovery.catalogue.providers():
        models = discovery.catalogue.models(provider.row.id)
    return next(iter(models)) if models is not None and len(models) == 1 else None
