"""What processes that died left in their journals, put into the ledger.

The idea: folding is an upsert by ULID, so doing it twice is doing it once. That is all the
recovery there is: read the journal of a dead process again, close what is open, commit, remove.
The invariants: a journal goes only after its rows are committed, a journal whose process lives
is never touched, and what a process held of budgets is returned only after all it spent is
charged.
"""

import logging
from collections.abc import Container
from pathlib import Path

import msgspec

from opencode_gate.core.errors import LedgerError
from opencode_gate.core.semconv import ExchangeStatus, Operation, UsageQuality
from opencode_gate.ledger.calibration import Calibration
from opencode_gate.ledger.committing import Price, commit
from opencode_gate.ledger.journal import (
    JournalContents,
    claimed,
    journal_file,
    journals,
    orphans,
    process_id_of,
    read_journal,
    session_id_of,
)
from opencode_gate.ledger.records import ExchangeRecord
from opencode_gate.ledger.store import Store
from opencode_gate.wire.estimates import estimated_tokens, quality_of_estimate

_logger = logging.getLogger(__name__)


def settle_orphans(journal_dir: Path, store: Store, price: Price) -> int:
    """Folds the journals of dead processes and removes them; how many exchanges that recovered.

    What was open is closed as `interrupted` with the tokens seen so far, `estimated`. A session
    that has no living gateway any more and no end gets the last time its journal knows. What the
    processes held of budgets is returned, also where one left no journal.

    Raises:
        LedgerError: the database failed; the journals stay.
    """
    # Before looking for journals: one is there before its process holds anything.
    holders = store.lease_holders()
    dead = orphans(journal_dir)
    living = [path for path in journals(journal_dir) if path not in dead]
    living_sessions = {session_id_of(path) for path in living}
    recovered = 0
    for path in dead:
        try:
            with claimed(path) as claim:
                if claim is not None:
                    contents = read_journal(path)
                    if contents.session is not None:
                        store.add_session(contents.session)
                    recovered += _settle(contents, store, price, process_id_of(path))
                    _settle_session(contents, store, living_sessions)
                    store.end_process(process_id_of(path))
                    claim.is_settled = True
        except LedgerError:
            raise
        except Exception:
            # Whatever is wrong with one: it is kept, and those of others are settled.
            _logger.exception("the journal %s is left as it is", path)
    for process_id in holders:
        if not journal_file(journal_dir, process_id).exists():
            store.end_process(process_id)
    return recovered


def _settle_session(
    contents: JournalContents, store: Store, living_sessions: Container[str | None]
) -> None:
    session = contents.session
    if (
        session is None
        or session.id in living_sessions
        or store.session(session.id).ended_at_us is not None
    ):
        return
    store.end_session(session.id, ended_at_us=contents.last_seen_us, exit_status=None)


def _settle(contents: JournalContents, store: Store, price: Price, process_id: str) -> int:
    calibration = Calibration(known=store.token_ratios())
    unfolded = [
        _closed(contents, exchange, calibration)
        for id, exchange in contents.exchanges.items()
        if id not in contents.folded_ids
    ]
    commit(store, unfolded, price, process_id)
    return len(unfolded)


def _closed(
    contents: JournalContents, exchange: ExchangeRecord, calibration: Calibration
) -> ExchangeRecord:
    """An exchange as it is recorded when its process died."""
    if exchange.status is not ExchangeStatus.OPEN:
        return exchange
    return msgspec.structs.replace(
        seen_so_far(contents, exchange, calibration),
        status=ExchangeStatus.INTERRUPTED,
        error_type="gateway_died",
    )


def seen_so_far(
    contents: JournalContents, exchange: ExchangeRecord, calibration: Calibration | None = None
) -> ExchangeRecord:
    """An open exchange with what its journal tells of its tokens, estimated where need be."""
    usage = exchange.usage
    corrected = Calibration() if calibration is None else calibration
    input_bytes = contents.input_bytes.get(exchange.id)
    is_generation = exchange.operation is Operation.GENERATE
    if is_generation and usage.input_tokens is None and input_bytes is not None:
        uncached = estimated_tokens(input_bytes, exchange.wire_format)
        uncached = round(uncached * corrected.factor(exchange, "input_size"))
        usage = msgspec.structs.replace(usage, input_uncached=uncached)
    delivered_chars = contents.delivered_text_chars.get(exchange.id, 0)
    delivered_tokens = estimated_tokens(delivered_chars, exchange.wire_format)
    delivered_tokens = round(delivered_tokens * corrected.factor(exchange, "output_size"))
    # Providers send a first output count of one or so long before the true one.
    if delivered_tokens > 0 and (usage.output is None or usage.output < delivered_tokens):
        usage = msgspec.structs.replace(usage, output=delivered_tokens)
    return msgspec.structs.replace(
        exchange,
        usage=usage,
        usage_quality=UsageQuality.UNKNOWN
        if usage.is_empty
        else quality_of_estimate(exchange.request_model, is_reasoning_hidden=False),
    )
