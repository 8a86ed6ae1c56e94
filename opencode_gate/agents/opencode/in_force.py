"""Whether Opencode really goes by what it was told, asked of Opencode itself.

An administrator's files and an organisation's configuration outrank a session's own. Where
either exists, `opencode debug config` says what is in force (1-2 s, so only there). The
invariant: what cannot be found out is said to be that, never taken for agreement.
"""

import json
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from opencode_gate.agents.opencode.configuration import config_text, merge_config, user_content
from opencode_gate.agents.opencode.environment import agent_environment
from opencode_gate.agents.opencode.jsonc import JsonObject, as_object, parse_object
from opencode_gate.core.secrets import Secret

_TIMEOUT_S: Final = 20.0


class Overruled(NamedTuple):
    """One thing that is in force instead of what Opencode was told.

    Attributes:
        passes_by: requests would be sent past the gateway.
    """

    sentence: str
    passes_by: bool


def overruled_settings(
    program: Path,
    environ: Mapping[str, str],
    folder: Path,
    config: JsonObject,
    *,
    hidden: Iterable[str] = (),
) -> tuple[Overruled, ...] | None:
    """What is in force instead of `config`; `None` if Opencode does not say.

    `config` is a session's configuration, for whatever port, and `hidden` the variables that
    the session's Opencode will not see: this one does not see them either.
    """
    child = agent_environment(
        environ,
        config_json=config_text(merge_config(user_content(environ), config)),
        config_path=None,
        launch_token=Secret("not-a-session"),
        hidden=hidden,
    )
    try:
        answer = subprocess.run(
            [str(program), "debug", "config"],
            cwd=folder,
            env=child,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
        resolved = parse_object(answer.stdout.decode("utf-8", "replace"))
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    return tuple(_differences(config, resolved))


def _differences(config: JsonObject, resolved: JsonObject) -> Iterator[Overruled]:
    enabled = _names(config.get("enabled_providers"))
    allowed = _names(resolved.get("enabled_providers"))
    if not allowed:
        yield Overruled(
            "every provider is enabled, also those that do not pass the gateway", passes_by=True
        )
    for provider_id in sorted(allowed - enabled):
        yield Overruled(
            f"provider {provider_id} is enabled and does not pass the gateway", passes_by=True
        )
    for provider_id in sorted(enabled & _names(resolved.get("disabled_providers"))):
        yield Overruled(f"provider {provider_id} is disabled", passes_by=False)
    for provider_id in sorted((enabled - allowed) if allowed else ()):
        yield Overruled(f"provider {provider_id} is not enabled", passes_by=False)
    providers = as_object(resolved.get("provider"))
    for provider_id, ours in as_object(config.get("provider")).items():
        address = _address(providers.get(provider_id))
        if address != _address(ours):
            yield Overruled(f"provider {provider_id} is sent to {_shown(address)}", passes_by=True)


def _names(value: object) -> set[str]:
    return {item for item in value if isinstance(item, str)} if isinstance(value, list) else set()


def _address(entry: object) -> object:
    return as_object(as_object(entry).get("options")).get("baseURL")


def _shown(address: object) -> str:
    """An address for the user, without anything that could be a password in it."""
    if not isinstance(address, str):
        return "its own address"
    scheme, separator, rest = address.partition("://")
    host = rest.partition("/")[0].rpartition("@")[2]
    return json.dumps(f"{scheme}{separator}{host}")
