"""Keys and the list of keys, changed together.

The invariant: the index names a key only if its store has it, and a change happens whole or
not at all: signals wait for the few milliseconds in which both are written, and when one half
fails the other is taken back.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Literal, TypeAlias

from msgspec.structs import replace

from opencode_gate.core.clock import Clock, SystemClock
from opencode_gate.core.errors import CredentialError, GateError
from opencode_gate.core.secrets import Secret
from opencode_gate.credentials.entries import CredentialEntry
from opencode_gate.credentials.index import CredentialIndex, check_name, name_taken
from opencode_gate.credentials.stores import CredentialStore, Stores

if TYPE_CHECKING:
    from opencode_gate.config.paths import Paths
    from opencode_gate.credentials.encrypted_file import AskPassphrase, Protection
    from opencode_gate.credentials.keyring_store import KeyringStore

KeepingStore: TypeAlias = Literal["keyring", "file"]
"""A store that keeps the key itself."""


class Vault:
    """All keys of one user."""

    def __init__(
        self,
        paths: "Paths",
        environ: Mapping[str, str],
        *,
        clock: Clock | None = None,
        protection: "Protection" = "key-file",
        ask_passphrase: "AskPassphrase | None" = None,
        keyring: "KeyringStore | None" = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self.index = CredentialIndex(paths)
        self.stores = Stores(
            paths,
            self.index,
            environ,
            protection=protection,
            ask_passphrase=ask_passphrase,
            keyring=keyring,
        )

    def check_new(self, provider_id: str, name: str) -> None:
        """Refuses a name before anybody types a key for it.

        Raises:
            CredentialError: the name is taken (`key-exists`).
            UsageError: the name cannot be a name.
        """
        check_name(name)
        if self.index.find(provider_id, name) is not None:
            raise name_taken(provider_id, name)

    def keeping_store(self) -> KeepingStore:
        """Where a new key goes when nobody says: an open keyring, else a file made before.

        Raises:
            CredentialError: no keyring here and no file yet (`no-keyring`, `keyring-locked`).
        """
        try:
            self.stores.keyring.open()
        except CredentialError:
            if self.stores.file.exists:
                return "file"
            raise
        return "keyring"

    def add(
        self,
        provider_id: str,
        name: str,
        secret: Secret,
        *,
        store: KeepingStore,
        make_default: bool = False,
    ) -> CredentialEntry:
        """Stores a new key.

        Raises:
            CredentialError: the name is taken, or the store cannot be reached.
            ConfigError: a file cannot be written.
            UsageError: the name cannot be a name.
        """
        self.check_new(provider_id, name)
        entry = CredentialEntry(
            provider_id=provider_id,
            name=name,
            store=store,
            last_four=secret.last_four,
            is_default=make_default,
            added_at_us=self._clock.now_us(),
        )
        keeper = self.stores.of(store)
        # Opens the store while Ctrl-C still works: a person may have to unlock it first.
        old = keeper.get(provider_id, name)
        with _whole():
            keeper.set(provider_id, name, secret)
            with _undone_by(lambda: _put_back(keeper, provider_id, name, old)):
                return self.index.add(entry)

    def add_reference(
        self, provider_id: str, name: str, variable: str, *, make_default: bool = False
    ) -> CredentialEntry:
        """Remembers that a key is in an environment variable; stores nothing of it.

        Raises:
            CredentialError: the name is taken.
            ConfigError: the index cannot be written.
            UsageError: the name cannot be a name.
        """
        self.check_new(provider_id, name)
        with _whole():
            return self.index.add(
                CredentialEntry(
                    provider_id=provider_id,
                    name=name,
                    store="env",
                    variable=variable,
                    is_default=make_default,
                    added_at_us=self._clock.now_us(),
                )
            )

    def secret(self, entry: CredentialEntry) -> Secret:
        """The key itself.

        Raises:
            CredentialError: its store cannot be reached or has it no longer.
        """
        secret = self.stores.of(entry.store).get(entry.provider_id, entry.name)
        if secret is None:
            place = f"the variable {entry.variable}" if entry.store == "env" else "its store"
            raise CredentialError(
                "missing-credential",
                f"the key {entry.name!r} of {entry.provider_id} is not in {place}",
                hint=f"ogate keys rotate {entry.provider_id} {entry.name}"
                if entry.store != "env"
                else f"export {entry.variable}=… in this shell",
            )
        return secret

    def rotate(self, provider_id: str, name: str, secret: Secret) -> CredentialEntry:
        """Replaces a key by a new one; its tags start anew.

        Raises:
            CredentialError: no such key, it is a reference, or its store cannot be reached.
        """
        entry = self.index.require(provider_id, name)
        keeper = self.stores.of(entry.store)
        old = keeper.get(provider_id, name)
        fresh = replace(
            entry,
            last_four=secret.last_four,
            added_at_us=self._clock.now_us(),
            last_used_at_us=None,
            last_tested_at_us=None,
            last_test_result=None,
        )
        with _whole():
            keeper.set(provider_id, name, secret)
            with _undone_by(lambda: _put_back(keeper, provider_id, name, old)):
                return self.index.update(fresh)

    def rename(self, provider_id: str, name: str, new_name: str) -> CredentialEntry:
        """Gives a key another name, in the index and in its store.

        Raises:
            CredentialError: no such key, the new name is taken, or its store cannot be reached.
            UsageError: the new name cannot be a name.
        """
        entry = self.index.require(provider_id, name)
        self.check_new(provider_id, new_name)
        if entry.store == "env":
            return self.index.rename(provider_id, name, new_name)
        secret = self.secret(entry)
        keeper = self.stores.of(entry.store)
        old = keeper.get(provider_id, new_name)
        with _whole():
            keeper.set(provider_id, new_name, secret)
            with _undone_by(lambda: _put_back(keeper, provider_id, new_name, old)):
                renamed = self.index.rename(provider_id, name, new_name)
            keeper.delete(provider_id, name)
            return renamed

    def remove(self, provider_id: str, name: str) -> CredentialEntry | None:
        """Deletes a key from its store and the index.

        Returns:
            The provider's default key from now on, `None` when it has none left.

        Raises:
            CredentialError: no such key, or its store cannot be reached.
        """
        entry = self.index.require(provider_id, name)
        keeper = self.stores.of(entry.store)
        old = keeper.get(provider_id, name)
        with _whole():
            keeper.delete(provider_id, name)
            with _undone_by(lambda: _put_back(keeper, provider_id, name, old)):
                return self.index.remove(provider_id, name)

    def forget(self, provider_id: str, name: str) -> CredentialEntry | None:
        """Takes a key off the list without touching its store, which cannot be reached.

        Returns:
            The provider's default key from now on, `None` when it has none left.
        """
        return self.index.remove(provider_id, name)

    def mark_tested(self, entry: CredentialEntry, result: str) -> None:
        """Tags a key with the outcome of a test, now."""
        self.index.mark_tested(
            entry.provider_id, entry.name, result=result, at_us=self._clock.now_us()
        )


def _put_back(keeper: CredentialStore, provider_id: str, name: str, old: Secret | None) -> None:
    """As it was: also a key that another process has kept there since the list was read."""
    if old is None:
        keeper.delete(provider_id, name)
    else:
        keeper.set(provider_id, name, old)


@contextlib.contextmanager
def _undone_by(undo: Callable[[], None]) -> Iterator[None]:
    """Takes the first half of a change back when the second half fails."""
    try:
        yield
    except GateError:
        with contextlib.suppress(GateError):
            undo()
        raise


@contextlib.contextmanager
def _whole() -> Iterator[None]:
    """Lets Ctrl-C and the other polite signals wait until the change is complete."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[int] = []
    signals: list[int] = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP"):
        signals.append(signal.SIGHUP)
    previous = {
        number: signal.signal(number, lambda number, _: waiting.append(number))
        for number in signals
        # A handler that was not made in Python could not be put back.
        if signal.getsignal(number) is not None
    }
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        for number in waiting:
            signal.raise_signal(number)
