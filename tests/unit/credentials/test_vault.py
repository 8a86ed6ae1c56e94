"""Index and stores change together, or not at all."""

import os
import signal

import pytest

from opencode_gate.config.paths import paths
from opencode_gate.core.errors import ConfigError, CredentialError
from opencode_gate.core.secrets import Secret
from opencode_gate.credentials.keyring_store import KeyringStore
from opencode_gate.credentials.vault import Vault
from tests.support.memory_keyring import MemoryKeyring, SilentKeyring

KEY = Secret("sk-test-0123456789abcdef")
OTHER = Secret("sk-test-fedcba9876543210")


@pytest.fixture
def backend():
    return MemoryKeyring()


@pytest.fixture
def vault(backend):
    return Vault(paths(), {}, keyring=KeyringStore(backend=backend, environ={}))


def names(vault):
    return [entry.name for entry in Vault(paths(), {}).index.entries()]


def test_a_key_is_stored_listed_and_default(vault, backend):
    entry = vault.add("openai", "default", KEY, store="keyring")
    assert (entry.last_four, entry.is_default, entry.store) == ("cdef", True, "keyring")
    assert vault.secret(entry) == KEY
    assert entry.added_at_us > 0


def test_a_taken_name_changes_nothing(vault):
    entry = vault.add("openai", "default", KEY, store="keyring")
    with pytest.raises(CredentialError) as caught:
        vault.add("openai", "default", OTHER, store="file")
    assert caught.value.code == "key-exists"
    assert vault.secret(entry) == KEY
    assert not paths().credentials_file.exists()


@pytest.mark.parametrize("verb", ["add", "rename"])
def test_a_name_taken_by_another_process_meanwhile_keeps_its_key(vault, backend, verb):
    """Somebody types a key while another terminal keeps one under the same name."""
    if verb == "rename":
        vault.add("openai", "first", OTHER, store="keyring")
    vault.check_new("openai", "default")
    other = Vault(paths(), {}, keyring=KeyringStore(backend=backend, environ={}))
    entry = other.add("openai", "default", KEY, store="keyring")
    with pytest.raises(CredentialError) as caught:
        if verb == "add":
            vault.add("openai", "default", OTHER, store="keyring")
        else:
            vault.rename("openai", "first", "default")
    assert caught.value.code == "key-exists"
    assert other.secret(entry) == KEY


def test_rotating_replaces_the_key_and_starts_its_tags_anew(vault):
    entry = vault.add("openai", "default", KEY, store="keyring")
    vault.mark_tested(entry, "ok")
    entry = vault.rotate("openai", "default", OTHER)
    assert vault.secret(entry) == OTHER
    assert (entry.last_four, entry.last_test_result, entry.is_default) == ("3210", None, True)


def test_renaming_moves_the_key(vault, backend):
    vault.add("openai", "default", KEY, store="keyring")
    entry = vault.rename("openai", "default", "home")
    assert vault.secret(entry) == KEY
    assert list(backend.passwords) == [("ogate", "openai/home")]


def test_removing_takes_it_out_of_both(vault, backend):
    vault.add("openai", "a", KEY, store="keyring")
    vault.add("openai", "b", KEY, store="file")
    assert vault.remove("openai", "a").name == "b"
    assert backend.passwords == {}
    assert vault.remove("openai", "b") is None
    assert vault.stores.file.get("openai", "b") is None
    assert names(vault) == []


def test_a_reference_stores_nothing(vault, backend):
    entry = vault.add_reference("openai", "default", "MY_KEY")
    assert (entry.store, entry.variable, entry.last_four) == ("env", "MY_KEY", None)
    assert backend.passwords == {}
    assert vault.rename("openai", "default", "mine").variable == "MY_KEY"
    with pytest.raises(CredentialError):
        vault.rotate("openai", "mine", KEY)
    vault.remove("openai", "mine")


def _index_breaks(monkeypatch):
    def broken(path, content):
        raise ConfigError("folder-unwritable", "no")

    monkeypatch.setattr("opencode_gate.credentials.index.replace_private", broken)


def test_when_the_list_cannot_be_written_the_key_is_taken_back(vault, backend, monkeypatch):
    _index_breaks(monkeypatch)
    with pytest.raises(ConfigError):
        vault.add("openai", "default", KEY, store="keyring")
    assert backend.passwords == {}


def test_when_the_list_cannot_be_written_the_old_state_comes_back(vault, backend, monkeypatch):
    vault.add("openai", "default", KEY, store="keyring")
    before = dict(backend.passwords)
    _index_breaks(monkeypatch)
    for change in (
        lambda: vault.rotate("openai", "default", OTHER),
        lambda: vault.rename("openai", "default", "home"),
        lambda: vault.remove("openai", "default"),
    ):
        with pytest.raises(ConfigError):
            change()
        assert backend.passwords == before
        assert names(vault) == ["default"]


def test_when_the_store_fails_nothing_is_listed(vault, monkeypatch):
    vault = Vault(
        paths(), {}, keyring=KeyringStore(backend=SilentKeyring(), environ={}, limit_s=0.05)
    )
    with pytest.raises(CredentialError) as caught:
        vault.add("openai", "default", KEY, store="keyring")
    assert caught.value.code == "keyring-locked"
    assert names(vault) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_between_the_halves_waits_for_both(number):
    """Ctrl-C arrives while the keyring already has the key and the list does not."""

    class Interrupted(MemoryKeyring):
        def set_password(self, service, username, password):
            super().set_password(service, username, password)
            os.kill(os.getpid(), number)

    class Arrived(BaseException):
        pass

    def arrive(number, frame):
        raise Arrived

    previous = signal.signal(number, arrive)
    try:
        vault = Vault(paths(), {}, keyring=KeyringStore(backend=Interrupted(), environ={}))
        with pytest.raises(Arrived):
            vault.add("openai", "default", KEY, store="keyring")
        assert signal.getsignal(number) is arrive
    finally:
        signal.signal(number, previous)
    assert names(vault) == ["default"]
    assert vault.secret(vault.index.require("openai", "default")) == KEY


def test_ctrl_c_while_the_keyring_is_being_opened_writes_nothing():
    """Opening may wait for a person, so it is not inside the part that waits for nothing."""

    class LeavesAtUnlock(MemoryKeyring):
        def get_password(self, service, username):
            raise KeyboardInterrupt

    backend = LeavesAtUnlock()
    vault = Vault(paths(), {}, keyring=KeyringStore(backend=backend, environ={}))
    with pytest.raises(KeyboardInterrupt):
        vault.add("openai", "default", KEY, store="keyring")
    assert backend.passwords == {}
    assert names(vault) == []


def test_it_works_outside_the_main_thread(vault):
    """Signal handlers can only be set in the main thread."""
    import threading

    thread = threading.Thread(
        target=vault.add, args=("openai", "t", KEY), kwargs={"store": "keyring"}
    )
    thread.start()
    thread.join()
    assert names(vault) == ["t"]


def test_a_new_key_goes_to_the_keyring_then_to_a_file_made_before(vault):
    assert vault.keeping_store() == "keyring"
    locked = Vault(
        paths(), {}, keyring=KeyringStore(backend=SilentKeyring(), environ={}, limit_s=0.05)
    )
    with pytest.raises(CredentialError):
        locked.keeping_store()
    locked.add("openai", "default", KEY, store="file")
    assert locked.keeping_store() == "file"


def test_no_key_is_in_any_file_of_the_home(vault, isolated_home):
    vault.add("openai", "default", KEY, store="keyring")
    vault.add("openai", "file", KEY, store="file")
    vault.add_reference("openai", "ref", "MY_KEY")
    vault.rotate("openai", "file", OTHER)
    vault.rename("openai", "file", "moved")
    vault.mark_tested(vault.index.require("openai", "moved"), "ok")
    for folder, _, files in os.walk(isolated_home):
        for name in files:
            with open(os.path.join(folder, name), "rb") as file:
                content = file.read()
            for secret in (KEY, OTHER):
                assert secret.reveal().encode() not in content, name
                assert secret.reveal().encode().hex().encode() not in content, name


def test_undoing_never_hides_the_first_error(monkeypatch, vault):
    class Stubborn(MemoryKeyring):
        def delete_password(self, service, username):
            raise RuntimeError("stuck")

    vault = Vault(paths(), {}, keyring=KeyringStore(backend=Stubborn(), environ={}))
    _index_breaks(monkeypatch)
    with pytest.raises(ConfigError):
        vault.add("openai", "default", KEY, store="keyring")
