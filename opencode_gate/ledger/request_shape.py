"""What a request was made of, added to its record where nothing waits for it.

The idea: the folding thread looks at a request's body once more before it lets go of it, and
keeps hashes and lengths. The invariants: no text gets from a body into a record; the key of the
hashes is this installation's own and leaves the machine with nothing else; without a key file
that can be kept, hashes still compare within one session.
"""

import logging
import os
import secrets
from pathlib import Path

import msgspec

from opencode_gate.config.paths import private_folder
from opencode_gate.core.errors import ConfigError
from opencode_gate.core.ids import new_ulid
from opencode_gate.ledger.records import ExchangeRecord
from opencode_gate.wire.prompt_parts import prompt_parts, tool_set_of, tool_sizes
from opencode_gate.wire.routes import Route

KEY_BYTES = 32

_logger = logging.getLogger(__name__)


class RequestShapes:
    """Looks at request bodies; for one thread.

    Attributes:
        tool_sets: the sizes of the tools in every set seen and not yet taken from here.
    """

    def __init__(self, key: bytes) -> None:
        self.tool_sets: dict[str, dict[str, int]] = {}
        self._key = key
        self._known_sets: set[str] = set()

    def shaped(self, exchange: ExchangeRecord, body: bytes) -> ExchangeRecord:
        """The record with its parts and its set of tools, as far as they can be read."""
        route = Route(wire_format=exchange.wire_format, operation=exchange.operation)
        parts = prompt_parts(route, body, self._key)
        if parts is None:
            return exchange
        tool_set = tool_set_of(parts)
        if tool_set is not None and tool_set not in self._known_sets:
            self._known_sets.add(tool_set)
            self.tool_sets[tool_set] = tool_sizes(route, body)
        return msgspec.structs.replace(exchange, parts=parts, tool_set=tool_set)


def installation_key(file: Path) -> bytes:
    """The key of this installation, made at its first use (0600)."""
    try:
        key = _read(file)
        if key is None:
            _make(file)
            key = _read(file)
    except (ConfigError, OSError) as error:
        _logger.warning("the key of prompt hashes cannot be kept: %s", error)
        key = None
    return secrets.token_bytes(KEY_BYTES) if key is None else key


def _read(file: Path) -> bytes | None:
    try:
        key = file.read_bytes()
    except FileNotFoundError:
        return None
    return key if len(key) == KEY_BYTES else None


def _make(file: Path) -> None:
    """Puts a new key there whole; of several processes that do so, the first one's stays."""
    private_folder(file.parent)
    draft = file.with_name(f".{file.name}.{new_ulid()}")
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0)
    descriptor = os.open(draft, flags, 0o600)
    try:
        with open(descriptor, "wb") as opened:
            opened.write(secrets.token_bytes(KEY_BYTES))
        try:
            os.link(draft, file)
        except OSError:
            # It is there: whole, by another process, or cut short by what else was done to it.
            # Or this disk has no hard links.
            if _read(file) is None:
                os.replace(draft, file)
    finally:
        draft.unlink(missing_ok=True)
