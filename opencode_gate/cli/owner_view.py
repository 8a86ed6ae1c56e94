"""Owners of rules, shown: a table of them, one with all it has, a document for programs.

The invariant: what could be mistaken for a secret is not in here; a virtual key is shown by its
public part alone.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from opencode_gate.cli.render import Block, Fact, Facts
from opencode_gate.governance.policy import Customer, Team, VirtualKey

if TYPE_CHECKING:
    from opencode_gate.cli.fitted_table import FittedColumn
    from opencode_gate.governance.policy import Budget, ModelRules, Owner, Policy, RateLimit, Rules
    from opencode_gate.governance.standing import BudgetStanding

_NONE = "–"


def rules_document(
    owner: "Owner", rules: "Rules", standings: "Iterable[BudgetStanding]", now_us: int
) -> dict[str, Any]:
    """An owner with its rules, and how its budgets stand."""
    from opencode_gate.cli.budget_view import standing_document

    own = [one for one in standings if one.owner == owner]
    return {
        "name": owner.name,
        **_own_fields(rules, now_us),
        "time_zone": rules.time_zone,
        "models": None if rules.models is None else models_document(rules.models),
        "limits": [limit_document(limit) for limit in rules.limits],
        "budgets": [standing_document(one) for one in own],
    }


def models_document(models: "ModelRules") -> dict[str, object]:
    """Which models are allowed; `allow` is null where all are."""
    return {
        "allow": None if models.allow is None else list(models.allow),
        "deny": list(models.deny),
        "mode": models.mode,
    }


def limit_document(limit: "RateLimit") -> dict[str, object]:
    """A rate limit."""
    return {
        "measure": limit.measure,
        "amount": limit.amount,
        "per": limit.per,
        "mode": limit.mode,
    }


def _own_fields(rules: "Rules", now_us: int) -> dict[str, object]:
    from opencode_gate.session.policy_owners import key_state

    if isinstance(rules, VirtualKey):
        return {
            "public_id": rules.public_id,
            "state": key_state(rules, now_us),
            "expires_at": rules.expires_at,
            "team": rules.team,
            "tags": list(rules.tags),
        }
    return {"customer": rules.customer} if isinstance(rules, Team) else {}


def owners_table(
    owners: "dict[Owner, Rules]", policy: "Policy", now_us: int, *, width: int
) -> Block:
    """Owners of one kind below each other."""
    from opencode_gate.cli.fitted_table import FittedColumn, fitted_table

    all_rules = list(owners.values())
    columns = [
        FittedColumn(title="name", cells=[owner.name for owner in owners], is_text=True),
        *_own_columns(owners, policy, now_us),
        *(
            FittedColumn(title=title, cells=cells, is_text=True)
            for title, cells in (
                ("models", [models_text(rules.models) for rules in all_rules]),
                ("limits", [limits_text(rules.limits) for rules in all_rules]),
                ("budgets", [budgets_text(rules.budgets) for rules in all_rules]),
            )
        ),
    ]
    return fitted_table(columns, width=width)


def _own_columns(
    owners: "dict[Owner, Rules]", policy: "Policy", now_us: int
) -> "list[FittedColumn]":
    """What only owners of this kind have."""
    from opencode_gate.cli.fitted_table import FittedColumn
    from opencode_gate.session.policy_owners import key_state, members

    keys = [rules for rules in owners.values() if isinstance(rules, VirtualKey)]
    teams = [rules for rules in owners.values() if isinstance(rules, Team)]
    counts = [str(len(members(policy, owner))) for owner in owners]
    if keys:
        return [
            FittedColumn(title="key", cells=[f"ogk-{key.public_id}-…" for key in keys], rank=3),
            FittedColumn(title="state", cells=[key_state(key, now_us) for key in keys]),
            FittedColumn(title="expires", cells=[expiry_text(key) for key in keys], rank=2),
            FittedColumn(title="team", cells=[key.team or _NONE for key in keys], rank=1),
        ]
    if teams:
        return [
            FittedColumn(
                title="customer", cells=[team.customer or _NONE for team in teams], rank=1
            ),
            FittedColumn(title="keys", cells=counts, justify="right", rank=2),
        ]
    if any(isinstance(rules, Customer) for rules in owners.values()):
        return [FittedColumn(title="teams", cells=counts, justify="right", rank=1)]
    return []


def owner_facts(
    owner: "Owner",
    rules: "Rules",
    standings: "Sequence[BudgetStanding]",
    policy: "Policy",
    now_us: int,
) -> Block:
    """All there is of one owner."""
    from opencode_gate.session.policy_names import NOUNS
    from opencode_gate.session.policy_owners import key_state, members

    facts: list[tuple[str, str | None]] = [(NOUNS[owner.kind], owner.name)]
    if isinstance(rules, VirtualKey):
        facts += [
            ("key", f"ogk-{rules.public_id}-…"),
            ("state", key_state(rules, now_us)),
            ("expires", expiry_text(rules)),
            ("team", rules.team),
            ("tags", ", ".join(rules.tags)),
        ]
    elif isinstance(rules, Team):
        facts += [("customer", rules.customer)]
    facts += [
        ("members", ", ".join(str(one) for one in members(policy, owner))),
        ("time zone", rules.time_zone),
        ("models", models_text(rules.models)),
        ("limits", limits_text(rules.limits)),
    ]
    lines = [Fact(label, text) for label, text in facts if text]
    if not standings:
        return Facts([*lines, Fact("budgets", _NONE)])
    shown = [standing_text(one) for one in standings]
    return Facts([*lines, *(Fact("budget", text) for text in shown)])


def standing_text(standing: "BudgetStanding") -> str:
    """`month $12.40 of $500, $1 held; begins anew 2026-12-01 00:00 (Europe/Berlin)`."""
    from opencode_gate.cli.budget_view import amount_text, amounts_text
    from opencode_gate.governance.wording import instant_text

    budget, unit = standing.budget, standing.unit
    text = f"{'rolling ' if budget.rolling else ''}{budget.window} "
    text += amounts_text(standing.spent, standing.limit, unit)
    text += f", {amount_text(standing.held, unit)} held" if standing.held else ""
    if standing.resets_at_us is not None:
        text += f"; begins anew {instant_text(standing.resets_at_us, standing.time_zone)}"
    text += "" if budget.at_end == "block" else f"; then {budget.at_end}"
    return text + (" (shadow)" if budget.mode == "shadow" else "")


def models_text(models: "ModelRules | None") -> str:
    """`anthropic/*, but not */*opus*`."""
    if models is None:
        return "all"
    text = "all" if models.allow is None else ", ".join(models.allow)
    text += f", but not {', '.join(models.deny)}" if models.deny else ""
    return text + (" (shadow)" if models.mode == "shadow" else "")


def limits_text(limits: "Iterable[RateLimit]") -> str:
    """`60 requests a minute, 4 at once`."""
    return ", ".join(map(_limit_text, limits)) or _NONE


def budgets_text(budgets: "Iterable[Budget]") -> str:
    """`$500 a month, $20 a day`."""
    return ", ".join(map(_budget_text, budgets)) or _NONE


def expiry_text(key: VirtualKey) -> str:
    """When a key expires, in its own offset."""
    return _NONE if key.expires_at is None else key.expires_at.replace("T", " ")[:16]


def _limit_text(limit: "RateLimit") -> str:
    if limit.per is None:
        text = f"{limit.amount:,} at once"
    else:
        what = limit.measure if limit.amount != 1 else limit.measure[:-1]
        text = f"{limit.amount:,} {what} {'an' if limit.per == 'hour' else 'a'} {limit.per}"
    return text + (" (shadow)" if limit.mode == "shadow" else "")


def _budget_text(budget: "Budget") -> str:
    from opencode_gate.governance.wording import amount_text

    amount = amount_text(budget.limit, budget.unit)
    if budget.window == "total":
        return f"{amount} in all"
    if budget.window == "session":
        return f"{amount} for the session"
    article = "every" if budget.rolling else "an" if budget.window == "hour" else "a"
    text = f"{amount} {article} {budget.window}"
    return text + (" (shadow)" if budget.mode == "shadow" else "")
