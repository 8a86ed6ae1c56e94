"""A request as it goes to the provider: as it came, or as a rule has changed it.

The invariant: nothing but what the rules have changed differs from what the client sent.
"""

from urllib.parse import quote

import msgspec

from opencode_gate.core.semconv import WireFormat
from opencode_gate.governance.admission import Caller
from opencode_gate.governance.grants import Grant
from opencode_gate.routing.targets import Destination
from opencode_gate.wire.facts import RequestFacts
from opencode_gate.wire.model_swap import with_model
from opencode_gate.wire.output_limits import with_output_limit
from opencode_gate.wire.routes import Route


class Asked(msgspec.Struct, frozen=True):
    """One request of a known caller, read to its end, as it goes to the provider."""

    caller: Caller
    method: str
    destination: Destination
    route: Route
    headers: list[tuple[bytes, bytes]]
    query: bytes
    body: bytes
    facts: RequestFacts | None

    @property
    def expects_stream(self) -> bool:
        """True where only an event stream is an answer the client understands."""
        if self.facts is None or not self.facts.stream:
            return False
        return self.route.wire_format is not WireFormat.GEMINI_GENERATE or b"alt=sse" in self.query


def as_granted(asked: Asked, grant: Grant) -> Asked:
    """The request with what a rule has changed in it, spliced into its bytes."""
    destination, body = asked.destination, asked.body
    if grant.model is not None:
        path, body = with_model(asked.route, destination.path, body, grant.model)
        destination = Destination(destination.target, path)
    if grant.output_limit_tokens is not None:
        body = with_output_limit(
            asked.route,
            body,
            grant.output_limit_tokens,
            provider_id=destination.target.row.id,
        )
    return msgspec.structs.replace(asked, destination=destination, body=body)


def told_headers(grant: Grant) -> list[tuple[bytes, bytes]]:
    """What a rule has changed, for whoever reads headers."""
    told: list[tuple[bytes, bytes]] = []
    if grant.output_limit_tokens is not None:
        told.append((b"x-ogate-output-limit", str(grant.output_limit_tokens).encode()))
    if grant.model is not None:
        told.append((b"x-ogate-model", quote(grant.model, safe="/:").encode()))
    return told
