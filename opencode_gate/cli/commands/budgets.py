"""`ogate budgets`: who may spend how much, and how it stands.

The invariant: a change acts on the next request of every session it concerns, and the answer
says what it was, what it is, and what is left.
"""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from opencode_gate.cli import prompts
from opencode_gate.cli.options import AsJson, NoInput, Yes
from opencode_gate.cli.owner_verbs import now_us, standings_of
from opencode_gate.cli.prompts import may_ask
from opencode_gate.cli.render import Result, Text, stdout_width
from opencode_gate.cli.rule_options import Customer, SessionOf, Team, User, Vkey, Zone, owner_of
from opencode_gate.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opencode_gate.config.paths import Paths
    from opencode_gate.governance.policy import Owner, Policy, Rules
    from opencode_gate.session.policy_budgets import BudgetName

app = typer.Typer()

WindowName = Literal["session", "hour", "day", "week", "month", "quarter", "year", "total"]
Window = Annotated[
    WindowName, typer.Argument(metavar="WINDOW", help="session, hour, day, week, … or total.")
]
Amount = Annotated[str, typer.Argument(metavar="AMOUNT", help="In dollars: 5, 5.50, $5, 1,503.")]
InTokens = Annotated[bool, typer.Option("--tokens", help="Count tokens, not dollars.")]
Rolling = Annotated[
    bool, typer.Option("--rolling", help="Begins anew every so often, not with the calendar.")
]


@app.command("list")
def list_budgets(
    vkey: Vkey = None,
    team: Team = None,
    customer: Customer = None,
    user: User = None,
    session: SessionOf = None,
    show_all: Annotated[
        bool, typer.Option("--all", help="Those of sessions too that have ended.")
    ] = False,
    as_json: AsJson = False,
) -> Result:
    """All budgets: spent, held by what runs, left, and when they begin anew."""
    from opencode_gate.cli.budget_table import budgets_table
    from opencode_gate.cli.budget_view import standing_document
    from opencode_gate.config.paths import paths
    from opencode_gate.governance.standing import read_policy
    from opencode_gate.session.policy_budgets import running_sessions
    from opencode_gate.session.policy_changes import open_rules, rules_for

    places = paths()
    with open_rules(places, read_only=True) as store:
        policy = read_policy(store)
        owner = _owner(places, {"vkey": vkey, "team": team, "customer": customer}, user, session)
        if owner is not None:
            owners = {owner: rules_for(policy, owner)}
        else:
            owners = _all_owners(policy, None if show_all else running_sessions(places, policy))
        found = standings_of(store, owners)
    none = "no budgets yet; `ogate budgets set day 20` makes one"
    lines = [] if found else [none if owner is None else f"{owner} has no budget"]
    return Result(
        data={"budgets": [standing_document(one) for one in found]},
        blocks=[] if as_json or not found else [budgets_table(found, width=stdout_width())],
        talk=() if as_json else lines,
    )


@app.command("set")
def set_budget(
    window: Window,
    amount: Amount,
    tokens: InTokens = False,
    rolling: Rolling = False,
    vkey: Vkey = None,
    team: Team = None,
    customer: Customer = None,
    user: User = None,
    session: SessionOf = None,
    at_end: Annotated[
        str | None,
        typer.Option(metavar="WHAT", help="When it is spent: block, warn, downgrade:MODEL."),
    ] = None,
    warn_at: Annotated[
        str | None, typer.Option(metavar="PERCENTS", help="When to warn: 50,80,95, or none.")
    ] = None,
    shadow: Annotated[
        bool | None,
        typer.Option("--shadow/--enforce", help="Only record what it would refuse, or refuse."),
    ] = None,
    time_zone: Zone = None,
    as_json: AsJson = False,
) -> Result:
    """Make a budget, or change the amount of one; what is not said stays.

    Yours, unless an option says whose.
    """
    import msgspec

    from opencode_gate.cli.model_names import unknown_model_note
    from opencode_gate.governance.policy import DOWNGRADE
    from opencode_gate.session.policy_budgets import (
        BudgetOptions,
        amount_of,
        budget_named,
        made_budget,
        with_budget,
    )

    name = _name(window, tokens, rolling)
    money = amount_of(amount, name.unit)
    options = BudgetOptions(
        at_end=at_end,
        warn_at_percent=_percents(warn_at),
        mode=None if shadow is None else "shadow" if shadow else "enforce",
    )
    at_us = now_us()

    def edit(rules: "Rules") -> "Rules":
        former = budget_named(rules, name)
        rules = with_budget(rules, made_budget(former, name, money, options, at_us))
        if time_zone is None:
            return rules
        return msgspec.structs.replace(rules, time_zone=time_zone)

    given: _Given = {"vkey": vkey, "team": team, "customer": customer}
    result = _changed(name, given, user, session, edit, as_json=as_json)
    cheaper = (at_end or "").partition(DOWNGRADE)[2]
    if not cheaper or as_json:
        return result
    return msgspec.structs.replace(result, talk=unknown_model_note(cheaper))


@app.command("raise")
def raise_budget(
    window: Window,
    by: Annotated[str, typer.Argument(metavar="BY", help="By how much, in dollars: 5, 5.50, $5.")],
    tokens: InTokens = False,
    rolling: Rolling = False,
    vkey: Vkey = None,
    team: Team = None,
    customer: Customer = None,
    user: User = None,
    session: SessionOf = None,
    as_json: AsJson = False,
) -> Result:
    """Raise a budget by an amount; what runs goes on with its next request.

    `session` means the session that runs; --session says which, where several do.
    """
    from opencode_gate.session.policy_budgets import (
        BudgetOptions,
        amount_of,
        budget_named,
        made_budget,
        with_budget,
    )

    name = _name(window, tokens, rolling)
    more = amount_of(by, name.unit)
    if more == 0:
        raise UsageError("usage", "a budget is raised by more than nothing", hint=_EXAMPLE)

    def edit(rules: "Rules") -> "Rules":
        former = budget_named(rules, name)
        assert former is not None
        whole = more + (former.usd if former.usd is not None else former.limit)
        return with_budget(rules, made_budget(former, name, whole, BudgetOptions(), now_us()))

    given: _Given = {"vkey": vkey, "team": team, "customer": customer}
    return _changed(name, given, user, session, edit, as_json=as_json, must_exist=True)


@app.command()
def remove(
    window: Window,
    tokens: InTokens = False,
    rolling: Rolling = False,
    vkey: Vkey = None,
    team: Team = None,
    customer: Customer = None,
    user: User = None,
    session: SessionOf = None,
    yes: Yes = False,
    no_input: NoInput = False,
) -> Result:
    """Take a budget away."""
    from opencode_gate.config.paths import paths
    from opencode_gate.governance.wording import budget_text
    from opencode_gate.session.policy_budgets import require_budget, without_budget
    from opencode_gate.session.policy_changes import change_rules, current_policy, rules_for

    places, name = paths(), _name(window, tokens, rolling)
    policy = current_policy(places)
    given: _Given = {"vkey": vkey, "team": team, "customer": customer}
    owner = _owner_or_own(places, policy, name, given, user, session, has_it=True)
    text = budget_text(owner, require_budget(rules_for(policy, owner), owner, name))
    if not yes:
        prompts.require_yes(
            f"Remove {text}?",
            may_ask=may_ask(no_input=no_input),
            instead=f"{_remove_command(owner, name)} --yes",
        )

    def edit(policy: "Policy") -> "dict[Owner, Rules | None]":
        rules = rules_for(policy, owner)
        require_budget(rules, owner, name)
        return {owner: without_budget(rules, owner, name)}

    change_rules(places, edit, at_us=now_us())
    return Result(data={}, blocks=[Text(f"{text} is removed")])


_EXAMPLE = "ogate budgets raise session 5"
_Given = dict[Literal["session", "user", "vkey", "team", "customer"], str | None]


def _changed(
    name: "BudgetName",
    given: _Given,
    user: str | None,
    session: str | None,
    edit: "Callable[[Rules], Rules]",
    *,
    as_json: bool,
    must_exist: bool = False,
) -> Result:
    """Changes a budget of the owner that is meant, and says how it stands then."""
    from opencode_gate.cli.budget_table import change_sentence, former_limit
    from opencode_gate.cli.budget_view import standing_document
    from opencode_gate.config.paths import paths
    from opencode_gate.session.policy_budgets import budget_named, require_budget
    from opencode_gate.session.policy_changes import change_rules, open_rules, rules_for
    from opencode_gate.session.policy_sense import owned

    places = paths()
    meant: list[Owner] = []

    def edit_policy(policy: "Policy") -> "dict[Owner, Rules | None]":
        owner = _owner_or_own(places, policy, name, given, user, session, has_it=must_exist)
        rules = rules_for(policy, owner)
        if must_exist:
            require_budget(rules, owner, name)
        meant.append(owner)
        return {owner: edit(rules)}

    changed = change_rules(places, edit_policy, at_us=now_us())
    [owner] = meant
    before = owned(changed.before, owner.kind).get(owner.name)
    former = None if before is None else budget_named(before, name)
    with open_rules(places, read_only=True) as store:
        found = standings_of(store, {owner: owned(changed.after, owner.kind)[owner.name]})
    [standing] = [one for one in found if name.is_of(one.budget)]
    return Result(
        data={"budget": standing_document(standing), "former_limit": former_limit(former)},
        blocks=() if as_json else [Text(change_sentence(standing, former))],
    )


def _name(window: WindowName, tokens: bool, rolling: bool) -> "BudgetName":
    from opencode_gate.session.policy_budgets import BudgetName

    return BudgetName(window=window, unit="tokens" if tokens else "usd", rolling=rolling)


def _owner_or_own(
    places: "Paths",
    policy: "Policy",
    name: "BudgetName",
    given: _Given,
    user: str | None,
    session: str | None,
    *,
    has_it: bool,
) -> "Owner":
    """Whose budget is meant: the options say it, else it is the running session's or one's own."""
    from opencode_gate.governance.policy import Owner
    from opencode_gate.session.operator import os_user
    from opencode_gate.session.policy_budgets import session_meant
    from opencode_gate.session.policy_names import NOUNS

    owner = _owner(places, given, user, session)
    if owner is not None and owner.kind != "session" and name.window == "session":
        raise UsageError(
            "usage",
            f"a session budget is one session's, not that of a {NOUNS[owner.kind]}",
            hint="total never begins anew either; ogate run --budget USD caps one session",
        )
    if owner is not None:
        return owner
    if name.window == "session":
        return session_meant(places, policy, name, has_it=has_it)
    return Owner("user", os_user())


def _owner(places: "Paths", given: _Given, user: str | None, session: str | None) -> "Owner | None":
    from opencode_gate.session.policy_budgets import session_called

    owner = owner_of({**given, "user": user, "session": session})
    if owner is None or owner.kind != "session":
        return owner
    return owner._replace(name=session_called(places, owner.name))


def _all_owners(policy: "Policy", sessions: "Sequence[str] | None") -> "dict[Owner, Rules]":
    """Everybody who has rules; of the sessions only these, unless all are wanted."""
    from opencode_gate.governance.policy import Owner
    from opencode_gate.session.policy_sense import OWNER_KINDS, owned

    return {
        Owner(kind, name): rules
        for kind in OWNER_KINDS
        for name, rules in owned(policy, kind).items()
        if kind != "session" or sessions is None or name in sessions
    }


def _percents(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    words = [word.strip().removesuffix("%").strip() for word in text.split(",")]
    if words in ([""], ["none"]):
        return ()
    shares = [int(word) for word in words if word.isascii() and word.isdigit() and len(word) < 4]
    if len(shares) != len(words) or not all(1 <= share <= 100 for share in shares):
        raise UsageError(
            "usage",
            f"--warn-at {text!r} is not a list of percentages",
            hint="--warn-at 50,80,95, or none",
        )
    return tuple(sorted(set(shares)))


def _remove_command(owner: "Owner", name: "BudgetName") -> str:
    from opencode_gate.session.policy_budgets import budget_words

    return f"ogate budgets remove {budget_words(owner, name)}"
