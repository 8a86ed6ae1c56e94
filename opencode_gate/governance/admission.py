"""Who is let in, and as whom: the door of one session.

The agent carries a token wherever its SDK puts an API key: in any header, or in `?key=`. The
invariant: a request without one learns nothing and reaches no provider.
"""

from collections.abc import Collection
from typing import NamedTuple, Protocol

from opencode_gate.core.errors import PolicyDenied
from opencode_gate.governance.decisions import Denied


class Unauthorized(PolicyDenied):
    """No token, or a wrong one."""

    http_status = 401
    error_type = "authentication_error"


class Caller(NamedTuple):
    """Who asks.

    Attributes:
        session_id: the session the request is written down under.
        user: the OS user whose own rules hold; `None` at a served gateway, where keys stand for
            people.
        virtual_key: the name of the virtual key it asks under, if any.
        token: what it carried in place of the provider's key.
    """

    session_id: str
    user: str | None
    virtual_key: str | None
    token: bytes


class Barred(Denied):
    """The refusal of somebody known, who may not come in now; it is put down to `caller`."""

    def __init__(self, refusal: Denied, caller: Caller) -> None:
        super().__init__(
            refusal.decision, http_status=refusal.http_status, error_type=refusal.error_type
        )
        self.caller = caller


class Door(Protocol):
    """Lets requests in."""

    def admit(self, headers: Collection[tuple[bytes, bytes]], query: bytes) -> Caller:
        """Who asks, told from lower-case headers and the query.

        Raises:
            Barred: somebody who may not now.
            PolicyDenied: nobody who may.
        """
        ...


class LaunchDoor:
    """The door of a gateway that serves one session: its launch token opens it."""

    __slots__ = ("_caller", "_last", "_token")

    def __init__(
        self, token: bytes, *, session_id: str, user: str | None, virtual_key: str | None = None
    ) -> None:
        if not token:
            raise ValueError("an empty token would let everybody in")
        self._token = token
        self._last: tuple[bytes, bytes] | None = None
        self._caller = Caller(session_id, user, virtual_key, token)

    def admit(self, headers: Collection[tuple[bytes, bytes]], query: bytes) -> Caller:
        """The session, for whoever carries its token.

        Raises:
            Unauthorized: the request does not.
        """
        # An agent puts its token into the same header each time.
        if self._last not in headers:
            self._last = carrying(self._token, headers, query)
        return self._caller


def carrying(
    token: bytes, headers: Collection[tuple[bytes, bytes]], query: bytes
) -> tuple[bytes, bytes] | None:
    """The header of a request that carries `token`, `None` where the query does.

    Raises:
        Unauthorized: neither does.
    """
    for header in headers:
        if token in header[1]:
            return header
    if token in query:
        return None
    raise Unauthorized(
        "unauthorized",
        "this gateway belongs to another ogate session: the request carries no valid launch token",
        hint="start the agent with ogate run",
    )
