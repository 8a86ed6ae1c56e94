"""`ogate policy`: all rules at once, and what they say to a request.

The invariant: nothing is written before it was shown and agreed to, and nothing at all where
anything in a file makes no sense.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from opencode_gate.cli import owner_verbs, prompts
from opencode_gate.cli.options import AsJson, NoInput, Yes
from opencode_gate.cli.prompts import may_ask
from opencode_gate.cli.render import Block, Result, Text, print_blocks, stderr_console, stdout_width
from opencode_gate.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opencode_gate.governance.policy import Owner

app = typer.Typer()

File = Annotated[Path, typer.Argument(metavar="FILE", help="A policy file; - is stdin.")]


@app.command()
def show(as_json: AsJson = False) -> Result:
    """Everybody who has rules, and how their budgets stand."""
    from opencode_gate.cli.owner_view import owners_table, rules_document
    from opencode_gate.config.paths import paths
    from opencode_gate.governance.policy import Owner
    from opencode_gate.session.policy_changes import open_rules, readable_policy
    from opencode_gate.session.policy_names import GROUPS
    from opencode_gate.session.policy_sense import OWNER_KINDS, owned

    data: dict[str, object] = {}
    blocks: list[Block] = []
    with open_rules(paths(), read_only=True) as store:
        policy, unreadable = readable_policy(store)
        now_us = owner_verbs.now_us()
        for kind in reversed(OWNER_KINDS):
            owners = {Owner(kind, name): rules for name, rules in owned(policy, kind).items()}
            found = owner_verbs.standings_of(store, owners)
            group = GROUPS.get(kind, "sessions")
            data[group] = [
                rules_document(owner, rules, found, now_us) for owner, rules in owners.items()
            ]
            if owners:
                blocks += [
                    Text(group, "bold"),
                    owners_table(owners, policy, now_us, width=stdout_width()),
                    Text(""),
                ]
    lines = _unreadable_lines(unreadable)
    if not blocks and not unreadable:
        lines = ["no rules yet; `ogate budgets set day 20` makes one"]
    return Result(
        data={"revision": policy.revision, "unreadable": list(map(str, unreadable)), **data},
        blocks=() if as_json else blocks[:-1],
        talk=() if as_json else lines,
        exit_code=1 if unreadable else 0,
    )


@app.command()
def export(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="Written, keeping its comments; stdout without one."),
    ] = None,
) -> Result:
    """All rules as one TOML file; those of single sessions aside.

    Secrets are not in it, only what ogate keeps of them.
    """
    from opencode_gate.config.paths import paths
    from opencode_gate.config.private_files import replace_private
    from opencode_gate.session.policy_changes import open_rules, readable_policy
    from opencode_gate.session.policy_reading import text_of
    from opencode_gate.session.policy_writing import policy_text

    with open_rules(paths(), read_only=True) as store:
        policy, unreadable = readable_policy(store)
    lines = _unreadable_lines(unreadable)
    if file is None or str(file) == "-":
        return Result(
            data={}, blocks=[Text(line) for line in _lines(policy_text(policy))], talk=lines
        )
    before = text_of(file) if file.exists() else None
    text = policy_text(policy, into=before, source=str(file))
    if text != before:
        replace_private(file.resolve(), text.encode())
    said = "written" if text != before else "says this already"
    return Result(data={}, talk=[*lines, f"{file} {said}"])


@app.command()
def apply(
    file: File,
    yes: Yes = False,
    no_input: NoInput = False,
    as_json: AsJson = False,
) -> Result:
    """Put a file in the place of all rules, after a look at the difference.

    What the file does not name is removed; rules of single sessions stay.
    """
    from opencode_gate.cli.policy_view import diff_blocks, diff_document, diff_summary
    from opencode_gate.config.paths import paths
    from opencode_gate.session.policy_changes import replace_all
    from opencode_gate.session.policy_reading import compared

    wanted, before, changes = compared(file, at_us=owner_verbs.now_us())
    if not changes:
        return Result(
            data={"changes": [], "revision": before.revision, "applied": False},
            talk=() if as_json else ["nothing to change: these rules are in force"],
        )
    if not as_json:
        print_blocks(stderr_console(), diff_blocks(changes))
    if not yes:
        prompts.require_yes(
            f"Put these rules in force ({diff_summary(changes)})?",
            may_ask=may_ask(no_input=no_input) and str(file) != "-",
            instead=f"ogate policy apply {file} --yes",
        )
    changed = replace_all(paths(), wanted, revision=before.revision, at_us=owner_verbs.now_us())
    return Result(
        data={
            "changes": diff_document(changes),
            "revision": changed.after.revision,
            "applied": True,
        },
        blocks=()
        if as_json
        else [Text(f"{diff_summary(changes)}; in force from the next request on")],
    )


@app.command()
def check(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="A policy file, instead of the rules in force."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="PROVIDER/MODEL", help="The model a request would ask for."),
    ] = None,
    vkey: Annotated[
        str | None, typer.Option("--vkey", metavar="NAME", help="The key it would come with.")
    ] = None,
    user: Annotated[
        str | None, typer.Option("--user", metavar="NAME", help="The user it would come from.")
    ] = None,
    session: Annotated[
        str | None, typer.Option("--session", metavar="ID", help="The session it would be of.")
    ] = None,
    tokens: Annotated[
        str, typer.Option(metavar="N", help="How long its prompt would be: 40k.")
    ] = "1000",
    output_tokens: Annotated[
        str | None,
        typer.Option(metavar="N", help="The limit it would set to its answer."),
    ] = None,
    as_json: AsJson = False,
) -> Result:
    """What the rules would say to a request now, or whether a policy file makes sense.

    With --model, the gateway's own rules are asked and nothing is sent; ends with 7 where the
    request would be refused. With a FILE alone, what it would change.
    """
    if model is not None:
        from opencode_gate.cli.policy_check_view import checked

        about = {"vkey": vkey, "user": user, "session": session}
        return checked(model, about, tokens, output_tokens, file, as_json=as_json)
    if file is None or any(name is not None for name in (vkey, user, session, output_tokens)):
        raise UsageError(
            "usage",
            "there is nothing to check",
            hint="ogate policy check --model PROVIDER/MODEL, or ogate policy check FILE",
        )
    return _checked_file(file, as_json=as_json)


def _checked_file(file: Path, *, as_json: bool) -> Result:
    from opencode_gate.cli.policy_view import diff_blocks, diff_document, diff_summary
    from opencode_gate.session.policy_reading import compared

    _, _, changes = compared(file, at_us=owner_verbs.now_us())
    said = f"{file} makes sense; it would change nothing"
    if changes:
        said = f"{file} makes sense; applied, it changes: {diff_summary(changes)}"
    return Result(
        data={"changes": diff_document(changes)},
        blocks=() if as_json else diff_blocks(changes),
        talk=() if as_json else [said],
    )


@app.command()
def why(
    call: Annotated[
        str,
        typer.Argument(
            metavar="EXCHANGE", help="The id of a model call, the beginning of it, or `last`."
        ),
    ] = "last",
    as_json: AsJson = False,
) -> Result:
    """What rules had to say about one request, and what would change it."""
    from opencode_gate.cli.decided_view import decision_document
    from opencode_gate.cli.policy_view import decision_facts, exchange_facts
    from opencode_gate.config.paths import paths
    from opencode_gate.core.errors import CODES
    from opencode_gate.ledger.sqlite import open_store
    from opencode_gate.session.decided import decisions_of

    store = open_store(paths().ledger_file, read_only=True)
    try:
        exchange = store.exchange(call)
    finally:
        store.close()
    found = decisions_of(exchange)
    blocks: list[Block] = [exchange_facts(exchange)]
    for decision in found:
        blocks += [Text(""), decision_facts(decision)]
    if not found:
        reason = CODES.get(exchange.denial or "")
        said = "no rule had a say in it" if reason is None else f"no rule: {reason}"
        blocks += [Text(""), Text(said)]
    return Result(
        data={
            "exchange_id": exchange.id,
            "status": exchange.status.value,
            "denial": exchange.denial,
            "decisions": [decision_document(decision) for decision in found],
        },
        blocks=() if as_json else blocks,
    )


def _lines(text: str) -> list[str]:
    return text.removesuffix("\n").split("\n")


def _unreadable_lines(owners: "Sequence[Owner]") -> list[str]:
    if not owners:
        return []
    named = ", ".join(map(str, owners))
    return [
        f"the rules of {named} cannot be read, so every request is refused",
        "to go on without them: ogate policy export FILE, mend it, ogate policy apply FILE",
    ]
