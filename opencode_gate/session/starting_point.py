"""Where Opencode itself would start in a folder, so that a first session need not ask.

The idea: somebody who already works with Opencode has chosen long ago; that choice is offered
on the wizard's last screen. The invariant: only a model that can be used now is offered.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from opencode_gate.agents.opencode.database import last_model, recent_models
from opencode_gate.agents.opencode.folders import database_file
from opencode_gate.session.choices import Choice
from opencode_gate.session.discovery import Discovery


def starting_point(discovery: Discovery, folder: Path, environ: Mapping[str, str]) -> Choice | None:
    """The model Opencode's own set-up points to and a usable provider has; `None` without one.

    The model used last in `folder` comes first, then the one its configuration names, then the
    one chosen last anywhere. The configuration's small model goes with it where it is the same
    provider's.
    """
    for provider_id, model_id in _candidates(discovery, folder, environ):
        if _is_usable(discovery, provider_id, model_id):
            return Choice(
                provider_id=provider_id,
                model_id=model_id,
                small_model_id=_small_model_of(discovery, provider_id),
            )
    return None


def _candidates(
    discovery: Discovery, folder: Path, environ: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    last = last_model(database_file(environ, discovery.folders), folder)
    if last is not None:
        yield last.provider_id, last.model_id
    configured = discovery.user_config.model
    if configured is not None:
        provider_id, _, model_id = configured.partition("/")
        yield provider_id, model_id
    for model in recent_models(discovery.folders.recent_models_file):
        yield model.provider_id, model.model_id


def _is_usable(discovery: Discovery, provider_id: str, model_id: str) -> bool:
    found = discovery.usable.get(provider_id)
    if found is None:
        return False
    models = found.models
    if models is None:
        models = discovery.catalogue.models(provider_id)
    return model_id in models


def _small_model_of(discovery: Discovery, provider_id: str) -> str | None:
    configured = discovery.user_config.small_model
    if configured is None:
        return None
    owner, _, model_id = configured.partition("/")
    return model_id if owner == provider_id else None
