"""How requests come in: to the gateway of one session, or to one that serves many.

The second has a door of its own, host names, and an interface for launchers. The invariant: what
it offers them names no address and no credential of a provider.
"""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec

from opencode_gate.catalog.rows import ProviderRow
from opencode_gate.config.paths import Paths
from opencode_gate.core.clock import Clock
from opencode_gate.core.errors import LedgerError
from opencode_gate.core.local_time import local_zone_name
from opencode_gate.gateway.control import Control, SessionAccount
from opencode_gate.governance.admission import Door, LaunchDoor
from opencode_gate.governance.policy import Rules, document_of
from opencode_gate.governance.rulebook import Rulebook
from opencode_gate.governance.served_keys import ServedDoor
from opencode_gate.governance.session_tokens import SessionTokens
from opencode_gate.governance.standing import Above, standings_above
from opencode_gate.ledger.governance_store import PolicyDocument
from opencode_gate.ledger.journal import Journal
from opencode_gate.ledger.key_files import kept_key
from opencode_gate.ledger.records import SessionRecord
from opencode_gate.ledger.sqlite import open_store
from opencode_gate.ledger.sqlite.governance import open_governance
from opencode_gate.ledger.store import Store
from opencode_gate.ledger.unfolded import unfolded
from opencode_gate.server.folding_process import FoldingProcess
from opencode_gate.server.protocol import Hello, Secrets, Service

OTHERS_WAIT_S = 10.0
"""How long an ended session waits for other gateway processes to fold what they served of it."""
RUNNING_WAIT_S = 1.0
"""And for one that still runs there; its client is gone, so it is about to end."""
LOOK_AGAIN_S = 0.05

_ADDRESS_OF_NOBODY = "http://upstream.invalid"


class LedgerSessions:
    """The sessions of launchers in the ledger (`gateway.control.SessionBook`)."""

    def __init__(
        self, ledger_file: Path, journal: Journal, folding: FoldingProcess, clock: Clock
    ) -> None:
        self._ledger_file = ledger_file
        self._journal = journal
        self._folding = folding
        self._clock = clock
        self._asked: Store | None = None

    def is_open(self, session_id: str) -> bool:
        """Whether a session has begun and not ended. Only for the event loop's thread."""
        if self._asked is None:
            self._asked = open_store(self._ledger_file, read_only=True)
        session = self._asked.sessions_of([session_id]).get(session_id)
        return session is not None and session.ended_at_us is None

    def begin(self, session: SessionRecord, own: Rules | None, *, operator: str) -> bool:
        """Writes down the start of a session with rules of its own; false if its id is taken."""
        store = open_store(self._ledger_file)
        try:
            if not store.add_session(session):
                return False
        finally:
            store.close()
        if own is not None:
            governance = open_governance(self._ledger_file)
            try:
                document = PolicyDocument("session", session.id, document_of(own))
                governance.put_policy([document], operator=operator, at_us=self._clock.now_us())
            finally:
                governance.close()
        return True

    def end(self, session_id: str, exit_status: int | None) -> None:
        """Writes down its end, which is now."""
        store = open_store(self._ledger_file)
        try:
            store.end_session(session_id, ended_at_us=self._clock.now_us(), exit_status=exit_status)
        finally:
            store.close()

    def account(self, session_id: str, virtual_key: str | None) -> SessionAccount:
        """A session and all its exchanges that have ended, once they are in the ledger.

        Raises:
            LedgerError: they cannot be put there now.
        """
        self._folding.drain()
        self._await_others(session_id)
        store = open_store(self._ledger_file, read_only=True)
        governance = open_governance(self._ledger_file, read_only=True)
        try:
            return SessionAccount(
                store.sessions_of([session_id])[session_id],
                store.exchanges(session_id),
                standings_above(
                    governance,
                    [Above(session_id=session_id, virtual_key=virtual_key)],
                    at_us=self._clock.now_us(),
                    time_zone=local_zone_name(),
                ),
            )
        finally:
            governance.close()
            store.close()

    def _await_others(self, session_id: str) -> None:
        """Waits for what other gateway processes served of a session; see `unfolded`."""
        began_s = self._clock.monotonic_s()
        while True:
            left = unfolded(self._journal.path.parent, session_id, but=self._journal.process_id)
            waited_s = self._clock.monotonic_s() - began_s
            if not left.has_ended and (not left.has_running or waited_s > RUNNING_WAIT_S):
                return
            if waited_s > OTHERS_WAIT_S:
                raise LedgerError(
                    "ledger-unwritable",
                    "the session has ended, but another gateway process has not yet put all of it "
                    "into the ledger",
                    hint=f"ogate sessions show {session_id} at the gateway has it in a while",
                )
            if left.is_left:
                self._folding.drain(recovering=True)
            time.sleep(LOOK_AGAIN_S)


class Entrance(NamedTuple):
    """Who is let in, what answers launchers, and the host names the gateway goes by."""

    door: Door
    control: Control | None = None
    names: tuple[str, ...] = ()


def entrance_of(
    hello: Hello,
    secrets: Secrets,
    paths: Paths,
    rulebook: Rulebook,
    journal: Journal,
    folding: FoldingProcess,
    clock: Clock,
) -> Entrance:
    """The way in that `hello` asks for.

    Raises:
        LedgerError: the key that session tokens are made with can neither be read nor made.
    """
    served = hello.served
    if served is None:
        token = secrets.launch_token.encode()
        user, virtual_key = hello.session.user, hello.virtual_key
        return Entrance(
            LaunchDoor(token, session_id=hello.session.id, user=user, virtual_key=virtual_key)
        )
    sessions = LedgerSessions(paths.ledger_file, journal, folding, clock)
    tokens = SessionTokens(_token_key(paths))
    door = ServedDoor(
        rulebook.policy,
        tokens,
        sessions.is_open,
        lambda: rulebook.mark,
        clock,
        session_id=hello.session.id,
    )
    offers = offers_of(hello.rows, served)
    control = Control(door, sessions, offers, clock, session_id=hello.session.id)
    return Entrance(door, control, served.names)


def _token_key(paths: Paths) -> bytes:
    try:
        return kept_key(paths.serve_key)
    except OSError as error:
        raise LedgerError(
            "ledger-unwritable",
            f"cannot keep {paths.serve_key}: {error.strerror or error}",
            hint="set OGATE_HOME to a folder you can write",
        ) from error


def offers_of(rows: Iterable[ProviderRow], served: Service) -> dict[str, msgspec.Raw]:
    """By provider, what launchers need to know of it, as JSON."""
    return {
        row.id: msgspec.Raw(
            msgspec.json.encode(
                {
                    "row": _without_address(row),
                    "models": served.models.get(row.id, {}),
                    "has_key": row.id not in served.without_key,
                }
            )
        )
        for row in rows
    }


def _without_address(row: ProviderRow) -> ProviderRow:
    """A row whose base is only the path that an SDK expects behind `/p/<provider>`."""
    path = urlsplit(row.base_url or "").path.rstrip("/")
    return msgspec.structs.replace(
        row, base_url=f"{_ADDRESS_OF_NOBODY}{path}", headers={}, auth_header=None, wire_bases={}
    )
