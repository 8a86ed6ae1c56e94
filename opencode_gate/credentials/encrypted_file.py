"""Keys in one encrypted file, for machines without a keyring.

AES-256-GCM (`cryptography`) over all keys at once, under a fresh nonce for every write. The
256-bit key is either a random one in a key file of its own folder (so that a copy of the data
folder alone opens nothing) or made from a passphrase with scrypt (RFC 7914, with the cost
OWASP names). The header is authenticated with the content. The invariant: the file on disk is
always complete, and nothing but it and the key file is ever written.
"""

import base64
import binascii
import json
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from opencode_gate.config.paths import Paths
from opencode_gate.config.private_files import exclusive, replace_private
from opencode_gate.core.errors import CredentialError
from opencode_gate.core.secrets import Secret

Protection: TypeAlias = Literal["key-file", "passphrase"]
AskPassphrase: TypeAlias = Callable[[bool], Secret]
"""Asks the user; the argument says whether a new passphrase is being chosen."""

VERSION = 1
SCRYPT_COST = 2**17
"""https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html#scrypt"""

_KEY_BYTES = 32
_NONCE_BYTES = 12
_SALT_BYTES = 16
_SCRYPT_COST_MAX = 2**20


class _Header(msgspec.Struct, frozen=True, kw_only=True):
    """The readable part of the file."""

    protection: Protection
    salt: bytes = b""
    cost: int = 0

    def document(self) -> dict[str, object]:
        """As it is written, and as it is authenticated."""
        document: dict[str, object] = {"version": VERSION, "protection": self.protection}
        if self.protection == "passphrase":
            document |= {"scrypt_cost": self.cost, "salt": base64.b64encode(self.salt).decode()}
        return document

    def authenticated(self) -> bytes:
        """The header's bytes for the cipher."""
        return json.dumps(self.document(), sort_keys=True).encode()


class EncryptedFileStore:
    """The encrypted file as a store of keys.

    `protection` counts only when the file is made; afterwards the file itself knows.
    """

    name: Literal["file"] = "file"

    def __init__(
        self,
        paths: Paths,
        *,
        protection: Protection = "key-file",
        ask_passphrase: AskPassphrase | None = None,
        scrypt_cost: int = SCRYPT_COST,
    ) -> None:
        self._path = paths.credentials_file
        self._key_path = key_file(paths)
        self._protection = protection
        self._ask_passphrase = ask_passphrase
        self._scrypt_cost = scrypt_cost
        self._keys: dict[_Header, bytes] = {}

    @property
    def exists(self) -> bool:
        """Whether the file has been made."""
        return self._path.exists()

    @property
    def needs_passphrase(self) -> bool:
        """Whether reading it will ask for a passphrase; never asks itself.

        Raises:
            CredentialError: the file is damaged (`credentials-unreadable`).
        """
        return self.exists and self._read()[0].protection == "passphrase"

    def unlock(self) -> None:
        """Asks for the passphrase now, so that later reads do not.

        Raises:
            CredentialError: wrong passphrase, damaged file, or nobody to ask.
        """
        if self.exists:
            self._load()

    def get(self, provider_id: str, key_name: str) -> Secret | None:
        """The key, `None` where there is none.

        Raises:
            CredentialError: `credentials-unreadable`, or `no-terminal` if nobody can be asked.
        """
        text = self._load()[1].get(_slot(provider_id, key_name)) if self.exists else None
        return None if text is None else Secret(text)

    def set(self, provider_id: str, key_name: str, secret: Secret) -> None:
        """Stores a key, in place of one of the same name.

        Raises:
            CredentialError: as for `get`.
            ConfigError: the file cannot be written.
        """
        self._change(lambda slots: slots | {_slot(provider_id, key_name): secret.reveal()})

    def delete(self, provider_id: str, key_name: str) -> None:
        """Deletes a key; one that is not there is no error."""
        slot = _slot(provider_id, key_name)
        if self.exists:
            self._change(lambda slots: {name: slots[name] for name in slots if name != slot})

    def _change(self, change: Callable[[dict[str, str]], dict[str, str]]) -> None:
        header = self._read()[0] if self.exists else self._new_header()
        if header.protection == "passphrase":
            # Asked before the lock is taken: nobody else must wait for somebody's typing.
            self._key(header, is_new=not self.exists)
        with exclusive(self._path):
            slots: dict[str, str] = {}
            if self.exists:
                header, slots = self._load()
            elif header.protection == "key-file" and not self._key_path.exists():
                fresh = base64.b64encode(os.urandom(_KEY_BYTES)) + b"\n"
                replace_private(self._key_path, fresh)
            self._write(header, change(slots))

    def _load(self) -> tuple[_Header, dict[str, str]]:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        header, nonce, sealed = self._read()
        try:
            opened = AESGCM(self._key(header)).decrypt(nonce, sealed, header.authenticated())
        except InvalidTag:
            # Asked again next time: it may have been a slip of the finger.
            self._keys.pop(header, None)
            if header.protection == "passphrase":
                raise self._unreadable("wrong passphrase, or it is damaged") from None
            raise self._unreadable(
                f"it is damaged, or {self._key_path} is not its key file"
            ) from None
        slots = json.loads(opened)
        return header, {str(name): str(text) for name, text in slots.items()}

    def _write(self, header: _Header, slots: dict[str, str]) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce = os.urandom(_NONCE_BYTES)
        plain = json.dumps(slots).encode()
        sealed = AESGCM(self._key(header)).encrypt(nonce, plain, header.authenticated())
        document = header.document() | {
            "nonce": base64.b64encode(nonce).decode(),
            "sealed": base64.b64encode(sealed).decode(),
        }
        replace_private(self._path, json.dumps(document, indent=1).encode() + b"\n")

    def _read(self) -> tuple[_Header, bytes, bytes]:
        try:
            document = json.loads(self._path.read_bytes())
            if document["version"] > VERSION:
                raise self._unreadable("a newer ogate wrote it", hint="update ogate")
            header = _header(document)
            nonce = base64.b64decode(document["nonce"], validate=True)
            sealed = base64.b64decode(document["sealed"], validate=True)
        except OSError as error:
            raise self._unreadable(error.strerror or type(error).__name__) from error
        except (ValueError, KeyError, TypeError, binascii.Error) as error:
            raise self._unreadable("it is damaged") from error
        if len(nonce) != _NONCE_BYTES:
            raise self._unreadable("it is damaged")
        return header, nonce, sealed

    def _new_header(self) -> _Header:
        if self._protection == "key-file":
            return _Header(protection="key-file")
        return _Header(
            protection="passphrase", salt=os.urandom(_SALT_BYTES), cost=self._scrypt_cost
        )

    def _key(self, header: _Header, *, is_new: bool = False) -> bytes:
        """The 256-bit key; read or asked for once."""
        if header not in self._keys:
            if header.protection == "passphrase":
                self._keys[header] = self._derived(header, is_new=is_new)
            else:
                self._keys[header] = self._from_key_file()
        return self._keys[header]

    def _derived(self, header: _Header, *, is_new: bool) -> bytes:
        if self._ask_passphrase is None:
            raise CredentialError(
                "no-terminal",
                f"{self._path} is protected by a passphrase and there is no terminal to ask on",
                hint="start ogate in a terminal, or keep the key in an environment variable: "
                "`ogate keys add PROVIDER --from-env VAR --reference`",
            )
        from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

        passphrase = self._ask_passphrase(is_new)
        kdf = Scrypt(salt=header.salt, length=_KEY_BYTES, n=header.cost, r=8, p=1)
        return kdf.derive(passphrase.reveal().encode())

    def _from_key_file(self) -> bytes:
        try:
            if sys.platform != "win32" and stat.S_IMODE(self._key_path.stat().st_mode) & 0o077:
                raise self._unreadable(
                    f"its key file {self._key_path} can be read by others",
                    hint=f"chmod 600 {self._key_path}",
                )
            key = base64.b64decode(self._key_path.read_bytes(), validate=False)
        except OSError as error:
            raise self._unreadable(
                f"its key file {self._key_path}: {error.strerror}",
                hint=f"put the key file back, or move {self._path} away and add the keys again",
            ) from error
        except binascii.Error as error:
            raise self._unreadable(f"its key file {self._key_path} is damaged") from error
        if len(key) != _KEY_BYTES:
            raise self._unreadable(f"its key file {self._key_path} is damaged")
        return key

    def _unreadable(self, why: str, *, hint: str | None = None) -> CredentialError:
        return CredentialError(
            "credentials-unreadable",
            f"cannot open the encrypted key file {self._path}: {why}",
            hint=hint or "try again, or move the file away and add the keys again",
        )


def key_file(paths: Paths) -> Path:
    """Where the key of the encrypted file lies when it is not made from a passphrase."""
    return paths.config / "credentials.key"


def _header(document: dict[str, object]) -> _Header:
    protection = document["protection"]
    if protection == "key-file":
        return _Header(protection="key-file")
    cost = document["scrypt_cost"]
    if protection != "passphrase" or not isinstance(cost, int):
        raise ValueError("unknown protection")
    # A cost of somebody's choosing would be memory of somebody's choosing.
    if not 2 <= cost <= _SCRYPT_COST_MAX or cost & (cost - 1):
        raise ValueError("scrypt cost out of range")
    salt = base64.b64decode(str(document["salt"]), validate=True)
    return _Header(protection="passphrase", salt=salt, cost=cost)


def _slot(provider_id: str, key_name: str) -> str:
    return f"{provider_id}/{key_name}"
