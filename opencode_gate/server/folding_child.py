"""The folding process: `python -m opencode_gate.server fold`, a child of the gateway.

The idea: pricing, hashing and the database's work happen where they share neither an interpreter
nor a thread with a request. It hears of exchanges over a socket and says which are committed.
The invariants: at the end of what it hears it commits what it has, and ends, so a gateway that
was killed leaves nothing undone that it had told; it outlives nobody.
"""

import contextlib
import io
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from opencode_gate.catalog.token_counter import TokenCounter
from opencode_gate.config.paths import Paths, paths
from opencode_gate.config.settings import load_settings
from opencode_gate.core.errors import LedgerError
from opencode_gate.ledger.folding import Folder
from opencode_gate.ledger.folding_frames import (
    Begin,
    Drain,
    Drained,
    End,
    Failing,
    Folded,
    Hurry,
    Order,
    Problem,
    Recover,
    Report,
    Submit,
    delivered_of,
    frame,
    orders,
)
from opencode_gate.ledger.journal import finished_exchange
from opencode_gate.ledger.records import ExchangeRecord, folded_exchange
from opencode_gate.ledger.request_shape import RequestShapes, installation_key
from opencode_gate.server.prices import price_book
from opencode_gate.server.socket_handoff import unpack

BODIES_MAX_BYTES = 32 * 1024 * 1024
"""Bodies that wait to be looked at; beyond it nothing more is heard for a while."""

_GATHER_S = 0.05
_NICE = 5
_BUFFER_BYTES = 1 << 18
_IGNORED = ("SIGTERM", "SIGINT", "SIGHUP")


class _Marks:
    """The gateway's journal, as far as folding concerns it; the gateway itself writes it."""

    def __init__(self, process_id: str) -> None:
        self.process_id = process_id
        self.is_settled = False

    def folded(self, ids: Sequence[str]) -> None:
        """Told with all the gateway has to know, by `_Voice.folded`."""

    def close(self) -> None:
        """Nothing is held."""


class _Voice:
    """What is said to the gateway, by two threads; if it is gone there is nobody to tell."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def say(self, report: Report) -> None:
        """One message up."""
        with self._lock, contextlib.suppress(OSError):
            self._connection.sendall(frame(report))

    def folded(self, exchanges: Sequence[ExchangeRecord]) -> None:
        """They are committed."""
        self.say(Folded([folded_exchange(exchange) for exchange in exchanges]))

    def failing(self, error: LedgerError | None) -> None:
        """A batch could not be committed, or one could again."""
        self.say(Failing(None if error is None else Problem.of(error)))


def fold() -> int:
    """Folds what the gateway tells of, to its end; the exit status of the process."""
    _stand_back()
    connection = unpack(sys.stdin.readline().strip())
    heard = _heard(connection)
    begin = next(heard, (None, b""))[0]
    if not isinstance(begin, Begin):
        return 0
    marks, voice = _Marks(begin.process_id), _Voice(connection)
    folder = _folder(begin, marks, voice, paths())
    try:
        _obey(heard, folder, marks, voice)
        return 0
    except LedgerError as error:
        # The next start finds all of it in the journal.
        return error.exit_code
    finally:
        folder.stop()


def _stand_back() -> None:
    """Requests come first, and who stops the gateway waits for this process too."""
    if hasattr(os, "nice"):
        os.nice(_NICE)
    for name in _IGNORED:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def _heard(connection: socket.socket) -> Iterator[tuple[Order, bytes]]:
    with (
        contextlib.suppress(OSError),
        io.BufferedReader(socket.SocketIO(connection, "r"), _BUFFER_BYTES) as file,
    ):
        yield from orders(file)


def _folder(begin: Begin, marks: _Marks, voice: _Voice, home: Paths) -> Folder:
    settings = load_settings(home, os.environ)
    return Folder(
        Path(begin.journal_dir),
        Path(begin.ledger_file),
        price_book(begin.costs, home, settings).price,
        journal=marks,
        count_text=TokenCounter().count,
        shapes=RequestShapes(installation_key(home.prompt_key)),
        keep_parts_days=settings.ledger.keep_parts_days,
        on_folded=voice.folded,
        on_failure=voice.failing,
        gather_s=_GATHER_S,
    )


def _obey(
    heard: Iterator[tuple[Order, bytes]], folder: Folder, marks: _Marks, voice: _Voice
) -> None:
    """Does what it is told until `End`; a gateway that was killed says none.

    Raises:
        LedgerError: it was killed, and what it had told cannot be committed now.
    """
    for order, body in heard:
        match order:
            case Submit(line, has_body, read):
                exchange = finished_exchange(line)
                folder.wait_for_room(BODIES_MAX_BYTES)
                folder.submit(exchange, body if has_body else None, delivered_of(read))
            case Drain(number):
                voice.say(_drained(folder, number))
            case Hurry():
                folder.hurry()
            case Recover():
                folder.recover()
            case End(is_settled):
                marks.is_settled = is_settled
                return
            case _:
                continue
    folder.drain()


def _drained(folder: Folder, number: int) -> Drained:
    try:
        folder.drain()
    except LedgerError as error:
        return Drained(number, Problem.of(error))
    return Drained(number)
