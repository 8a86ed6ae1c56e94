"""Processes that use a ledger and are killed: `python -m tests.support.ledger_children WHAT …`.

Each says on stdout what it has done, one line a deed, after it is done.
"""

import sys
from functools import partial
from pathlib import Path

import msgspec

from opencode_gate.core.usage import TokenUsage
from opencode_gate.ledger import journal as journal_module
from opencode_gate.ledger.folding import Folder
from opencode_gate.ledger.journal import Journal
from opencode_gate.ledger.records import ExchangeRecord
from opencode_gate.ledger.recovery import settle_orphans
from opencode_gate.ledger.sqlite import open_store
from tests.support.child_processes import process_of, say
from tests.support.ledger_records import a_session, an_exchange, an_open_exchange

child = partial(process_of, __name__)
"""A process of this module."""


def usage_of(number: int) -> TokenUsage:
    """Odd counts that name their exchange."""
    return TokenUsage(input_uncached=1000 + number, output=100_000 + number)


def unpriced(exchange: ExchangeRecord) -> ExchangeRecord:
    return exchange


def append(folder: str, session_id: str) -> None:
    """Three overlapping exchanges at a time, for ever."""
    journal = Journal.create(Path(folder), session=a_session(id=session_id))
    say("journal", journal.path)
    number = 0
    while True:
        batch = [an_open_exchange(session_id=session_id) for _ in range(3)]
        for exchange in batch:
            journal.opened(exchange)
            say("opened", exchange.id)
        for step in range(1, 4):
            for exchange in batch:
                journal.progressed(exchange.id, TokenUsage(input_uncached=7, output=step), 0)
                say("progressed", exchange.id, step)
        for exchange in batch[:2]:
            number += 1
            journal.finished(_ended(exchange, number))
            say("finished", exchange.id, number)


def serve(folder: str, ledger_file: str, session_id: str, compact_every_bytes: str = "") -> None:
    """Exchanges through a journal and a folding thread, for ever."""
    if compact_every_bytes:
        journal_module._COMPACT_EVERY_BYTES = int(compact_every_bytes)
    journal = Journal.create(Path(folder), session=a_session(id=session_id))
    folding = Folder(Path(folder), Path(ledger_file), unpriced, journal=journal)
    say("journal", journal.path)
    number = 0
    while True:
        exchange = an_open_exchange(session_id=session_id)
        journal.opened(exchange)
        say("opened", exchange.id)
        number += 1
        ended = _ended(exchange, number)
        journal.finished(ended)
        folding.submit(ended)
        say("finished", exchange.id, number)


def fold(folder: str, ledger_file: str, session_id: str, count: str) -> None:
    """Waits for a line, makes the ledger or opens it, folds `count` exchanges, ends cleanly."""
    journal = Journal.create(Path(folder), session=a_session(id=session_id))
    say("ready")
    sys.stdin.readline()
    folding = Folder(Path(folder), Path(ledger_file), unpriced, journal=journal)
    for number in range(int(count)):
        exchange = an_exchange(session_id=session_id, usage=usage_of(number))
        journal.finished(exchange)
        folding.submit(exchange)
        if number % 10 == 0:
            folding.drain()
    folding.close()
    say("closed")


def settle(folder: str, ledger_file: str) -> None:
    """Waits for a line, then settles what others left."""
    say("ready")
    sys.stdin.readline()
    store = open_store(Path(ledger_file))
    say(settle_orphans(Path(folder), store, unpriced))
    store.close()


def _ended(exchange: ExchangeRecord, number: int) -> ExchangeRecord:
    ended = an_exchange(usage=usage_of(number))
    return msgspec.structs.replace(ended, id=exchange.id, session_id=exchange.session_id)


if __name__ == "__main__":
    {"append": append, "serve": serve, "fold": fold, "settle": settle}[sys.argv[1]](*sys.argv[2:])
