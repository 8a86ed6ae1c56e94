"""The tap on one answer: it counts what passes and keeps the client from looping for ever.

The idea: the upstream's own bytes go on to the client, complete events only; a format reader
looks at each event, and only where it says so does the output differ (the usage chunk the
client never asked for, a finish reason the client would not know). The invariant: nothing
here raises to the caller, and when something cannot be read the bytes pass unchanged from
then on, with the quality of the usage lowered instead.
"""

from decimal import Decimal

import msgspec

from opencode_gate.core.semconv import Operation, UsageQuality, WireFormat
from opencode_gate.core.usage import NOTHING_KNOWN, TokenUsage
from opencode_gate.wire.anthropic_messages import AnthropicMessages
from opencode_gate.wire.estimates import estimated_tokens, quality_of_estimate, texts_of_a_part
from opencode_gate.wire.facts import RequestFacts
from opencode_gate.wire.formats import DONE, Edit, FormatReader
from opencode_gate.wire.gemini_generate import GeminiGenerate
from opencode_gate.wire.inflate import KNOWN_ENCODINGS, Inflate, InflateError
from opencode_gate.wire.openai_chat import OpenAIChat
from opencode_gate.wire.openai_responses import OpenAIResponses
from opencode_gate.wire.routes import Route
from opencode_gate.wire.sse import UNDECIDED_ENDS, EventBuffer, data_of, events

HELD_BYTES_MAX = 64 * 1024
"""A longer unfinished event is passed on before its end."""
READ_BYTES_MAX = 32 * 1024 * 1024
"""What is kept of a plain body, or of one event, to be read; beyond it the answer is not read."""


class Metering(msgspec.Struct, frozen=True, kw_only=True):
    """What one answer came to, as far as it was seen.

    Attributes:
        usage_quality: `REPORTED` when the provider's final counts were read, `ESTIMATED` when
            the answer or the reading of it was cut short of them, `UNKNOWN` without any.
        raw_usage: the provider's usage object, JSON text; several are laid over each other.
        finish_reason: the provider's own, also where another one was supplied.
        delivered_text_chars: characters of text, reasoning and tool arguments passed on.
        hides_reasoning: the model also thought where nobody sees it.
        tools_called: the names of the tools the client is asked to run, each once.
        error_type: a short name of an error inside the answer.
        repaired: what was mended for the client, `None` if the bytes are the upstream's own.
        contradicts: the counts contradict each other or what was delivered.
    """

    usage: TokenUsage = NOTHING_KNOWN
    usage_quality: UsageQuality = UsageQuality.UNKNOWN
    raw_usage: str | None = None
    response_model: str | None = None
    finish_reason: str | None = None
    reported_cost_usd: Decimal | None = None
    delivered_text_chars: int = 0
    hides_reasoning: bool = False
    tools_called: tuple[str, ...] = ()
    error_type: str | None = None
    repaired: str | None = None
    contradicts: bool = False
    wire_format: WireFormat = WireFormat.UNKNOWN


class Delivered(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer's output can be counted from; in memory only, and only until it is.

    Attributes:
        text: of text, reasoning and tool arguments; the end of it, where it is very much.
        chars: how many characters it was in all.
        seen: the counts the provider has told, final or not.
        hides_reasoning: the model also thought where nobody sees it.
    """

    text: str
    chars: int
    seen: TokenUsage
    hides_reasoning: bool = False


class StreamEnd(msgspec.Struct, frozen=True, kw_only=True):
    """How a stream ended: bytes still to be sent, and whether the client may be given a clean
    end. If not, its connection has to be aborted.
    """

    tail: bytes
    is_complete: bool


_CLEAN_END = StreamEnd(tail=b"", is_complete=True)


class ExchangeMeter:
    """Reads one answer while it is relayed: `relay` for a stream, `observe_body` for a plain
    body, then `end`.

    Args:
        asked_for_usage: the gateway asked for usage on behalf of the client, so the chunk that
            carries nothing else is taken out.
        content_encoding: the answer's own; a compressed one is read along and never edited.
    """

    __slots__ = (
        "_body",
        "_buffer",
        "_has_mended",
        "_inflate",
        "_is_blind",
        "_is_damaged",
        "_is_unmended",
        "_reader",
        "_route",
        "_streamed",
    )

    def __init__(
        self,
        route: Route,
        *,
        streamed: bool,
        asked_for_usage: bool,
        content_encoding: str | None = None,
    ) -> None:
        self._route = route
        self._streamed = streamed
        self._reader = _reader_for(route, drops_usage=asked_for_usage)
        self._buffer = EventBuffer()
        self._body = bytearray()
        self._is_blind = self._reader is None
        self._is_damaged = False
        self._is_unmended = False
        self._has_mended = False
        self._inflate: Inflate | None = None
        encoding = (content_encoding or "identity").strip().lower()
        if encoding in KNOWN_ENCODINGS:
            try:
                self._inflate = Inflate(encoding)
            except InflateError:
                self._is_blind = True
        elif encoding != "identity":
            self._is_blind = True

    @property
    def content_delivered(self) -> bool:
        """True once a text, reasoning or tool-call delta was passed on to the client."""
        return self._reader is not None and self._reader.tally.has_content

    @property
    def delivered_chars(self) -> int:
        """Characters of text, reasoning and tool arguments, as far as they were seen."""
        return 0 if self._reader is None else self._reader.tally.delivered_chars

    @property
    def has_ended(self) -> bool:
        """True once the format's own end of the answer has passed, whatever the stream does yet."""
        reader = self._reader
        if reader is None or self._is_unmended:
            return False
        return reader.tally.is_ended and reader.tally.error_type is None and reader.is_complete

    @property
    def error_type(self) -> str | None:
        """A short name of an error inside the answer, as far as it was seen."""
        return None if self._reader is None else self._reader.tally.error_type

    def relay(self, chunk: bytes) -> bytes:
        """The bytes to send on now that `chunk` of a stream has come."""
        if self._is_blind:
            return chunk
        if self._inflate is not None:
            plain = self._inflated(chunk)
            if plain:
                self._relay(plain)
            return chunk
        return self._relay(chunk)

    def observe_body(self, chunk: bytes) -> None:
        """Reads along a piece of a body that is not streamed; the caller sends it itself."""
        if self._is_blind:
            return
        if len(self._body) + len(chunk) > READ_BYTES_MAX:
            self._go_blind()
        else:
            self._body += chunk

    def end(self) -> StreamEnd:
        """What to do now that the upstream has ended the answer cleanly."""
        if not self._streamed:
            self._read_body()
            return _CLEAN_END
        reader = self._reader
        if self._is_blind or reader is None:
            return _CLEAN_END
        tail, is_complete = self._last_of(reader)
        last = reader.last_event() if is_complete else b""
        if last:
            if self._may_edit and not tail.strip():
                tail += last
                self._has_mended = True
            else:
                self._is_unmended = True
        return StreamEnd(
            tail=b"" if self._inflate is not None else tail,
            is_complete=is_complete and not self._is_unmended,
        )

    def metering(self) -> Metering:
        """What has been seen so far; may be asked for at any time.

        Of a plain body that is what has come by then, so it is asked for at its end.
        """
        if self._body:
            self._read_body()
        reader = self._reader
        if reader is None:
            return Metering(wire_format=self._route.wire_format)
        tally = reader.tally
        tally.bound()
        usage, contradicts = reader.usage()
        is_final = tally.is_ended or (
            # Some send the input early, and the output only behind the finish reason.
            tally.finish_reason is not None
            and usage.output is not None
            and tally.error_type is None
        )
        if usage.is_empty:
            quality = UsageQuality.UNKNOWN
        elif is_final and not self._is_damaged:
            quality = UsageQuality.REPORTED
        else:
            quality = UsageQuality.ESTIMATED
        return Metering(
            usage=usage,
            usage_quality=quality,
            raw_usage=tally.raw_usage(),
            response_model=tally.response_model,
            finish_reason=tally.finish_reason,
            reported_cost_usd=tally.reported_cost_usd,
            delivered_text_chars=tally.delivered_chars,
            hides_reasoning=tally.hides_reasoning,
            tools_called=tuple(tally.tools_called),
            error_type=tally.error_type,
            repaired=tally.repaired if self._has_mended else None,
            contradicts=contradicts
            or (is_final and usage.output == 0 and tally.delivered_chars > 0),
            wire_format=self._route.wire_format,
        )

    def delivered(self) -> Delivered | None:
        """What counting is done from, `None` where nothing is read."""
        reader = self._reader
        if reader is None:
            return None
        return Delivered(
            text=reader.tally.delivered_text(),
            chars=reader.tally.delivered_chars,
            seen=reader.usage().usage,
            hides_reasoning=reader.tally.hides_reasoning,
        )

    @property
    def _may_edit(self) -> bool:
        return not self._is_damaged and self._inflate is None

    def _relay(self, chunk: bytes) -> bytes:
        buffer = self._buffer
        block = buffer.push(chunk)
        if not block:
            return self._overdue() if buffer.held > HELD_BYTES_MAX else b""
        passed = buffer.passed
        if passed:
            buffer.passed = 0
        pieces: list[bytes] = []
        copied = passed
        for start, end, data in events(block):
            edit = self._read(data)
            if edit is None:
                continue
            if start < passed or not self._may_edit:
                self._is_unmended = self._is_unmended or not edit.drops
                continue
            pieces.append(block[copied:start])
            if not edit.drops:
                pieces += (edit.before, block[start:end], edit.after)
                self._has_mended = True
            copied = end
        if pieces:
            block = b"".join((*pieces, block[copied:]))
        elif passed:
            block = block[passed:]
        return block + buffer.drop() if self._is_blind else block

    def _overdue(self) -> bytes:
        """The start of an event too long to wait for; it is still kept for reading."""
        if self._buffer.held > READ_BYTES_MAX:
            self._go_blind()
            return self._buffer.drop()
        return self._buffer.release()

    def _last_of(self, reader: FormatReader) -> tuple[bytes, bool]:
        """What was still held at the end of the stream, and whether the answer is complete."""
        unfinished = self._buffer.unfinished()
        tail = self._buffer.drop()
        is_complete = reader.is_complete
        data = data_of(unfinished)
        if data is None:
            return tail, is_complete
        was_damaged = self._is_damaged
        edit = self._read(data)
        if self._is_blind:
            return tail, True
        # A client discards an event that lacks its blank line; only `[DONE]` needs none.
        if data.startswith(DONE) or unfinished.endswith(UNDECIDED_ENDS):
            is_complete = reader.is_complete
            if edit is not None and self._may_edit:
                tail = edit.before + tail + edit.after
                self._has_mended = self._has_mended or not edit.drops
            elif edit is not None:
                self._is_unmended = self._is_unmended or not edit.drops
        else:
            # Half an event says nothing about those before it.
            self._is_damaged = was_damaged
        return tail, is_complete

    def _read(self, data: bytes) -> Edit | None:
        if self._is_blind or self._reader is None:
            return None
        try:
            return self._reader.event(data)
        except msgspec.DecodeError:
            self._is_damaged = True
        except Exception:  # noqa: BLE001 - a bug in a reader must not cost the client a byte
            self._go_blind()
        return None

    def _read_body(self) -> None:
        if self._is_blind or self._reader is None:
            return
        body = bytes(self._body)
        if self._inflate is not None:
            body = self._inflated(body)
        self._body.clear()
        try:
            self._reader.body(body)
        except msgspec.DecodeError:
            self._is_damaged = True
            for text in texts_of_a_part(body):
                self._reader.tally.deliver(text)
        except Exception:  # noqa: BLE001 - a bug in a reader must not cost the client a byte
            self._go_blind()

    def _inflated(self, chunk: bytes) -> bytes:
        assert self._inflate is not None
        try:
            return self._inflate.push(chunk)
        except InflateError:
            self._go_blind()
            return b""

    def _go_blind(self) -> None:
        self._is_blind = self._is_damaged = True
        self._body.clear()


def _reader_for(route: Route, *, drops_usage: bool) -> FormatReader | None:
    if route.operation is not Operation.GENERATE:
        return None
    match route.wire_format:
        case WireFormat.OPENAI_CHAT:
            return OpenAIChat(drops_usage=drops_usage)
        case WireFormat.OPENAI_RESPONSES:
            return OpenAIResponses()
        case WireFormat.ANTHROPIC_MESSAGES:
            return AnthropicMessages()
        case WireFormat.GEMINI_GENERATE:
            return GeminiGenerate()
        case WireFormat.UNKNOWN:
            return None


def estimated(metering: Metering, facts: RequestFacts) -> Metering:
    """`metering` with what is missing or unfinished estimated; final counts stay as they are.

    For answers that cost money: a request the provider refused has no tokens to estimate.
    """
    if metering.usage_quality is UsageQuality.REPORTED:
        return metering
    usage = metering.usage
    if usage.input_tokens is None:
        uncached = estimated_tokens(facts.input_bytes, metering.wire_format)
        usage = msgspec.structs.replace(usage, input_uncached=uncached)
    delivered = estimated_tokens(metering.delivered_text_chars, metering.wire_format)
    if usage.output is None or usage.output < delivered:
        usage = msgspec.structs.replace(usage, output=delivered)
    quality = quality_of_estimate(facts.request_model, is_reasoning_hidden=metering.hides_reasoning)
    return msgspec.structs.replace(metering, usage=usage, usage_quality=quality)
