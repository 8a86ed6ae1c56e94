"""The places a key can lie, behind one small protocol.

The keyring is the first choice. The encrypted file is for machines without one. A reference
to an environment variable stores nothing at all. The invariant: a store is asked only about
keys the index knows, and never says a key in an error.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, Protocol

from opencode_gate.core.errors import CredentialError
from opencode_gate.core.secrets import Secret
from opencode_gate.credentials.encrypted_file import EncryptedFileStore
from opencode_gate.credentials.entries import CredentialStoreName
from opencode_gate.credentials.index import CredentialIndex
from opencode_gate.credentials.keyring_store import KeyringStore

if TYPE_CHECKING:
    from opencode_gate.config.paths import Paths
    from opencode_gate.credentials.encrypted_file import AskPassphrase, Protection


class CredentialStore(Protocol):
    """A place for keys, addressed by provider and key name."""

    @property
    def name(self) -> CredentialStoreName:
        """Which store this is, as the index spells it."""
        ...

    def get(self, provider_id: str, key_name: str) -> Secret | None:
        """The key, `None` where there is none.

        Raises:
            CredentialError: the store cannot be reached.
        """
        ...

    def set(self, provider_id: str, key_name: str, secret: Secret) -> None:
        """Stores a key, in place of one of the same name.

        Raises:
            CredentialError: the store cannot be reached or written.
        """
        ...

    def delete(self, provider_id: str, key_name: str) -> None:
        """Deletes a key; one that is not there is no error.

        Raises:
            CredentialError: the store cannot be reached or written.
        """
        ...


class EnvironmentReferences:
    """Keys the user keeps in environment variables; only the variable's name is ours."""

    name: Literal["env"] = "env"

    def __init__(self, index: CredentialIndex, environ: Mapping[str, str]) -> None:
        self._index = index
        self._environ = environ

    def get(self, provider_id: str, key_name: str) -> Secret | None:
        """What the variable holds now, `None` where it is unset or empty."""
        entry = self._index.find(provider_id, key_name)
        if entry is None or entry.variable is None:
            return None
        return from_environment(self._environ, entry.variable)

    def set(self, provider_id: str, key_name: str, secret: Secret) -> None:
        """Refused: a variable belongs to the shell that set it.

        Raises:
            CredentialError: always (`bad-credential`).
        """
        raise CredentialError(
            "bad-credential",
            f"the key {key_name!r} of {provider_id} is a reference to an environment variable",
            hint="change the variable where your shell sets it, or remove the reference: "
            f"`ogate keys remove {provider_id} {key_name}`",
        )

    def delete(self, provider_id: str, key_name: str) -> None:
        """Nothing is stored, so there is nothing to delete."""


class Stores:
    """All stores of one user; made once, so that a passphrase is asked and a timeout met once."""

    def __init__(
        self,
        paths: "Paths",
        index: CredentialIndex,
        environ: Mapping[str, str],
        *,
        protection: "Protection" = "key-file",
        ask_passphrase: "AskPassphrase | None" = None,
        keyring: KeyringStore | None = None,
    ) -> None:
        self.keyring = keyring or KeyringStore(environ=environ)
        self.file = EncryptedFileStore(paths, protection=protection, ask_passphrase=ask_passphrase)
        self.environment = EnvironmentReferences(index, environ)

    def of(self, name: CredentialStoreName) -> CredentialStore:
        """The store of that name."""
        match name:
            case "keyring":
                return self.keyring
            case "file":
                return self.file
            case "env":
                return self.environment


def from_environment(environ: Mapping[str, str], variable: str) -> Secret | None:
    """The key in a variable, `None` where it is unset or blank; surrounding blanks are not it."""
    text = environ.get(variable, "").strip()
    return Secret(text) if text else None
