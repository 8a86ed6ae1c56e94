"""Our own answers: a refusal, or that a provider could not be reached.

The invariant: a refusal is final in the eyes of the agent (sent before anything else, no word in
it that its retry pattern knows), except a limit that clears soon; that a provider could not be
reached is not.
"""

from opencode_gate.core.errors import GateError
from opencode_gate.gateway.downstream import ClientRequest
from opencode_gate.gateway.upstream import UpstreamFailure
from opencode_gate.governance.decisions import Denied
from opencode_gate.wire.refusals import neutralise, refusal_body
from opencode_gate.wire.routes import Route

_SPENT = "insufficient_quota"


def refuse(client: ClientRequest, route: Route, refusal: GateError) -> None:
    """Says no, in the words of the client's wire format."""
    message = refusal.message if refusal.hint is None else f"{refusal.message} ({refusal.hint})"
    retry_after_s = refusal.retry_after_s if isinstance(refusal, Denied) else None
    is_final = retry_after_s is None
    body = refusal_body(
        route.wire_format,
        http_status=refusal.http_status,
        message=neutralise(message) if is_final else message,
        error_type=refusal.error_type,
        # Clients know a spent account by this code.
        code=_SPENT if refusal.error_type == _SPENT else refusal.code,
    )
    _answer(client, refusal.http_status, body, is_final=is_final, retry_after_s=retry_after_s)


def status_of(failure: UpstreamFailure) -> int:
    """What the client is told: 504 for silence, 502 for everything else."""
    return 504 if failure.kind == "timeout" else 502


def answer_failure(
    client: ClientRequest, route: Route, provider_id: str, failure: UpstreamFailure
) -> None:
    """Says that the provider could not be reached; the agent may try again."""
    status = status_of(failure)
    body = refusal_body(
        route.wire_format,
        http_status=status,
        message=f"ogate could not reach {provider_id}: {failure}",
        error_type="upstream_error",
        code="upstream-timeout" if status == 504 else "upstream-unreachable",
    )
    _answer(client, status, body, is_final=False)


def _answer(
    client: ClientRequest,
    status: int,
    body: bytes,
    *,
    is_final: bool,
    retry_after_s: int | None = None,
) -> None:
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    if is_final:
        headers.append((b"x-should-retry", b"false"))
    if retry_after_s is not None:
        headers.append((b"retry-after", str(retry_after_s).encode()))
    client.begin(status, headers)
    client.end(body)
