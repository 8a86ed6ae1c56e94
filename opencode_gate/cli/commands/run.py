"""`ogate run`: the wizard where something is missing, then a session, then its account.

The invariant: once Opencode has been started its exit status is ours, and nothing is printed
until it has ended.
"""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from opencode_gate.cli import registry
from opencode_gate.cli.prompts import may_ask
from opencode_gate.cli.render import Result, talk
from opencode_gate.cli.run_line import RunLine, SummaryForm
from opencode_gate.cli.run_questions import (
    asked_choice,
    found_agent,
    must_ask,
    sign_ins_answered,
)
from opencode_gate.cli.run_view import (
    dry_run_result,
    prepare_account,
    show_account,
)
from opencode_gate.core.errors import GateError, UsageError

if TYPE_CHECKING:
    from opencode_gate.agents.opencode.arguments import AgentArguments
    from opencode_gate.agents.opencode.locate import Installation
    from opencode_gate.cli.remote import Remote
    from opencode_gate.config.paths import Paths
    from opencode_gate.config.settings import Settings
    from opencode_gate.credentials.vault import Vault
    from opencode_gate.session.discovery import Discovery
    from opencode_gate.session.launch import KeysRead, Outcome
    from opencode_gate.session.naming import RunRequest
    from opencode_gate.session.plan import RunPlan
    from opencode_gate.session.run_rules import RunRules

_OWN = "own"
"""What `--gateway` says where the settings name a gateway that others run, and not this time."""

_OWN_STATUSES = (2, 126, 127)
"""Usage, Opencode unusable, Opencode missing: these say more than "could not be run"."""


def command(line: RunLine) -> Result | int:
    """Start Opencode through a gateway of its own.

    Everything behind `--` reaches Opencode as it is: ogate run -- run "fix the test"
    """
    try:
        return _run(_request(line), line)
    except GateError as error:
        if error.exit_code in _OWN_STATUSES:
            raise
        # While Opencode is not running, everything else is one status: it could not be run.
        raise GateError(
            error.code, error.message, hint=error.hint, details=error.details
        ) from error


def _request(line: RunLine) -> "RunRequest":
    from opencode_gate.session.naming import RunRequest

    budget_usd = None
    if line.budget is not None:
        from opencode_gate.session.amounts import usd_amount

        budget_usd = usd_amount(line.budget)
        if not budget_usd:
            raise UsageError("usage", "a session with a budget of 0 could ask nothing")
    return RunRequest(
        provider_id=line.provider,
        model=line.model,
        small_model=line.small_model,
        key_name=line.key,
        budget_usd=budget_usd,
        virtual_key=line.vkey,
        agent_arguments=registry.tail_arguments(),
    )


def _run(request: "RunRequest", line: RunLine) -> Result | int:
    from opencode_gate.agents.opencode.arguments import read_arguments
    from opencode_gate.config.paths import paths
    from opencode_gate.config.settings import load_settings
    from opencode_gate.session.run_rules import (
        read_rules,
        require_own_process,
        standings_before,
    )

    arguments = read_arguments(request.agent_arguments)
    where = paths()
    settings = load_settings(where, os.environ)
    can_ask = may_ask(no_input=line.no_input)
    gateway_url = settings.run.gateway if line.gateway is None else line.gateway
    is_remote = gateway_url not in (None, _OWN)
    if is_remote:
        from opencode_gate.cli.remote import remote_rules

        rules = remote_rules(request, settings)
    else:
        rules = read_rules(request, settings, where)
    require_own_process(rules.hard, arguments.attach)
    agent = found_agent(where, settings, install=line.install, can_ask=can_ask)
    if not arguments.needs_gateway:
        return _untouched(agent, arguments, request)
    if arguments.is_tui and not line.dry_run and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(
            "no-terminal",
            "Opencode's screen needs a terminal, and there is none",
            hint='ogate run -- run "your prompt"',
        )
    remote = None
    if is_remote and gateway_url is not None:
        from opencode_gate.cli.remote import open_remote

        remote = open_remote(gateway_url, where, is_insecure=line.insecure, can_ask=can_ask)
    plan, discovery = _planned(
        request,
        arguments,
        where,
        settings,
        agent,
        rules,
        remote,
        can_ask=can_ask and not line.dry_run,
    )
    if line.dry_run:
        elsewhere = None if remote is None else remote.gateway.address.origin
        return dry_run_result(plan, standings_before(rules, where), elsewhere=elsewhere)
    for warning in plan.warnings:
        talk(f"ogate · {warning}")
    form = settings.run.summary if line.summary is None else line.summary
    summary_file = None if line.summary_file is None else Path(line.summary_file)
    if remote is not None:
        from opencode_gate.cli.remote import remote_session

        return remote_session(remote, plan, discovery, where, form, summary_file)
    return _session(plan, discovery, where, form, summary_file, can_ask=can_ask)


def _untouched(agent: "Installation", arguments: "AgentArguments", request: "RunRequest") -> int:
    """A command that calls no model: Opencode as it is, nothing of ours around it."""
    from opencode_gate.session.agent_process import run_untouched

    if arguments.attach is not None:
        talk(
            f"ogate · the traffic of {arguments.attach} is that process's own and is not seen here"
        )
    return run_untouched([str(agent.path), *request.agent_arguments])


def _planned(
    request: "RunRequest",
    arguments: "AgentArguments",
    where: "Paths",
    settings: "Settings",
    agent: "Installation",
    rules: "RunRules",
    remote: "Remote | None",
    *,
    can_ask: bool,
) -> "tuple[RunPlan, Discovery]":
    from opencode_gate.agents.opencode.folders import database_file
    from opencode_gate.agents.opencode.locate import require_supported
    from opencode_gate.catalog.practice import PRACTICE_ID
    from opencode_gate.core.clock import SystemClock
    from opencode_gate.session.choices import remember, remembered
    from opencode_gate.session.discovery import discover
    from opencode_gate.session.naming import requested_choice
    from opencode_gate.session.plan import make_plan
    from opencode_gate.session.starting_point import starting_point

    folder = _folder(arguments)

    def find(settings: "Settings") -> "Discovery":
        routed = None if remote is None else remote.routed()
        return discover(where, settings, os.environ, folder=folder, routed=routed)

    settings, discovery = sign_ins_answered(where, settings, find, can_ask=can_ask)
    last = remembered(where.choices_file, folder)
    chosen = requested_choice(request, discovery)
    if must_ask(request, arguments, chosen, last, discovery, can_ask=can_ask):
        start = chosen or last or starting_point(discovery, folder, os.environ)
        chosen = asked_choice(
            discovery,
            where,
            settings,
            agent,
            folder,
            rules,
            start=start,
            is_complete=remote is not None,
        )
        discovery = find(settings)
    warning = require_supported(
        agent,
        has_hard_rules=bool(rules.hard),
        database=database_file(os.environ, discovery.folders),
    )
    plan = make_plan(
        request,
        arguments,
        chosen,
        remembered=last,
        discovery=discovery,
        settings=settings,
        agent=agent,
        folder=folder,
        environ=os.environ,
        clock=SystemClock(),
        rules=rules,
        warnings=() if warning is None else (warning,),
    )
    if chosen is not None and chosen.provider_id != PRACTICE_ID:
        # A look at the scripted model says nothing about where the next session starts.
        remember(where.choices_file, folder, chosen)
    return plan, discovery


def _folder(arguments: "AgentArguments") -> Path:
    """Where Opencode will work: it believes `PWD`, and writes down where links lead."""
    said = os.environ.get("PWD")
    here = Path(said) if said and Path(said).is_dir() else Path.cwd()
    return Path(os.path.realpath(here / (arguments.directory or "")))


def _session(
    plan: "RunPlan",
    discovery: "Discovery",
    where: "Paths",
    form: SummaryForm,
    summary_file: Path | None,
    *,
    can_ask: bool,
) -> int:
    from opencode_gate.session.launch import launch

    agent_secrets = {**discovery.auth.keys, **discovery.user_config.keys}
    vault: Vault | None = None
    if can_ask and any(source.kind == "file" for source in plan.sources.values()):
        # A passphrase is asked for while the terminal is still ours.
        from opencode_gate.cli.key_entry import ask_passphrase
        from opencode_gate.session.keys import open_vault

        vault = open_vault(plan, where, os.environ, ask_passphrase)

    def keys() -> "KeysRead":
        from opencode_gate.session.keys import open_vault, read_keys

        opened = open_vault(plan, where, os.environ, None) if vault is None else vault
        return read_keys(plan, opened, os.environ, agent_secrets)

    def account(outcome: "Outcome") -> None:
        try:
            show_account(plan, discovery, where, outcome, form, summary_file)
        except Exception as error:  # noqa: BLE001 - the session is over; its status stays Opencode's
            from opencode_gate.cli.main import report

            report(error, with_traceback=False)

    return launch(plan, where, keys, prepare_account, account).exit_status
