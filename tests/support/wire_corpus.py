"""The corpus of provider answers in tests/corpus: `<format>/<case>.(sse|json)` with its
`<case>.expected.json`, and `<case>.out.sse` where the client receives other bytes.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from opencode_gate.core.semconv import WireFormat
from opencode_gate.wire.meter import ExchangeMeter, Metering, StreamEnd
from opencode_gate.wire.routes import Route, identify

CORPUS = Path(__file__).parent.parent / "corpus"

_PATHS = {
    WireFormat.OPENAI_CHAT: "/v1/chat/completions",
    WireFormat.OPENAI_RESPONSES: "/v1/responses",
    WireFormat.ANTHROPIC_MESSAGES: "/v1/messages",
    WireFormat.GEMINI_GENERATE: "/v1beta/models/m:streamGenerateContent",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One recorded answer; `ends_at_event` is the first event after which a clean end is one."""

    name: str
    route: Route
    upstream: bytes
    client: bytes
    asked_for_usage: bool
    ends_at_event: int | None
    expected: dict[str, object]

    @property
    def is_repaired(self) -> bool:
        return self.upstream != self.client

    def meter(self, **options: object) -> ExchangeMeter:
        return ExchangeMeter(
            self.route, **{"streamed": True, "asked_for_usage": self.asked_for_usage, **options}
        )


def route_of(wire_format: WireFormat) -> Route:
    return identify("POST", _PATHS[wire_format])


def cases(kind: str) -> list[Case]:
    """All cases of a kind, `sse` or `json`."""
    found = []
    for wire_format in _PATHS:
        for path in sorted((CORPUS / wire_format).glob(f"*.{kind}")):
            if path.name.endswith((".expected.json", ".out.sse")):
                continue
            expected = json.loads(path.with_suffix(".expected.json").read_text())
            client = path.with_suffix(".out.sse")
            found.append(
                Case(
                    name=f"{wire_format}/{path.stem}",
                    route=route_of(wire_format),
                    upstream=path.read_bytes(),
                    client=client.read_bytes() if client.exists() else path.read_bytes(),
                    asked_for_usage=expected.pop("asked_for_usage", False),
                    ends_at_event=expected.pop("ends_at_event", None),
                    expected=expected,
                )
            )
    return found


def seen(meter: ExchangeMeter) -> dict[str, object]:
    """What a meter has found, in the form of the `expected.json` files."""
    metering: Metering = meter.metering()
    usage = {name: count for name, count in asdict(metering.usage).items() if count is not None}
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
