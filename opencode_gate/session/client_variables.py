"""What a client needs to speak to a served gateway: addresses and a virtual key, as variables.

The SDKs differ in where the version of the API belongs: OpenAI's takes it as part of the address,
Anthropic's and Google's put it there themselves
(https://github.com/openai/openai-python, https://github.com/anthropics/anthropic-sdk-python,
https://googleapis.github.io/python-genai/).
"""

from collections.abc import Mapping
from typing import NamedTuple

from opencode_gate.agents.opencode.configuration import client_base_path
from opencode_gate.catalog.rows import ProviderRow

LOCAL_GATEWAY = "http://127.0.0.1:4141"
"""Where `ogate serve` listens, unless told."""

OPENCODE_KEY = "OGATE_KEY"
"""Where the configuration that `ogate env opencode` prints looks for the key."""


class _Client(NamedTuple):
    provider_id: str
    base_variable: str
    key_variable: str
    version: str = ""


_CLIENTS = (
    _Client("openai", "OPENAI_BASE_URL", "OPENAI_API_KEY"),
    _Client("anthropic", "ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY", "/v1"),
    _Client("google", "GOOGLE_GEMINI_BASE_URL", "GEMINI_API_KEY", "/v1beta"),
)


def client_variables(
    rows: Mapping[str, ProviderRow], *, gateway: str, token: str
) -> dict[str, str]:
    """Variables by name, for each SDK whose provider there is, and for Opencode."""
    found = {OPENCODE_KEY: token}
    for client in _CLIENTS:
        row = rows.get(client.provider_id)
        if row is None:
            continue
        path = client_base_path(row).removesuffix(client.version)
        found[client.base_variable] = f"{gateway}{path}"
        found[client.key_variable] = token
    return found
