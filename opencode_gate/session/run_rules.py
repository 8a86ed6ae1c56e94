"""The rules a session will run under, known before anything is started.

The idea: what a hard rule cannot see it cannot refuse, so a session under one starts only if all
of its requests pass the gateway. The invariant: nothing is written here; the session's own
rules are put into the ledger when it is launched, before anything is spawned.
"""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Final, NamedTuple

from opencode_gate.config.paths import Paths
from opencode_gate.config.settings import Settings
from opencode_gate.core.clock import SystemClock
from opencode_gate.core.errors import PolicyDenied, UsageError
from opencode_gate.ledger.records import SessionRecord
from opencode_gate.session.naming import RunRequest

if TYPE_CHECKING:
    # Of no use to whoever has no rules, and loaded before Opencode starts.
    from opencode_gate.governance.policy import Owner, Policy, Rules
    from opencode_gate.governance.standing import BudgetStanding
    from opencode_gate.ledger.governance_store import GovernanceStore
    from opencode_gate.ledger.store import Store

KEPT_DAYS: Final = 30
"""How long the rules of a session that has ended are kept, for its summary to be shown again."""

_DAY_US: Final = 86_400_000_000


class RunRules(NamedTuple):
    """The rules of one session.

    Attributes:
        own: made for this session alone, written under its id.
        above: those of the user, the virtual key, its team and customer, as far as they have any.
        virtual_key: the name of the key it runs under.
        earlier: ids of sessions that have rules.
    """

    own: "Rules | None" = None
    above: "tuple[tuple[Owner, Rules], ...]" = ()
    virtual_key: str | None = None
    earlier: tuple[str, ...] = ()

    @property
    def hard(self) -> tuple[str, ...]:
        """What makes them hard, in words: hard budgets and lists of models."""
        own = () if self.own is None else ((None, self.own),)
        return tuple(_hard_words([*own, *self.above]))


NO_RULES: Final = RunRules()


def rules_of_run(
    store: "GovernanceStore",
    *,
    budget_usd: Decimal | None,
    virtual_key: str | None,
    user: str,
    now_us: int,
) -> RunRules:
    """The rules a session would run under.

    Args:
        budget_usd: what the session may cost at most, `None` for no limit of its own.
        virtual_key: the name of the virtual key it is to run under.
        user: the name of the OS user.
        now_us: for keys that expire.

    Raises:
        UsageError: `no-such-owner`, there is no such virtual key.
        PolicyDenied: the key is switched off or expired, or the rules cannot be read.
        LedgerError: the ledger cannot be read.
    """
    from opencode_gate.governance.policy import Budget, Policy, Rules
    from opencode_gate.governance.standing import read_policy

    policy = read_policy(store) if store.policy_revision() else Policy()
    if virtual_key is not None:
        _require_key(policy, virtual_key, now_us)
    own = None
    if budget_usd is not None:
        own = Rules(budgets=(Budget(window="session", usd=budget_usd),))
    return RunRules(
        own=own,
        above=policy.owners_of(session_id=None, user=user, virtual_key=virtual_key),
        virtual_key=virtual_key,
        earlier=tuple(policy.sessions),
    )


def read_rules(request: RunRequest, settings: Settings, paths: Paths) -> RunRules:
    """The rules of the session that is asked for, read from the ledger.

    Raises:
        GateError: as `rules_of_run`.
    """
    from opencode_gate.ledger.sqlite.connection import policy_revision

    budget_usd = settings.run.budget if request.budget_usd is None else request.budget_usd
    is_asked = budget_usd is not None or request.virtual_key is not None
    if not is_asked and policy_revision(paths.ledger_file) == 0:
        return NO_RULES
    from opencode_gate.ledger.sqlite.governance import open_governance
    from opencode_gate.session.operator import os_user

    store = open_governance(paths.ledger_file, read_only=True)
    try:
        return rules_of_run(
            store,
            budget_usd=budget_usd,
            virtual_key=request.virtual_key,
            user=os_user(),
            now_us=SystemClock().now_us(),
        )
    finally:
        store.close()


def standings_before(rules: RunRules, paths: Paths) -> "tuple[BudgetStanding, ...]":
    """How the budgets stand that a session is about to start under; its own is untouched.

    Raises:
        LedgerError: the ledger cannot be read.
    """
    if rules == NO_RULES:
        return ()
    from opencode_gate.core.local_time import local_zone_name
    from opencode_gate.governance.policy import Owner
    from opencode_gate.governance.standing import standings

    own = () if rules.own is None else ((Owner("session", ""), rules.own),)
    if not any(one.budgets for _, one in (*own, *rules.above)):
        return ()
    from opencode_gate.ledger.sqlite.governance import open_governance

    store = open_governance(paths.ledger_file, read_only=True)
    try:
        now_us = SystemClock().now_us()
        return standings(store, (*own, *rules.above), at_us=now_us, time_zone=local_zone_name())
    finally:
        store.close()


def put_session_rules(
    governance: "GovernanceStore",
    ledger: "Store",
    session: SessionRecord,
    own: "Rules",
    rules: RunRules,
) -> None:
    """Writes a session's own rules, and forgets those of sessions that ended long ago.

    Raises:
        LedgerError: the ledger cannot be written.
    """
    from opencode_gate.governance.policy import document_of
    from opencode_gate.ledger.governance_store import PolicyDocument

    now_us = session.started_at_us
    ended = ledger.sessions_of(rules.earlier)
    changes = [
        PolicyDocument("session", one.id, None)
        for one in ended.values()
        if one.ended_at_us is not None and one.ended_at_us < now_us - KEPT_DAYS * _DAY_US
    ]
    changes.append(PolicyDocument("session", session.id, document_of(own)))
    governance.put_policy(changes, operator=session.user, at_us=now_us)


def require_no_way_round(
    hard: Sequence[str],
    *,
    direct: Iterable[str],
    plugins: Iterable[str],
    overruled: Iterable[str],
) -> None:
    """Refuses a session under hard rules of which some requests would not pass the gateway.

    Args:
        hard: the hard rules above it, in words; none, and everything passes.
        direct: providers whose subscription is left direct.
        plugins: plugins of Opencode's that may send requests elsewhere.
        overruled: what outranks the session's configuration and passes the gateway by.

    Raises:
        PolicyDenied: `way-round`, with the command that closes the first of them.
    """
    if not hard:
        return
    ways = [
        (f"the subscription of {one} is left direct", f"{_edit(one)} --subscription key")
        for one in direct
    ]
    ways += [(f"the plugin {one} may send requests elsewhere", _PURE) for one in plugins]
    ways += [(one, "ogate run -- debug config") for one in overruled]
    if ways:
        raise PolicyDenied(
            "way-round",
            f"under {hard[0]} every request has to pass the gateway, and some would not",
            details=tuple(sentence for sentence, _ in ways),
            hint=ways[0][1],
        )


def require_own_process(hard: Sequence[str], attach: str | None) -> None:
    """Refuses to work through another Opencode, whose requests pass by, where rules are hard.

    Raises:
        PolicyDenied: `way-round`.
    """
    if hard and attach is not None:
        raise PolicyDenied(
            "way-round",
            f"under {hard[0]} every request has to pass the gateway, and those of {attach} "
            "are another process's own",
            hint="ogate run -- serve, and attach to that one",
        )


_PURE: Final = "ogate run -- --pure starts Opencode without plugins"


def is_pure(is_asked: bool, environ: Mapping[str, str]) -> bool:
    """Whether Opencode runs without plugins: `--pure`, or its variable."""
    return is_asked or environ.get("OPENCODE_PURE", "").lower() in ("1", "true")


def _edit(provider_id: str) -> str:
    return f"ogate providers edit {provider_id}"


def _hard_words(owners: "Iterable[tuple[Owner | None, Rules]]") -> Iterable[str]:
    for owner, rules in owners:
        whose = "this session" if owner is None else str(owner)
        if any(budget.is_hard for budget in rules.budgets):
            yield f"the budget of {whose}"
        if rules.models is not None and rules.models.mode == "enforce":
            yield f"the list of models of {whose}"


def _require_key(policy: "Policy", name: str, now_us: int) -> None:
    from opencode_gate.config.toml_shape import nearest
    from opencode_gate.credentials.shape import quoted_name
    from opencode_gate.governance.served_keys import require_usable

    key = policy.virtual_keys.get(name)
    if key is None:
        close = nearest(name, policy.virtual_keys)
        raise UsageError(
            "no-such-owner",
            f"there is no virtual key {quoted_name(name)}",
            details=(f"did you mean {close[0]}?",) if close else (),
            hint="ogate vkeys list",
        )
    require_usable(name, key, now_us)
