"""Rules and budgets in memory, for what only reads them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from opencode_gate.governance.policy import Owner, Rules, document_of
from opencode_gate.ledger.governance_store import (
    Lease,
    LeaseWish,
    PolicyDocument,
    Standing,
    WindowKey,
)
from opencode_gate.ledger.policy_mark import UNMARKED


@dataclass
class GovernanceFake:
    """A `GovernanceStore` without a database; leases are not given."""

    documents: dict[tuple[str, str], str] = field(default_factory=dict)
    money: dict[WindowKey, Standing] = field(default_factory=dict)
    revision: int = 0
    operators: list[str] = field(default_factory=list)

    def give(self, owner: Owner, rules: Rules) -> None:
        """Rules for an owner."""
        text = document_of(rules)
        self.put_policy([PolicyDocument(owner.kind, owner.name, text)], operator="test", at_us=0)

    def change_mark(self) -> int:
        return self.revision

    def policy_marks(self) -> Sequence[int]:
        return UNMARKED

    def policy_revision(self) -> int:
        return self.revision

    def policy(self) -> tuple[int, list[PolicyDocument]]:
        found = [PolicyDocument(kind, name, text) for (kind, name), text in self.documents.items()]
        return self.revision, found

    def put_policy(self, changes: Iterable[PolicyDocument], *, operator: str, at_us: int) -> int:
        for change in changes:
            if change.text is None:
                self.documents.pop((change.kind, change.name), None)
            else:
                self.documents[change.kind, change.name] = change.text
        self.operators.append(operator)
        self.revision += 1
        return self.revision

    def lease(self, process_id: str, wishes: Sequence[LeaseWish]) -> list[Lease]:
        return [Lease(wish.key, 0, self.money.get(wish.key, Standing())) for wish in wishes]

    def give_back(self, process_id: str, amounts: Mapping[WindowKey, int]) -> None:
        pass

    def lease_holders(self) -> set[str]:
        return set()

    def standings(
        self, keys: Iterable[WindowKey], *, process_id: str | None = None
    ) -> dict[WindowKey, Standing]:
        return {key: self.money.get(key, Standing()) for key in keys}

    def latest_windows(self, budget_ids: Iterable[str]) -> dict[str, int]:
        wanted = set(budget_ids)
        latest: dict[str, int] = {}
        for key in self.money:
            if key.budget_id in wanted:
                latest[key.budget_id] = max(latest.get(key.budget_id, 0), key.window_start_us)
        return latest

    def close(self) -> None:
        pass
