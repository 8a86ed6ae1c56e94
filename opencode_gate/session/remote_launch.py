"""One session through a gateway that others run: from its plan to its account.

The gateway keeps the keys and the ledger; here are only Opencode, the token of its session, and
at the end a copy of what the gateway wrote down, in the run folder, from which the account is
made as of any session. The invariant: the virtual key itself is never Opencode's.
"""

import os
import threading
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path

from opencode_gate.agents.opencode.terminal import RESET
from opencode_gate.config.paths import Paths
from opencode_gate.core.errors import GateError
from opencode_gate.core.secrets import Secret
from opencode_gate.ledger.sqlite import open_store
from opencode_gate.server.protocol import Settled
from opencode_gate.session.agent_process import SignalsWhileRunning, wait_for, was_killed
from opencode_gate.session.launch import Outcome, start_routed_agent
from opencode_gate.session.plan import RunPlan
from opencode_gate.session.remote_gateway import RemoteGateway, SessionAccount
from opencode_gate.session.terminal import remember_terminal


def launch_remote(
    plan: RunPlan,
    folder: Path,
    gateway: RemoteGateway,
    meanwhile: Callable[[], None],
    *,
    budget_usd: Decimal | None,
) -> Outcome:
    """Runs one session to its end and leaves its copy of the ledger below `folder`.

    Raises:
        GateError: before Opencode ran: the gateway or Opencode was in the way.
    """
    signals = SignalsWhileRunning()
    restore_terminal = remember_terminal(RESET)
    with signals.installed():
        token = gateway.begin(plan.session, budget_usd=budget_usd)
        status: int | None = None
        try:
            agent = start_routed_agent(
                plan,
                folder,
                gateway.address.origin,
                token,
                is_elsewhere=True,
                environ=_trusting(os.environ),
            )
            signals.pass_on_to(agent)
            threading.Thread(target=meanwhile, name="meanwhile", daemon=True).start()
            status = wait_for(agent)
            if was_killed(status):
                restore_terminal()
        finally:
            account, failure = _ended(plan, folder, gateway, token, status)
    assert status is not None
    return Outcome(
        session_id=plan.session.id,
        exit_status=status,
        failure=failure,
        settled=Settled(exchanges=0),
        problems={},
        elsewhere=gateway.address.origin,
        budgets=account.budgets,
    )


def ledger_copy(paths: Paths, folder: Path) -> Paths:
    """The paths with the ledger's copy of one session in place of this machine's own."""
    return paths._replace(data=folder)


def _ended(
    plan: RunPlan, folder: Path, gateway: RemoteGateway, token: Secret, status: int | None
) -> tuple[SessionAccount, str | None]:
    """Ends the session at the gateway and keeps its account; why that failed, if it did."""
    account, failure = SessionAccount(plan.session, []), None
    try:
        account = gateway.end(token, status)
    except GateError as error:
        failure = f"{error.message}; the account is with the gateway"
    _keep(folder, account)
    return account, failure


def _keep(folder: Path, account: SessionAccount) -> None:
    session = account.session
    store = open_store(folder / "ledger.db")
    try:
        store.add_session(session)
        if session.ended_at_us is not None:
            store.end_session(
                session.id, ended_at_us=session.ended_at_us, exit_status=session.exit_status
            )
        store.fold(account.exchanges)
    finally:
        store.close()


def _trusting(environ: Mapping[str, str]) -> Mapping[str, str]:
    """Opencode's runtime knows extra certificates by another name than OpenSSL does."""
    file = environ.get("SSL_CERT_FILE")
    if not file or environ.get("NODE_EXTRA_CA_CERTS"):
        return environ
    return {**environ, "NODE_EXTRA_CA_CERTS": file}
