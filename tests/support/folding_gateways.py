"""A process that hands exchanges to a folding process for ever, to be killed.

`python -m tests.support.folding_gateways FOLDER LEDGER SESSION`; it says on stdout the number of
its folding process, and each deed after it is done.
"""

import asyncio
import sys
from functools import partial
from pathlib import Path

from opencode_gate.ledger.folding_frames import Begin
from opencode_gate.ledger.governance_store import LeaseWish, WindowKey
from opencode_gate.ledger.journal import Journal
from opencode_gate.ledger.records import Charge
from opencode_gate.ledger.sqlite.governance import open_governance
from opencode_gate.server.folding_process import FoldingProcess
from tests.support.child_processes import process_of, say
from tests.support.ledger_records import a_session, an_exchange, an_open_exchange

KEY = WindowKey("user:ada/day/usd", 7)
COST_NANO_USD = 1_234_567
RESERVED_NANO_USD = 2_000_000
BODY = b'{"model":"m","messages":[{"role":"user","content":"hello"}]}'

gateway = partial(process_of, __name__)
"""A process of this module."""


def folding_of(journal: Journal, ledger_file: Path, **more: object) -> FoldingProcess:
    """A folding process for a journal."""
    begin = Begin(
        journal_dir=str(journal.path.parent),
        ledger_file=str(ledger_file),
        process_id=journal.process_id,
    )
    return FoldingProcess(begin, journal, **more)  # type: ignore[arg-type]


async def serve(folder: str, ledger_file: str, session_id: str) -> None:
    """Charged exchanges, one after the other, for ever."""
    journal = Journal.create(Path(folder), session=a_session(id=session_id))
    governance = open_governance(Path(ledger_file))
    governance.lease(journal.process_id, [LeaseWish(KEY, 10**12, 10**9, 10**9)])
    governance.close()
    folding = folding_of(journal, Path(ledger_file))
    folding.recover()
    say("folding", folding.process_id)
    charge = Charge(*KEY, "usd", RESERVED_NANO_USD)
    while True:
        opened = an_open_exchange(session_id=session_id, charges=(charge,))
        journal.opened(opened)
        ended = an_exchange(
            id=opened.id, session_id=session_id, charges=(charge,), cost_nano_usd=COST_NANO_USD
        )
        folding.submit(ended, journal.finished(ended), BODY, None)
        say("finished", ended.id)
        await asyncio.sleep(0)


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:]))
