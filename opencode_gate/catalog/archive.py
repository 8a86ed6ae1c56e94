"""The catalogue as one zip file: an index, a name list, and one member a provider.

The idea: models.dev's file is 4 MB and takes 150 ms and 80 MB to parse, and a session needs
five providers of it; so it is cut up once, and read by the member. The invariant: the same input
makes the same bytes, and a file that opens here is whole.

`providers.json` is a list of providers without their models, `names.tsv` has a line
`provider<TAB>model<TAB>name` a model, `models/<provider>.json` is models.dev's own `models`
object, `meta.json` says where and when it came from.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from opencode_gate.catalog.members import Members, NotReadable
from opencode_gate.catalog.provider_facts import WIRE_BY_NPM

FORMAT_VERSION = 1
FEWEST_PROVIDERS = 20
_EPOCH = (1980, 1, 1, 0, 0, 0)


class BadCatalogue(Exception):
    """The bytes are not a catalogue; the caller goes on with another one."""


class CatalogueMeta(msgspec.Struct, frozen=True, kw_only=True):
    """Where a catalogue came from: its date (`2026-09-28`), and what to ask for a newer one."""

    date: str
    etag: str | None = None
    format_version: int = FORMAT_VERSION


def pack(api: object, *, date: str | None = None, etag: str | None = None) -> bytes:
    """A models.dev `api.json`, parsed, as an archive.

    Args:
        date: the day it was fetched; the day of its newest entry otherwise.

    Raises:
        BadCatalogue: it is not what models.dev serves, or far too little of it.
    """
    if not isinstance(api, Mapping):
        raise BadCatalogue("not an object of providers")
    providers = {
        provider_id: provider
        for provider_id, provider in sorted(api.items())
        if _is_provider(provider_id, provider)
    }
    if len(providers) < FEWEST_PROVIDERS:
        raise BadCatalogue(f"{len(providers)} providers, at least {FEWEST_PROVIDERS} expected")
    meta = CatalogueMeta(date=date if date is not None else _newest_entry(providers), etag=etag)
    members = {
        "meta.json": _json(msgspec.structs.asdict(meta)),
        "providers.json": _json([_index_entry(provider) for provider in providers.values()]),
        "names.tsv": _names(providers),
    }
    for provider_id, provider in providers.items():
        members[f"models/{provider_id}.json"] = _json(provider["models"])
    return _zip(members)


class Archive:
    """An archive on disk, read whole (half a megabyte), so that a replaced file never mixes in."""

    def __init__(self, file: Path) -> None:
        """Opens the archive and reads what it says of itself.

        Raises:
            BadCatalogue: the file is not a whole archive of this format.
            FileNotFoundError: there is none.
        """
        self.file = file
        try:
            self._members = Members(file.read_bytes())
            fields = json.loads(self._members.read("meta.json"))
            self.meta = CatalogueMeta(**fields)
        except FileNotFoundError:
            raise
        except (OSError, NotReadable, KeyError, ValueError, TypeError) as error:
            raise BadCatalogue(f"{file}: {error}") from error
        if self.meta.format_version != FORMAT_VERSION:
            raise BadCatalogue(f"{file}: format {self.meta.format_version}")

    def providers(self) -> list[dict[str, Any]]:
        """The index: every provider without its models, with `model_count` and `wire_bases`."""
        entries: list[dict[str, Any]] = json.loads(self._read("providers.json"))
        return entries

    def models(self, provider_id: str) -> dict[str, dict[str, Any]]:
        """The models of one provider as models.dev has them; empty where it is not in here.

        Raises:
            BadCatalogue: they are damaged.
        """
        try:
            models: dict[str, dict[str, Any]] = json.loads(
                self._members.read(f"models/{provider_id}.json")
            )
        except KeyError:
            return {}
        except NotReadable as error:
            raise BadCatalogue(f"{self.file}: {error}") from error
        return models

    def names(self) -> str:
        """A line `provider<TAB>model<TAB>name` for every model."""
        return self._read("names.tsv").decode()

    def _read(self, member: str) -> bytes:
        try:
            return self._members.read(member)
        except (KeyError, NotReadable) as error:
            raise BadCatalogue(f"{self.file}: {error}") from error


def _is_provider(provider_id: object, provider: object) -> bool:
    return (
        isinstance(provider_id, str)
        and "/" not in provider_id
        and isinstance(provider, Mapping)
        and isinstance(provider.get("name"), str)
        and isinstance(provider.get("env"), list)
        and isinstance(provider.get("models"), Mapping)
    )


def _newest_entry(providers: Mapping[str, Any]) -> str:
    days = [
        str(model.get("last_updated", ""))
        for provider in providers.values()
        for model in provider["models"].values()
    ]
    return max(days, default="")


def _index_entry(provider: Mapping[str, Any]) -> dict[str, Any]:
    entry = {
        key: provider[key] for key in ("id", "name", "npm", "api", "env", "doc") if key in provider
    }
    entry["model_count"] = len(provider["models"])
    entry["wire_bases"] = _wire_bases(provider)
    return entry


def _wire_bases(provider: Mapping[str, Any]) -> dict[str, str]:
    """Addresses that single models name for their format, where they are not the provider's."""
    bases: dict[str, str] = {}
    for model in provider["models"].values():
        own = model.get("provider") or {}
        npm = own.get("npm", provider.get("npm"))
        wire = "openai-chat" if own.get("shape") == "completions" else WIRE_BY_NPM.get(str(npm))
        if wire is not None and own.get("api") and own["api"] != provider.get("api"):
            bases[wire] = own["api"]
    return dict(sorted(bases.items()))


def _names(providers: Mapping[str, Any]) -> bytes:
    lines = [
        "\t".join((provider_id, model_id, str(model.get("name", model_id)).replace("\t", " ")))
        for provider_id, provider in providers.items()
        for model_id, model in sorted(provider["models"].items())
    ]
    return ("\n".join(lines) + "\n").encode()


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def _zip(members: Mapping[str, bytes]) -> bytes:
    import io
    import zipfile

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            member = zipfile.ZipInfo(name, _EPOCH)
            member.external_attr = 0o644 << 16
            member.create_system = 3
            archive.writestr(member, content, zipfile.ZIP_DEFLATED, compresslevel=9)
    return buffer.getvalue()
