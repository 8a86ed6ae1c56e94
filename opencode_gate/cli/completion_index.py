"""Values for the shell: a small file read in milliseconds, rebuilt after what changes it.

The idea: pressing Tab must not load the catalogue, the keyring or Typer, so the values live in
a text file, one `kind<TAB>value<TAB>description` a line.
The invariant: completion never fails and never speaks; without the file there is nothing to offer.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from opencode_gate.core.errors import GateError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opencode_gate.config.paths import Paths

_SESSIONS = 50
_OWNER_KINDS = ("vkey", "team", "customer")


class Value(NamedTuple):
    """One thing the shell may offer.

    `kind` is `provider` (an id), `model` (`provider/model`), `key` (a name), `session` (an id),
    or `vkey`, `team` or `customer` (a name).
    """

    kind: str
    value: str
    description: str = ""


def answer(words: Sequence[str]) -> int:
    """Prints the values of a kind that start with a prefix, `value<TAB>description` a line.

    `words` are the kind and the prefix, as the completion scripts pass them.
    """
    if not words:
        return 0
    from opencode_gate.config.paths import paths

    kind, prefix = words[0], words[1] if len(words) > 1 else ""
    for value in read(paths().completion_index):
        if value.kind == kind and value.value.startswith(prefix):
            sys.stdout.write(f"{value.value}\t{value.description}\n")
    return 0


def read(index: Path) -> Iterator[Value]:
    """The values of an index file; none where it cannot be read."""
    try:
        text = index.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for line in text.splitlines():
        parts = line.split("\t")
        if len(parts) == 3:
            yield Value(*parts)


def keep_fresh(*, after_session: bool = False, after_policy: bool = False) -> None:
    """Rebuilds what may have changed; called when a command that changes values has ended.

    After a session the index is not made where there is none, and only the sessions in it are
    replaced unless something else is newer than it: the end of a session is waited for. After
    `vkeys` and the like only the owners of rules are.
    """
    from opencode_gate.config.paths import paths

    folders = paths()
    index = folders.completion_index
    if after_session and not index.exists():
        return
    if _is_stale(folders):
        rebuild()
    elif after_session:
        others = [value for value in read(index) if value.kind != "session"]
        _write(index, [*others, *_sessions(folders)])
    elif after_policy:
        others = [value for value in read(index) if value.kind not in _OWNER_KINDS]
        _write(index, [*others, *_owners(folders)])


def rebuild() -> None:
    """Collects all values anew; a source that cannot be read has none."""
    import os

    from opencode_gate.config.paths import paths

    folders = paths()
    _write(
        folders.completion_index,
        [
            *_usable(folders, os.environ),
            *_keys(folders),
            *_sessions(folders),
            *_owners(folders),
        ],
    )


def _is_stale(folders: "Paths") -> bool:
    """Whether the index is missing or older than something it was made from."""
    from opencode_gate.catalog.catalogue import BUNDLED

    made_ns = _changed_ns(folders.completion_index)
    sources = (folders.credentials_index, folders.config_file, folders.catalogue, BUNDLED)
    return made_ns == 0 or any(_changed_ns(source) >= made_ns for source in sources)


def _changed_ns(file: Path) -> int:
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return 0


def _usable(folders: "Paths", environ: "Mapping[str, str]") -> list[Value]:
    """All providers, and the models of those that can be used now."""
    from opencode_gate.config.settings import load_settings
    from opencode_gate.session.discovery import discover

    with suppress(GateError, OSError):
        settings = load_settings(folders, environ)
        found = discover(folders, settings, environ, probe_local=False)
        names = {row.id: row.name for row in found.catalogue.providers().values()}
        names.update({id: provider.row.name for id, provider in found.usable.items()})
        values = [Value("provider", id, name) for id, name in sorted(names.items())]
        for id, provider in sorted(found.usable.items()):
            models = found.catalogue.models(id) if provider.models is None else provider.models
            values += [Value("model", f"{id}/{model.id}", model.name) for model in models.values()]
        return values
    return []


def _keys(folders: "Paths") -> list[Value]:
    from opencode_gate.credentials.index import CredentialIndex

    with suppress(GateError, OSError):
        return [
            Value("key", entry.name, entry.provider_id)
            for entry in CredentialIndex(folders).entries()
        ]
    return []


def _sessions(folders: "Paths") -> list[Value]:
    """The latest sessions, newest first."""
    from opencode_gate.cli.figures import time_text
    from opencode_gate.ledger.sqlite import open_store

    with suppress(GateError, OSError):
        store = open_store(folders.ledger_file, read_only=True)
        try:
            sessions = store.sessions(limit=_SESSIONS)
        finally:
            store.close()
        return [
            Value("session", session.id, f"{time_text(session.started_at_us)} {session.project}")
            for session in sessions
        ]
    return []


def _owners(folders: "Paths") -> list[Value]:
    """Virtual keys, teams and customers, each with what it belongs to."""
    from opencode_gate.session.policy_changes import current_policy

    with suppress(GateError, OSError):
        policy = current_policy(folders)
        return [
            *(Value("vkey", name, key.team or "") for name, key in policy.virtual_keys.items()),
            *(Value("team", name, team.customer or "") for name, team in policy.teams.items()),
            *(Value("customer", name) for name in policy.customers),
        ]
    return []


def _write(index: Path, values: Iterable[Value]) -> None:
    """Replaces the index in one step; where its folder cannot be written, it stays as it is."""
    from opencode_gate.config.private_files import replace_private

    text = "".join(f"{_line(value)}\n" for value in values)
    with suppress(GateError):
        replace_private(index, text.encode("utf-8", errors="replace"), is_cache=True)


def _line(value: Value) -> str:
    return "\t".join(" ".join(part.split()) for part in value)
