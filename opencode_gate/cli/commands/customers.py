"""`ogate customers`: what teams share: budgets, limits, models.

The invariant: a customer that others belong to is not removed.
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


@app.command()
def create(
    name: Name,
    allow: Allow = None,
    deny: Deny = None,
    rpm: Rpm = None,
    tpm: Tpm = None,
    concurrent: Concurrent = None,
    time_zone: Zone = None,
) -> Result:
    """Make a customer."""
    from opencode_gate.governance.policy import Customer

    rules = ruled(
        Customer(),
        allow=allow,
        deny=deny,
        rpm=rpm,
        tpm=tpm,
        concurrent=concurrent,
        time_zone=time_zone,
    )
    return owner_verbs.created("customer", name, rules)


@app.command("list")
def list_customers(as_json: AsJson = False) -> Result:
    """All customers."""
    return owner_verbs.listed("customer", as_json=as_json)


@app.command()
def show(name: Name, as_json: AsJson = False) -> Result:
    """One customer: who belongs to it, its models, limits and budgets."""
    return owner_verbs.shown("customer", name, as_json=as_json)


@app.command("set")
def set_customer(
    name: Name,
    allow: Allow = None,
    deny: Deny = None,
    rpm: Rpm = None,
    tpm: Tpm = None,
    concurrent: Concurrent = None,
    time_zone: Zone = None,
    clear: Clear = None,
) -> Result:
    """Change a customer's rules, from the next request on; what is not said stays."""
    gone = cleared(clear, CLEARABLE)

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
        return rules

    return owner_verbs.changed("customer", name, edit)


@app.command()
def remove(name: Name, yes: Yes = False, no_input: NoInput = False) -> Result:
    """Remove a customer; refused while others belong to it."""
    return owner_verbs.removed("customer", name, yes=yes, no_input=no_input, verb="remove")
