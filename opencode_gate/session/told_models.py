"""What Opencode has to be told of the models of routed providers, as its configuration has it."""

from collections.abc import Mapping

from opencode_gate.agents.opencode.configuration import model_entry
from opencode_gate.agents.opencode.jsonc import JsonObject, as_object
from opencode_gate.catalog.rows import ModelRow
from opencode_gate.config.settings import Settings
from opencode_gate.session.discovery import Discovery, UsableProvider


def told_models(
    providers: Mapping[str, UsableProvider], discovery: Discovery, settings: Settings
) -> dict[str, dict[str, JsonObject]]:
    """Per provider, the models that Opencode does not know, or not as the user describes them."""
    return {
        provider_id: {model_id: model_entry(model) for model_id, model in models.items()}
        for provider_id, provider in providers.items()
        if (models := _new_models(provider, discovery, settings))
    }


def stated_costs(providers: Mapping[str, UsableProvider]) -> dict[str, dict[str, JsonObject]]:
    """Per provider and model, the prices that Opencode's own configuration states."""
    return {
        provider_id: {
            model_id: cost
            for model_id, model in provider.models.items()
            if (cost := as_object(model.raw.get("cost")))
        }
        for provider_id, provider in providers.items()
        if provider.row.source == "agent" and provider.models is not None
    }


def used_without_key(providers: Mapping[str, UsableProvider]) -> tuple[str, ...]:
    """Those of the catalogue's that are used without any key."""
    return tuple(
        provider_id
        for provider_id, provider in providers.items()
        if provider.source.kind == "none" and provider.row.source == "catalogue"
    )


def _new_models(
    provider: UsableProvider, discovery: Discovery, settings: Settings
) -> Mapping[str, ModelRow]:
    if provider.is_new_to_agent:
        return provider.models or {}
    said = settings.providers.get(provider.row.id)
    if said is None or provider.row.source != "catalogue":
        return {}
    known = discovery.catalogue.models(provider.row.id)
    return {model_id: known[model_id] for model_id in said.models}
