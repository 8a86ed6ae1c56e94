"""How the budgets above sessions stand now, or stood at their end, read from the ledger.

The invariant: nothing is written.
"""

from collections.abc import Iterable
from pathlib import Path

from opencode_gate.core.errors import PolicyDenied
from opencode_gate.core.local_time import local_zone_name
from opencode_gate.governance.standing import (
    Above,
    BudgetStanding,
    above_session,
    standings_above,
)
from opencode_gate.ledger.governance_store import GovernanceStore
from opencode_gate.ledger.records import ExchangeRecord, SessionRecord


def standings_now(
    store: GovernanceStore, journals_folder: Path, *, user: str, at_us: int
) -> tuple[BudgetStanding, ...]:
    """How the budgets of a user stand, and those above all that runs on this machine.

    Raises:
        LedgerError: the ledger cannot be read.
        PolicyDenied: `policy-unreadable`.
    """
    from opencode_gate.ledger.journal import is_living, journals, read_journal

    above = [Above(user=user)]
    for path in journals(journals_folder):
        try:
            contents = read_journal(path) if is_living(path) else None
        except OSError:
            continue
        if contents is not None and contents.session is not None:
            above += above_session(contents.session, contents.exchanges.values())
    return standings_above(store, above, at_us=at_us, time_zone=local_zone_name())


def standings_of_session(
    ledger_file: Path,
    session: SessionRecord,
    exchanges: Iterable[ExchangeRecord],
    *,
    now_us: int,
) -> tuple[BudgetStanding, ...]:
    """How the budgets above a session stand, in the windows in which it ended or now.

    Rules that cannot be read have no budgets here: an account is shown nevertheless.

    Raises:
        LedgerError: the ledger cannot be read.
    """
    from opencode_gate.ledger.sqlite.governance import open_governance

    above = above_session(session, exchanges)
    at_us = now_us if session.ended_at_us is None else session.ended_at_us
    store = open_governance(ledger_file, read_only=True)
    try:
        return standings_above(store, above, at_us=at_us, time_zone=local_zone_name())
    except PolicyDenied:
        return ()
    finally:
        store.close()
