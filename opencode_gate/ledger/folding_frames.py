"""What the gateway and its folding process say to each other, as bytes.

The idea: an exchange travels as the very line that stands in the journal, so it is encoded once;
a request's body lies behind its message as it is. A frame is the lengths of both, four bytes
each, and both. The invariant: a frame that is cut short is no frame, and everything before it
counts.
"""

import struct
from collections.abc import Iterator
from typing import Any, Protocol, TypeAlias

import msgspec

from opencode_gate.core.errors import LedgerError
from opencode_gate.core.usage import TokenUsage
from opencode_gate.ledger.records import FoldedExchange
from opencode_gate.wire.metering import Delivered

_LENGTHS = struct.Struct("<II")


class Begin(msgspec.Struct, tag="begin", array_like=True, kw_only=True):
    """The first message down: whose exchanges they are, and where they go.

    Attributes:
        process_id: of the gateway, as its journal is called.
        costs: by provider and model, the prices that the agent's own configuration states, in
            the shape of models.dev.
    """

    journal_dir: str
    ledger_file: str
    process_id: str
    costs: dict[str, dict[str, Any]] = {}


class Read(msgspec.Struct, array_like=True):
    """`wire.meter.Delivered`, with its text in bytes: it may hold what is no Unicode."""

    text: bytes
    chars: int
    seen: TokenUsage
    hides_reasoning: bool


class Submit(msgspec.Struct, tag="submit", array_like=True):
    """An exchange that ended, as its line in the journal; with `has_body` its body follows."""

    line: bytes
    has_body: bool = False
    read: Read | None = None


class Hurry(msgspec.Struct, tag="hurry", array_like=True):
    """Commit what waits without gathering more."""


class Recover(msgspec.Struct, tag="recover", array_like=True):
    """Settle what processes left that died meanwhile."""


class Drain(msgspec.Struct, tag="drain", array_like=True):
    """Say `drained` with this number once everything before is committed."""

    number: int


class End(msgspec.Struct, tag="end", array_like=True):
    """Nothing follows; what the gateway holds of budgets goes back if all of it is settled."""

    is_settled: bool


class Problem(msgspec.Struct, array_like=True):
    """A `LedgerError` that happened at the other end."""

    code: str
    message: str
    hint: str | None

    @classmethod
    def of(cls, error: LedgerError) -> "Problem":
        """An error as it travels."""
        return cls(error.code, error.message, error.hint)

    def error(self) -> LedgerError:
        """The error again."""
        return LedgerError(self.code, self.message, hint=self.hint)


class Folded(msgspec.Struct, tag="folded", array_like=True):
    """Exchanges that are committed."""

    exchanges: list[FoldedExchange]


class Failing(msgspec.Struct, tag="failing", array_like=True):
    """Why the latest batch could not be committed; `None` once one could again."""

    problem: Problem | None


class Drained(msgspec.Struct, tag="drained", array_like=True):
    """The answer to `drain`; with a problem, not everything is committed."""

    number: int
    problem: Problem | None = None


Order: TypeAlias = Begin | Submit | Hurry | Recover | Drain | End
Report: TypeAlias = Folded | Failing | Drained

_encoder = msgspec.msgpack.Encoder()
_orders: "msgspec.msgpack.Decoder[Order]" = msgspec.msgpack.Decoder(Order)
_reports: "msgspec.msgpack.Decoder[Report]" = msgspec.msgpack.Decoder(Report)


class Readable(Protocol):
    """A binary file that waits until it has all that was asked for, or has ended."""

    def read(self, size: int, /) -> bytes:
        """So many bytes, fewer only at the end."""
        ...


def frame(message: Order | Report, body_bytes: int = 0) -> bytes:
    """A frame without the body that has to follow it.

    Raises:
        ValueError, OverflowError: the message has values that no frame takes.
    """
    text = _encoder.encode(message)
    return _LENGTHS.pack(len(text), body_bytes) + text


def orders(file: Readable) -> Iterator[tuple[Order, bytes]]:
    """The messages of a file with their bodies, to its end.

    Raises:
        OSError: the file cannot be read.
    """
    while len(lengths := file.read(_LENGTHS.size)) == _LENGTHS.size:
        text_bytes, body_bytes = _LENGTHS.unpack(lengths)
        text, body = file.read(text_bytes), file.read(body_bytes)
        if len(text) + len(body) < text_bytes + body_bytes:
            return
        yield _orders.decode(text), body


def taken_reports(received: bytearray) -> Iterator[Report]:
    """The whole messages at the start of what was received; they are taken out of it."""
    while len(received) >= _LENGTHS.size:
        text_bytes, _ = _LENGTHS.unpack_from(received)
        end = _LENGTHS.size + text_bytes
        if len(received) < end:
            return
        text = bytes(received[_LENGTHS.size : end])
        del received[:end]
        yield _reports.decode(text)


def read_of(delivered: Delivered | None) -> Read | None:
    """What an answer delivered, as it travels."""
    if delivered is None:
        return None
    return Read(
        delivered.text.encode("utf-8", "surrogatepass"),
        delivered.chars,
        delivered.seen,
        delivered.hides_reasoning,
    )


def delivered_of(read: Read | None) -> Delivered | None:
    """The same at the other end."""
    if read is None:
        return None
    return Delivered(
        text=read.text.decode("utf-8", "surrogatepass"),
        chars=read.chars,
        seen=read.seen,
        hides_reasoning=read.hides_reasoning,
    )
