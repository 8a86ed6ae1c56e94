"""How the budgets above requests stand, for whoever shows or checks them.

The idea: every view asks here, so that all of them mean the same by "today". The invariants:
nothing is written; a figure is what the ledger says at that moment; budgets come nearest owner
first, in the order they were made.
"""

from collections.abc import Iterable

import msgspec

from opencode_gate.governance.policy import Budget, Owner, Policy, Rules, Unit, policy_of
from opencode_gate.governance.windows import later, window_of
from opencode_gate.ledger.governance_store import GovernanceStore, Standing, WindowKey
from opencode_gate.ledger.records import ExchangeRecord, SessionRecord


class Above(msgspec.Struct, frozen=True, kw_only=True):
    """Whose rules are asked for: those above a request of this session, user and virtual key."""

    session_id: str | None = None
    user: str | None = None
    virtual_key: str | None = None


class BudgetStanding(msgspec.Struct, frozen=True, kw_only=True):
    """One budget in its window of one moment; amounts in nano-dollars or tokens.

    Attributes:
        start_us: when the window began, 0 for one that never begins anew.
        resets_at_us: when the next one begins, `None` for none.
        time_zone: the zone whose calendar it follows.
        spent: charged; `held`: reserved, or put aside by processes that serve requests.
    """

    owner: Owner
    budget: Budget
    start_us: int
    resets_at_us: int | None
    time_zone: str
    spent: int
    held: int

    @property
    def unit(self) -> Unit:
        """What the amounts are counted in."""
        return self.budget.unit

    @property
    def limit(self) -> int:
        """The amount of the budget."""
        return self.budget.limit

    @property
    def left(self) -> int:
        """What is neither spent nor held; 0 where more was spent than there was."""
        return max(0, self.limit - self.spent - self.held)

    @property
    def percent(self) -> int:
        """How much of it is spent, in whole percent rounded down; 100 of nothing."""
        return 100 if self.limit == 0 else 100 * self.spent // self.limit

    @property
    def warned_percent(self) -> int | None:
        """The highest of its thresholds that is reached, `None` below all of them."""
        reached = [mark for mark in self.budget.warn_at_percent if self.percent >= mark]
        return max(reached, default=None)

    @property
    def is_spent(self) -> bool:
        """Nothing is left to spend."""
        return self.spent >= self.limit


def read_policy(store: GovernanceStore) -> Policy:
    """The rules in force.

    Raises:
        LedgerError: the ledger cannot be read.
        PolicyDenied: `policy-unreadable`.
    """
    return policy_of(*store.policy())


def standings(
    store: GovernanceStore,
    owners: Iterable[tuple[Owner, Rules]],
    *,
    at_us: int,
    time_zone: str,
) -> tuple[BudgetStanding, ...]:
    """How all budgets of some owners stood at an instant; `time_zone` for those that name none.

    A window that begins later than `at_us` counts where one was used already: a clock that was
    set back opens no window again.

    Raises:
        LedgerError: the ledger cannot be read.
    """
    budgets = [
        (owner, budget, rules.time_zone or time_zone)
        for owner, rules in owners
        for budget in rules.budgets
    ]
    if not budgets:
        return ()
    latest = store.latest_windows(budget.id_for(owner) for owner, budget, _ in budgets)
    spans = []
    for owner, budget, zone in budgets:
        span = window_of(budget, at_us, zone)
        latest_us = latest.get(budget.id_for(owner))
        spans.append(span if latest_us is None else later(span, latest_us))
    keys = [
        WindowKey(budget.id_for(owner), span.start_us)
        for (owner, budget, _), span in zip(budgets, spans, strict=True)
    ]
    found = store.standings(keys)
    return tuple(
        BudgetStanding(
            owner=owner,
            budget=budget,
            start_us=span.start_us,
            resets_at_us=span.end_us,
            time_zone=zone,
            spent=standing.spent,
            held=standing.held,
        )
        for (owner, budget, zone), span, standing in zip(
            budgets, spans, (found.get(key, Standing()) for key in keys), strict=True
        )
    )


def standings_above(
    store: GovernanceStore, above: Iterable[Above], *, at_us: int, time_zone: str
) -> tuple[BudgetStanding, ...]:
    """How the budgets above some requests stand, each once.

    Raises:
        LedgerError: the ledger cannot be read.
        PolicyDenied: `policy-unreadable`.
    """
    if store.policy_revision() == 0:
        return ()
    policy = read_policy(store)
    owners = {
        owner: rules
        for one in above
        for owner, rules in policy.owners_of(
            session_id=one.session_id, user=one.user, virtual_key=one.virtual_key
        )
    }
    return standings(store, owners.items(), at_us=at_us, time_zone=time_zone)


def above_session(session: SessionRecord, exchanges: Iterable[ExchangeRecord]) -> list[Above]:
    """Whose rules are above some requests of a session, by the keys they came under.

    Those of a gateway for many may be of sessions that others have begun.
    """
    asked = {(exchange.session_id, exchange.virtual_key or "") for exchange in exchanges}
    return [
        Above(session_id=session_id, user=session.user, virtual_key=key or None)
        for session_id, key in sorted(asked or {(session.id, "")})
    ]
