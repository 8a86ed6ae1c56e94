"""One entry of the catalogue's index as a `ProviderRow`, with the user's settings over it.

The invariant: a row is complete; what a variable has still to fill in is named in
`missing_variables`, what stands in the way is said in `why_not`, and nothing else has to be
looked up to route a request.
"""

import re
from collections import ChainMap
from collections.abc import Mapping
from typing import Any, cast

from msgspec.structs import replace

from opencode_gate.catalog.header_values import variables_in
from opencode_gate.catalog.provider_facts import (
    BASE_URL_BY_ID,
    BASE_URL_BY_NPM,
    KEYLESS_IDS,
    NPM_BY_WIRE,
    STREAM_USAGE_BY_NPM,
    WHY_NOT_BY_ID,
    WHY_NOT_BY_NPM,
    key_variables,
    secret_variables,
)
from opencode_gate.catalog.rows import ProviderRow, StreamUsage
from opencode_gate.config.settings import ProviderSettings, base_url_problem

_VARIABLE = r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}"


def catalogue_row(
    entry: Mapping[str, Any], said: ProviderSettings, environ: Mapping[str, str]
) -> ProviderRow:
    """The row of a provider of the catalogue.

    Args:
        entry: its entry in the index.
        said: what the user changed about it.
        environ: where `${VARIABLES}` are looked up that the user has not set.
    """
    provider_id, npm = str(entry["id"]), entry.get("npm")
    env = tuple(str(name) for name in entry.get("env", ()))
    key_env = key_variables(env)
    values = ChainMap(cast(dict[str, str], said.variables), cast(dict[str, str], environ))
    template = entry.get("api") or BASE_URL_BY_ID.get(provider_id) or BASE_URL_BY_NPM.get(npm or "")
    base_url, missing = _filled_in(template, values)
    why_not = WHY_NOT_BY_ID.get(provider_id) or WHY_NOT_BY_NPM.get(npm or "")
    if why_not is None and base_url is None and not missing and said.base_url is None:
        why_not = "the catalogue has no usable address for it"
    row = ProviderRow(
        id=provider_id,
        name=str(entry["name"]),
        base_url=base_url,
        npm=npm,
        env=env,
        key_env=key_env,
        secret_env=secret_variables(key_env),
        doc_url=entry.get("doc"),
        keyless=provider_id in KEYLESS_IDS,
        stream_usage=cast(StreamUsage, STREAM_USAGE_BY_NPM.get(npm or "", "ask")),
        wire_bases=_wire_bases(entry.get("wire_bases", {}), base_url, values),
        missing_variables=missing,
        why_not=why_not,
    )
    return with_settings(row, said)


def own_row(provider_id: str, said: ProviderSettings) -> ProviderRow:
    """The row of a server the user added."""
    row = ProviderRow(
        id=provider_id,
        name=provider_id,
        base_url=None,
        source="config",
        why_not=None if said.base_url is not None else "it has no base_url in config.toml",
    )
    return with_settings(row, said)


def with_settings(row: ProviderRow, said: ProviderSettings) -> ProviderRow:
    """`row` with what the user said about it in its place."""
    changes: dict[str, Any] = {
        key: value
        for key in ("name", "keyless", "auth_header", "stream_usage", "subscription", "wire")
        if (value := getattr(said, key)) is not None
    }
    if said.base_url is not None:
        changes |= {
            "base_url": said.base_url.rstrip("/"),
            "missing_variables": (),
            "wire_bases": {},
        }
    if said.headers:
        changes["headers"] = dict(said.headers)
        carried = tuple(name for value in said.headers.values() for name in variables_in(value))
        changes["secret_env"] = tuple(dict.fromkeys((*row.secret_env, *carried)))
    if row.source == "config":
        changes["npm"] = NPM_BY_WIRE[said.wire if said.wire is not None else "openai-chat"]
    return replace(row, **changes) if changes else row


def _filled_in(
    template: str | None, values: Mapping[str, str]
) -> tuple[str | None, tuple[str, ...]]:
    if template is None:
        return None, ()
    names = re.findall(_VARIABLE, template) if "${" in template else ()
    missing = tuple(dict.fromkeys(name for name in names if not values.get(name)))
    if missing:
        return None, missing
    if not names:
        url = template.rstrip("/")
        return (url if url.startswith(("http://", "https://")) else None), ()
    url = re.sub(_VARIABLE, lambda match: values[match[1]].rstrip("/"), template).rstrip("/")
    return (url if base_url_problem(url) is None else None), ()


def _wire_bases(
    templates: Mapping[str, str], base_url: str | None, values: Mapping[str, str]
) -> dict[str, str]:
    bases: dict[str, str] = {}
    for wire, template in templates.items():
        url, _ = _filled_in(template, values)
        if url is not None and url != base_url:
            bases[wire] = url
    return bases
