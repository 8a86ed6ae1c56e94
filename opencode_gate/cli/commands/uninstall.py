"""`ogate uninstall`: everything ogate put on this machine, taken away again.

The invariant: nothing is removed before all that stands in the way is known (a running session, a
locked keyring, folders that are not ogate's alone), and `--dry-run` removes nothing at all.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from opencode_gate.cli.options import NoInput, Yes
from opencode_gate.cli.prompts import may_ask, require_yes
from opencode_gate.cli.render import Result, Text, talk
from opencode_gate.core.errors import CheckFailed, ConfigError

if TYPE_CHECKING:
    from opencode_gate.config.paths import Paths

_PROGRAM = "the program itself: uv tool uninstall opencode-gate, or: pipx uninstall opencode-gate"


class _Removal(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to remove: what it is, and how."""

    what: str
    remove: Callable[[], object]


def command(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be removed, and stop.")
    ] = False,
    keep_ledger: Annotated[
        bool, typer.Option("--keep-ledger", help="Keep the record of what was used.")
    ] = False,
    yes: Yes = False,
    no_input: NoInput = False,
) -> Result:
    """Remove keys, settings, the ledger, shell lines and the private Opencode."""
    from opencode_gate.config.paths import paths

    where = paths()
    _refuse_foreign_folder(where)
    _refuse_running_session(where)
    removals = list(_removals(where, keep_ledger=keep_ledger))
    lines = [removal.what for removal in removals]
    if dry_run or not removals:
        return Result(data={}, blocks=[Text(line) for line in lines or ["nothing to remove"]])
    if not yes:
        for line in lines:
            talk(f"  {line}")
        require_yes(
            "Remove all of this?",
            may_ask=may_ask(no_input=no_input),
            instead="ogate uninstall --yes",
        )
    for removal in removals:
        removal.remove()
    return Result(data={}, blocks=[Text(f"removed {line}") for line in lines], talk=[_PROGRAM])


def _refuse_foreign_folder(where: "Paths") -> None:
    """With `OGATE_HOME` the folders have common names: all below it must be ours.

    Raises:
        CheckFailed: something else is there.
    """
    home = os.environ.get("OGATE_HOME")
    if not home:
        return
    root = Path(home).expanduser()
    ours = {folder.name for folder in (where.config, where.data, where.cache, where.runtime)}
    found = [entry.name for entry in root.iterdir()] if root.is_dir() else []
    foreign = [name for name in found if name not in ours]
    if foreign:
        raise CheckFailed(
            "foreign-files",
            f"{root} holds more than ogate's folders, so nothing is removed",
            details=[f"not of ogate: {name}" for name in sorted(foreign)[:5]],
            hint="move that elsewhere, or remove config, data, cache and run by hand",
        )


def _refuse_running_session(where: "Paths") -> None:
    """Refuses while a session writes its journal.

    Raises:
        CheckFailed: one does.
    """
    from opencode_gate.ledger.journal import journals, orphans

    if len(journals(where.journals)) > len(orphans(where.journals)):
        raise CheckFailed("session-running", "a session is running", hint="end it first")


def _removals(where: "Paths", *, keep_ledger: bool) -> Iterator[_Removal]:
    """Keys first: if the keyring says no, nothing else is gone yet."""
    yield from _keys(where)
    yield from _shell_lines()
    yield from _folders(where, _ledger(where) if keep_ledger else set())


def _keys(where: "Paths") -> Iterator[_Removal]:
    from opencode_gate.credentials.vault import Vault

    vault = Vault(where, os.environ)
    for entry in vault.index.entries():
        if entry.store == "keyring":

            def remove(provider_id: str = entry.provider_id, name: str = entry.name) -> None:
                vault.remove(provider_id, name)

            yield _Removal(
                what=f"the key {entry.name!r} of {entry.provider_id} in the OS keyring",
                remove=remove,
            )


def _shell_lines() -> Iterator[_Removal]:
    from opencode_gate.cli import shell_files
    from opencode_gate.cli.commands.completion import script_file

    names: tuple[shell_files.Block, ...] = ("alias", "completion")
    for name in names:
        for file in shell_files.files_with_block(name):

            def take(file: Path = file, name: shell_files.Block = name) -> None:
                shell_files.take_block(file, name)

            yield _Removal(what=f"the {name} lines in {file}", remove=take)
    script = script_file("fish")
    if script.exists():
        yield _Removal(what=str(script), remove=script.unlink)


def _ledger(where: "Paths") -> set[Path]:
    """The ledger with what SQLite keeps beside it, and what is not folded into it yet."""
    sides = (Path(f"{where.ledger_file}{ending}") for ending in ("-wal", "-shm"))
    trail = (where.audit_key, where.audit_head)
    return {where.ledger_file, where.prompt_key, where.journals, *sides, *trail}


def _folders(where: "Paths", kept: set[Path]) -> Iterator[_Removal]:
    """Ogate's folders; where something is kept, what stands beside it."""
    for folder in dict.fromkeys((where.runtime, where.cache, where.config, where.data)):
        if not folder.is_dir():
            continue
        if not any(path.parent == folder and path.exists() for path in kept):
            yield _Removal(what=str(folder), remove=_remover(folder))
            continue
        for entry in sorted(folder.iterdir()):
            if entry not in kept:
                yield _Removal(what=str(entry), remove=_remover(entry))


def _remover(path: Path) -> Callable[[], None]:
    def remove() -> None:
        import shutil

        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except FileNotFoundError:
            return
        except OSError as error:
            raise ConfigError(
                "folder-unwritable", f"cannot remove {path}: {error.strerror}"
            ) from error

    return remove
