"""The environment Opencode is started with, as a pure function of the user's own.

The invariant: no key of a routed provider is in it, and everything the user set for other
programs stays as it is.
"""

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from opencode_gate.agents.opencode.configuration import TOKEN_VARIABLE
from opencode_gate.core.secrets import Secret

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""What must never go through a proxy: Bun sends even loopback addresses there."""

_BYPASSES = ("OPENCODE_EXPERIMENTAL_WEBSOCKETS", "OPENCODE_EXPERIMENTAL_NATIVE_LLM")
"""Other ways to a provider, which do not keep to its configured address."""


def agent_environment(
    environ: Mapping[str, str],
    *,
    config_json: str,
    config_path: Path | None,
    launch_token: Secret,
    hidden: Iterable[str] = (),
    disable_default_plugins: bool = False,
    models_path: Path | None = None,
    is_private_copy: bool = False,
    platform: str = sys.platform,
) -> dict[str, str]:
    """`environ` with what routes Opencode through the gateway.

    Args:
        config_json: the session's configuration, already merged over the user's own
            `OPENCODE_CONFIG_CONTENT`.
        config_path: the file with the same content, if one was written; named only if the user
            names none.
        launch_token: what the gateway knows this session by.
        hidden: variables that hold a routed provider's key.
        disable_default_plugins: a stored sign-in is answered by a key: Opencode's built-in
            sign-in plugins would send its requests past the gateway.
        models_path: a model catalogue that replaces Opencode's, for very long lists.
        is_private_copy: `ogate` installed this Opencode, so it does not update itself.
        platform: a value of `sys.platform`.
    """
    hides = {*hidden, *_BYPASSES}
    child = {name: value for name, value in environ.items() if name not in hides}
    if "OPENCODE_AUTH_CONTENT" in child:
        child["OPENCODE_AUTH_CONTENT"] = _without_keys(child["OPENCODE_AUTH_CONTENT"])
    child["OPENCODE_CONFIG_CONTENT"] = config_json
    if config_path is not None and not child.get("OPENCODE_CONFIG"):
        child["OPENCODE_CONFIG"] = str(config_path)
    child[TOKEN_VARIABLE] = launch_token.reveal()
    no_proxy = _no_proxy(environ)
    child["NO_PROXY"] = no_proxy
    if platform != "win32":
        child["no_proxy"] = no_proxy
    if disable_default_plugins:
        child["OPENCODE_DISABLE_DEFAULT_PLUGINS"] = "1"
    if models_path is not None:
        child["OPENCODE_MODELS_PATH"] = str(models_path)
    if is_private_copy:
        child["OPENCODE_DISABLE_AUTOUPDATE"] = "1"
    return child


def hidden_variables(environ: Mapping[str, str], secret_env: Iterable[str]) -> tuple[str, ...]:
    """The variables of `secret_env` that are set, sorted: what is hidden, for the ready screen."""
    return tuple(sorted({name for name in secret_env if environ.get(name)}))


def _without_keys(auth_content: str) -> str:
    """The user's replacement for `auth.json` without API keys: only the gateway needs those."""
    try:
        entries = json.loads(auth_content)
    except ValueError:
        return "{}"
    if not isinstance(entries, dict):
        return "{}"
    return json.dumps(
        {
            name: entry
            for name, entry in entries.items()
            if not (isinstance(entry, dict) and entry.get("type") == "api")
        }
    )


def _no_proxy(environ: Mapping[str, str]) -> str:
    """Both spellings of the user's list together, and the loopback names."""
    entries = [
        entry.strip()
        for name in ("NO_PROXY", "no_proxy")
        for entry in environ.get(name, "").split(",")
        if entry.strip()
    ]
    if "*" in entries:
        return "*"
    return ",".join(dict.fromkeys([*entries, *LOOPBACK]))
