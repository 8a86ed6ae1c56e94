"""The corpus of provider answers in tests/corpus: `<format>/<case>.(sse|json)`, gzipped where
large, with its `<case>.expected.json`, and `<case>.out.sse` where the client receives other bytes.

An `expected.json` names its `source` (a vendor's page, an official SDK, or the program it was
captured from) and what must be counted; of a stream also `ends_at_event`, the first event after
which a clean end is one, and `reports_at_event`, the first after which its counts are final
(`first_report` where the provider said other final counts before).
"""

import gzip
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from opencode_gate.core.semconv import WireFormat
from opencode_gate.wire.meter import ExchangeMeter, StreamEnd
from opencode_gate.wire.metering import Metering
from opencode_gate.wire.routes import Route, identify

CORPUS = Path(__file__).parent.parent / "corpus"
EVENT_END = re.compile(rb"(?:\r\n|\n|\r(?!\n)){2}")

_PATHS = {
    WireFormat.OPENAI_CHAT: "/v1/chat/completions",
    WireFormat.OPENAI_RESPONSES: "/v1/responses",
    WireFormat.ANTHROPIC_MESSAGES: "/v1/messages",
    WireFormat.GEMINI_GENERATE: "/v1beta/models/m:streamGenerateContent",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One recorded answer, with what must come of it."""

    name: str
    kind: str
    source: str
    route: Route
    upstream: bytes
    client: bytes
    asked_for_usage: bool
    ends_at_event: int | None
    reports_at_event: int | None
    first_report: dict[str, Any] | None
    expected: dict[str, Any]

    @property
    def is_repaired(self) -> bool:
        return self.upstream != self.client

    @property
    def event_ends(self) -> list[int]:
        """Where each event of the stream ends."""
        return [match.end() for match in EVENT_END.finditer(self.upstream)]

    def meter(self, **options: object) -> ExchangeMeter:
        return ExchangeMeter(
            self.route,
            **{"streamed": self.kind == "sse", "asked_for_usage": self.asked_for_usage, **options},
        )


def route_of(wire_format: WireFormat) -> Route:
    return identify("POST", _PATHS[wire_format])


def cases(kind: str) -> list[Case]:
    """All cases of a kind, `sse` or `json`."""
    return [
        _case(wire_format, name, kind)
        for wire_format in _PATHS
        for name in sorted(
            path.name.removesuffix(".expected.json")
            for path in (CORPUS / wire_format).glob("*.expected.json")
        )
        if _content(wire_format, f"{name}.{kind}") is not None
    ]


def _case(wire_format: WireFormat, name: str, kind: str) -> Case:
    expected = json.loads((CORPUS / wire_format / f"{name}.expected.json").read_text())
    upstream = _content(wire_format, f"{name}.{kind}")
    assert upstream is not None
    client = _content(wire_format, f"{name}.out.{kind}")
    return Case(
        name=f"{wire_format}/{name}",
        kind=kind,
        source=expected.pop("source"),
        route=route_of(wire_format),
        upstream=upstream,
        client=upstream if client is None else client,
        asked_for_usage=expected.pop("asked_for_usage", False),
        ends_at_event=expected.pop("ends_at_event", None),
        reports_at_event=expected.pop("reports_at_event", None),
        first_report=expected.pop("first_report", None),
        expected=expected,
    )


def _content(wire_format: WireFormat, name: str) -> bytes | None:
    path = CORPUS / wire_format / name
    if path.exists():
        return path.read_bytes()
    packed = path.with_name(f"{name}.gz")
    return gzip.decompress(packed.read_bytes()) if packed.exists() else None


def reported_after(case: Case, events: int) -> dict[str, int] | None:
    """The final counts a provider has told with its first events, `None` as long as it has not."""
    usage: dict[str, int]
    if case.reports_at_event is not None and events >= case.reports_at_event:
        usage = case.expected["usage"]
        return usage
    if case.first_report is not None and events >= case.first_report["event"]:
        usage = case.first_report["usage"]
        return usage
    return None


def seen(meter: ExchangeMeter) -> dict[str, object]:
    """What a meter has found, in the form of the `expected.json` files."""
    metering: Metering = meter.metering()
    counts = msgspec.structs.asdict(metering.usage)
    usage = {name: count for name, count in counts.items() if count is not None}
    cost = metering.reported_cost_usd
    return {
        "usage": usage,
        "usage_quality": metering.usage_quality.value,
        "response_model": metering.response_model,
        "finish_reason": metering.finish_reason,
        "reported_cost_usd": None if cost is None else str(cost),
        "delivered_text_chars": metering.delivered_text_chars,
        "error_type": metering.error_type,
        "repaired": metering.repaired,
        "contradicts": metering.contradicts,
        "content_delivered": meter.content_delivered,
    }


def relayed(meter: ExchangeMeter, body: bytes, chunk_bytes: int) -> tuple[bytes, StreamEnd]:
    """What the client received of `body` in chunks of a size, and how it ended."""
    chunks = (body[i : i + chunk_bytes] for i in range(0, len(body), chunk_bytes))
    received = b"".join([meter.relay(chunk) for chunk in chunks])
    end = meter.end()
    return received + end.tail, end
