"""The rules in force, and what of them concerns one caller.

The idea: a number in shared memory is looked at before every request; only when it has moved is
the ledger asked whether the rules have changed, and every second besides, since a database can be
changed by other programs too. The invariants: a change of policy holds from the next request on,
one past ogate from the next second on; rules that cannot be read refuse everything.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from opencode_gate.core.clock import Clock, SystemClock
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
from opencode_gate.ledger.policy_mark import UNMARKED

CALLERS_REMEMBERED = 4096
ASK_EVERY_S = 1.0
"""How often the ledger itself is asked whether it has changed."""

_NEVER_SEEN = -1


class OwnedBudget(msgspec.Struct, frozen=True):
    """A budget, whose it is, and the time zone its windows follow."""

    owner: Owner
    budget: Budget
    id: str
    zone: str


class Counting(NamedTuple):
    """The window in which a budget counts now, and how it stands there.

    It is the one asked for, or a later one that the budget was used in already: a clock that is
    set back opens no window again.
    """

    key: WindowKey
    standing: Standing


class Law(msgspec.Struct, frozen=True, kw_only=True):
    """The rules that concern one caller, nearest owner first.

    Attributes:
        key: the caller's virtual key, `None` where it has none or it is unknown.
        names_key: the caller has one, known or not.
        is_empty: no rule concerns the caller.
        passed: models, by provider and name, against which no rule has anything.
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
    is_empty: bool = True
    passed: set[tuple[str, str | None]] = msgspec.field(default_factory=set)


class Rulebook:
    """Reads the policy when it has changed, and remembers what it means for whom."""

    def __init__(
        self, open_store: Callable[[], GovernanceStore], *, zone: str, clock: Clock | None = None
    ) -> None:
        """A book over a ledger that is opened when there is something to look up in it.

        `zone` is for owners that name no time zone of their own.
        """
        self._open_store = open_store
        self._clock = SystemClock() if clock is None else clock
        self._store: GovernanceStore | None = None
        self._zone = zone
        self._marks: Sequence[int] = UNMARKED
        self._mark = _NEVER_SEEN
        self._ask_at_s = 0.0
        self._change_mark: int | None = None
        self._changes = 0
        self._policy = Policy()
        self._is_read = False
        self._laws: dict[Caller, Law] = {}
        self._standings: dict[tuple[WindowKey, ...], Mapping[WindowKey, Counting]] = {}
        self._standings_mark: int | None = None

    @property
    def mark(self) -> int:
        """Differs from before if anything in the ledger may have changed up to the last look."""
        return self._changes

    def policy(self) -> Policy:
        """The rules in force now.

        Raises:
            Denied: they cannot be read.
        """
        now_s = self._clock.monotonic_s()
        if self._marks[0] != self._mark or now_s >= self._ask_at_s:
            self._ask_ledger(now_s)
        return self._policy

    def law_for(self, caller: Caller, now_s: float) -> Law:
        """What concerns `caller`; `now_s` is the clock's.

        Raises:
            Denied: the rules cannot be read.
        """
        if self._marks[0] != self._mark or now_s >= self._ask_at_s:
            self._ask_ledger(now_s)
        law = self._laws.get(caller)
        return self._read_law(caller) if law is None else law

    def _ask_ledger(self, now_s: float) -> None:
        """Reads the rules again if they have changed."""
        try:
            store = self._opened()
            # First the marks and then what they stand for: what changes in between shows.
            mark, change_mark = self._marks[0], store.change_mark()
            if change_mark != self._change_mark or not self._is_read:
                revision = store.policy_revision()
                if not self._is_read or revision != self._policy.revision:
                    self._policy = policy_of(*store.policy())
                    self._laws.clear()
                    self._is_read = True
                self._change_mark = change_mark
                self._changes += 1
        except (LedgerError, PolicyDenied) as error:
            self._mark, self._is_read = _NEVER_SEEN, False
            raise _unreadable(error) from error
        self._mark = _NEVER_SEEN if mark % 2 else mark
        self._ask_at_s = now_s + ASK_EVERY_S

    def _read_law(self, caller: Caller) -> Law:
        if len(self._laws) >= CALLERS_REMEMBERED:
            self._laws.clear()
        try:
            law = self._laws[caller] = law_of(self._policy, caller, self._zone)
        except ConfigError as error:
            raise _unreadable(error) from error
        return law

    def standings(self, keys: Sequence[WindowKey]) -> Mapping[WindowKey, Counting]:
        """How budgets stand, by the windows asked for; read again only when the ledger has changed.

        Raises:
            LedgerError: the ledger cannot be asked.
        """
        store = self._opened()
        change_mark, of = store.change_mark(), tuple(keys)
        if change_mark != self._standings_mark or len(self._standings) >= CALLERS_REMEMBERED:
            self._standings.clear()
            self._standings_mark = change_mark
        found = self._standings.get(of)
        if found is None:
            latest_us = store.latest_windows(key.budget_id for key in of)
            in_force = [
                WindowKey(budget_id, max(start_us, latest_us.get(budget_id, start_us)))
                for budget_id, start_us in of
            ]
            standings = store.standings(in_force)
            found = self._standings[of] = {
                asked: Counting(key, standings.get(key, Standing()))
                for asked, key in zip(of, in_force, strict=True)
            }
        return found

    def close(self) -> None:
        """Lets go of the ledger."""
        self._marks, self._mark = UNMARKED, _NEVER_SEEN
        if self._store is not None:
            self._store.close()

    def _opened(self) -> GovernanceStore:
        if self._store is None:
            self._store = self._open_store()
            self._marks = self._store.policy_marks()
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
        is_empty=caller.virtual_key is None and not (models or limits or budgets),
    )
