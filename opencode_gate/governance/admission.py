"""Who is let in: the launch token of one session.

The agent carries the token wherever its SDK puts an API key: in any header, or in `?key=`. The
invariant: a request without it learns nothing and reaches no provider.
"""

from collections.abc import Iterable

from opencode_gate.core.errors import PolicyDenied


class Unauthorized(PolicyDenied):
    """No launch token, or a wrong one."""

    http_status = 401
    error_type = "authentication_error"


def admit(token: bytes, headers: Iterable[tuple[bytes, bytes]], query: bytes) -> None:
    """Lets a request pass that carries `token`.

    Raises:
        Unauthorized: it does not.
    """
    for _, value in headers:
        if token in value:
            return
    if token in query:
        return
    raise Unauthorized(
        "unauthorized",
        "this gateway belongs to another ogate session: the request carries no valid launch token",
        hint="start the agent with ogate run",
    )
