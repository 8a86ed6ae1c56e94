"""What a ledger's database can do, whichever engine it is.

The invariants every store keeps, by the tests in `tests/contract/test_store.py`: folding the
same exchange again changes nothing; a known end is never replaced by a lesser one (open, then
interrupted, then any other end); a row is never refused because its session's row is missing.
All methods raise `LedgerError` when the database fails.
"""

from collections.abc import Iterable
from typing import Protocol

from opencode_gate.ledger.records import ConversationRecord, ExchangeRecord, SessionRecord
from opencode_gate.ledger.totals import UsageQuery, UsageRow


class Store(Protocol):
    """The ledger. An instance belongs to the thread that opened it."""

    def add_session(self, session: SessionRecord) -> None:
        """Records the start of a session; an id that is known already stays as it is."""
        ...

    def end_session(self, id: str, *, ended_at_us: int, exit_status: int | None) -> None:
        """Records its end. An exit status once known is not replaced by an unknown one."""
        ...

    def put_conversations(self, conversations: Iterable[ConversationRecord]) -> None:
        """Inserts or updates; what was known and is now `None` stays known."""
        ...

    def fold(self, exchanges: Iterable[ExchangeRecord]) -> None:
        """Inserts or updates exchanges by id, all or none."""
        ...

    def session(self, id_or_prefix: str) -> SessionRecord:
        """A session by id, by a prefix only it has, or the latest (`last`).

        `01JD…8K`, as summaries shorten ids, is understood too.

        Raises:
            UsageError: none has it, or several do (`no-such-session`).
        """
        ...

    def sessions(
        self, *, limit: int | None = None, since_us: int | None = None, until_us: int | None = None
    ) -> list[SessionRecord]:
        """Sessions started in `[since_us, until_us)`, newest first."""
        ...

    def conversations(self, session_id: str) -> list[ConversationRecord]:
        """The conversations of a session, by id."""
        ...

    def exchanges(self, session_id: str) -> list[ExchangeRecord]:
        """The exchanges of a session in the order they started."""
        ...

    def usage(self, query: UsageQuery) -> list[UsageRow]:
        """Totals per group, ordered by key; without groups one row, even over nothing."""
        ...

    def integrity(self) -> list[str]:
        """What is damaged in the database, one sentence each; empty if it is sound."""
        ...

    def close(self) -> None:
        """Lets go of the database."""
        ...
