"""Changes of the rules: all or none, never lost, never nonsense, and no injection."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import msgspec
import pytest

from opencode_gate.config.paths import paths
from opencode_gate.core.errors import ConfigError, UsageError
from opencode_gate.governance.policy import Budget, ModelRules, Owner, Policy, Rules, Team
from opencode_gate.session.policy_budgets import (
    BudgetName,
    BudgetOptions,
    budget_named,
    made_budget,
    with_budget,
    without_budget,
)
from opencode_gate.session.policy_changes import (
    change_rules,
    current_policy,
    differences,
    rules_for,
    with_rules,
)
from tests.support.policies import some_policy, virtual_key

CORE = Owner("team", "core")
DAY = BudgetName(window="day")

SHAPED = [
    "'; DROP TABLE policy_documents; --",
    '" OR 1=1 --',
    "x\\'); DELETE FROM audit_events; --",
    "%s %d {0} ${HOME} $(id) `id`",
    "名前 ½ 😀",
]


def change(owner, rules) -> None:
    change_rules(paths(), lambda _: {owner: rules}, at_us=1)


def test_changes_at_the_same_time_do_not_undo_each_other() -> None:
    change(CORE, Team())

    def add_team(number):
        change(Owner("team", f"t{number}"), Team())

    def raise_by_one(_):
        def edit(policy):
            rules = rules_for(policy, CORE)
            former = budget_named(rules, DAY)
            usd = Decimal(1) if former is None else former.usd + 1
            budget = made_budget(former, DAY, usd, BudgetOptions(), 1)
            return {CORE: with_budget(rules, budget)}

        change_rules(paths(), edit, at_us=1)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add_team, range(20)))
        list(pool.map(raise_by_one, range(20)))
    policy = current_policy(paths())
    assert len(policy.teams) == 21
    assert policy.teams["core"].budgets[0].usd == 20


def test_of_several_changes_one_that_makes_no_sense_stops_all() -> None:
    bad = Team(time_zone="Berlin")
    with pytest.raises(ConfigError) as caught:
        change_rules(paths(), lambda _: {CORE: Team(), Owner("team", "b"): bad}, at_us=1)
    assert caught.value.message == "team b time_zone 'Berlin' is no time zone"
    assert current_policy(paths()) == Policy()


def test_what_was_wrong_before_does_not_stop_other_changes() -> None:
    store_policy = {Owner("vkey", "anna"): virtual_key(team="gone")}
    with pytest.raises(ConfigError):
        change_rules(paths(), lambda _: store_policy, at_us=1)
    change(Owner("team", "gone"), Team())
    change_rules(paths(), lambda _: store_policy, at_us=1)
    ledger = sqlite3.connect(paths().ledger_file)
    with ledger:
        ledger.execute("DELETE FROM policy_documents WHERE kind = 'team'")
    ledger.close()
    change(CORE, Team())
    assert set(current_policy(paths()).teams) == {"core"}


@pytest.mark.parametrize("text", SHAPED)
def test_text_shaped_like_sql_or_a_shell_is_text(text) -> None:
    user, session = Owner("user", text), Owner("session", text)
    budget = Budget(window="day", usd=Decimal(5))
    change(Owner("vkey", "anna"), virtual_key(tags=(text,), models=ModelRules(deny=(text,))))
    change(user, Rules(budgets=(budget,)))
    change(session, Rules(budgets=(budget,)))
    policy = current_policy(paths())
    assert policy.users == policy.sessions == {text: Rules(budgets=(budget,))}
    assert policy.virtual_keys["anna"].tags == (text,)
    change(user, None)
    assert current_policy(paths()).users == {}


def test_an_owner_that_is_not_there_is_an_error_with_the_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        rules_for(some_policy(), Owner("team", "cor"))
    assert (caught.value.code, caught.value.hint) == ("no-such-owner", "ogate teams list")
    assert caught.value.details == ("did you mean core?",)
    assert rules_for(some_policy(), Owner("user", "ada")) == Rules()


def test_the_difference_leads_from_one_policy_to_the_other() -> None:
    before, after = some_policy(), Policy(teams={"core": Team(), "b": Team()})
    assert with_rules(before, differences(before, after)) == after
    assert differences(before, before) == {}
    sessions = msgspec.structs.replace(before, sessions={"01S": Rules()})
    assert differences(sessions, before) == {}


def test_the_last_rule_of_a_user_takes_the_user_along_but_not_a_team() -> None:
    budget = Budget(window="day", usd=Decimal(5))
    user = Owner("user", "ada")
    assert without_budget(Rules(budgets=(budget,)), user, DAY) is None
    assert without_budget(Team(budgets=(budget,)), CORE, DAY) == Team()
    kept = Rules(time_zone="UTC", budgets=(budget,))
    assert without_budget(kept, user, DAY) == Rules(time_zone="UTC")
