"""What other gateway processes have not yet put into the ledger of one session.

The idea: an exchange is in its process's journal from before it is sent until it is committed, so
the journals say whether the ledger has all of a session, whichever processes served it.
"""

from pathlib import Path
from typing import NamedTuple

from opencode_gate.core.semconv import ExchangeStatus
from opencode_gate.ledger.journal import is_living, journals, process_id_of, read_journal


class Unfolded(NamedTuple):
    """Whether exchanges of a session are not in the ledger yet.

    Attributes:
        has_ended: some that have ended.
        has_running: some that had not ended when it was looked.
        is_left: some of a process that died.
    """

    has_ended: bool = False
    has_running: bool = False
    is_left: bool = False


def unfolded(folder: Path, session_id: str, *, but: str) -> Unfolded:
    """What the journals of a folder hold of a session, but for that of one process.

    Raises:
        OSError: a journal cannot be read.
    """
    has_ended = has_running = is_left = False
    for path in journals(folder):
        if process_id_of(path) == but:
            continue
        # Before it is read: what dies meanwhile is looked at again.
        is_dead = not is_living(path)
        for status in _unfolded_in(path, session_id):
            is_left = is_left or is_dead
            if status is ExchangeStatus.OPEN:
                has_running = True
            else:
                has_ended = True
    return Unfolded(has_ended, has_running, is_left)


def _unfolded_in(path: Path, session_id: str) -> list[ExchangeStatus]:
    try:
        contents = read_journal(path)
    except FileNotFoundError:
        # Its process has ended, and all it held is in the ledger.
        return []
    except (PermissionError, IsADirectoryError):
        # No gateway process of this user writes it.
        return []
    return [
        exchange.status
        for id, exchange in contents.exchanges.items()
        if exchange.session_id == session_id and id not in contents.folded_ids
    ]
