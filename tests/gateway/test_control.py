"""The interface for launchers, whatever is sent to it."""

import asyncio
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from opencode_gate.core.clock import SystemClock
from opencode_gate.core.ids import new_ulid
from opencode_gate.gateway.app import App
from opencode_gate.gateway.control import Control, SessionAccount
from opencode_gate.gateway.downstream import ClientRequest
from opencode_gate.governance.policy import Policy, Rules, VirtualKey
from opencode_gate.governance.served_keys import ServedDoor
from opencode_gate.governance.session_tokens import SessionTokens
from opencode_gate.governance.virtual_keys import new_virtual_key
from opencode_gate.ledger.records import SessionRecord
from tests.support.heard_client import HeardClient

SERVED = new_ulid()
ADA = new_virtual_key()
POLICY = Policy(
    revision=1,
    virtual_keys={"ada": VirtualKey(public_id=ADA.public_id, secret_hash=ADA.secret_hash)},
)


class _Book:
    """Sessions in memory."""

    def __init__(self) -> None:
        self.sessions: dict[str, SessionRecord] = {}

    def begin(self, session: SessionRecord, own: Rules | None, *, operator: str) -> bool:
        assert operator == "vkey ada"
        if session.id in self.sessions:
            return False
        self.sessions[session.id] = session
        return True

    def end(self, session_id: str, exit_status: int | None) -> None:
        assert session_id in self.sessions

    def account(self, session_id: str, virtual_key: str | None) -> SessionAccount:
        return SessionAccount(self.sessions[session_id], [])


class _NoPipeline:
    async def serve(self, client: ClientRequest) -> None:
        client.begin(200, [])
        client.end(b"{}")


def _ask(
    book: _Book,
    path: str,
    body: bytes | None,
    *,
    method: str = "POST",
    key: str = ADA.token,
    headers: tuple[tuple[bytes, bytes], ...] = ((b"host", b"127.0.0.1"),),
) -> tuple[int, bytes]:
    clock = SystemClock()
    tokens = SessionTokens(b"k" * 32)
    is_open = book.sessions.__contains__
    door = ServedDoor(lambda: POLICY, tokens, is_open, lambda: 1, clock, session_id=SERVED)
    control = Control(door, book, {}, clock, session_id=SERVED)
    app = App(_NoPipeline(), control, names=("gate.example", "*.team.example"))  # type: ignore[arg-type]
    named = [*headers, (b"x-ogate-key", key.encode())]
    client = HeardClient(path, body, method=method, headers=named)
    asyncio.run(app(client))
    assert client.status is not None
    assert client.is_whole
    return client.status, client.answer


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner),
    max_leaves=8,
)
_FIELDS = st.fixed_dictionaries(
    {name: st.text(max_size=60) for name in ("user", "agent", "directory", "project")},
    optional=dict.fromkeys(("branch", "time_zone", "budget_usd", "agent_version", "other"), _JSON),
)


@given(_FIELDS, st.booleans())
def test_whatever_a_launcher_says_of_its_session_is_taken_or_refused(
    fields: dict[str, Any], is_ulid: bool
) -> None:
    """No crash, and nothing that could move a terminal's cursor is written down."""
    book = _Book()
    wish = {**fields, "id": new_ulid() if is_ulid else "'; DROP TABLE sessions; --"}
    status, body = _ask(book, "/ogate/v1/sessions", json.dumps(wish).encode())
    assert status in (200, 400), body
    for session in book.sessions.values():
        assert is_ulid
        for text in (session.user, session.agent, session.directory, session.project):
            assert not text or text.isprintable()


@given(st.binary(max_size=200), st.sampled_from(["sessions", "session/end", "offer", ""]))
def test_whatever_bytes_come_are_answered(body: bytes, path: str) -> None:
    """A refusal in words, never a stack trace."""
    status, answer = _ask(_Book(), f"/ogate/v1/{path}", body)
    assert status in (400, 404)
    assert json.loads(answer)["error"]["message"]


@given(st.text(max_size=40), st.text(max_size=60))
def test_no_path_is_answered_without_a_key(path: str, key: str) -> None:
    """But for `/health`, which says nothing."""
    status, _ = _ask(_Book(), f"/ogate/{path}", b"{}", key=key.encode("ascii", "ignore").decode())
    assert status == 401


def test_no_body_is_waited_for_but_of_who_has_a_key() -> None:
    """Else anybody could fill the memory of a gateway that listens to a network."""
    assert _ask(_Book(), "/ogate/v1/sessions", None, key="ogk-nobody")[0] == 401
    assert _ask(_Book(), "/health", None, method="GET", key="")[0] == 200


@given(st.binary(max_size=60))
def test_any_host_header_is_survived(host: bytes) -> None:
    """It is one of ours or it is refused."""
    status, _ = _ask(_Book(), "/health", b"", method="GET", headers=((b"host", host),))
    assert status in (200, 403)


def test_the_level_below_a_certified_wildcard_is_ours_and_no_deeper_one() -> None:
    """As certificates have it."""
    for host, status in (
        (b"a.team.example", 200),
        (b"a.team.example:4141", 200),
        (b"b.a.team.example", 403),
        (b"team.example", 403),
        (b"gate.example", 200),
    ):
        found, _ = _ask(_Book(), "/health", b"", method="GET", headers=((b"host", host),))
        assert found == status, host
