"""What the meter asks of a wire format, and the tally every format keeps the same way.

A format is read by an object with state, one for each answer. The invariant: a reader only
looks at bytes; what shall differ on the way to the client it says as an `Edit`.
"""

from dataclasses import dataclass
from decimal import Decimal
from io import StringIO
from typing import Any, NamedTuple, Protocol, TypeAlias

import msgspec

from opencode_gate.core.usage import TokenUsage
from opencode_gate.wire.counts import Usages


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """What differs from the original at one event: whole events put around it, or it left out."""

    before: bytes = b""
    after: bytes = b""
    drops: bool = False


BLANK_LINES = b"\r\n"
Placed: TypeAlias = tuple[int, int, Edit]
"""Where an event starts and ends in its block, and what differs there."""


def edited(block: bytes, sent: int, edits: list[Placed]) -> bytes:
    """What of a block is still to be sent, where its first bytes already are."""
    pieces: list[bytes] = []
    for start, end, edit in edits:
        # Blank lines before it are nobody's, and may have been sent already.
        event = block[start:end].lstrip(BLANK_LINES)
        pieces.append(block[sent : end - len(event)])
        if not edit.drops:
            pieces += (edit.before, event, edit.after)
        sent = end
    return b"".join((*pieces, block[sent:]))


DROP = Edit(drops=True)
DONE = b"[DONE]"
"""The data that ends a stream of OpenAI's formats; not JSON."""
KEPT_CHARS_MAX = 4 * 1024 * 1024
"""No model writes that much; an upstream that goes mad may."""
ABSENT = msgspec.Raw(b"null")
"""What a member holds that is not there, for schemas that leave it undecoded."""


class UsageReading(NamedTuple):
    """Usage as counted here, whether the provider's numbers contradict each other, and the cost
    where it names one.
    """

    usage: TokenUsage
    contradicts: bool
    reported_cost_usd: Decimal | None


class Tally(msgspec.Struct, kw_only=True):
    """What has been seen of one answer so far; `None` is what nobody said.

    Attributes:
        finish_reason: the last one, as the provider wrote it.
        text: what was delivered of text, reasoning and tool arguments, for counting it.
        forgotten_chars: how much was delivered before what `text` holds.
        hides_reasoning: the model thinks, and what is seen of that is nothing or a summary.
        has_content: a text, reasoning or tool-call delta was seen.
        has_tool_call: the client is asked to run a tool.
        tools_called: the names of those tools, each once.
        error_type: a short name for an error inside the answer.
        repaired: what an edit of ours mended.
        is_ended: the format's own terminal marker was seen.
    """

    response_model: str | None = None
    finish_reason: str | None = None
    text: StringIO = msgspec.field(default_factory=StringIO)
    forgotten_chars: int = 0
    hides_reasoning: bool = False
    has_content: bool = False
    has_tool_call: bool = False
    tools_called: list[str] = []
    error_type: str | None = None
    repaired: str | None = None
    is_ended: bool = False

    def deliver(self, piece: object) -> None:
        """Counts a delta; anything but a non-empty text is none."""
        if isinstance(piece, str) and piece:
            self.text.write(piece)
            self.has_content = True

    def bound(self) -> None:
        """Forgets what was delivered, but for how much it was, when it is very much."""
        if self.text.tell() > KEPT_CHARS_MAX:
            self.forgotten_chars += self.text.tell()
            self.text.seek(0)
            self.text.truncate()

    def call(self, name: object) -> None:
        """Notes a tool call; a name that is none, or comes again, changes nothing."""
        self.has_tool_call = self.has_content = True
        if isinstance(name, str) and name and name not in self.tools_called:
            self.tools_called.append(name)

    def repair(self, seen: str | None, supplied: str, *, what: str = "finish reason") -> None:
        """Notes that `supplied` was put behind what was `seen`."""
        self.repaired = f"{what} {seen or 'missing'} -> {supplied}"


class FormatReader(Protocol):
    """Reads one answer of one wire format."""

    tally: Tally

    @property
    def usages(self) -> Usages[Any]:
        """The usage objects that were read."""
        ...

    def event(self, data: bytes) -> Edit | None:
        """Reads the data of one server-sent event; `None` lets it pass as it is.

        Raises:
            msgspec.DecodeError: the data is not what the format sends.
        """
        ...

    def body(self, data: bytes) -> None:
        """Reads a whole answer that was not streamed.

        Raises:
            msgspec.DecodeError: the body is not what the format sends.
        """
        ...

    def usage(self) -> UsageReading:
        """The usage as it stands after what was read."""
        ...

    def last_event(self) -> bytes:
        """Bytes to put behind the upstream's clean end, for formats without a terminal marker."""
        ...

    @property
    def is_complete(self) -> bool:
        """True when a client can take a clean end here for the end of the answer."""
        ...


def short_error_type(*candidates: object) -> str:
    """The first candidate that can serve as a name of few values, else `stream_error`."""
    for candidate in candidates:
        if isinstance(candidate, str) and 0 < len(candidate) <= 48 and candidate.isascii():
            name = candidate.lower().replace("-", "_").replace(" ", "_")
            if name.replace("_", "").isalnum():
                return name
    return "stream_error"
