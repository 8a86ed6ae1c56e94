"""Values for the shell: a small file read in milliseconds, rebuilt after what changes it.

The idea: pressing Tab must not load the catalogue, the keyring or Typer, so the values live in
a text file, one `kind<TAB>value<TAB>description` a line.
The invariant: completion never fails and never speaks; without the file there is nothing to offer.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from opencode_gate.config.paths import Paths

KINDS = ("provider", "model", "key", "session")
"""What a line of the index can hold: a provider id, `provider/model`, a key name, a session id."""


class Value(NamedTuple):
    """One thing the shell may offer."""

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


def write(paths: "Paths", values: Iterable[Value]) -> None:
    """Replaces the index in one step.

    Raises:
        OSError: the cache folder cannot be written.
    """
    from opencode_gate.config.paths import private_folder

    folder = private_folder(paths.completion_index.parent)
    fresh = folder / f".{paths.completion_index.name}.new"
    fresh.write_text("".join(f"{_line(value)}\n" for value in values), encoding="utf-8")
    fresh.replace(paths.completion_index)


def _line(value: Value) -> str:
    return "\t".join(" ".join(part.split()) for part in value)
