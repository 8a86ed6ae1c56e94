"""The tap on one answer: it counts what passes and keeps the client from looping for ever.

The idea: the upstream's own bytes go on to the client, complete events only; a format reader
looks at each event, and only where it says so does the output differ (the usage chunk the
client never asked for, a finish reason the client would not know). The invariant: nothing
here raises to the caller, and when something cannot be read the bytes pass unchanged from
then on, with the quality of the usage lowered instead.
"""

import msgspec

from opencode_gate.core.semconv import Operation, UsageQuality, WireFormat
from opencode_gate.wire.anthropic_messages import AnthropicMessages
from opencode_gate.wire.estimates import texts_of_a_part
from opencode_gate.wire.formats import (
    BLANK_LINES,
    DONE,
    Edit,
    FormatReader,
    Placed,
    Tally,
    edited,
)
from opencode_gate.wire.gemini_generate import GeminiGenerate
from opencode_gate.wire.inflate import KNOWN_ENCODINGS, Inflate, InflateError
from opencode_gate.wire.metering import Delivered, Metering
from opencode_gate.wire.openai_chat import OpenAIChat
from opencode_gate.wire.openai_responses import OpenAIResponses
from opencode_gate.wire.routes import Route
from opencode_gate.wire.sse import (
    UNDECIDED_ENDS,
    USUAL_FORM,
    EventBuffer,
    EventForm,
    data_of,
    events,
    form_of,
)

HELD_BYTES_MAX = 64 * 1024
"""A longer unfinished event is passed on before its end."""
READ_BYTES_MAX = 32 * 1024 * 1024
"""What is kept of a plain body, or of one event, to be read; beyond it the answer is not read."""


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
        "_body_bytes",
        "_buffer",
        "_event",
        "_form",
        "_has_mended",
        "_inflate",
        "_is_blind",
        "_is_damaged",
        "_is_unmended",
        "_reader",
        "_streamed",
        "_tally",
        "_wire_format",
    )

    def __init__(
        self,
        route: Route,
        *,
        streamed: bool,
        asked_for_usage: bool,
        content_encoding: str | None = None,
    ) -> None:
        self._wire_format = route.wire_format
        self._streamed = streamed
        self._reader = reader = _reader_for(route, drops_usage=asked_for_usage)
        self._buffer: EventBuffer | None = None
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._is_damaged = False
        self._is_unmended = False
        self._has_mended = False
        self._inflate: Inflate | None = None
        # What the events look like as they come; `None` while one is held that has not ended,
        # and where nothing is read in them.
        self._form: EventForm | None = None
        if reader is None:
            self._is_blind = True
            self._tally = Tally()
            return
        self._is_blind = False
        self._event = reader.event
        self._tally = reader.tally
        if content_encoding is None:
            self._form = USUAL_FORM
        else:
            self._decode(content_encoding.strip().lower())

    def _decode(self, encoding: str) -> None:
        if encoding in KNOWN_ENCODINGS:
            try:
                self._inflate = Inflate(encoding)
            except InflateError:
                self._is_blind = True
        elif encoding in ("identity", ""):
            self._form = USUAL_FORM
        else:
            self._is_blind = True

    @property
    def content_delivered(self) -> bool:
        """True once a text, reasoning or tool-call delta was passed on to the client."""
        return self._tally.has_content

    @property
    def delivered_chars(self) -> int:
        """Characters of text, reasoning and tool arguments, as far as they were seen."""
        tally = self._tally
        return tally.forgotten_chars + tally.text.tell()

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
        return self._tally.error_type

    def relay(self, chunk: bytes) -> bytes:
        """The bytes to send on now that `chunk` of a stream has come."""
        form = self._form
        if form is None:
            return self._relayed_otherwise(chunk)
        data_of_all = form.data_of_all(chunk)
        if data_of_all is None:
            return self._relay(chunk)
        edits: list[Placed] | None = None
        for data in data_of_all:
            try:
                edit = self._event(data)
            except msgspec.DecodeError:
                # An event without data is none.
                self._is_damaged = self._is_damaged or data != b""
            except Exception:  # noqa: BLE001 - a bug in a reader must not cost the client a byte
                self._go_blind()
                break
            else:
                if edit is not None and self._takes(edit):
                    edits = edits or []
                    edits.append((*form.place_of(data, data_of_all), edit))
        return chunk if edits is None else edited(chunk, 0, edits)

    def _relayed_otherwise(self, chunk: bytes) -> bytes:
        if self._is_blind:
            return chunk
        if self._inflate is None:
            return self._relay(chunk)
        plain = self._inflated(chunk)
        if plain:
            self._relay(plain)
        return chunk

    def observe_body(self, chunk: bytes) -> None:
        """Reads along a piece of a body that is not streamed; the caller sends it itself."""
        if self._is_blind:
            return
        self._body_bytes += len(chunk)
        if self._body_bytes > READ_BYTES_MAX:
            self._go_blind()
        else:
            self._body.append(chunk)

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
        if last and self._takes(Edit(after=last), is_sent=bool(tail.strip())):
            tail += last
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
        reader, tally = self._reader, self._tally
        if reader is None:
            return Metering(wire_format=self._wire_format)
        tally.bound()
        usage, contradicts, cost_usd = reader.usage()
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
            raw_usage=reader.usages.raw(),
            response_model=tally.response_model,
            finish_reason=tally.finish_reason,
            reported_cost_usd=cost_usd,
            delivered_text_chars=self.delivered_chars,
            hides_reasoning=tally.hides_reasoning,
            tools_called=tuple(tally.tools_called),
            error_type=tally.error_type,
            repaired=tally.repaired if self._has_mended else None,
            contradicts=contradicts
            or (is_final and usage.output == 0 and self.delivered_chars > 0),
            wire_format=self._wire_format,
        )

    def delivered(self) -> Delivered | None:
        """What counting is done from, `None` where nothing is read."""
        reader = self._reader
        if reader is None:
            return None
        return Delivered(
            text=self._tally.text.getvalue(),
            chars=self.delivered_chars,
            seen=reader.usage().usage,
            hides_reasoning=self._tally.hides_reasoning,
        )

    def _relay(self, chunk: bytes) -> bytes:
        buffer = self._buffer
        if buffer is None:
            buffer = self._buffer = EventBuffer()
        block = buffer.push(chunk)
        if not block:
            self._form = None
            return self._overdue(buffer) if buffer.held > HELD_BYTES_MAX else b""
        passed = buffer.passed
        if passed:
            buffer.passed = 0
        found = events(block)
        edits: list[Placed] = []
        for start, end, data in found:
            edit = self._read(data)
            if edit is not None and self._takes(edit, is_sent=start < passed):
                edits.append((start, end, edit))
        relayed = edited(block, passed, edits) if passed or edits else block
        if self._is_blind:
            return relayed + buffer.drop()
        if buffer.held:
            self._form = None
            return relayed + self._overdue(buffer) if buffer.held > HELD_BYTES_MAX else relayed
        if self._inflate is None:
            self._form = form_of(block, found[-1]) if found else USUAL_FORM
        return relayed

    def _takes(self, edit: Edit, *, is_sent: bool = False) -> bool:
        """Whether an edit is made; where it cannot be, what it would have mended is not."""
        may_edit = not (is_sent or self._is_damaged or self._inflate is not None)
        if not edit.drops:
            self._has_mended = self._has_mended or may_edit
            self._is_unmended = self._is_unmended or not may_edit
        return may_edit

    def _overdue(self, buffer: EventBuffer) -> bytes:
        """The start of an event too long to wait for; it is still kept for reading."""
        if buffer.held > READ_BYTES_MAX:
            self._go_blind()
            return buffer.drop()
        return buffer.release()

    def _last_of(self, reader: FormatReader) -> tuple[bytes, bool]:
        """What was still held at the end of the stream, and whether the answer is complete."""
        buffer = self._buffer
        if buffer is None or not buffer.held:
            return b"", reader.is_complete
        unfinished = buffer.unfinished()
        tail = buffer.drop()
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
            if edit is not None and self._takes(edit):
                event = tail.lstrip(BLANK_LINES)
                blank = tail[: len(tail) - len(event)]
                tail = b"".join((blank, edit.before, event, edit.after))
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
        body = b"".join(self._body)
        if self._inflate is not None:
            body = self._inflated(body)
        self._body.clear()
        self._body_bytes = 0
        try:
            self._reader.body(body)
        except msgspec.DecodeError:
            self._is_damaged = True
            for text in texts_of_a_part(body):
                self._tally.deliver(text)
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
        self._form = None
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
