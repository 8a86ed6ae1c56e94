"""Budgets of one owner: found, set, raised and taken away.

The invariant: an owner has at most one budget of a window, a unit and a way to begin anew; what
is not said of it stays as it was.
"""

from decimal import Decimal
from typing import Any

import msgspec

from opencode_gate.config.paths import Paths
from opencode_gate.core.errors import UsageError
from opencode_gate.governance.policy import (
    Budget,
    Mode,
    Owner,
    Policy,
    Rules,
    Unit,
    Window,
)
from opencode_gate.ledger.journal import is_living, journals, session_id_of
from opencode_gate.ledger.sqlite import open_store
from opencode_gate.session.amounts import token_amount, usd_amount
from opencode_gate.session.operator import os_user

NOT_ROLLING = ("session", "total")


class BudgetName(msgspec.Struct, frozen=True, kw_only=True):
    """Which of an owner's budgets is meant."""

    window: Window
    unit: Unit = "usd"
    rolling: bool = False

    def __str__(self) -> str:
        rolling = "rolling " if self.rolling else ""
        return f"{rolling}{self.window} budget" + (" in tokens" if self.unit == "tokens" else "")

    def is_of(self, budget: Budget) -> bool:
        """Whether a budget is the one that is meant."""
        return (budget.window, budget.unit, budget.rolling) == (
            self.window,
            self.unit,
            self.rolling,
        )


class BudgetOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What is said of a budget beside its amount; `None` leaves it as it is."""

    at_end: str | None = None
    warn_at_percent: tuple[int, ...] | None = None
    mode: Mode | None = None

    def given(self) -> dict[str, Any]:
        """What is said, by the name it has in a budget."""
        said = {
            "at_end": self.at_end,
            "warn_at_percent": self.warn_at_percent,
            "mode": self.mode,
        }
        return {name: value for name, value in said.items() if value is not None}


def options_of(budget: Budget) -> BudgetOptions:
    """What a budget says beside its amount."""
    return BudgetOptions(
        at_end=budget.at_end, warn_at_percent=budget.warn_at_percent, mode=budget.mode
    )


def amount_of(text: str, unit: Unit) -> Decimal:
    """An amount in dollars or tokens, as it was typed.

    Raises:
        UsageError: it is none.
    """
    return Decimal(token_amount(text)) if unit == "tokens" else usd_amount(text)


def budget_named(rules: Rules, name: BudgetName) -> Budget | None:
    """The budget that is meant, if the owner has it."""
    return next((budget for budget in rules.budgets if name.is_of(budget)), None)


def made_budget(
    former: Budget | None, name: BudgetName, amount: Decimal, options: BudgetOptions, at_us: int
) -> Budget:
    """The budget as it is to be, beginning at `at_us` if it rolls and is new.

    Raises:
        UsageError: the options contradict each other.
    """
    if name.rolling and name.window in NOT_ROLLING:
        raise UsageError(
            "usage",
            f"a {name.window} budget never begins anew, so it cannot be a rolling one",
            hint="hour, day, week, month, quarter and year can",
        )
    since_us = None
    if name.rolling:
        since_us = at_us if former is None else former.since_us
    try:
        budget = Budget(
            window=name.window,
            usd=amount if name.unit == "usd" else None,
            tokens=int(amount) if name.unit == "tokens" else None,
            rolling=name.rolling,
            since_us=since_us,
        )
        kept = BudgetOptions() if former is None else options_of(former)
        for said in (kept, options):
            budget = msgspec.structs.replace(budget, **said.given())
        return budget
    except ValueError as error:
        raise UsageError("usage", str(error), hint="ogate budgets set --help") from error


def with_budget(rules: Rules, budget: Budget) -> Rules:
    """The rules with a budget, in the place of the one of its kind."""
    name = BudgetName(window=budget.window, unit=budget.unit, rolling=budget.rolling)
    budgets = tuple(budget if name.is_of(one) else one for one in rules.budgets)
    if budget not in budgets:
        budgets = (*rules.budgets, budget)
    return msgspec.structs.replace(rules, budgets=budgets)


def without_budget(rules: Rules, owner: Owner, name: BudgetName) -> Rules | None:
    """The rules without a budget; `None` where no rule is left of a session or a user."""
    budgets = tuple(one for one in rules.budgets if not name.is_of(one))
    left = msgspec.structs.replace(rules, budgets=budgets)
    return None if owner.kind in ("session", "user") and left == Rules() else left


def require_budget(rules: Rules, owner: Owner, name: BudgetName) -> Budget:
    """The budget that is meant.

    Raises:
        UsageError: `no-such-owner`, the owner has none such.
    """
    budget = budget_named(rules, name)
    if budget is not None:
        return budget
    amount = "USD" if name.unit == "usd" else "NUMBER"
    has = ", ".join(str(named(one)) for one in rules.budgets)
    raise UsageError(
        "no-such-owner",
        f"{owner} has no {name}",
        details=(f"it has: {has}",) if has else (),
        hint=f"ogate budgets set {budget_words(owner, name, amount)}",
    )


def named(budget: Budget) -> BudgetName:
    """What a budget is called by."""
    return BudgetName(window=budget.window, unit=budget.unit, rolling=budget.rolling)


def budget_words(owner: Owner, name: BudgetName, amount: str = "") -> str:
    """How a command names a budget: `day --rolling --team core`."""
    import shlex

    words = [name.window, amount]
    words += ["--tokens"] if name.unit == "tokens" else []
    words += ["--rolling"] if name.rolling else []
    # One's own is what a command means that names nobody.
    if owner.kind != "user" or owner.name != os_user():
        words += [f"--{owner.kind}", shlex.quote(owner.name)]
    return " ".join(word for word in words if word)


def running_sessions(paths: Paths, policy: Policy) -> tuple[str, ...]:
    """The ids of the sessions whose gateway lives on this machine, oldest first.

    Of those that a gateway serves to others, the ones with rules of their own: only these can
    be told from the ledger to be still open.

    Raises:
        LedgerError: the ledger cannot be read.
    """
    living = _living_sessions(paths)
    if not living:
        return ()
    from opencode_gate.session.serve import AGENT

    store = open_store(paths.ledger_file, read_only=True)
    try:
        known = store.sessions_of((*living, *policy.sessions))
    finally:
        store.close()
    serving = {id for id in living if id in known and known[id].agent == AGENT}
    if not serving:
        return living
    served = (id for id in sorted(policy.sessions) if id in known and known[id].ended_at_us is None)
    return tuple(dict.fromkeys((*(id for id in living if id not in serving), *served)))


def _living_sessions(paths: Paths) -> tuple[str, ...]:
    """The sessions of the journals whose process lives, that of a served gateway too."""
    ids = [session_id_of(path) for path in journals(paths.journals) if is_living(path)]
    return tuple(dict.fromkeys(id for id in ids if id is not None))


def session_called(paths: Paths, text: str) -> str:
    """The whole id of a session that runs or is in the ledger, from what was typed of it.

    Raises:
        UsageError: `no-such-session`.
        LedgerError: the ledger cannot be read.
    """
    living = [id for id in _living_sessions(paths) if id.startswith(text)]
    if len(living) == 1:
        return living[0]
    store = open_store(paths.ledger_file, read_only=True)
    try:
        return store.session(text).id
    finally:
        store.close()


def session_meant(paths: Paths, policy: Policy, name: BudgetName, *, has_it: bool) -> Owner:
    """The one running session a budget without an owner is about.

    Args:
        has_it: only sessions that have such a budget come into question.

    Raises:
        UsageError: none runs (`no-such-session`), or several do.
    """
    running = running_sessions(paths, policy)
    if not running:
        raise UsageError(
            "no-such-session",
            "no session runs on this machine",
            hint="ogate run --budget USD starts one with a budget; --session ID names another",
        )
    having = [
        id for id in running if budget_named(policy.sessions.get(id, Rules()), name) is not None
    ]
    # With a budget none of them has, a single session is still the one that is meant.
    meant = having if has_it and having else running
    if len(meant) > 1:
        raise UsageError(
            "usage",
            f"{len(meant)} sessions run{' with such a budget' if meant is having else ''}",
            details=tuple(meant),
            hint=f"say which: --session {meant[-1]}",
        )
    return Owner("session", meant[0])
