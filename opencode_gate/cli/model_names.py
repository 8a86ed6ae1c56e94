"""What is said where a name of a model is not understood."""

from typing import TYPE_CHECKING

from opencode_gate.core.errors import GateError, UsageError

if TYPE_CHECKING:
    from opencode_gate.catalog.catalogue import Catalogue


def no_provider_named(catalogue: "Catalogue", text: str) -> UsageError:
    """The error for a model without its provider, with the providers that have it."""
    from opencode_gate.catalog.catalogue import unknown_provider

    meant = catalogue.likely_models(text)
    if not meant and "/" in text:
        return unknown_provider(text.partition("/")[0], catalogue.providers())
    return UsageError(
        "unknown-model",
        f"a model is named provider/model, not {text!r}",
        details=(f"nearest: {', '.join(meant)}",) if meant else (),
        hint=f"ogate models show {meant[0]}" if meant else "ogate models list --all --search TEXT",
    )


def unknown_model_note(model: str) -> list[str]:
    """What to say of a model that the catalogue has with no provider; nothing if it has it."""
    import os

    from opencode_gate.catalog.catalogue import open_catalogue
    from opencode_gate.config.paths import paths
    from opencode_gate.config.settings import load_settings

    try:
        catalogue = open_catalogue(paths(), load_settings(paths(), os.environ), os.environ)
        hits = catalogue.search(model.rpartition("/")[2], limit=1000)
    except GateError:
        return []
    if any(model in (hit.model_id, f"{hit.provider_id}/{hit.model_id}") for hit in hits):
        return []
    return [f"no known model is called {model}: ogate models list --all --search TEXT"]
