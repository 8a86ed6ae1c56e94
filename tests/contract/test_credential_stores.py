"""What every store of keys promises, run against each of them."""

import pytest

from opencode_gate.config.paths import paths
from opencode_gate.core.errors import CredentialError
from opencode_gate.core.secrets import Secret
from opencode_gate.credentials.encrypted_file import EncryptedFileStore
from opencode_gate.credentials.entries import CredentialEntry
from opencode_gate.credentials.index import CredentialIndex
from opencode_gate.credentials.stores import EnvironmentReferences
from tests.support.memory_keyring import memory_store

SECRET = Secret("sk-test-0123456789abcdef")
OTHER = Secret("sk-test-fedcba9876543210")


def _key_file():
    return EncryptedFileStore(paths())


def _passphrase():
    return EncryptedFileStore(
        paths(),
        protection="passphrase",
        ask_passphrase=lambda is_new: Secret("correct horse"),
        scrypt_cost=2**10,
    )


@pytest.fixture(
    params=[memory_store, _key_file, _passphrase], ids=["keyring", "file", "passphrase"]
)
def store(request):
    return request.param()


def test_a_key_that_was_never_stored_is_none(store):
    assert store.get("openai", "default") is None


def test_a_stored_key_comes_back_exactly(store):
    store.set("openai", "default", SECRET)
    assert store.get("openai", "default") == SECRET


def test_setting_again_replaces(store):
    store.set("openai", "default", SECRET)
    store.set("openai", "default", OTHER)
    assert store.get("openai", "default") == OTHER


def test_keys_of_other_names_and_providers_are_apart(store):
    store.set("openai", "work", SECRET)
    store.set("anthropic", "work", OTHER)
    assert store.get("openai", "work") == SECRET
    assert store.get("anthropic", "work") == OTHER
    assert store.get("openai", "default") is None


def test_a_deleted_key_is_gone_and_the_others_stay(store):
    store.set("openai", "default", SECRET)
    store.set("openai", "work", OTHER)
    store.delete("openai", "default")
    assert store.get("openai", "default") is None
    assert store.get("openai", "work") == OTHER


def test_deleting_what_is_not_there_is_no_error(store):
    store.delete("openai", "default")
    assert store.get("openai", "default") is None


def test_unusual_keys_survive(store):
    for text in ("päss✓", "a" * 4096, '{"json": "like\\n"}', "trailing space "):
        store.set("p", "n", Secret(text))
        assert store.get("p", "n").reveal() == text


def _references(environ):
    index = CredentialIndex(paths())
    index.add(
        CredentialEntry(
            provider_id="openai", name="default", store="env", variable="MY_KEY", added_at_us=1
        )
    )
    return EnvironmentReferences(index, environ)


def test_a_reference_reads_the_variable_each_time():
    environ = {}
    store = _references(environ)
    assert store.get("openai", "default") is None
    environ["MY_KEY"] = SECRET.reveal() + "\n"
    assert store.get("openai", "default") == SECRET
    assert store.get("openai", "work") is None


def test_a_reference_is_never_written():
    store = _references({"MY_KEY": SECRET.reveal()})
    with pytest.raises(CredentialError) as caught:
        store.set("openai", "default", OTHER)
    assert OTHER.reveal() not in str(caught.value)
    store.delete("openai", "default")
    assert store.get("openai", "default") == SECRET
