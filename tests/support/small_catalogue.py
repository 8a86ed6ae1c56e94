"""A catalogue of a few providers in the shape of models.dev, for tests that need odd entries."""

import copy
from pathlib import Path
from typing import Any

from opencode_gate.catalog.archive import Archive, pack
from opencode_gate.catalog.catalogue import Catalogue
from opencode_gate.config.settings import Settings


def small_api(**providers: Any) -> dict[str, Any]:
    """An `api.json` with `providers` (merged over a plain entry) among twenty-five plain ones."""
    api = {f"plain-{number:02}": plain_provider(f"plain-{number:02}") for number in range(25)}
    for name, changes in providers.items():
        provider_id = name.replace("_", "-")
        api[provider_id] = {**plain_provider(provider_id), **copy.deepcopy(changes)}
    return api


def plain_provider(provider_id: str) -> dict[str, Any]:
    """An OpenAI-compatible provider with one model."""
    return {
        "id": provider_id,
        "name": provider_id.title(),
        "npm": "@ai-sdk/openai-compatible",
        "api": f"https://{provider_id}.example/v1",
        "env": [f"{provider_id.upper().replace('-', '_')}_API_KEY"],
        "doc": f"https://{provider_id}.example/docs",
        "models": {"m": plain_model("m")},
    }


def plain_model(model_id: str, **changes: Any) -> dict[str, Any]:
    """A model with a price and limits."""
    return {
        "id": model_id,
        "name": model_id.upper(),
        "tool_call": True,
        "reasoning": False,
        "last_updated": "2026-01-02",
        "limit": {"context": 1000, "output": 100},
        "cost": {"input": 1, "output": 2},
        **changes,
    }


def small_catalogue(
    folder: Path,
    api: dict[str, Any],
    settings: Settings | None = None,
    environ: dict[str, str] | None = None,
) -> Catalogue:
    """The catalogue over an `api.json` of one's own."""
    file = folder / "small.zip"
    file.write_bytes(pack(api))
    return Catalogue(Archive(file), settings if settings is not None else Settings(), environ or {})
