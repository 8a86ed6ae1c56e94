"""The list of keys without the keys: names, defaults, last four characters, tags.

A keyring cannot be listed and is slow to import, so presence, lists and completion are
answered from this small file. The invariant: no secret is ever in it, and every provider that
has keys has exactly one default.
"""

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from msgspec.structs import replace

from opencode_gate.config.paths import Paths
from opencode_gate.config.private_files import exclusive, replace_private
from opencode_gate.core.errors import CredentialError, UsageError
from opencode_gate.credentials.entries import CredentialEntry

VERSION = 1
DEFAULT_NAME = "default"
"""What a key is called when nobody gave it a name."""

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_FIELDS = set(CredentialEntry.__struct_fields__)
_REQUIRED = {"provider_id": str, "name": str, "store": str, "added_at_us": int}
_OPTIONAL = {
    "variable": str,
    "last_four": str,
    "is_default": bool,
    "last_used_at_us": int,
    "last_tested_at_us": int,
    "last_test_result": str,
}
_STORES = ("keyring", "file", "env")


class CredentialIndex:
    """The keys of one user, in the order they were added.

    Reading is one small JSON file, read once; every change reads it again under a lock, so
    two processes never lose each other's keys.
    """

    def __init__(self, paths: Paths) -> None:
        self._path = paths.credentials_index
        self._entries: tuple[CredentialEntry, ...] | None = None

    def entries(self, provider_id: str | None = None) -> tuple[CredentialEntry, ...]:
        """All keys, or those of one provider.

        Raises:
            CredentialError: the file is damaged (`credentials-unreadable`).
        """
        if self._entries is None:
            self._entries = self._read()
        if provider_id is None:
            return self._entries
        return tuple(entry for entry in self._entries if entry.provider_id == provider_id)

    def find(self, provider_id: str, name: str) -> CredentialEntry | None:
        """The key of that name, `None` where there is none."""
        return next((entry for entry in self.entries(provider_id) if entry.name == name), None)

    def require(self, provider_id: str, name: str) -> CredentialEntry:
        """The key of that name.

        Raises:
            CredentialError: there is none (`no-such-key`); the names there are come with it.
        """
        entry = self.find(provider_id, name)
        if entry is None:
            raise _no_such_key(provider_id, name, self.entries(provider_id))
        return entry

    def default(self, provider_id: str) -> CredentialEntry | None:
        """The key used when nobody names one."""
        return next((entry for entry in self.entries(provider_id) if entry.is_default), None)

    def add(self, entry: CredentialEntry) -> CredentialEntry:
        """Adds a key; the first one of a provider is its default whatever `entry` says.

        Raises:
            CredentialError: the name is taken (`key-exists`).
            UsageError: the name cannot be a name.
        """
        check_name(entry.name)

        def change(entries: list[CredentialEntry]) -> list[CredentialEntry]:
            _refuse_taken(entries, entry.provider_id, entry.name)
            return [*entries, entry]

        self._change(change, prefer=entry if entry.is_default else None)
        return self.require(entry.provider_id, entry.name)

    def update(self, entry: CredentialEntry) -> CredentialEntry:
        """Replaces what is known about the key of the same provider and name."""
        return self._replace(entry.provider_id, entry.name, lambda _: entry)

    def rename(self, provider_id: str, name: str, new_name: str) -> CredentialEntry:
        """Gives a key another name.

        Raises:
            CredentialError: no such key, or the new name is taken.
            UsageError: the new name cannot be a name.
        """
        check_name(new_name)

        def change(entries: list[CredentialEntry]) -> list[CredentialEntry]:
            _refuse_taken(entries, provider_id, new_name)
            position = _position(entries, provider_id, name)
            entries[position] = replace(entries[position], name=new_name)
            return entries

        self._change(change)
        return self.require(provider_id, new_name)

    def remove(self, provider_id: str, name: str) -> CredentialEntry | None:
        """Forgets a key; the provider's oldest remaining one becomes its default if need be.

        Returns:
            The provider's default from now on.

        Raises:
            CredentialError: no such key.
        """

        def change(entries: list[CredentialEntry]) -> list[CredentialEntry]:
            del entries[_position(entries, provider_id, name)]
            return entries

        self._change(change)
        return self.default(provider_id)

    def set_default(self, provider_id: str, name: str) -> CredentialEntry:
        """Makes a key the one used when nobody names one."""
        self._change(lambda entries: entries, prefer=self.require(provider_id, name))
        return self.require(provider_id, name)

    def mark_used(self, keys: Iterable[tuple[str, str]], *, at_us: int) -> None:
        """Tags `(provider_id, name)` keys as used; one that is gone meanwhile is passed over."""
        used = set(keys)

        def change(entries: list[CredentialEntry]) -> list[CredentialEntry]:
            return [
                replace(entry, last_used_at_us=at_us)
                if (entry.provider_id, entry.name) in used
                else entry
                for entry in entries
            ]

        if used:
            self._change(change)

    def mark_tested(self, provider_id: str, name: str, *, result: str, at_us: int) -> None:
        """Tags a key with the outcome of a test."""
        self._replace(
            provider_id,
            name,
            lambda entry: replace(entry, last_tested_at_us=at_us, last_test_result=result),
        )

    def _replace(
        self, provider_id: str, name: str, change: Callable[[CredentialEntry], CredentialEntry]
    ) -> CredentialEntry:
        def change_one(entries: list[CredentialEntry]) -> list[CredentialEntry]:
            position = _position(entries, provider_id, name)
            entries[position] = change(entries[position])
            return entries

        self._change(change_one)
        return self.require(provider_id, name)

    def _change(
        self,
        change: Callable[[list[CredentialEntry]], list[CredentialEntry]],
        *,
        prefer: CredentialEntry | None = None,
    ) -> None:
        with exclusive(self._path):
            entries = _with_one_default(change(list(self._read())), prefer)
            document = {"version": VERSION, "keys": list(map(msgspec.structs.asdict, entries))}
            replace_private(self._path, json.dumps(document, indent=1).encode() + b"\n")
            self._entries = tuple(entries)

    def _read(self) -> tuple[CredentialEntry, ...]:
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise self._unreadable(error.strerror or type(error).__name__) from error
        try:
            document = json.loads(content)
        except ValueError as error:
            raise self._unreadable(f"it is not JSON: {error}") from error
        if not isinstance(document, dict) or not isinstance(document.get("keys"), list):
            raise self._unreadable("it is not a list of keys")
        version = document.get("version")
        if isinstance(version, int) and version > VERSION:
            raise self._unreadable("a newer ogate wrote it", hint="update ogate")
        return tuple(self._entry(position, row) for position, row in enumerate(document["keys"]))

    def _entry(self, position: int, row: Any) -> CredentialEntry:
        if not isinstance(row, dict):
            raise self._unreadable(f"key number {position + 1} is not an object")
        for name, kind in _REQUIRED.items():
            if not isinstance(row.get(name), kind):
                raise self._unreadable(f"key number {position + 1} has no proper {name}")
        for name, kind in _OPTIONAL.items():
            if row.get(name) is not None and not isinstance(row[name], kind):
                raise self._unreadable(f"key number {position + 1} has no proper {name}")
        if row["store"] not in _STORES:
            raise self._unreadable(f"key number {position + 1} is in an unknown store")
        return CredentialEntry(**{name: value for name, value in row.items() if name in _FIELDS})

    def _unreadable(self, why: str, *, hint: str | None = None) -> CredentialError:
        return CredentialError(
            "credentials-unreadable",
            f"cannot read the list of keys {self._path}: {why}",
            hint=hint or "move the file away and add the keys again with `ogate keys add`",
            details=("the keys themselves are elsewhere and are not lost",),
        )


def check_name(name: str) -> None:
    """Refuses what cannot be the name of a key.

    Raises:
        UsageError: it is empty, longer than 64 characters, or has other characters than
            letters, digits, dots, dashes and underscores.
    """
    if not re.fullmatch(_NAME, name):
        raise UsageError(
            "usage",
            f"{name!r} cannot be the name of a key",
            hint="up to 64 letters, digits, dots, dashes and underscores",
        )


def name_taken(provider_id: str, name: str) -> CredentialError:
    """The error for a name that another key of the provider has."""
    return CredentialError(
        "key-exists",
        f"{provider_id} already has a key named {name!r}",
        hint=f"`ogate keys rotate {provider_id} {name}` replaces it; "
        "`--name` adds another beside it",
    )


def _with_one_default(
    entries: list[CredentialEntry], prefer: CredentialEntry | None
) -> list[CredentialEntry]:
    """The same keys with exactly one default a provider: `prefer`, else the one there was."""
    defaults: dict[str, str] = {}
    if prefer is not None:
        defaults[prefer.provider_id] = prefer.name
    for entry in entries:
        if entry.is_default:
            defaults.setdefault(entry.provider_id, entry.name)
    for entry in entries:
        defaults.setdefault(entry.provider_id, entry.name)
    return [
        replace(entry, is_default=defaults[entry.provider_id] == entry.name) for entry in entries
    ]


def _position(entries: list[CredentialEntry], provider_id: str, name: str) -> int:
    for position, entry in enumerate(entries):
        if (entry.provider_id, entry.name) == (provider_id, name):
            return position
    own = tuple(entry for entry in entries if entry.provider_id == provider_id)
    raise _no_such_key(provider_id, name, own)


def _refuse_taken(entries: list[CredentialEntry], provider_id: str, name: str) -> None:
    if any((entry.provider_id, entry.name) == (provider_id, name) for entry in entries):
        raise name_taken(provider_id, name)


def _no_such_key(provider_id: str, name: str, own: tuple[CredentialEntry, ...]) -> CredentialError:
    from opencode_gate.credentials.shape import quoted_name

    names = ", ".join(entry.name for entry in own)
    return CredentialError(
        "no-such-key",
        f"{provider_id} has no key named {quoted_name(name)}",
        hint="ogate keys list" if own else f"ogate keys add {provider_id}",
        details=(f"its keys: {names}",) if own else ("it has no keys yet",),
    )
