"""What `ogate run` shows: the account after a session, or what would be started.

The invariant: the account goes to stderr and a file the user names; stdout stays Opencode's.
"""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from opencode_gate.cli.render import (
    Block,
    Fact,
    Facts,
    Result,
    Text,
    load_drawing,
    print_document,
    talk,
    talk_blocks,
)
from opencode_gate.core.errors import ConfigError

if TYPE_CHECKING:
    from opencode_gate.cli.run_line import SummaryForm
    from opencode_gate.config.paths import Paths
    from opencode_gate.governance.standing import BudgetStanding
    from opencode_gate.session.discovery import Discovery
    from opencode_gate.session.launch import Outcome
    from opencode_gate.session.plan import RunPlan
    from opencode_gate.session.summary import Summary


def prepare_account() -> None:
    """Loads what the end of a session needs."""
    import shutil  # noqa: F401 - removes the run folder

    import opencode_gate.cli.budget_view
    import opencode_gate.cli.completion_index
    import opencode_gate.cli.summary_view
    import opencode_gate.governance.sentences
    import opencode_gate.ledger.sqlite.governance
    import opencode_gate.session.reconcile  # noqa: F401

    load_drawing()


def show_account(
    plan: "RunPlan",
    discovery: "Discovery",
    where: "Paths",
    outcome: "Outcome",
    form: "SummaryForm",
    summary_file: Path | None,
) -> None:
    """Says what went wrong, if anything, and then what was used and what it cost.

    Raises:
        GateError: the ledger cannot be read, or the summary file cannot be written.
    """
    from opencode_gate.cli.summary_view import summary_blocks, summary_document
    from opencode_gate.session.reconcile import account_for

    if outcome.failure is not None:
        talk(f"error: {outcome.failure}  [gateway-failed]")
        if outcome.elsewhere is not None:
            # Without the records that are there, nothing would look counted and all unmetered.
            return
    for provider_id, problem in outcome.problems.items():
        talk(f"ogate · {provider_id} had no key: {problem}")
    if outcome.settled is None or not outcome.settled.is_whole:
        talk("ogate · not everything could be recorded; ogate doctor says why")
    account = account_for(plan, discovery, where, os.environ)
    if outcome.elsewhere is not None:
        account = _told_elsewhere(account, outcome)
    document = summary_document(account)
    try:
        if summary_file is not None:
            _write_summary(summary_file, document)
    finally:
        # Whoever cannot have the file has at least this.
        if form == "json":
            print_document(document, sys.stderr)
        elif form == "table":
            talk_blocks(summary_blocks(account), indent=1)


def _told_elsewhere(account: "Summary", outcome: "Outcome") -> "Summary":
    """What only the gateway of others knows, and the way back to it."""
    resume = account.resume
    if resume is not None:
        resume = resume.replace("ogate run", f"ogate run --gateway {outcome.elsewhere}", 1)
    return replace(account, resume=resume, budgets=outcome.budgets)


def _write_summary(file: Path, document: "dict[str, object]") -> None:
    try:
        file.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            "folder-unwritable",
            f"cannot write {file}: {error.strerror}",
            hint="ogate sessions show last --json prints the same",
        ) from error


def budget_line(standings: "Sequence[BudgetStanding]") -> str:
    """How the budgets stand that a session is about to start under."""
    if not standings:
        return ""
    from opencode_gate.cli.budget_view import standing_line
    from opencode_gate.core.clock import SystemClock

    return standing_line(standings, SystemClock().now_us())


def dry_run_result(
    plan: "RunPlan", standings: "Sequence[BudgetStanding]", *, elsewhere: str | None = None
) -> Result:
    """What would be started: command, configuration, environment; no provider key is read for it.

    `elsewhere` is the address of a gateway that others run.
    """
    from opencode_gate.agents.opencode.configuration import local_origin, session_config
    from opencode_gate.cli.budget_view import standing_document

    config = session_config(
        plan.rows,
        origin=local_origin(0) if elsewhere is None else elsewhere,
        is_elsewhere=elsewhere is not None,
        models=plan.models,
        model=plan.model,
        small_model=plan.small_model,
        direct=plan.direct,
        without_key=plan.without_key,
    )
    command = [str(plan.agent.path), *plan.agent_arguments]
    budget, key = budget_line(standings), plan.rules.virtual_key
    where_keys_lie = {row.id: plan.sources[row.id].label for row in plan.rows}
    blocks: list[Block] = [
        Facts(
            [
                Fact("command", " ".join(command)),
                Fact("folder", plan.session.directory),
                Fact("opencode", plan.agent.version or "unknown version"),
                Fact("model", plan.model or "the one last used here"),
                *([Fact("budget", budget)] if budget else []),
                *([Fact("virtual key", key)] if key is not None else []),
                *(Fact(row.id, where_keys_lie[row.id]) for row in plan.rows),
                *(Fact("direct", provider_id) for provider_id in plan.direct),
                *(Fact("hidden", name) for name in plan.hidden),
            ]
        ),
        Text(_indented(config)),
    ]
    return Result(
        data={
            "command": command,
            "directory": plan.session.directory,
            "agent_version": plan.agent.version,
            "credentials": where_keys_lie,
            "direct": list(plan.direct),
            "hidden": list(plan.hidden),
            "virtual_key": key,
            "budgets": [standing_document(one) for one in standings],
            "opencode_json": config,
        },
        blocks=blocks,
        talk=[f"ogate · {warning}" for warning in plan.warnings],
    )


def _indented(document: "dict[str, object]") -> str:
    return json.dumps(document, indent=2)
