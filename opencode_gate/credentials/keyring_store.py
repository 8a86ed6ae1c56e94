"""Keys in the OS keyring: Secret Service, macOS Keychain, Windows Credential Locker.

The invariant: no call lasts longer than its limit. A locked keyring asks the user to unlock
it and waits for the answer without end, also where no question can be shown (SSH, WSL,
container), so every call runs in a daemon thread that is left behind when its time is over. A
thread and not a child process: the secret stays in this process, and the D-Bus connection,
with the question on it, goes away when the process ends. After one timeout the store answers
at once that it is locked.
"""

import os
import sys
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal, TypeVar

from opencode_gate.core.errors import CredentialError
from opencode_gate.core.secrets import Secret

if TYPE_CHECKING:
    from concurrent.futures import Future

    from keyring.backend import KeyringBackend

SERVICE = "ogate"
"""The service name of every entry; the user name is `<provider>/<key name>`."""

LIMIT_S = 2.0
"""How long a keyring that cannot ask anybody may take: a command then fails within 3 s in all."""

ASKING_LIMIT_S = 60.0
"""How long one may take that can show the user a dialogue."""

_INSTEAD = (
    "keep the key in an environment variable (`ogate keys add PROVIDER --from-env VAR "
    "--reference`) or in the encrypted file (`ogate keys add PROVIDER --store file`)"
)

_Answer = TypeVar("_Answer")


def can_ask(environ: Mapping[str, str], platform: str = sys.platform) -> bool:
    """Whether the keyring can show a dialogue to the person who started us.

    Over SSH it would appear on another screen; under WSL there is usually nobody to show it.
    """
    if environ.get("SSH_CONNECTION") or environ.get("SSH_TTY"):
        return False
    if platform == "darwin":
        return True
    if platform == "win32" or environ.get("WSL_DISTRO_NAME") or environ.get("WSL_INTEROP"):
        return False
    return bool(environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY"))


class KeyringStore:
    """The OS keyring as a store of keys. `backend` is for tests; otherwise the OS decides."""

    name: Literal["keyring"] = "keyring"

    def __init__(
        self,
        *,
        environ: Mapping[str, str] = os.environ,
        backend: "KeyringBackend | None" = None,
        limit_s: float | None = None,
    ) -> None:
        self._backend = backend
        if limit_s is None:
            limit_s = ASKING_LIMIT_S if can_ask(environ) else LIMIT_S
        self._limit_s = limit_s
        self._has_timed_out = False

    def describe(self) -> str:
        """The name of the keyring in use (`SecretService Keyring`), for `ogate doctor`.

        Raises:
            CredentialError: `no-keyring` or `keyring-locked`.
        """
        return self._within_limit(lambda: str(self._usable().name))

    def open(self) -> None:
        """Makes sure that keys can be read and stored now; unlocks the keyring if it must.

        Raises:
            CredentialError: `no-keyring` or `keyring-locked`.
        """
        self.get("", "")

    def get(self, provider_id: str, key_name: str) -> Secret | None:
        """The key, `None` where there is none.

        Raises:
            CredentialError: `no-keyring` or `keyring-locked`.
        """
        user = _user(provider_id, key_name)
        text = self._within_limit(lambda: self._usable().get_password(SERVICE, user))
        return None if text is None else Secret(text)

    def set(self, provider_id: str, key_name: str, secret: Secret) -> None:
        """Stores a key, in place of one of the same name.

        Raises:
            CredentialError: `no-keyring` or `keyring-locked`.
        """
        user = _user(provider_id, key_name)
        self._within_limit(lambda: self._usable().set_password(SERVICE, user, secret.reveal()))

    def delete(self, provider_id: str, key_name: str) -> None:
        """Deletes a key; one that is not there is no error.

        Raises:
            CredentialError: `no-keyring` or `keyring-locked`.
        """
        user = _user(provider_id, key_name)

        def delete_if_there() -> None:
            backend = self._usable()
            if backend.get_password(SERVICE, user) is not None:
                backend.delete_password(SERVICE, user)

        self._within_limit(delete_if_there)

    def _usable(self) -> "KeyringBackend":
        """The back end, chosen by `keyring` on first use.

        Priorities below 1 mean "not recommended": none at all, or one that keeps keys in
        plain text (https://keyring.readthedocs.io/en/latest/#third-party-backends).
        """
        if self._backend is None:
            import keyring

            try:
                self._backend = keyring.get_keyring()
            except (ImportError, AttributeError, RuntimeError, ValueError) as error:
                # PYTHON_KEYRING_BACKEND or keyringrc.cfg names one that does not work here.
                raise _no_keyring(f"the configured one does not load: {error}") from error
        if self._backend.priority < 1:
            kind = type(self._backend)
            raise _no_keyring(f"`keyring` offers only {kind.__module__}.{kind.__qualname__}")
        return self._backend

    def _within_limit(self, call: Callable[[], _Answer]) -> _Answer:
        if self._has_timed_out:
            raise self._locked()
        from concurrent.futures import Future

        import keyring.errors

        answer: Future[_Answer] = Future()
        threading.Thread(target=_settle, args=(answer, call), daemon=True, name="keyring").start()
        try:
            return answer.result(self._limit_s)
        except TimeoutError as error:
            self._has_timed_out = True
            raise self._locked() from error
        except CredentialError:
            raise
        except (keyring.errors.KeyringLocked, keyring.errors.InitError) as error:
            raise self._locked() from error
        except keyring.errors.NoKeyringError as error:
            raise _no_keyring("`keyring` found no back end") from error
        except Exception as error:  # noqa: BLE001 -- back ends raise whatever their OS library does
            # The text of a foreign exception may hold the key; its type cannot.
            raise _no_keyring(f"it failed with {type(error).__name__}") from None

    def _locked(self) -> CredentialError:
        why = "nobody answered" if self._limit_s > LIMIT_S else "nobody could be asked"
        return CredentialError(
            "keyring-locked",
            "the OS keyring is locked and could not be opened",
            details=(f"{why} within {self._limit_s:g} s",),
            hint=_INSTEAD,
        )


def _settle(answer: "Future[_Answer]", call: Callable[[], _Answer]) -> None:
    try:
        answer.set_result(call())
    except BaseException as error:  # noqa: BLE001 -- carried over to the thread that asked
        answer.set_exception(error)


def _user(provider_id: str, key_name: str) -> str:
    return f"{provider_id}/{key_name}"


def _no_keyring(why: str) -> CredentialError:
    return CredentialError(
        "no-keyring",
        "this machine has no usable OS keyring",
        details=(why,),
        hint=_INSTEAD,
    )
