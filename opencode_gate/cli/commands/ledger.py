"""`ogate ledger`: the file that everything recorded is in, checked, copied and tidied.

The invariant: nothing here removes a row; what is removed are the hashes of requests' parts, as
`[ledger] keep_parts_days` says.
"""

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from opencode_gate.cli import figures
from opencode_gate.cli.options import AsJson
from opencode_gate.cli.render import Fact, Facts, Result
from opencode_gate.core.errors import LedgerError

if TYPE_CHECKING:
    from opencode_gate.ledger.sqlite import SqliteStore

app = typer.Typer()

_DAY_US = 86_400_000_000


@app.command()
def check(as_json: AsJson = False) -> Result:
    """Read all of it and say what is damaged; status 1 if something is."""
    from opencode_gate.cli.exit_codes import ExitCode
    from opencode_gate.config.paths import paths
    from opencode_gate.ledger.journal import orphans

    path = paths().ledger_file
    with _ledger(path, read_only=True) as store:
        findings = store.integrity()
        requests = None if findings else _requests(store)
    waiting = len(orphans(paths().journals))
    size_bytes = _size(path)
    facts = [
        Fact("ledger", str(path)),
        Fact("size", _megabytes(size_bytes)),
        *([] if requests is None else [Fact("requests", f"{requests:,}")]),
        *([Fact("journals", f"{waiting} of killed sessions, folded by the next")] * bool(waiting)),
        Fact("state", "sound") if not findings else Fact("state", "damaged", "red"),
        *(Fact("", finding) for finding in findings),
    ]
    return Result(
        data={
            "file": str(path),
            "bytes": size_bytes,
            "requests": requests,
            "journals_waiting": waiting,
            "findings": findings,
        },
        blocks=() if as_json else [Facts(facts)],
        talk=_advice(findings),
        exit_code=ExitCode.CHECK_FAILED if findings else ExitCode.OK,
    )


def _advice(findings: Sequence[str]) -> list[str]:
    from opencode_gate.ledger.sqlite.usage import WRONG_SUMS

    if not findings:
        return []
    if all(finding.endswith(WRONG_SUMS) for finding in findings):
        return ["`ogate ledger vacuum` adds the rows up anew"]
    return ["keep a copy of it before anything else; docs/reference/ledger.md says more"]


@app.command()
def backup(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="A new file; else ogate-DAY.db in this folder."),
    ] = None,
) -> Result:
    """Copy it into one file, also while sessions run."""
    from datetime import date

    from opencode_gate.config.paths import paths

    target = Path(f"ogate-{date.today().isoformat()}.db") if file is None else file
    with _ledger(paths().ledger_file, read_only=True) as store:
        store.backup(target)
    return Result(data={}, talk=[f"{_megabytes(_size(target))} written to {target}"])


@app.command()
def vacuum() -> Result:
    """Forget old parts, mend sums, and give free space back; sessions may run meanwhile."""
    import os

    from opencode_gate.config.paths import paths
    from opencode_gate.config.settings import load_settings
    from opencode_gate.core.clock import SystemClock

    path = paths().ledger_file
    keep_days = load_settings(paths(), os.environ).ledger.keep_parts_days
    before_bytes = _size(path)
    with _ledger(path, read_only=False) as store:
        retired = store.retire(SystemClock().now_us() - keep_days * _DAY_US)
        store.vacuum()
    after_bytes = _size(path)
    return Result(
        data={},
        talk=[
            f"{figures.counted(retired, 'call')} older than {keep_days} days without parts now",
            f"{_megabytes(before_bytes)} before, {_megabytes(after_bytes)} now",
        ],
    )


@contextmanager
def _ledger(path: Path, *, read_only: bool) -> "Iterator[SqliteStore]":
    """The ledger that is there.

    Raises:
        LedgerError: there is none, or it cannot be used.
    """
    from opencode_gate.ledger.sqlite import open_store

    if not path.exists():
        raise LedgerError("ledger-missing", f"there is no ledger at {path} yet", hint="ogate run")
    store = open_store(path, read_only=read_only)
    try:
        yield store
    finally:
        store.close()


def _requests(store: "SqliteStore") -> int:
    from opencode_gate.ledger.totals import UsageQuery

    return store.usage(UsageQuery())[0].totals.requests


def _size(path: Path) -> int:
    """The bytes of a ledger on disk, with what SQLite keeps beside it."""
    total = 0
    for name in (path.name, f"{path.name}-wal"):
        with contextlib.suppress(FileNotFoundError):
            total += path.with_name(name).stat().st_size
    return total


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.1f} MB"
