"""How keys are shown: rows for people, documents for programs.

The invariant: of a key itself there are only the last four characters.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from opencode_gate.cli import figures
from opencode_gate.cli.render import Block, Column, Table
from opencode_gate.credentials.entries import PLACE_WORDS

if TYPE_CHECKING:
    from opencode_gate.credentials.entries import CredentialEntry
    from opencode_gate.credentials.found import FoundKey


def place_of(entry: "CredentialEntry") -> str:
    """Where a key lies, in words; a reference is its variable."""
    return entry.variable or PLACE_WORDS[entry.store]


def kept_line(entry: "CredentialEntry") -> str:
    """What is said once a key is kept."""
    default = ", used by default" if entry.is_default else ""
    if entry.store == "env":
        return f"{entry.provider_id}/{entry.name} is what {entry.variable} holds{default}"
    place = PLACE_WORDS[entry.store]
    return f"{entry.provider_id}/{entry.name} (…{entry.last_four}) is in the {place}{default}"


def key_table(entries: "Sequence[CredentialEntry]", found: "Sequence[FoundKey]") -> list[Block]:
    """The list of keys; nothing where there is none."""
    rows = [_entry_cells(entry) for entry in entries] + [_found_cells(key) for key in found]
    titles = ("provider", "name", "", "key", "where", "last used", "last test")
    return [Table([Column(title) for title in titles], rows)] if rows else []


def entry_document(entry: "CredentialEntry") -> dict[str, object]:
    """One stored key for `--json`."""
    return {
        "provider_id": entry.provider_id,
        "name": entry.name,
        "store": entry.store,
        "variable": entry.variable,
        "last_four": entry.last_four,
        "is_default": entry.is_default,
        "added_at": figures.iso_text(entry.added_at_us),
        "last_used_at": figures.iso_text(entry.last_used_at_us),
        "last_tested_at": figures.iso_text(entry.last_tested_at_us),
        "last_test_result": entry.last_test_result,
    }


def found_document(key: "FoundKey") -> dict[str, object]:
    """One key that lies elsewhere, for `--json`."""
    return {
        "provider_id": key.provider_id,
        "where": key.kind,
        "variable": key.variable,
        "last_four": key.secret.last_four,
    }


def _entry_cells(entry: "CredentialEntry") -> Sequence[str]:
    used, tested = entry.last_used_at_us, entry.last_tested_at_us
    return (
        entry.provider_id,
        entry.name,
        "default" if entry.is_default else "",
        f"…{entry.last_four}" if entry.last_four is not None else "",
        place_of(entry),
        figures.time_text(used) if used is not None else "",
        f"{entry.last_test_result}, {figures.time_text(tested)}" if tested is not None else "",
    )


def _found_cells(key: "FoundKey") -> Sequence[str]:
    return (key.provider_id, "", "", f"…{key.secret.last_four}", key.label, "", "")
