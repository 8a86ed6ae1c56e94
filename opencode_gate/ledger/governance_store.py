"""What a ledger's database does for rules and budgets, whichever engine it is.

The idea: money of a budget is either *spent* (charged with the exchange that cost it, in the
transaction that folds the exchange) or *held* (leased to a process, which reserves from it in
memory). The invariants, by the tests in `tests/contract/test_governance_store.py`: spent and
held together never exceed the limit a lease was given against; charging an exchange twice is
charging it once; whoever dies holding leases loses them when its journal is settled; every
change of policy leaves an audit event in the same transaction.
All methods raise `LedgerError` when the database fails.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol


class WindowKey(NamedTuple):
    """A budget in one of its windows; `window_start_us` is 0 where there is but one."""

    budget_id: str
    window_start_us: int


class PolicyDocument(NamedTuple):
    """The rules of one owner as JSON; as a change, `text=None` removes them."""

    kind: str
    name: str
    text: str | None


class LeaseWish(NamedTuple):
    """What a process wants of one budget: `needed` at least, up to `wanted` if there is plenty."""

    key: WindowKey
    limit: int
    needed: int
    wanted: int


class Standing(NamedTuple):
    """How a budget stands: charged so far, and held by processes (of that, by the asking one)."""

    spent: int = 0
    held: int = 0
    held_by_me: int = 0


class Lease(NamedTuple):
    """The answer to a wish: `amount` is 0 for all of them if one could not be had.

    `key` may name a later window than was asked for: a clock that was set back opens no window
    again.
    """

    key: WindowKey
    amount: int
    standing: Standing


class GovernanceStore(Protocol):
    """Rules and budgets. An instance belongs to the thread that opened it."""

    def change_mark(self) -> int:
        """Differs from the last call's if another connection has changed the database since."""
        ...

    def policy_marks(self) -> Sequence[int]:
        """One number, that of this moment: even and the same as long as no rule has changed.

        Odd where nobody can say. Whoever changes the tables by other means does not change it.
        """
        ...

    def policy_revision(self) -> int:
        """Grows with every change of policy; 0 before the first."""
        ...

    def policy(self) -> tuple[int, list[PolicyDocument]]:
        """The revision and all documents of it."""
        ...

    def put_policy(self, changes: Iterable[PolicyDocument], *, operator: str, at_us: int) -> int:
        """Writes changes, all or none, with an audit event for each; the new revision."""
        ...

    def lease(self, process_id: str, wishes: Sequence[LeaseWish]) -> list[Lease]:
        """Leases from several budgets in one step: all of them or none.

        Beyond what is needed, a lease takes at most a 64th of what is left, so that the last of
        a budget lies in no process that does not use it.
        """
        ...

    def give_back(self, process_id: str, amounts: Mapping[WindowKey, int]) -> None:
        """Returns leased money that is not reserved."""
        ...

    def lease_holders(self) -> set[str]:
        """The processes that hold anything."""
        ...

    def standings(
        self, keys: Iterable[WindowKey], *, process_id: str | None = None
    ) -> dict[WindowKey, Standing]:
        """How budgets stand; those nobody has used yet stand at zero."""
        ...

    def latest_windows(self, budget_ids: Iterable[str]) -> dict[str, int]:
        """The start of the latest window each budget was ever used in."""
        ...

    def close(self) -> None:
        """Lets go of the database."""
        ...
