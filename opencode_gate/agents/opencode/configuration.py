"""The session's `opencode.json`, as pure functions of what is routed.

A built-in provider keeps everything Opencode knows about it (models, limits, prices, prompt
caching, native wire format): only its address and its key change. `env: ["OGATE_KEY"]` makes it
count as connected, so that its built-in loader runs. The invariant: the launch token is written
only as `{env:OGATE_KEY}`, and `enabled_providers` is exactly what was asked for.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Final
from urllib.parse import quote, urlsplit

from opencode_gate.agents.opencode.jsonc import JsonObject, as_object, parse_object
from opencode_gate.catalog.provider_facts import NPM_BY_WIRE
from opencode_gate.catalog.rows import ModelPrice, ModelRow, ProviderRow
from opencode_gate.core.errors import ConfigError
from opencode_gate.core.semconv import WireFormat

TOKEN_VARIABLE: Final = "OGATE_KEY"
"""The environment variable that holds the launch token."""

TOKEN_HEADER: Final = "x-ogate-token"
"""Carries the launch token where a provider is used without a key; never sent upstream."""

SCHEMA: Final = "https://opencode.ai/config.json"

_TOKEN = f"{{env:{TOKEN_VARIABLE}}}"

_MODEL_KEYS = (
    "name",
    "family",
    "release_date",
    "attachment",
    "reasoning",
    "temperature",
    "tool_call",
    "interleaved",
    "cost",
    "limit",
    "modalities",
    "status",
    "provider",
)


def client_base_path(row: ProviderRow) -> str:
    """The path of a provider's base address at the gateway: `/p/<id>` and its own base path.

    `https://api.anthropic.com/v1` becomes `/p/anthropic/v1`: the version prefix that the
    provider's SDK expects stays.
    """
    path = urlsplit(row.base_url or "").path.rstrip("/")
    return f"/p/{quote(row.id, safe='')}{path}"


def client_base_url(row: ProviderRow, *, origin: str) -> str:
    """The address Opencode is given for a provider."""
    return f"{origin}{client_base_path(row)}"


def local_origin(port: int) -> str:
    """The address of a gateway on this machine."""
    return f"http://127.0.0.1:{port}"


def session_config(
    routes: Sequence[ProviderRow],
    *,
    origin: str,
    is_elsewhere: bool = False,
    models: Mapping[str, Mapping[str, JsonObject]] | None = None,
    model: str | None = None,
    small_model: str | None = None,
    direct: Sequence[str] = (),
    without_key: Collection[str] = (),
) -> JsonObject:
    """What Opencode is told for one session.

    Args:
        routes: every provider that goes through the gateway.
        origin: the gateway's address (`http://127.0.0.1:4141`).
        is_elsewhere: it is a gateway for many, which looks for the token in a few headers only.
        models: per provider, the models Opencode does not know itself (see `model_entry`).
        model: `provider/model` to start with, only when it was chosen now.
        small_model: the same for titles and other small tasks.
        direct: providers left as they are (a subscription), enabled but not overridden.
        without_key: routed providers that are used without any key. Opencode's own free
            models are hidden as soon as it sees a key, so the launch token goes in a header.
    """
    listed = models or {}
    config: JsonObject = {
        "$schema": SCHEMA,
        "enabled_providers": [*dict.fromkeys([*(row.id for row in routes), *direct])],
        "provider": {
            row.id: _provider_entry(
                row,
                client_base_url(row, origin=origin),
                models=listed.get(row.id),
                has_key=row.id not in without_key,
                # The user's own configuration may set the header that would carry the key.
                is_sent_apart=row.source == "agent" or is_elsewhere,
            )
            for row in routes
        },
    }
    if model is not None:
        config["model"] = model
    if small_model is not None:
        config["small_model"] = small_model
    return config


def _provider_entry(
    row: ProviderRow,
    base_url: str,
    *,
    models: Mapping[str, JsonObject] | None,
    has_key: bool,
    is_sent_apart: bool,
) -> JsonObject:
    options: JsonObject = {"baseURL": base_url}
    entry: JsonObject = {}
    if has_key:
        entry["env"] = [TOKEN_VARIABLE]
        options["apiKey"] = _TOKEN
    if not has_key or is_sent_apart:
        options["headers"] = {TOKEN_HEADER: _TOKEN}
    entry["options"] = options
    if row.source != "catalogue":
        entry["npm"] = npm_package(row)
        entry["name"] = row.name
    if models:
        entry["models"] = dict(models)
        if row.source == "local":
            # A local server offers what it has loaded, not what the catalogue says it could.
            entry["whitelist"] = list(models)
    return entry


def npm_package(row: ProviderRow) -> str:
    """The AI SDK package Opencode uses for a provider: its own, else the one of its wire format."""
    if row.npm is not None:
        return row.npm
    return NPM_BY_WIRE.get(row.wire or "", NPM_BY_WIRE[WireFormat.OPENAI_CHAT])


def model_entry(model: ModelRow) -> JsonObject:
    """A model as Opencode's configuration describes one; what is unknown is left out."""
    entry: JsonObject = {key: model.raw[key] for key in _MODEL_KEYS if key in model.raw}
    entry.setdefault("name", model.name)
    known: JsonObject = {
        "family": model.family,
        "release_date": model.release_date,
        "tool_call": model.tool_call,
        "reasoning": model.reasoning,
        "status": model.status,
    }
    for key, value in known.items():
        if value is not None:
            entry.setdefault(key, value)
    limit = _limit(model, as_object(entry.pop("limit", None)))
    if limit:
        entry["limit"] = limit
    if model.npm is not None:
        entry.setdefault("provider", {"npm": model.npm})
    if model.price is not None and "cost" not in entry:
        cost = _cost(model.price)
        if cost is not None:
            entry["cost"] = cost
    if entry.get("status") == "active":
        del entry["status"]
    return entry


def _limit(model: ModelRow, described: JsonObject) -> JsonObject:
    """Opencode refuses a limit without both, and takes an answer of 0 tokens for one of 32,000.

    It compacts a conversation as soon as that and an answer of full length no longer fit, so an
    answer as long as the window would have it do nothing else.
    """
    context = described.get("context", model.context_tokens)
    output = described.get("output", model.output_tokens)
    if not isinstance(context, int):
        return {}
    if output in (None, 0):
        output = context // 4
    return {**described, "context": context, "output": output}


def _cost(price: ModelPrice) -> JsonObject | None:
    """Prices as Opencode wants them; it refuses a price without both input and output."""
    if price.input is None or price.output is None:
        return None
    cost: JsonObject = {"input": float(price.input), "output": float(price.output)}
    if price.cache_read is not None:
        cost["cache_read"] = float(price.cache_read)
    if price.cache_write is not None:
        cost["cache_write"] = float(price.cache_write)
    return cost


def user_content(environ: Mapping[str, str]) -> JsonObject:
    """The user's own `OPENCODE_CONFIG_CONTENT`, empty when unset.

    Raises:
        ConfigError: it is not JSONC.
    """
    text = environ.get("OPENCODE_CONFIG_CONTENT")
    if not text:
        return {}
    try:
        return parse_object(text)
    except ValueError as error:
        raise ConfigError(
            "bad-config",
            f"OPENCODE_CONFIG_CONTENT is not valid: {error}",
            hint="correct or unset OPENCODE_CONFIG_CONTENT",
        ) from error


def merge_config(user: JsonObject, ours: JsonObject) -> JsonObject:
    """`ours` over `user` as Opencode itself merges: objects by key, all else replaced."""
    merged = dict(user)
    for key, value in ours.items():
        below = merged.get(key)
        if isinstance(value, dict) and isinstance(below, dict):
            merged[key] = merge_config(below, value)
        else:
            merged[key] = value
    return merged


def config_text(config: JsonObject) -> str:
    """`config` as the shortest JSON."""
    return json.dumps(config, ensure_ascii=False, separators=(",", ":"))


def move_models(config: JsonObject, catalogue: JsonObject) -> tuple[JsonObject, JsonObject]:
    """Takes the models out of a configuration that is too long for one environment variable.

    Returns the configuration without its `models`, and a copy of `catalogue` (models.dev's
    form, which `OPENCODE_MODELS_PATH` *replaces* Opencode's own with) that has them.
    """
    extended = dict(catalogue)
    slim: JsonObject = {}
    for provider_id, entry in as_object(config.get("provider")).items():
        fields = dict(as_object(entry))
        models = as_object(fields.pop("models", None))
        slim[provider_id] = fields
        if not models:
            continue
        known = as_object(extended.get(provider_id))
        described = {
            model_id: {"id": model_id, **_CATALOGUE_DEFAULTS, **as_object(model)}
            for model_id, model in models.items()
        }
        extended[provider_id] = {
            "id": provider_id,
            "name": fields.get("name", provider_id),
            "env": fields.get("env", []),
            "npm": fields.get("npm", NPM_BY_WIRE[WireFormat.OPENAI_CHAT]),
            **known,
            "models": {**as_object(known.get("models")), **described},
        }
    return {**config, "provider": slim}, extended


_CATALOGUE_DEFAULTS: Final[JsonObject] = {
    "attachment": False,
    "reasoning": False,
    "temperature": True,
    "tool_call": True,
    "release_date": "",
    "limit": {"context": 0, "output": 0},
    "modalities": {"input": ["text"], "output": ["text"]},
}
"""What the catalogue's form demands and the configuration's form may leave out."""
