"""The journal: one file per gateway process, appended to before and after every exchange.

The idea: an append is one `write` of one JSON line, so what was written survives any death of
the process, and the hot path never waits for a database. A journal is locked for the life of
its process; whoever can take the lock may settle what is in it. Lines are

- `started`: the session, first in the file;
- `opened`: an exchange, before anything is sent upstream;
- `progressed`: what was seen of it so far;
- `finished`: the exchange as it ended;
- `folded`: ids that are committed to the ledger.

What is settled is left out of a file that has grown. The invariants: no method raises because of
the disk (a full one must not stop an answer; the first failure is kept in `failure`), and what is
not settled is in the file of that name at any moment, until somebody has settled it.
"""

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from opencode_gate.config.paths import private_folder
from opencode_gate.core.clock import Clock, SystemClock
from opencode_gate.core.errors import ConfigError, LedgerError
from opencode_gate.core.ids import new_ulid
from opencode_gate.core.semconv import ExchangeStatus
from opencode_gate.core.usage import TokenUsage
from opencode_gate.ledger.locks import is_same_file, remove_locked, replace_locked, try_lock
from opencode_gate.ledger.records import ExchangeRecord, SessionRecord

SUFFIX = ".jsonl"
_COMPACT_EVERY_BYTES = 1 << 20


class _Started(msgspec.Struct, tag="started", tag_field="event"):
    session: SessionRecord


class _Opened(msgspec.Struct, tag="opened", tag_field="event"):
    exchange: ExchangeRecord
    input_bytes: int | None = None


class _Progressed(msgspec.Struct, tag="progressed", tag_field="event"):
    id: str
    at_us: int
    usage: TokenUsage
    delivered_text_chars: int


class _Finished(msgspec.Struct, tag="finished", tag_field="event"):
    exchange: ExchangeRecord


class _Folded(msgspec.Struct, tag="folded", tag_field="event"):
    ids: Sequence[str]


_Line = _Started | _Opened | _Progressed | _Finished | _Folded

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[_Line] = msgspec.json.Decoder(_Line)
_finished_decoder = msgspec.json.Decoder(_Finished)


class Journal:
    """The journal of this process. Appends are safe from several threads."""

    def __init__(self, path: Path, descriptor: int, session: SessionRecord, clock: Clock) -> None:
        self.path = path
        self.failure: Exception | None = None
        self._descriptor = descriptor
        self._clock = clock
        self._lock = threading.Lock()
        # By id the latest line, and that of its progress; empty where none takes its values.
        self._unsettled: dict[str, bytes] = {}
        self._progress: dict[str, bytes] = {}
        self._size_bytes = 0
        self._compact_above_bytes = _COMPACT_EVERY_BYTES
        self._is_torn = False
        self._started = self._encoded(_Started(session))
        self._append(self._started)

    @classmethod
    def create(
        cls, folder: Path, *, session: SessionRecord, clock: Clock | None = None
    ) -> "Journal":
        """A new journal in `folder`, locked by this process.

        Raises:
            LedgerError: `ledger-unwritable`, the file cannot be made.
        """
        try:
            private_folder(folder)
            path, descriptor = _create_locked(folder)
        except (ConfigError, OSError) as error:
            raise LedgerError(
                "ledger-unwritable",
                f"cannot make a journal in {folder}: {error}",
                hint="check the folder and the free space, "
                "or set OGATE_HOME to a folder you can write",
            ) from error
        return cls(path, descriptor, session, SystemClock() if clock is None else clock)

    @property
    def process_id(self) -> str:
        """What this process is called where it holds something: the name of its journal."""
        return process_id_of(self.path)

    @property
    def is_settled(self) -> bool:
        """True while everything that was begun is committed to the ledger."""
        return not self._unsettled

    def opened(self, exchange: ExchangeRecord, *, input_bytes: int | None = None) -> bool:
        """An exchange is about to be sent upstream; false if that could not be written.

        Args:
            input_bytes: the size of its prompt, should nobody live to count the tokens.
        """
        text = self._unsettled[exchange.id] = self._encoded(_Opened(exchange, input_bytes))
        return self._append(text)

    def progressed(self, id: str, usage: TokenUsage, delivered_text_chars: int) -> None:
        """What was seen of a running exchange so far: totals, not increments."""
        line = _Progressed(id, self._clock.now_us(), usage, delivered_text_chars)
        text = self._progress[id] = self._encoded(line)
        self._append(text)

    def finished(self, exchange: ExchangeRecord) -> bytes | None:
        """An exchange ended. It may not have been `opened` (a denied one).

        Returns:
            Its line, for `finished_exchange`, also where the disk did not take it; `None` if it
            has values that no line takes.
        """
        text = self._encoded(_Finished(exchange))
        self._unsettled[exchange.id] = text or self._unsettled.get(exchange.id, b"")
        self._append(text)
        return text or None

    def folded(self, ids: Sequence[str]) -> None:
        """The exchanges are committed to the ledger."""
        mark = _encoder.encode(_Folded(ids))
        with self._lock:
            self._write(mark)
            for id in ids:
                self._unsettled.pop(id, None)
                self._progress.pop(id, None)
            if self._size_bytes > self._compact_above_bytes and self._descriptor >= 0:
                self._compact()

    def close(self) -> None:
        """Lets go of the lock; removes the file if everything in it is settled."""
        with self._lock:
            if self._descriptor < 0:
                return
            descriptor, self._descriptor = self._descriptor, -1
            try:
                if self._unsettled:
                    os.close(descriptor)
                else:
                    remove_locked(descriptor, self.path)
            except OSError as error:
                self._remember(error)

    def _append(self, text: bytes) -> bool:
        with self._lock:
            return self._write(text)

    def _encoded(self, line: _Line) -> bytes:
        """Nothing, where there are values that no line takes."""
        try:
            return _encoder.encode(line)
        except (ValueError, OverflowError) as error:
            # A name that is no Unicode or a count beyond 64 bits, out of a provider's answer.
            self._remember(error)
            return b""

    def _write(self, text: bytes) -> bool:
        if not text or self._descriptor < 0:
            return False
        line = b"\n" + text + b"\n" if self._is_torn else text + b"\n"
        try:
            written = os.write(self._descriptor, line)
            while written < len(line):
                self._is_torn = True
                written += os.write(self._descriptor, line[written:])
        except OSError as error:
            self._remember(error)
            return False
        self._is_torn = False
        self._size_bytes += len(line)
        return True

    def _compact(self) -> None:
        """Leaves out what is settled; where that cannot be, the file only goes on growing."""
        # Copied at once: what begins meanwhile, in another thread, is appended behind it.
        lines = (self._started, *self._unsettled.values(), *self._progress.values())
        with suppress(OSError):
            if len(lines) == 1:
                # Also where there is no room for another file, or no replacing of an open one.
                os.ftruncate(self._descriptor, 0)
                self._size_bytes = 0
                self._write(self._started)
            else:
                content = b"".join([line + b"\n" for line in lines if line])
                self._descriptor = replace_locked(self._descriptor, self.path, content)
                self._size_bytes, self._is_torn = len(content), False
        self._compact_above_bytes = self._size_bytes + _COMPACT_EVERY_BYTES

    def _remember(self, error: Exception) -> None:
        if self.failure is None:
            self.failure = error


def _create_locked(folder: Path) -> tuple[Path, int]:
    """A new file that was locked before anyone could take it for an orphan and remove it."""
    while True:
        path = folder / f"{new_ulid()}{SUFFIX}"
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_APPEND | getattr(os, "O_BINARY", 0)
        descriptor = os.open(path, flags, 0o600)
        if try_lock(descriptor) and is_same_file(descriptor, path):
            return path, descriptor
        os.close(descriptor)


@dataclass(slots=True)
class JournalContents:
    """A journal read back.

    Attributes:
        session: `None` if the process died before its first line was whole.
        exchanges: by id, the latest that is known of each: finished, or open with the tokens
            and `duration_us` of its last progress.
        input_bytes: the size of the prompt, by id, where it was told.
        delivered_text_chars: of those that are open, by id, as far as progress told.
        folded_ids: committed to the ledger already.
        last_seen_us: the latest time in the file.
    """

    session: SessionRecord | None = None
    exchanges: dict[str, ExchangeRecord] = field(default_factory=dict)
    input_bytes: dict[str, int] = field(default_factory=dict)
    delivered_text_chars: dict[str, int] = field(default_factory=dict)
    folded_ids: set[str] = field(default_factory=set)
    last_seen_us: int = 0


def read_journal(path: Path) -> JournalContents:
    """What a journal says, one entry per exchange; a torn or damaged line counts as unwritten.

    Raises:
        OSError: the file cannot be read.
    """
    contents = JournalContents()
    with path.open("rb") as file:
        for text in file:
            try:
                line = _decoder.decode(text)
            except msgspec.DecodeError:
                continue
            _apply(line, contents)
    return contents


def finished_line(exchange: ExchangeRecord) -> bytes:
    """The line of an exchange that ended.

    Raises:
        ValueError, OverflowError: it has values that no line takes.
    """
    return _encoder.encode(_Finished(exchange))


def finished_exchange(line: bytes) -> ExchangeRecord:
    """The exchange of a line that says how it ended.

    Raises:
        msgspec.DecodeError: it is no such line.
    """
    return _finished_decoder.decode(line).exchange


def process_id_of(path: Path) -> str:
    """What the process is called that a journal belongs to."""
    return path.name.removesuffix(SUFFIX)


def journal_file(folder: Path, process_id: str) -> Path:
    """The journal of a process."""
    return folder / f"{process_id}{SUFFIX}"


def session_id_of(path: Path) -> str | None:
    """The session a journal belongs to, from its first line alone; `None` if it cannot be read."""
    try:
        with path.open("rb") as file:
            line = _decoder.decode(file.readline())
    except (OSError, msgspec.DecodeError):
        return None
    return line.session.id if isinstance(line, _Started) else None


def _apply(line: _Line, contents: JournalContents) -> None:
    match line:
        case _Started(session):
            contents.session = session
            contents.last_seen_us = max(contents.last_seen_us, session.started_at_us)
        case _Opened(exchange, input_bytes):
            contents.exchanges.setdefault(exchange.id, exchange)
            if input_bytes is not None:
                contents.input_bytes[exchange.id] = input_bytes
            contents.last_seen_us = max(contents.last_seen_us, exchange.started_at_us)
        case _Finished(exchange):
            contents.exchanges[exchange.id] = exchange
            duration_us = exchange.duration_us if exchange.duration_us is not None else 0
            ended_at_us = exchange.started_at_us + duration_us
            contents.last_seen_us = max(contents.last_seen_us, ended_at_us)
        case _Progressed():
            _apply_progress(line, contents)
        case _Folded(ids):
            contents.folded_ids.update(ids)


def _apply_progress(line: _Progressed, contents: JournalContents) -> None:
    contents.last_seen_us = max(contents.last_seen_us, line.at_us)
    exchange = contents.exchanges.get(line.id)
    if exchange is None or exchange.status is not ExchangeStatus.OPEN:
        return
    contents.delivered_text_chars[line.id] = line.delivered_text_chars
    contents.exchanges[line.id] = msgspec.structs.replace(
        exchange,
        duration_us=max(0, line.at_us - exchange.started_at_us),
        usage=line.usage,
    )


@dataclass(slots=True)
class Claim:
    """An orphaned journal, held. It is removed at the end of `claimed` if `is_settled` is set."""

    path: Path
    is_settled: bool = False


@contextmanager
def claimed(path: Path) -> Iterator[Claim | None]:
    """Holds an orphaned journal; `None` if a living process holds it or it is gone.

    Raises:
        OSError: the file cannot be opened or removed.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        yield None
        return
    claim = Claim(path)
    try:
        is_mine = try_lock(descriptor) and is_same_file(descriptor, path)
        yield claim if is_mine else None
    finally:
        if claim.is_settled:
            remove_locked(descriptor, path)
        else:
            os.close(descriptor)


def journals(folder: Path) -> list[Path]:
    """All journals of a folder, oldest first; none if there is no folder."""
    return sorted(folder.glob(f"*{SUFFIX}"))


def is_living(path: Path) -> bool:
    """Whether the process that writes a journal lives.

    It is asked by its lock, which is let go of at once: whoever would settle a dead one in that
    instant leaves it to the next start.
    """
    try:
        with claimed(path) as claim:
            return claim is None and path.exists()
    except OSError:
        return False


def orphans(folder: Path) -> list[Path]:
    """The journals whose process is dead, oldest first; none that cannot be opened."""
    found = []
    for path in journals(folder):
        with suppress(OSError), claimed(path) as claim:
            if claim is not None:
                found.append(path)
    return found
