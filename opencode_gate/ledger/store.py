"""What a ledger's database can do, whichever engine it is.

The invariants every store keeps, by the tests in `tests/contract/test_store.py`: folding the
same exchange again changes nothing, also after it was annotated or priced anew; a known end is
never replaced by a lesser one (open, then interrupted, then any other end); a row is never
refused because its session's row is missing.
All methods raise `LedgerError` when the database fails.
"""

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from opencode_gate.ledger.exchange_query import ExchangeQuery
from opencode_gate.ledger.ratios import Ratio, RatioKey
from opencode_gate.ledger.records import (
    Annotation,
    ConversationRecord,
    ExchangeRecord,
    Repricing,
    SessionRecord,
    ToolUse,
)
from opencode_gate.ledger.totals import UsageQuery, UsageRow


class Store(Protocol):
    """The ledger. An instance belongs to the thread that opened it."""

    def add_session(self, session: SessionRecord) -> bool:
        """Records the start of a session; false if its id is known, which stays as it is."""
        ...

    def end_session(self, id: str, *, ended_at_us: int, exit_status: int | None) -> None:
        """Records its end. An exit status once known is not replaced by an unknown one."""
        ...

    def put_conversations(self, conversations: Iterable[ConversationRecord]) -> None:
        """Inserts or updates; what was known and is now `None` stays known."""
        ...

    def fold(self, exchanges: Iterable[ExchangeRecord], *, process_id: str | None = None) -> None:
        """Inserts or updates exchanges by id, all or none.

        In the same step they are charged to their budgets, out of what the process holds that
        admitted them, and what is settled gets its audit event.
        """
        ...

    def lease_holders(self) -> set[str]:
        """The processes that hold money of budgets."""
        ...

    def end_process(self, process_id: str) -> None:
        """Returns all that a process holds, which has ended or died."""
        ...

    def annotate(self, annotations: Iterable[Annotation]) -> None:
        """Adds what became known of exchanges later; those that are not here are passed over."""
        ...

    def put_reconciliation(self, session_id: str, document: str) -> None:
        """Keeps the comparison of a session with the agent's own count; the last one counts."""
        ...

    def reconciliation(self, session_id: str) -> str | None:
        """The comparison kept of a session, `None` if there is none."""
        ...

    def put_tool_set(self, hash: str, tool_bytes: Mapping[str, int]) -> None:
        """Records the tools of a set with the sizes of their definitions; a known one stays."""
        ...

    def add_token_ratios(self, ratios: Mapping[RatioKey, Ratio]) -> None:
        """Adds to the sums that estimates of tokens are corrected by."""
        ...

    def token_ratios(self) -> dict[RatioKey, Ratio]:
        """All those sums."""
        ...

    def reprice(self, repricings: Iterable[Repricing]) -> None:
        """Writes new amounts, all or none.

        The amount first counted is kept beside the new one, however often this is done. A
        reported cost goes on counting: only the priced amount beside it changes.
        """
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

    def sessions_of(self, ids: Iterable[str]) -> dict[str, SessionRecord]:
        """The sessions of these whole ids, by id; those that were not recorded are left out."""
        ...

    def conversations(self, session_id: str) -> list[ConversationRecord]:
        """The conversations of a session, by id."""
        ...

    def exchanges(self, session_id: str) -> list[ExchangeRecord]:
        """The exchanges of a session in the order they started."""
        ...

    def exchange(self, id_or_prefix: str) -> ExchangeRecord:
        """An exchange by id, by a prefix only it has, or the latest (`last`).

        Raises:
            UsageError: none has it, or several do (`no-such-call`).
        """
        ...

    def recorded(self, ids: Iterable[str]) -> set[str]:
        """Those of these exchanges that are here."""
        ...

    def snapshot(self) -> AbstractContextManager[None]:
        """Within it all reading sees the ledger of one moment. Nothing may be written."""
        ...

    def find(self, query: ExchangeQuery) -> list[ExchangeRecord]:
        """The exchanges that meet the conditions, latest start first, without their parts."""
        ...

    def arrivals(self, query: ExchangeQuery, *, after: int) -> tuple[list[ExchangeRecord], int]:
        """What was recorded after a mark, in the order it was, and the mark to go on from.

        Without a limit or a page. The mark 0 lies before everything, -1 means now.
        """
        ...

    def tool_sets(self, hashes: Iterable[str]) -> dict[str, dict[str, int]]:
        """The tools of sets and the bytes of their definitions; unknown sets are left out."""
        ...

    def tool_uses(
        self, *, since_us: int | None = None, until_us: int | None = None
    ) -> list[ToolUse]:
        """Which tools the requests offered that started in `[since_us, until_us)`."""
        ...

    def tool_calls(
        self, *, since_us: int | None = None, until_us: int | None = None
    ) -> dict[str, int]:
        """How many answers to requests of that time called each tool, by its name."""
        ...

    def usage(self, query: UsageQuery) -> list[UsageRow]:
        """Totals per group, ordered by key; without groups one row, even over nothing."""
        ...

    def integrity(self) -> list[str]:
        """What is damaged in the database, one sentence each; empty if it is sound."""
        ...

    def retire(self, before_us: int) -> int:
        """Forgets the parts of exchanges started before an instant; of how many."""
        ...

    def vacuum(self) -> None:
        """Gives unused space back to the disk, and mends wrong sums. Writers wait meanwhile."""
        ...

    def backup(self, path: Path) -> None:
        """Copies the ledger as it is now, also while in use, into a new file (0600).

        Raises:
            LedgerError: the file exists or cannot be written (`ledger-unwritable`).
        """
        ...

    def close(self) -> None:
        """Lets go of the database."""
        ...
