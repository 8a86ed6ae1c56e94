"""`ogate audit`: what was changed, refused and settled, and the proof that nobody touched it.

The invariant: nothing here writes; a trail that is not what was written is told by status 1.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from opencode_gate.cli.options import AsJson
from opencode_gate.cli.render import Fact, Facts, Result, Text
from opencode_gate.ledger.audit import EventKind

if TYPE_CHECKING:
    from opencode_gate.ledger.sqlite.audit import AuditReader

app = typer.Typer()

Since = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="From then on: 2026-11-03, 2026-11-03T14:00, 7d."),
]
LedgerFile = Annotated[
    Path | None, typer.Option("--ledger", metavar="FILE", help="A copy of the ledger instead.")
]
Kind = Annotated[EventKind | None, typer.Option("--kind", help="Only events of this kind.")]

_SHOWN_FINDINGS = 20


@app.command("list")
def list_events(
    limit: Annotated[int, typer.Option(min=1, help="How many, the latest of them.")] = 50,
    since: Since = None,
    kind: Kind = None,
    ledger: LedgerFile = None,
    as_json: AsJson = False,
) -> Result:
    """The latest events, the last one at the bottom."""
    from opencode_gate.cli.audit_view import event_document, events_table

    with _trail(ledger) as trail:
        found = trail.latest(limit, after=_after(trail, since), kind=kind)
    if as_json:
        return Result(data={"events": [event_document(event) for event in found]})
    if not found:
        return Result(data={}, blocks=[Text("no such events")])
    return Result(data={}, blocks=[events_table(found)])


@app.command()
def verify(
    ledger: LedgerFile = None,
    key: Annotated[
        Path | None,
        typer.Option("--key", metavar="FILE", help="The key; else audit.key in the data folder."),
    ] = None,
    as_json: AsJson = False,
) -> Result:
    """Check every event, offline; status 1 if one was changed, moved, added or removed."""
    from opencode_gate.cli.exit_codes import ExitCode
    from opencode_gate.config.paths import paths
    from opencode_gate.ledger.audit_check import verify as verified
    from opencode_gate.ledger.audit_files import read_head, seal_in

    file = paths().ledger_file if ledger is None else ledger
    # Before the ledger: what comes in between is in both.
    outside = read_head(paths().audit_head)
    with _trail(ledger) as trail:
        head = trail.head()
        last = max([event.seq for event in trail.latest(1)], default=0)
        if ledger is not None and outside is not None and outside.seq > last:
            # A copy ends where it was made.
            outside = None
        findings = []
        if last or head is not None or outside is not None:
            seal = seal_in(paths().audit_key if key is None else key)
            findings = verified(trail.events(), seal, head=head, outside=outside)
    state = Fact("state", "sound") if not findings else Fact("state", "broken", "red")
    facts = [
        Fact("ledger", str(file)),
        Fact("events", f"{last:,}"),
        state,
        *(Fact("", str(finding)) for finding in findings[:_SHOWN_FINDINGS]),
    ]
    if len(findings) > _SHOWN_FINDINGS:
        facts.append(Fact("", f"and {len(findings) - _SHOWN_FINDINGS:,} more (--json)"))
    return Result(
        data={
            "file": str(file),
            "events": last,
            "compared_with_head_outside": outside is not None,
            "findings": [finding._asdict() for finding in findings],
        },
        blocks=() if as_json else [Facts(facts)],
        talk=_not_checked(is_copy=ledger is not None) if outside is None and last else [],
        exit_code=ExitCode.CHECK_FAILED if findings else ExitCode.OK,
    )


@app.command()
def export(
    since: Since = None,
    after: Annotated[
        int | None, typer.Option(min=0, metavar="NUMBER", help="Only events behind this one.")
    ] = None,
    kind: Kind = None,
    ledger: LedgerFile = None,
) -> Result:
    """All events as JSON Lines on stdout; `--after` goes on where an earlier export ended."""
    from opencode_gate.cli.audit_view import event_line

    with _trail(ledger) as trail:
        start = max(_after(trail, since), 0 if after is None else min(after, sys.maxsize))
        for event in trail.events(after=start, kind=kind):
            sys.stdout.write(event_line(event))
    return Result(data={})


@contextmanager
def _trail(ledger: Path | None) -> "Iterator[AuditReader]":
    from opencode_gate.config.paths import paths
    from opencode_gate.ledger.sqlite.audit import open_audit

    trail = open_audit(paths().ledger_file if ledger is None else ledger)
    try:
        yield trail
    finally:
        trail.close()


def _after(trail: "AuditReader", since: str | None) -> int:
    """The number of the last event before `since`."""
    from opencode_gate.cli.windows import window_between
    from opencode_gate.core.clock import SystemClock
    from opencode_gate.core.local_time import local_zone_name

    window = window_between(since, None, now_us=SystemClock().now_us(), time_zone=local_zone_name())
    return 0 if window.since_us is None else trail.last_before(window.since_us)


def _not_checked(*, is_copy: bool) -> list[str]:
    if is_copy:
        return ["whether the copy is the latest cannot be told from it"]
    return ["the head outside the ledger is gone: an earlier copy of the ledger would not show"]
