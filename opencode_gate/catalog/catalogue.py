"""What exists: providers and their models, bundled, refreshed, the user's own over them.

The idea: `open_catalogue` reads the index alone, a few milliseconds; the models of a provider
are parsed when somebody asks for that provider. The invariant: a refreshed copy that is damaged
or older than the bundled one is passed over in silence, since the bundled one always works.
"""

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from opencode_gate.catalog.archive import Archive, BadCatalogue
from opencode_gate.catalog.model_entries import described_model, model_row
from opencode_gate.catalog.overrides import price_on
from opencode_gate.catalog.practice import PRACTICE_ID, practice_models, practice_row
from opencode_gate.catalog.provider_entries import catalogue_row, own_row
from opencode_gate.catalog.rows import ModelPrice, ModelRow, ProviderRow
from opencode_gate.config.paths import Paths
from opencode_gate.config.settings import ProviderSettings, Settings
from opencode_gate.config.toml_shape import nearest
from opencode_gate.core.errors import UsageError

BUNDLED = Path(__file__).parent / "data" / "catalogue.zip"

_NOTHING_SAID = ProviderSettings()


class ModelHit(msgspec.Struct, frozen=True, kw_only=True):
    """A model a search found; the rest of it is in `Catalogue.models`."""

    provider_id: str
    model_id: str
    name: str


class Catalogue:
    """Providers and models as this user sees them."""

    def __init__(self, archive: Archive, settings: Settings, environ: Mapping[str, str]) -> None:
        self._archive = archive
        self._settings = settings
        self._environ = environ
        self._providers: Mapping[str, ProviderRow] | None = None
        self._counts: dict[str, int] = {}
        self._models: dict[str, Mapping[str, ModelRow]] = {}

    @property
    def date(self) -> str:
        """The day the catalogue is of (`2026-09-28`)."""
        return self._archive.meta.date

    @property
    def etag(self) -> str | None:
        """What models.dev called this state of it, for asking whether there is a newer one."""
        return self._archive.meta.etag

    @property
    def is_bundled(self) -> bool:
        """Whether it is the one that came with this version of ogate."""
        return self._archive.file == BUNDLED

    def providers(self) -> Mapping[str, ProviderRow]:
        """All providers by id: the practice one, the catalogue's, the user's own."""
        if self._providers is None:
            said = self._settings.providers
            rows = {PRACTICE_ID: practice_row()}
            self._counts = {PRACTICE_ID: len(practice_models())}
            for entry in self._archive.providers():
                self._counts[entry["id"]] = int(entry["model_count"])
                row = catalogue_row(entry, said.get(entry["id"], _NOTHING_SAID), self._environ)
                rows[row.id] = row
            for provider_id, own in said.items():
                if provider_id not in rows:
                    rows[provider_id] = own_row(provider_id, own)
                self._counts[provider_id] = self._counts.get(provider_id, 0) + len(own.models)
            self._providers = MappingProxyType(rows)
        return self._providers

    def provider(self, provider_id: str) -> ProviderRow:
        """One provider.

        Raises:
            UsageError: `unknown-provider`, with the nearest names.
        """
        row = self.providers().get(provider_id)
        if row is None:
            raise unknown_provider(provider_id, self.providers())
        return row

    def entries(self) -> list[dict[str, Any]]:
        """The catalogue's own index, addresses with their `${VARIABLES}` still in them."""
        return self._archive.providers()

    def models(self, provider_id: str) -> Mapping[str, ModelRow]:
        """The models of one provider by id, those the user described among them.

        Raises:
            UsageError: `unknown-provider`.
        """
        if provider_id not in self._models:
            self.provider(provider_id)
            self._models[provider_id] = MappingProxyType(self._read_models(provider_id))
        return self._models[provider_id]

    def model(self, provider_id: str, model_id: str) -> ModelRow:
        """One model.

        Raises:
            UsageError: `unknown-provider` or `unknown-model`, with the nearest names.
        """
        models = self.models(provider_id)
        if model_id not in models:
            raise unknown_model(provider_id, model_id, models)
        return models[model_id]

    def search(self, text: str, limit: int = 50) -> tuple[ModelHit, ...]:
        """Models whose provider, id or name has every word of `text` in it, in catalogue order."""
        words = text.lower().split()
        hits: list[ModelHit] = []
        for line in self._lines():
            lowered = line.lower()
            if all(word in lowered for word in words):
                provider_id, model_id, name = line.split("\t")
                hits.append(ModelHit(provider_id=provider_id, model_id=model_id, name=name))
                if len(hits) >= limit:
                    break
        return tuple(hits)

    def likely_models(self, text: str, limit: int = 5) -> tuple[str, ...]:
        """`provider/model` of those that somebody means who says `text` and no provider.

        Those of that very id come first, then the user's own, then those of the providers that
        most people have a key of.
        """
        from opencode_gate.catalog.familiar import familiarity_rank

        hits = self.search(text, limit=1000)
        same = [hit for hit in hits if hit.model_id == text]

        def rank(hit: ModelHit) -> tuple[bool, int]:
            is_others = hit.provider_id not in self._settings.providers
            return is_others, familiarity_rank(hit.provider_id)

        meant = sorted(same or hits, key=rank)[:limit]
        return tuple(f"{hit.provider_id}/{hit.model_id}" for hit in meant)

    def model_counts(self) -> Mapping[str, int]:
        """How many models each provider has, without reading any."""
        self.providers()
        return self._counts

    def _lines(self) -> list[str]:
        own = [
            f"{provider_id}\t{model_id}\t{said.name if said.name is not None else model_id}"
            for provider_id, provider in self._settings.providers.items()
            for model_id, said in provider.models.items()
        ]
        return own + self._archive.names().splitlines()

    def _read_models(self, provider_id: str) -> dict[str, ModelRow]:
        if provider_id == PRACTICE_ID:
            return practice_models()
        rows = {
            model_id: model_row(provider_id, model_id, raw)
            for model_id, raw in self._archive.models(provider_id).items()
        }
        said = self._settings.providers.get(provider_id, _NOTHING_SAID)
        for model_id, described in said.models.items():
            rows[model_id] = described_model(
                provider_id,
                model_id,
                described,
                known=rows[model_id].raw if model_id in rows else None,
                price=self._own_price(provider_id, model_id),
            )
        return rows

    def _own_price(self, provider_id: str, model_id: str) -> ModelPrice | None:
        """Today's price of the user's own, for a model of their own."""
        today = datetime.now(UTC).date()
        own = price_on(today, f"{provider_id}/{model_id}", self._settings.prices)
        return own.price if own is not None else None


def open_catalogue(
    paths: Paths, settings: Settings, environ: Mapping[str, str] | None = None
) -> Catalogue:
    """The newest catalogue on this machine.

    Args:
        environ: where variables in addresses are looked up; this process's own by default.
    """
    archive = Archive(BUNDLED)
    try:
        refreshed = Archive(paths.catalogue)
        if refreshed.meta.date >= archive.meta.date:
            archive = refreshed
    except (FileNotFoundError, BadCatalogue):
        pass
    return Catalogue(archive, settings, os.environ if environ is None else environ)


def unknown_model(
    provider_id: str, model_id: str, models: Mapping[str, Any], *, is_deprecated: bool = False
) -> UsageError:
    """The error for a model that a provider does not have, or no longer, with the nearest names."""
    close = nearest(model_id, models)
    return UsageError(
        "unknown-model",
        f"{provider_id}/{model_id} is deprecated, and Opencode leaves it out"
        if is_deprecated
        else f"{provider_id} has no model {model_id!r}",
        details=(f"nearest: {', '.join(close)}",) if close else (),
        hint=f"ogate models list {provider_id}",
    )


def unknown_provider(provider_id: str, known: Mapping[str, Any]) -> UsageError:
    """The error for a provider nobody knows, with the nearest names."""
    close = nearest(provider_id, known)
    return UsageError(
        "unknown-provider",
        f"no provider is called {provider_id!r}",
        details=(f"nearest: {', '.join(close)}",) if close else (),
        hint="ogate providers list --all",
    )
