"""`ogate teams`: what virtual keys share: budgets, limits, models.

The invariant: a team that others belong to is not removed.
"""

from typing import TYPE_CHECKING, Annotated

import typer

from opencode_gate.cli import owner_verbs
from opencode_gate.cli.options import AsJson, NoInput, Yes
from opencode_gate.cli.render import Result
from opencode_gate.cli.rule_options import (
    CLEARABLE,
    Allow,
    Clear,
    Concurrent,
    Deny,
    Rpm,
    Tpm,
    Zone,
    cleared,
    ruled,
)

if TYPE_CHECKING:
    from opencode_gate.governance.policy import Rules

app = typer.Typer()

Name = Annotated[str, typer.Argument(metavar="NAME", show_default=False)]

CustomerOf = Annotated[
    str | None, typer.Option("--customer", metavar="NAME", help="The customer it belongs to.")
]


@app.command()
def create(
    name: Name,
    customer: CustomerOf = None,
    allow: Allow = None,
    deny: Deny = None,
    rpm: Rpm = None,
    tpm: Tpm = None,
    concurrent: Concurrent = None,
    time_zone: Zone = None,
) -> Result:
    """Make a team."""
    from opencode_gate.governance.policy import Team
    from opencode_gate.session.policy_names import normal

    rules = ruled(
        Team(customer=None if customer is None else normal(customer)),
        allow=allow,
        deny=deny,
        rpm=rpm,
        tpm=tpm,
        concurrent=concurrent,
        time_zone=time_zone,
    )
    return owner_verbs.created("team", name, rules)


@app.command("list")
def list_teams(as_json: AsJson = False) -> Result:
    """All teams."""
    return owner_verbs.listed("team", as_json=as_json)


@app.command()
def show(name: Name, as_json: AsJson = False) -> Result:
    """One team: who belongs to it, its models, limits and budgets."""
    return owner_verbs.shown("team", name, as_json=as_json)


@app.command("set")
def set_team(
    name: Name,
    customer: CustomerOf = None,
    allow: Allow = None,
    deny: Deny = None,
    rpm: Rpm = None,
    tpm: Tpm = None,
    concurrent: Concurrent = None,
    time_zone: Zone = None,
    clear: Clear = None,
) -> Result:
    """Change a team's rules, from the next request on; what is not said stays."""
    import msgspec

    from opencode_gate.session.policy_names import normal

    gone = cleared(clear, (*CLEARABLE, "customer"))

    def edit(rules: "Rules") -> "Rules":
        rules = ruled(
            rules,
            allow=allow,
            deny=deny,
            rpm=rpm,
            tpm=tpm,
            concurrent=concurrent,
            time_zone=time_zone,
            clear=gone,
        )
        if customer is not None or "customer" in gone:
            above = None if customer is None else normal(customer)
            rules = msgspec.structs.replace(rules, customer=above)
        return rules

    return owner_verbs.changed("team", name, edit)


@app.command()
def remove(name: Name, yes: Yes = False, no_input: NoInput = False) -> Result:
    """Remove a team; refused while others belong to it."""
    return owner_verbs.removed("team", name, yes=yes, no_input=no_input, verb="remove")
