"""A keyring back end in memory, and ways for it to fail."""

import threading

import keyring.backend
import keyring.errors

from opencode_gate.credentials.keyring_store import KeyringStore


class MemoryKeyring(keyring.backend.KeyringBackend):
    """Keeps passwords in a dictionary."""

    priority = 1

    def __init__(self):
        super().__init__()
        self.passwords: dict[tuple[str, str], str] = {}

    def get_password(self, service, username):
        return self.passwords.get((service, username))

    def set_password(self, service, username, password):
        self.passwords[service, username] = password

    def delete_password(self, service, username):
        if (service, username) not in self.passwords:
            raise keyring.errors.PasswordDeleteError(username)
        del self.passwords[service, username]


class SilentKeyring(MemoryKeyring):
    """Waits for somebody to unlock it, for ever; `calls` counts who asked."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def get_password(self, service, username):
        self.calls += 1
        threading.Event().wait()


class FailingKeyring(MemoryKeyring):
    """Raises `error` from every call."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def get_password(self, service, username):
        raise self.error

    def set_password(self, service, username, password):
        raise self.error


def memory_store() -> KeyringStore:
    """A keyring store nothing of which reaches the OS."""
    return KeyringStore(environ={}, backend=MemoryKeyring())
