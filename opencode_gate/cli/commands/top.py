"""`ogate top`: what runs on this machine now, redrawn until somebody leaves.

The invariant: it only reads, and a ledger that cannot be read for a moment is said on the screen
and tried again.
"""

import sys
from typing import TYPE_CHECKING

from opencode_gate.cli.options import AsJson
from opencode_gate.cli.render import Result
from opencode_gate.core.errors import LedgerError, UsageError

if TYPE_CHECKING:
    from opencode_gate.session.activity import Watch

_REDRAW_S = 0.5
_LEAVE = frozenset("qQ\x03\x04\x1b")


def command(as_json: AsJson = False) -> Result | int:
    """What runs now, and what it costs so far.

    Running sessions, requests in flight, tokens per second, spend and the last errors; `q` or
    Ctrl-C leaves. With --json, one look and no screen.
    """
    from opencode_gate.cli.top_view import activity_document

    watch = _watch()
    if as_json:
        return Result(data=activity_document(watch.look()))
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(
            "no-terminal",
            "`ogate top` draws on a terminal, and there is none",
            hint="ogate top --json, or ogate logs tail",
        )
    return _show(watch)


def _show(watch: "Watch") -> int:
    from rich.live import Live

    from opencode_gate.cli.pressed_keys import pressed, single_keys
    from opencode_gate.cli.render import stdout_console
    from opencode_gate.cli.top_view import screen

    console = stdout_console()
    activity, problem = None, ""
    try:
        # The live screen writes over the one before and erases nothing, so nothing flickers.
        with single_keys(), Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                try:
                    activity, problem = watch.look(), ""
                except LedgerError as error:
                    problem = error.message
                width, height = console.size
                live.update(screen(activity, problem, width=width, height=height), refresh=True)
                if _LEAVE & set(pressed(_REDRAW_S)):
                    return 0
    except (KeyboardInterrupt, EOFError):
        return 0


def _watch() -> "Watch":
    from opencode_gate.cli.price_book import price_book
    from opencode_gate.config.paths import paths
    from opencode_gate.core.local_time import local_zone_name
    from opencode_gate.ledger.sqlite import open_store
    from opencode_gate.ledger.sqlite.governance import open_governance
    from opencode_gate.session.activity import Watch
    from opencode_gate.session.operator import os_user

    places = paths()
    return Watch(
        open_ledger=lambda: open_store(places.ledger_file, read_only=True),
        open_governance=lambda: open_governance(places.ledger_file, read_only=True),
        user=os_user(),
        journals=places.journals,
        price=price_book().price,
        time_zone=local_zone_name(),
    )
