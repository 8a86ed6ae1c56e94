"""Processes that lease, charge and die, for the tests of budgets shared by several.

Run as `python -m tests.support.governance_children NAME ARGUMENTS`.
"""

import contextlib
import sys
from functools import partial
from pathlib import Path

import msgspec

from opencode_gate.core.errors import LedgerError
from opencode_gate.ledger.folding import Folder
from opencode_gate.ledger.governance_store import GovernanceStore, LeaseWish, WindowKey
from opencode_gate.ledger.journal import Journal
from opencode_gate.ledger.records import Charge, ExchangeRecord
from opencode_gate.ledger.sqlite import open_store
from opencode_gate.ledger.sqlite.governance import open_governance
from tests.support.child_processes import process_of, say
from tests.support.ledger_records import a_session, an_exchange, an_open_exchange

KEYS = (WindowKey("session:s/session/usd", 0), WindowKey("user:ada/day/usd", 5))
STEPS = (
    "journal",
    "leased",
    "opened",
    "finished",
    "folded",
    "marked",
    "given_back",
    "ended",
    "closed",
)
"""Where `spend` can be told to stop and wait to be killed."""

NEEDED = 1_000
COST = 600
LEASED = 2 * NEEDED

child = partial(process_of, __name__)
"""A process of this module."""


def race(ledger_file: str, process_id: str, limit: str, needed: str) -> None:
    """Waits for a line; then leases, charges a part, and so on until nothing can be had."""
    store = open_governance(Path(ledger_file))
    ledger = open_store(Path(ledger_file))
    say("ready")
    sys.stdin.readline()
    wishes = [LeaseWish(key, int(limit), int(needed), int(needed)) for key in KEYS]
    granted = 0
    while all(lease.amount for lease in store.lease(process_id, wishes)):
        granted += 1
        if granted % 3 == 0:
            continue  # Held to the end.
        charges = tuple(Charge(*key, "usd", int(needed)) for key in KEYS)
        cost = int(needed) if granted % 2 else int(needed) // 3
        ledger.fold([an_exchange(cost_nano_usd=cost, charges=charges)], process_id=process_id)
    say(granted)


def spend(folder: str, ledger_file: str, last_step: str) -> None:
    """One exchange as a gateway has it, up to a step; then it waits."""

    def reached(step: str) -> None:
        if step == last_step:
            say(journal.process_id, exchange.id)
            sys.stdin.readline()

    journal = Journal.create(Path(folder), session=a_session(id="01S"))
    charges = tuple(Charge(*key, "usd", NEEDED) for key in KEYS)
    opened = an_open_exchange(session_id="01S", charges=charges)
    exchange = msgspec.structs.replace(
        an_exchange(session_id="01S", cost_nano_usd=COST, charges=charges), id=opened.id
    )
    store = open_governance(Path(ledger_file))
    ledger = open_store(Path(ledger_file))
    reached("journal")
    wishes = [LeaseWish(key, 10**9, LEASED, LEASED) for key in KEYS]
    store.lease(journal.process_id, wishes)
    reached("leased")
    journal.opened(opened)
    reached("opened")
    journal.finished(exchange)
    reached("finished")
    ledger.fold([exchange], process_id=journal.process_id)
    reached("folded")
    journal.folded([exchange.id])
    reached("marked")
    store.give_back(journal.process_id, dict.fromkeys(KEYS, 300))
    reached("given_back")
    ledger.end_process(journal.process_id)
    reached("ended")
    journal.close()
    reached("closed")


def serve(folder: str, ledger_file: str) -> None:
    """Exchanges as a gateway has them, with a folding thread, for ever; three run at a time."""
    journal = Journal.create(Path(folder), session=a_session(id="01S"))
    folding = Folder(Path(folder), Path(ledger_file), lambda each: each, journal=journal)
    store = _opened(Path(ledger_file))
    charges = tuple(Charge(*key, "usd", NEEDED) for key in KEYS)
    running: list[ExchangeRecord] = []
    number = 0
    while True:
        number += 1
        store.lease(journal.process_id, [LeaseWish(key, 10**12, NEEDED, LEASED) for key in KEYS])
        opened = an_open_exchange(session_id="01S", charges=charges)
        journal.opened(opened)
        say("opened", opened.id)
        running.append(opened)
        if len(running) == 3:
            ended = msgspec.structs.replace(
                an_exchange(session_id="01S", cost_nano_usd=number, charges=charges),
                id=running.pop(0).id,
            )
            journal.finished(ended)
            folding.submit(ended)
            if number % 7 == 0:
                folding.hurry()
            say("finished", ended.id, number)


def _opened(ledger_file: Path) -> GovernanceStore:
    """Its store, however long others, who write without a pause, keep it from the ledger."""
    while True:
        with contextlib.suppress(LedgerError):
            return open_governance(ledger_file)


if __name__ == "__main__":
    {"race": race, "spend": spend, "serve": serve}[sys.argv[1]](*sys.argv[2:])
