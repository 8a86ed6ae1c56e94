"""The keyring never hangs, never leaks, and says plainly when it cannot be used."""

import signal
import sys
import threading

import keyring.errors
import pytest

from opencode_gate.core.errors import CredentialError
from opencode_gate.core.secrets import Secret
from opencode_gate.credentials.keyring_store import (
    ASKING_LIMIT_S,
    LIMIT_S,
    KeyringStore,
    can_ask,
)
from tests.support.memory_keyring import FailingKeyring, MemoryKeyring, SilentKeyring

KEY = Secret("sk-test-0123456789abcdef")


def code_of(store, deed=lambda store: store.get("openai", "default")):
    with pytest.raises(CredentialError) as caught:
        deed(store)
    assert KEY.reveal() not in str(caught.value)
    assert caught.value.hint is not None
    return caught.value.code


def test_an_entry_is_found_by_other_programs_under_the_service_ogate():
    backend = MemoryKeyring()
    KeyringStore(backend=backend, environ={}).set("openai", "work", KEY)
    assert backend.passwords == {("ogate", "openai/work"): KEY.reveal()}


def test_a_keyring_that_waits_for_ever_is_given_up_and_not_asked_again():
    """A locked keyring that cannot show its question: one timeout, not one for every key."""
    backend = SilentKeyring()
    store = KeyringStore(backend=backend, environ={}, limit_s=0.05)
    for _ in range(5):
        assert code_of(store) == "keyring-locked"
    assert backend.calls == 1


def test_only_where_a_dialogue_can_appear_a_person_gets_time_to_answer_it():
    assert KeyringStore(environ={})._limit_s == LIMIT_S < 3
    if sys.platform.startswith("linux"):
        assert KeyringStore(environ={"DISPLAY": ":0"})._limit_s == ASKING_LIMIT_S


@pytest.mark.parametrize(
    ("environ", "platform", "expected"),
    [
        ({}, "linux", False),
        ({"DISPLAY": ":0"}, "linux", True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, "linux", True),
        ({"DISPLAY": ":0", "SSH_CONNECTION": "x"}, "linux", False),
        ({"DISPLAY": ":0", "SSH_TTY": "/dev/pts/1"}, "linux", False),
        ({"DISPLAY": ":0", "WSL_DISTRO_NAME": "Debian"}, "linux", False),
        ({}, "darwin", True),
        ({"SSH_CONNECTION": "x"}, "darwin", False),
        ({}, "win32", False),
    ],
)
def test_a_dialogue_is_expected_only_where_one_can_appear(environ, platform, expected):
    assert can_ask(environ, platform) is expected


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (keyring.errors.KeyringLocked("dismissed"), "keyring-locked"),
        (keyring.errors.InitError("Failed to create the collection"), "keyring-locked"),
        (keyring.errors.NoKeyringError("none"), "no-keyring"),
        (keyring.errors.KeyringError("odd"), "no-keyring"),
        (RuntimeError("odd"), "no-keyring"),
        (OSError("odd"), "no-keyring"),
    ],
)
def test_failures_have_a_code(error, code):
    store = KeyringStore(backend=FailingKeyring(error), environ={})
    assert code_of(store) == code
    assert code_of(store, lambda store: store.set("openai", "default", KEY)) == code


def test_the_text_of_a_foreign_error_is_never_repeated():
    """A back end may put the password it failed to store into its error."""
    store = KeyringStore(backend=FailingKeyring(RuntimeError(KEY.reveal())), environ={})
    with pytest.raises(CredentialError) as caught:
        store.set("openai", "default", KEY)
    error = caught.value
    assert KEY.reveal() not in f"{error.message}{error.details}{error.hint}"
    assert error.__cause__ is None
    assert error.__suppress_context__


def test_a_back_end_that_is_not_recommended_is_not_used():
    """`keyring` would fall back on one that keeps keys in plain text."""

    class PlainText(MemoryKeyring):
        priority = 0.5

    backend = PlainText()
    store = KeyringStore(backend=backend, environ={})
    assert code_of(store, lambda store: store.set("openai", "default", KEY)) == "no-keyring"
    assert backend.passwords == {}


@pytest.mark.parametrize("name", ["no.such.Backend", "keyring.backends.fail.NoSuchClass", "x"])
def test_a_configured_back_end_that_does_not_load_is_named(monkeypatch, name):
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", name)
    monkeypatch.setattr(sys.modules["keyring.core"], "_keyring_backend", None)
    assert code_of(KeyringStore(environ={})) == "no-keyring"


def test_ctrl_c_is_not_swallowed_while_waiting():
    """The main thread waits interruptibly: a person who gives up gets the prompt back."""

    class PressesCtrlC(SilentKeyring):
        def get_password(self, service, username):
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            super().get_password(service, username)

    store = KeyringStore(backend=PressesCtrlC(), environ={}, limit_s=30)
    with pytest.raises(KeyboardInterrupt):
        store.get("openai", "default")
