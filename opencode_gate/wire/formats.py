"""What the meter asks of a wire format, and the tally every format keeps the same way.

A format is read by an object with state, one for each answer. The invariant: a reader only
looks at bytes; what shall differ on the way to the client it says as an `Edit`.
"""

from dataclasses import dataclass
from decimal import Decimal
from io import StringIO
from typing import NamedTuple, Protocol

import msgspec

from opencode_gate.core.usage import TokenUsage
from opencode_gate.wire.counts import Usage, amount_usd, later_usage, member, merged_json


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """What differs from the original at one event: whole events put around it, or it left out."""

    before: bytes = b""
    after: bytes = b""
    drops: bool = False


DROP = Edit(drops=True)
DONE = b"[DONE]"
"""The data that ends a stream of OpenAI's formats; not JSON."""
KEPT_CHARS_MAX = 4 * 1024 * 1024
"""No model writes that much; an upstream that goes mad may."""
ABSENT = msgspec.Raw(b"null")
"""What a member holds that is not there, for schemas that leave it undecoded."""


class UsageReading(NamedTuple):
    """Usage as counted here, and whether the provider's numbers contradict each other."""

    usage: TokenUsage
    contradicts: bool


class Tally(msgspec.Struct, kw_only=True):
    """What has been seen of one answer so far; `None` is what nobody said.

    Attributes:
        finish_reason: the last one, as the provider wrote it.
        usage: the usage object, a later one laid over the earlier.
        text: what was delivered of text, reasoning and tool arguments, for `delivered_text`.
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
    usage: Usage = {}
    _raw_usages: list[bytes] = []
    reported_cost_usd: Decimal | None = None
    text: StringIO = msgspec.field(default_factory=StringIO)
    _forgotten_chars: int = 0
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

    @property
    def delivered_chars(self) -> int:
        """Characters of text, reasoning and tool arguments."""
        return self._forgotten_chars + self.text.tell()

    def delivered_text(self) -> str:
        """The latest of what was delivered, and mostly all of it."""
        return self.text.getvalue()

    def bound(self) -> None:
        """Forgets what was delivered, but for how much it was, when it is very much."""
        if self.text.tell() > KEPT_CHARS_MAX:
            self._forgotten_chars += self.text.tell()
            self.text.seek(0)
            self.text.truncate()

    def call(self, name: object) -> None:
        """Notes a tool call; a name that is none, or comes again, changes nothing."""
        self.has_tool_call = self.has_content = True
        if isinstance(name, str) and name and name not in self.tools_called:
            self.tools_called.append(name)

    def take_usage(self, raw: msgspec.Raw) -> bool:
        """Keeps a usage object, and the cost where it names one; False if it is null.

        Raises:
            msgspec.DecodeError: it is not an object.
        """
        text = bytes(raw)
        if text == b"null":
            return False
        self.usage = usage = later_usage(self.usage, text)
        del self._raw_usages[1:]
        self._raw_usages.append(text)
        if "cost" in usage:
            self.reported_cost_usd = _reported_cost_usd(usage)
        return True

    def raw_usage(self) -> str | None:
        """The usage object as JSON text, the last one laid over the first."""
        raw = self._raw_usages
        return merged_json(raw[0], raw[-1]) if raw else None

    def repair(self, seen: str | None, supplied: str, *, what: str = "finish reason") -> None:
        """Notes that `supplied` was put behind what was `seen`."""
        self.repaired = f"{what} {seen or 'missing'} -> {supplied}"


def _reported_cost_usd(usage: Usage) -> Decimal | None:
    """OpenRouter's `cost`: https://openrouter.ai/docs/use-cases/usage-accounting."""
    cost = amount_usd(usage["cost"])
    if cost is not None and usage.get("is_byok") is True:
        # With a key of one's own, `cost` is only the fee on top.
        upstream = amount_usd(member(usage, "cost_details").get("upstream_inference_cost"))
        return cost if upstream is None else cost + upstream
    return cost


class FormatReader(Protocol):
    """Reads one answer of one wire format."""

    tally: Tally

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
