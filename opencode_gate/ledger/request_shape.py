"""What a request was made of, added to its record where nothing waits for it.

The idea: who folds looks at a request's body once more before it is let go of, and
keeps hashes and lengths. The invariants: no text gets from a body into a record; the key of the
hashes is this installation's own and leaves the machine with nothing else; without a key file
that can be kept, hashes still compare within one session.
"""

import logging
import secrets
from pathlib import Path

import msgspec

from opencode_gate.core.errors import ConfigError
from opencode_gate.ledger.key_files import KEY_BYTES, kept_key
from opencode_gate.ledger.records import ExchangeRecord
from opencode_gate.wire.prompt_parts import prompt_parts, tool_set_of, tool_sizes
from opencode_gate.wire.routes import Route

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
        return kept_key(file)
    except (ConfigError, OSError) as error:
        _logger.warning("the key of prompt hashes cannot be kept: %s", error)
        return secrets.token_bytes(KEY_BYTES)
