"""What of an audit trail is kept outside the ledger: its key, and how far it had come.

The idea: both lie beside the ledger and are found by its path. The invariant: the head file is
written whole in one write, and never set back unless the trail itself tells of it.
"""

import logging
import os
from pathlib import Path

from opencode_gate.core.errors import ConfigError, LedgerError
from opencode_gate.ledger.audit import AuditSeal, Head
from opencode_gate.ledger.key_files import kept_key, read_key
from opencode_gate.ledger.locks import try_lock

_HEAD_BYTES = 20 + 1 + 64 + 1

_logger = logging.getLogger(__name__)


def key_file(ledger_file: Path) -> Path:
    """Where the key of a ledger's trail is."""
    return ledger_file.with_name("audit.key")


def head_file(ledger_file: Path) -> Path:
    """Where the head of a ledger's trail is kept outside of it."""
    return ledger_file.with_suffix(".audit-head")


def seal_beside(ledger_file: Path) -> AuditSeal:
    """The seal of a ledger's trail; its key is made if there is none.

    Raises:
        LedgerError: it cannot be read or kept (`ledger-unwritable`).
    """
    file = key_file(ledger_file)
    try:
        return AuditSeal(kept_key(file))
    except (ConfigError, OSError) as error:
        raise LedgerError(
            "ledger-unwritable",
            f"the key of the audit trail {file} cannot be used: {error}",
            hint="check the file, or set OGATE_HOME to a folder you can write",
        ) from error


def seal_in(file: Path) -> AuditSeal:
    """The seal whose key is in a file, to check with; none is made.

    Raises:
        LedgerError: there is no key (`ledger-missing`), or it cannot be read.
    """
    try:
        key = read_key(file)
    except OSError as error:
        raise LedgerError(
            "ledger-unwritable", f"{file} cannot be read: {error.strerror}"
        ) from error
    if key is None:
        raise LedgerError(
            "ledger-missing",
            f"the key of the audit trail is not at {file}",
            hint="ogate audit verify --key FILE",
        )
    return AuditSeal(key)


def read_head(file: Path) -> Head | None:
    """The head in a file, `None` where there is none that can be read."""
    try:
        text = file.read_bytes()
    except OSError:
        return None
    return _head_in(text)


def write_head(file: Path, head: Head, *, may_set_back: bool = False) -> None:
    """Puts a head into a file, unless a later one is there. Never raises for the disk's sake."""
    try:
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
        descriptor = os.open(file, flags, 0o600)
        try:
            if not try_lock(descriptor):
                return  # Somebody else writes one; the next event of ours brings the head along.
            os.lseek(descriptor, 0, os.SEEK_SET)
            known = _head_in(os.read(descriptor, _HEAD_BYTES))
            if known is None or known.seq < head.seq or may_set_back:
                os.lseek(descriptor, 0, os.SEEK_SET)
                os.write(descriptor, f"{head.seq:020} {head.hash:64}\n".encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        _logger.warning("the head of the audit trail %s cannot be written: %s", file, error)


def _head_in(text: bytes) -> Head | None:
    try:
        number, hash = text.decode("ascii").split()
        return Head(int(number), hash)
    except ValueError:
        return None
