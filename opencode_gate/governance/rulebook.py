"""The rules in force, and what of them concerns one caller.

The idea: the ledger is asked before every request whether anything has changed, which takes
microseconds; only then are the rules read again. The invariants: a change of policy holds from
the next request on; rules that cannot be read refuse everything.
"""

from collections.abc import Callable, Mapping, Sequence

import msgspec

from opencode_gate.core.errors import ConfigError, GateError, LedgerError, PolicyDenied
from opencode_gate.governance import sentences
from opencode_gate.governance.admission import Caller
from opencode_gate.governance.decisions import Denied
from opencode_gate.governance.policy import (
    Budget,
    ModelRules,
    Owner,
    Policy,
    RateLimit,
    VirtualKey,
    policy_of,
)
from opencode_gate.governance.windows import follows_calendar, zone_named
from opencode_gate.ledger.governance_store import GovernanceStore, Standing, WindowKey

CALLERS_REMEMBERED = 4096


class OwnedBudget(msgspec.Struct, frozen=True):
    """A budget, whose it is, and the time zone its windows follow."""

    owner: Owner
    budget: Budget
    id: str
    zone: str


class Law(msgspec.Struct, frozen=True, kw_only=True):
    """The rules that concern one caller, nearest owner first.

    Attributes:
        key: the caller's virtual key, `None` where it has none or it is unknown.
        names_key: the caller has one, known or not.
    """

    revision: int
    names_key: bool = False
    key: VirtualKey | None = None
    team: str | None = None
    customer: str | None = None
    models: tuple[tuple[Owner, ModelRules], ...] = ()
    limits: tuple[tuple[Owner, RateLimit], ...] = ()
    budgets: tuple[OwnedBudget, ...] = ()
    expires_at_us: int | None = None
    has_shadow_limits: bool = False

    @property
    def is_empty(self) -> bool:
        """True where no rule concerns the caller."""
        return not (self.names_key or self.models or self.limits or self.budgets)


class Rulebook:
    """Reads the policy when it has changed, and remembers what it means for whom."""

    def __init__(self, open_store: Callable[[], GovernanceStore], *, zone: str) -> None:
        """A book over a ledger that is opened when there is something to look up in it.

        `zone` is for owners that name no time zone of their own.
        """
        self._open_store = open_store
        self._store: GovernanceStore | None = None
        self._zone = zone
        self._mark: int | None = None
        self._policy = Policy()
        self._is_read = False
        self._laws: dict[Caller, Law] = {}

    @property
    def mark(self) -> int | None:
        """Differs from before if anything in the ledger may have changed up to the last look."""
        return self._mark

    def policy(self) -> Policy:
        """The rules in force now.

        Raises:
            Denied: they cannot be read.
        """
        try:
            store = self._opened()
            mark = store.change_mark()
            if mark != self._mark:
                revision = store.policy_revision()
                if not self._is_read or revision != self._policy.revision:
                    self._policy = policy_of(*store.policy())
                    self._laws.clear()
                    self._is_read = True
                self._mark = mark
        except (LedgerError, PolicyDenied) as error:
            self._mark, self._is_read = None, False
            raise _unreadable(error) from error
        return self._policy

    def law_for(self, caller: Caller) -> Law:
        """What concerns `caller`.

        Raises:
            Denied: the rules cannot be read.
        """
        policy = self.policy()
        law = self._laws.get(caller)
        if law is None:
            if len(self._laws) >= CALLERS_REMEMBERED:
                self._laws.clear()
            try:
                law = self._laws[caller] = law_of(policy, caller, self._zone)
            except ConfigError as error:
                raise _unreadable(error) from error
        return law

    def standings(self, keys: Sequence[WindowKey]) -> Mapping[WindowKey, Standing]:
        """How budgets stand.

        Raises:
            LedgerError: the ledger cannot be asked.
        """
        return self._opened().standings(keys)

    def close(self) -> None:
        """Lets go of the ledger."""
        if self._store is not None:
            self._store.close()

    def _opened(self) -> GovernanceStore:
        if self._store is None:
            self._store = self._open_store()
        return self._store


def _unreadable(error: GateError) -> Denied:
    return Denied(sentences.policy_unreadable(error.message), http_status=403)


def law_of(policy: Policy, caller: Caller, zone: str) -> Law:
    """What of a policy concerns a caller; `zone` is for owners that name none.

    Raises:
        ConfigError: an owner's budgets follow a time zone that there is not.
    """
    owners = policy.owners_of(
        session_id=caller.session_id, user=caller.user, virtual_key=caller.virtual_key
    )
    names = {owner.kind: owner.name for owner, _ in owners}
    budgets = tuple(
        OwnedBudget(owner, budget, budget.id_for(owner), rules.time_zone or zone)
        for owner, rules in owners
        for budget in rules.budgets
    )
    for one in budgets:
        if follows_calendar(one.budget):
            zone_named(one.zone)
    models = tuple((owner, rules.models) for owner, rules in owners if rules.models is not None)
    key = None if caller.virtual_key is None else policy.virtual_keys.get(caller.virtual_key)
    limits = tuple((owner, limit) for owner, rules in owners for limit in rules.limits)
    return Law(
        revision=policy.revision,
        names_key=caller.virtual_key is not None,
        key=key,
        team=names.get("team"),
        customer=names.get("customer"),
        models=models,
        limits=limits,
        has_shadow_limits=any(limit.mode == "shadow" for _, limit in limits),
        budgets=budgets,
        expires_at_us=None if key is None else key.expires_us,
    )
