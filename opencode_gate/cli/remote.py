"""`ogate run --gateway`: the virtual key found or asked for, and a session through the gateway.

The invariant: a key is asked for on a hidden prompt, and kept once the gateway has taken it.
"""

import os
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from opencode_gate.cli import prompts
from opencode_gate.cli.render import talk
from opencode_gate.cli.run_line import SummaryForm
from opencode_gate.cli.run_view import prepare_account, show_account
from opencode_gate.core.errors import UsageError

if TYPE_CHECKING:
    from opencode_gate.config.paths import Paths
    from opencode_gate.config.settings import Settings
    from opencode_gate.core.secrets import Secret
    from opencode_gate.session.discovery import Discovery, UsableProvider
    from opencode_gate.session.naming import RunRequest
    from opencode_gate.session.plan import RunPlan
    from opencode_gate.session.remote_gateway import GatewayAddress, RemoteGateway
    from opencode_gate.session.run_rules import RunRules


class Remote(msgspec.Struct):
    """A gateway that others run, and what it routes once it was asked."""

    gateway: "RemoteGateway"
    offered: "Mapping[str, UsableProvider] | None" = None

    def routed(self) -> "Mapping[str, UsableProvider]":
        """What it routes.

        Raises:
            GateError: it cannot be reached, or refuses the key.
        """
        if self.offered is None:
            self.offered = self.gateway.offer()
        return self.offered


def open_remote(url: str, where: "Paths", *, is_insecure: bool, can_ask: bool) -> Remote:
    """The gateway at `url`, with the virtual key for it.

    Raises:
        GateError: the address makes no sense or is not safe, or as `open_gateway`.
    """
    from opencode_gate.session.remote_gateway import gateway_address

    return open_gateway(gateway_address(url, is_insecure=is_insecure), where, can_ask=can_ask)


def open_gateway(address: "GatewayAddress", where: "Paths", *, can_ask: bool) -> Remote:
    """A gateway with the virtual key for it; asks for one where there is none.

    Raises:
        GateError: there is none and nobody can be asked, or the gateway refuses it.
    """
    from opencode_gate.cli.key_entry import ask_passphrase
    from opencode_gate.credentials.vault import Vault
    from opencode_gate.session.gateway_keys import keep_key, known_key, missing_key
    from opencode_gate.session.remote_gateway import RemoteGateway

    vault = Vault(where, os.environ, ask_passphrase=ask_passphrase if can_ask else None)
    key = known_key(address, vault, os.environ)
    if key is not None:
        return Remote(RemoteGateway(address, key))
    if not can_ask:
        raise missing_key(address)
    key = _asked(address)
    gateway = RemoteGateway(address, key)
    offered = gateway.offer()
    keep_key(address, vault, key)
    talk(f"ogate · the virtual key for {address.host} is kept; it is not asked for again")
    return Remote(gateway, offered)


def remote_rules(request: "RunRequest", settings: "Settings") -> "RunRules":
    """The rules this side knows of: a budget of the session's own. All others are the gateway's.

    Raises:
        UsageError: something was asked for that only a gateway of one's own does.
    """
    for name, option in ((request.key_name, "--key"), (request.virtual_key, "--vkey")):
        if name is not None:
            raise UsageError(
                "usage",
                f"{option} is of no use with a gateway that others run, which has the keys",
                hint=f"leave {option} out, or --gateway own",
            )
    from opencode_gate.governance.policy import Budget, Rules
    from opencode_gate.session.run_rules import NO_RULES, RunRules

    budget_usd = settings.run.budget if request.budget_usd is None else request.budget_usd
    if budget_usd is None:
        return NO_RULES
    return RunRules(own=Rules(budgets=(Budget(window="session", usd=budget_usd),)))


def remote_session(
    remote: Remote,
    plan: "RunPlan",
    discovery: "Discovery",
    where: "Paths",
    form: SummaryForm,
    summary_file: Path | None,
) -> int:
    """Runs the session and shows its account; Opencode's status.

    Raises:
        GateError: before Opencode ran.
    """
    from opencode_gate.session.launch import run_folder
    from opencode_gate.session.remote_launch import launch_remote, ledger_copy

    with run_folder(where, plan.session.id) as folder:
        outcome = launch_remote(
            plan, folder, remote.gateway, prepare_account, budget_usd=_own_budget(plan)
        )
        try:
            copy = ledger_copy(where, folder)
            show_account(plan, discovery, copy, outcome, form, summary_file)
        except Exception as error:  # noqa: BLE001 - the session is over; its status stays Opencode's
            from opencode_gate.cli.main import report

            report(error, with_traceback=False)
    return outcome.exit_status


def _own_budget(plan: "RunPlan") -> Decimal | None:
    return None if plan.rules.own is None else plan.rules.own.budgets[0].usd


def _asked(address: "GatewayAddress") -> "Secret":
    from opencode_gate.session.gateway_keys import checked

    return checked(prompts.ask_hidden(f"Virtual key for {address.host} (hidden)"))
