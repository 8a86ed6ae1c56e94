"""Keys that lie elsewhere are found once, and only where there is none of ogate's own."""

from opencode_gate.catalog.rows import ProviderRow
from opencode_gate.config.paths import paths
from opencode_gate.core.secrets import Secret
from opencode_gate.credentials.found import find_keys
from opencode_gate.credentials.vault import Vault

ROWS = [
    ProviderRow(id="openai", name="", base_url="", key_env=("OPENAI_API_KEY", "OPENAI_KEY")),
    ProviderRow(id="groq", name="", base_url="", key_env=("GROQ_API_KEY",)),
]
AUTH = {"groq": Secret("gsk_0123456789"), "openai": Secret("sk-auth-0123456789")}


def found(environ, auth=AUTH):
    vault = Vault(paths(), environ)
    return [
        (key.provider_id, key.kind, key.label, key.secret.reveal())
        for key in find_keys(ROWS, vault.index, environ, auth)
    ]


def test_the_environment_comes_before_the_agents_file():
    assert found({"OPENAI_KEY": "sk-env-0123456789"}) == [
        ("openai", "env", "OPENAI_KEY", "sk-env-0123456789"),
        ("groq", "agent-auth", "Opencode's auth.json", "gsk_0123456789"),
    ]


def test_a_provider_with_a_stored_key_is_left_alone():
    Vault(paths(), {}).add("groq", "work", Secret("gsk_9876543210"), store="file")
    assert [key[0] for key in found({})] == ["openai"]


def test_nothing_is_found_where_nothing_is():
    assert found({"OPENAI_API_KEY": ""}, auth={}) == []
