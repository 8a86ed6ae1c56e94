"""What the verbs of `ogate vkeys`, `teams` and `customers` have in common.

The invariant: a name is checked before anything is read, and what would lose something asks first.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from opencode_gate.cli import prompts
from opencode_gate.cli.prompts import may_ask
from opencode_gate.cli.render import Result, Text, stdout_width
from opencode_gate.cli.rule_options import pattern_notes
from opencode_gate.core.errors import UsageError

if TYPE_CHECKING:
    from opencode_gate.governance.policy import Owner, OwnerKind, Rules
    from opencode_gate.governance.standing import BudgetStanding
    from opencode_gate.ledger.governance_store import GovernanceStore


def owner_named(kind: "OwnerKind", name: str) -> "Owner":
    """The owner of a name.

    Raises:
        UsageError: nobody can be called so.
    """
    from opencode_gate.governance.policy import Owner
    from opencode_gate.session.policy_names import checked_name

    return Owner(kind, checked_name(kind, name))


def listed(kind: "OwnerKind", *, as_json: bool) -> Result:
    """All owners of a kind."""
    from opencode_gate.cli.owner_view import owners_table, rules_document
    from opencode_gate.config.paths import paths
    from opencode_gate.governance.policy import Owner
    from opencode_gate.governance.standing import read_policy
    from opencode_gate.session.policy_changes import open_rules
    from opencode_gate.session.policy_names import GROUPS, NOUNS
    from opencode_gate.session.policy_sense import owned

    with open_rules(paths(), read_only=True) as store:
        policy = read_policy(store)
        owners = {Owner(kind, name): rules for name, rules in owned(policy, kind).items()}
        found = standings_of(store, owners)
    data = [rules_document(owner, rules, found, now_us()) for owner, rules in owners.items()]
    if as_json or owners:
        blocks = [] if as_json else [owners_table(owners, policy, now_us(), width=stdout_width())]
        return Result(data={GROUPS[kind]: data}, blocks=blocks)
    none = f"no {NOUNS[kind]}s yet; `ogate {GROUPS[kind]} create NAME` makes one"
    return Result(data={GROUPS[kind]: data}, talk=[none])


def shown(kind: "OwnerKind", name: str, *, as_json: bool) -> Result:
    """One owner and all its rules."""
    from opencode_gate.cli.owner_view import owner_facts, rules_document
    from opencode_gate.config.paths import paths
    from opencode_gate.governance.standing import read_policy
    from opencode_gate.session.policy_changes import open_rules, rules_for
    from opencode_gate.session.policy_owners import members

    owner = owner_named(kind, name)
    with open_rules(paths(), read_only=True) as store:
        policy = read_policy(store)
        rules = rules_for(policy, owner)
        found = standings_of(store, {owner: rules})
    data = rules_document(owner, rules, found, now_us())
    if kind != "vkey":
        data["members"] = [one.name for one in members(policy, owner)]
    return Result(
        data={kind: data},
        blocks=() if as_json else [owner_facts(owner, rules, found, policy, now_us())],
    )


def created(kind: "OwnerKind", name: str, rules: "Rules") -> Result:
    """A new team or customer."""
    from opencode_gate.config.paths import paths
    from opencode_gate.session.policy_owners import create

    owner = owner_named(kind, name)
    create(paths(), owner, rules, at_us=now_us())
    option = f"--{kind} {owner.name}"
    next_step = (
        f"ogate vkeys create NAME {option}"
        if kind == "team"
        else f"ogate teams create NAME {option}"
    )
    return Result(
        data={},
        blocks=[Text(f"{owner} is made")],
        talk=[
            *pattern_notes(rules),
            f"next: {next_step}",
            f"a budget: ogate budgets set month USD {option}",
        ],
    )


def changed(kind: "OwnerKind", name: str, edit: "Callable[[Rules], Rules]") -> Result:
    """An owner with other rules."""
    from opencode_gate.config.paths import paths
    from opencode_gate.session.policy_names import GROUPS
    from opencode_gate.session.policy_owners import change

    owner = owner_named(kind, name)

    def other(rules: "Rules") -> "Rules":
        after = edit(rules)
        if after == rules:
            raise UsageError("usage", "nothing to change", hint=f"ogate {GROUPS[kind]} set --help")
        return after

    after = change(paths(), owner, other, at_us=now_us())
    shown_by = f"ogate {GROUPS[kind]} show {owner.name}"
    return Result(
        data={},
        blocks=[Text(f"{owner} is changed, from the next request on: {shown_by}")],
        talk=pattern_notes(after),
    )


def removed(kind: "OwnerKind", name: str, *, yes: bool, no_input: bool, verb: str) -> Result:
    """An owner taken away, unless others belong to it."""
    from opencode_gate.config.paths import paths
    from opencode_gate.session.policy_changes import current_policy
    from opencode_gate.session.policy_names import GROUPS
    from opencode_gate.session.policy_owners import remove, require_unused

    owner = owner_named(kind, name)
    require_unused(current_policy(paths()), owner)
    if not yes:
        prompts.require_yes(
            f"{verb.capitalize()} {owner} for ever?",
            may_ask=may_ask(no_input=no_input),
            instead=f"ogate {GROUPS[kind]} {verb} {owner.name} --yes",
        )
    remove(paths(), owner, at_us=now_us())
    return Result(data={}, blocks=[Text(f"{owner} is {verb.removesuffix('e')}ed")])


def standings_of(
    store: "GovernanceStore", owners: "dict[Owner, Rules]"
) -> "tuple[BudgetStanding, ...]":
    """How the budgets of owners stand now."""
    from opencode_gate.core.local_time import local_zone_name
    from opencode_gate.governance.standing import standings

    return standings(store, owners.items(), at_us=now_us(), time_zone=local_zone_name())


def now_us() -> int:
    """This moment."""
    from opencode_gate.core.clock import SystemClock

    return SystemClock().now_us()
