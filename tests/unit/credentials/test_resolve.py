"""Which key is taken: named, default, environment, agent's own; found without opening a store."""

import subprocess
import sys

import pytest

from opencode_gate.catalog.rows import ProviderRow
from opencode_gate.config.paths import paths
from opencode_gate.core.errors import CredentialError
from opencode_gate.core.secrets import Secret
from opencode_gate.credentials.entries import CredentialEntry
from opencode_gate.credentials.index import CredentialIndex
from opencode_gate.credentials.resolve import fetch, locate, missing_credential
from opencode_gate.credentials.stores import Stores
from tests.support.memory_keyring import memory_store

ROW = ProviderRow(
    id="openai", name="OpenAI", base_url="https://api.openai.com/v1", key_env=("OPENAI_API_KEY",)
)
KEY = Secret("sk-test-0123456789abcdef")
ENVIRON = {"OPENAI_API_KEY": "sk-env-0123456789"}
AGENT = {"openai": "agent-auth"}


@pytest.fixture
def index():
    return CredentialIndex(paths())


def add(index, name="default", **facts):
    return index.add(
        CredentialEntry(
            **{"provider_id": "openai", "name": name, "store": "keyring", "added_at_us": 1, **facts}
        )
    )


def test_a_named_key_comes_before_everything(index):
    add(index)
    add(index, "work")
    source = locate(ROW, index, ENVIRON, key_name="work", agent_keys=AGENT)
    assert (source.kind, source.key_name) == ("keyring", "work")


def test_then_the_default_key(index):
    add(index)
    add(index, "work", store="file", is_default=True)
    source = locate(ROW, index, ENVIRON, agent_keys=AGENT)
    assert (source.kind, source.key_name) == ("file", "work")


def test_then_the_environment(index):
    source = locate(ROW, index, ENVIRON, agent_keys=AGENT)
    assert (source.kind, source.variable, source.label) == (
        "env",
        "OPENAI_API_KEY",
        "OPENAI_API_KEY",
    )
    assert source.key_name is None


def test_then_the_agents_own_key(index):
    assert locate(ROW, index, {}, agent_keys=AGENT).kind == "agent-auth"


def test_then_nothing(index):
    assert locate(ROW, index, {}) is None


def test_an_empty_variable_is_no_key(index):
    assert locate(ROW, index, {"OPENAI_API_KEY": " \n"}) is None


def test_a_provider_without_keys_is_used_without_one_unless_there_is_one(index):
    row = ProviderRow(id="openai", name="Mine", base_url="x", keyless=True, key_env=("MY_KEY",))
    assert locate(row, index, {}).kind == "none"
    assert locate(row, index, {"MY_KEY": "sk-0123456789"}).kind == "env"


def test_a_reference_is_the_variable_it_names(index):
    add(index, store="env", variable="WORK_KEY")
    source = locate(ROW, index, {"WORK_KEY": "sk-0123456789", **ENVIRON})
    assert (source.kind, source.key_name, source.variable) == ("env", "default", "WORK_KEY")


def test_a_reference_to_nothing_gives_way_unless_it_was_asked_for(index):
    add(index, store="env", variable="WORK_KEY")
    assert locate(ROW, index, ENVIRON).variable == "OPENAI_API_KEY"
    with pytest.raises(CredentialError) as caught:
        locate(ROW, index, ENVIRON, key_name="default")
    assert caught.value.code == "missing-credential"
    assert "WORK_KEY" in caught.value.message


def test_an_unknown_name_is_an_error_not_another_key(index):
    add(index)
    with pytest.raises(CredentialError) as caught:
        locate(ROW, index, ENVIRON, key_name="wrok")
    assert caught.value.code == "no-such-key"


def test_every_place_is_read_where_it_was_located(index):
    environ = dict(ENVIRON)
    stores = Stores(paths(), index, environ, keyring=memory_store())
    agent_secrets = {"openai": Secret("sk-agent-0123456789")}

    def read(**how):
        source = locate(ROW, index, environ, agent_keys=AGENT, **how)
        return fetch(
            source, ROW, stores=stores, environ=environ, agent_secrets=agent_secrets
        ).reveal()

    assert read() == "sk-env-0123456789"
    environ.clear()
    assert read() == "sk-agent-0123456789"
    stores.file.set("openai", "f", Secret("sk-file-0123456789"))
    add(index, "f", store="file")
    assert read() == "sk-file-0123456789"
    stores.keyring.set("openai", "k", Secret("sk-ring-0123456789"))
    add(index, "k")
    assert read(key_name="k") == "sk-ring-0123456789"
    assert read() == "sk-file-0123456789"


def test_a_provider_that_needs_none_gives_an_empty_key(index):
    row = ProviderRow(id="local", name="Local", base_url="x", keyless=True)
    source = locate(row, index, {})
    stores = Stores(paths(), index, {}, keyring=memory_store())
    assert not fetch(source, row, stores=stores, environ={})


@pytest.mark.parametrize("store", ["keyring", "file"])
def test_a_key_deleted_behind_our_back_is_said(index, store):
    add(index, store=store)
    stores = Stores(paths(), index, {}, keyring=memory_store())
    with pytest.raises(CredentialError) as caught:
        fetch(locate(ROW, index, {}), ROW, stores=stores, environ={})
    assert caught.value.code == "missing-credential"
    assert "rotate" in caught.value.hint


def test_a_key_that_would_break_its_header_is_refused(index):
    environ = {"OPENAI_API_KEY": "sk-0123\r\nX-Evil: 1"}
    stores = Stores(paths(), index, environ, keyring=memory_store())
    with pytest.raises(CredentialError) as caught:
        fetch(locate(ROW, index, environ), ROW, stores=stores, environ=environ)
    assert caught.value.code == "bad-credential"
    assert "0123" not in caught.value.message


def test_a_missing_key_says_where_ogate_looked(index):
    error = missing_credential(ROW, index)
    assert error.code == "missing-credential"
    assert 'the OS keyring (service "ogate"), OPENAI_API_KEY' in error.details[0]
    assert error.hint == "ogate keys add openai"


def test_locating_imports_nothing_heavy():
    """It runs on every start, over every provider, before the agent is there."""
    program = """
import sys
import opencode_gate.credentials.resolve, opencode_gate.credentials.index
import opencode_gate.credentials.vault
from opencode_gate.catalog.rows import ProviderRow
from opencode_gate.config.paths import paths
from opencode_gate.credentials.index import CredentialIndex
from opencode_gate.credentials.resolve import locate
row = ProviderRow(id="openai", name="", base_url="", key_env=("X",))
locate(row, CredentialIndex(paths()), {"X": "sk-0123456789"})
heavy = {"keyring", "cryptography", "httpx", "asyncio", "ssl", "concurrent.futures"}
print(*sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []
