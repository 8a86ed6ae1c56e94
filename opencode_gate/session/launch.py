"""One session from its plan to its account.

The order: ledger checked, the session's own rules written, socket listening, gateway started,
agent started, and only then the keys read and sent; the agent ends, the gateway settles, the
ledger is closed behind it. The invariant: once a session row is written it gets its end, and the
run folder is removed.
"""

import contextlib
import os
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from opencode_gate.agents.opencode.configuration import (
    config_text,
    local_origin,
    merge_config,
    move_models,
    session_config,
    user_content,
)
from opencode_gate.agents.opencode.environment import agent_environment
from opencode_gate.agents.opencode.folders import content_limit
from opencode_gate.agents.opencode.terminal import RESET
from opencode_gate.config.paths import Paths, private_folder
from opencode_gate.core.clock import SystemClock
from opencode_gate.core.errors import GatewayError, LedgerError
from opencode_gate.core.secrets import Secret
from opencode_gate.ledger.sqlite import open_store
from opencode_gate.server.protocol import Hello, Secrets, Settled
from opencode_gate.session.agent_process import (
    SignalsWhileRunning,
    start_agent,
    wait_for,
    was_killed,
)
from opencode_gate.session.gateway_process import GatewayProcess, Served, listen
from opencode_gate.session.plan import RunPlan
from opencode_gate.session.run_rules import put_session_rules
from opencode_gate.session.terminal import remember_terminal

if TYPE_CHECKING:
    from opencode_gate.governance.standing import BudgetStanding


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a session ended.

    Attributes:
        exit_status: the agent's own.
        failure: why the gateway gave up, `None` if it did not.
        settled: the gateway's last word, `None` if it had none.
        problems: keys that could not be read, by provider id.
        elsewhere: the address of the gateway, where others run it.
        budgets: how those above the session stand there.
    """

    session_id: str
    exit_status: int
    failure: str | None
    settled: Settled | None
    problems: dict[str, str]
    elsewhere: str | None = None
    budgets: tuple["BudgetStanding", ...] = ()


def launch(
    plan: RunPlan,
    paths: Paths,
    read_keys: "Callable[[], KeysRead]",
    meanwhile: Callable[[], None],
    account: "Callable[[Outcome], None]",
) -> Outcome:
    """Runs one session to its end; `read_keys` is called once the agent has been started.

    `meanwhile` is work for a thread of its own while the agent runs; `account` is called when
    the session has its end in the ledger.

    Raises:
        GateError: before the agent ran: the ledger, the port or the agent was in the way.
    """
    clock = SystemClock()
    # Open until all is told: whoever closes a ledger last writes all of it into one file and
    # waits for the disk, which would be before the agent starts, and again before the account.
    store = open_store(paths.ledger_file)
    try:
        store.add_session(plan.session)
        status: int | None = None
        try:
            _put_rules(plan, paths)
            with run_folder(paths, plan.session.id) as folder:
                outcome = _run(plan, folder, read_keys, meanwhile)
            status = outcome.exit_status
        finally:
            # Where the ledger fails only now, the account says so; the status stays the agent's.
            with contextlib.suppress(LedgerError):
                store.end_session(plan.session.id, ended_at_us=clock.now_us(), exit_status=status)
        account(outcome)
    finally:
        store.close()
    return outcome


def _put_rules(plan: RunPlan, paths: Paths) -> None:
    """The session's own rules hold from its first request on."""
    if plan.rules.own is None:
        return
    from opencode_gate.ledger.sqlite.governance import open_governance

    store, governance = open_store(paths.ledger_file), open_governance(paths.ledger_file)
    try:
        put_session_rules(governance, store, plan.session, plan.rules.own, plan.rules)
    finally:
        governance.close()
        store.close()


class KeysRead(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of a session, the reasons for those that could not be read, and extra headers."""

    keys: dict[str, str]
    problems: dict[str, str]
    headers: dict[str, dict[str, str]] = msgspec.field(default_factory=dict)

    def __repr__(self) -> str:
        return f"KeysRead(providers={sorted(self.keys)}, problems={sorted(self.problems)})"


@contextlib.contextmanager
def run_folder(paths: Paths, session_id: str) -> Iterator[Path]:
    """A private folder for one session, removed at its end."""
    folder = private_folder(paths.runtime / session_id)
    try:
        yield folder
    finally:
        import shutil

        shutil.rmtree(folder, ignore_errors=True)


def _run(
    plan: RunPlan,
    folder: Path,
    read_keys: Callable[[], KeysRead],
    meanwhile: Callable[[], None],
) -> Outcome:
    token = f"ogs-{os.urandom(32).hex()}"
    listener = listen()
    port = listener.getsockname()[1]
    signals = SignalsWhileRunning()
    restore_terminal = remember_terminal(RESET)
    with signals.installed():
        gateway = GatewayProcess(_served(plan, folder), listener)
        try:
            agent = start_routed_agent(plan, folder, local_origin(port), Secret(token))
        except BaseException:
            gateway.finish()
            raise
        signals.pass_on_to(agent)
        gateway.name_agent(agent.pid)
        gateway.on_failure(lambda: _stop(agent))
        keys = read_keys()
        gateway.give_secrets(
            Secrets(
                launch_token=token, keys=keys.keys, problems=keys.problems, headers=keys.headers
            )
        )
        # There is nothing else to do while the agent runs.
        threading.Thread(target=meanwhile, name="meanwhile", daemon=True).start()
        status = wait_for(agent)
        if was_killed(status):
            restore_terminal()
        settled = gateway.finish()
    if gateway.failure is not None and not gateway.was_ready:
        raise GatewayStart(
            "gateway-failed",
            f"the gateway did not start: {gateway.failure}",
            details=_log_tail(folder),
            hint=gateway.hint,
        )
    return Outcome(
        session_id=plan.session.id,
        exit_status=status,
        failure=gateway.failure,
        settled=settled,
        problems=keys.problems,
    )


class GatewayStart(GatewayError):
    """`ogate run` could not run anything."""

    exit_code = 125


def _served(plan: RunPlan, folder: Path) -> Served:
    def hello(socket: str) -> Hello:
        return Hello(
            session=plan.session,
            socket=socket,
            run_folder=str(folder),
            rows=plan.rows,
            key_names=dict(plan.key_names),
            costs={provider_id: dict(costs) for provider_id, costs in plan.costs.items()},
            virtual_key=plan.rules.virtual_key,
        )

    return Served(hello=hello, log_file=folder / "gateway.log", key_variables=plan.key_variables)


def start_routed_agent(
    plan: RunPlan,
    folder: Path,
    origin: str,
    token: Secret,
    *,
    is_elsewhere: bool = False,
    environ: Mapping[str, str] = os.environ,
) -> subprocess.Popen[bytes]:
    """Starts Opencode with its requests led to the gateway at `origin`.

    Raises:
        GateError: it cannot be started, or the user's own configuration is not understood.
    """
    config = session_config(
        plan.rows,
        origin=origin,
        is_elsewhere=is_elsewhere,
        models=plan.models,
        model=plan.model,
        small_model=plan.small_model,
        direct=plan.direct,
        without_key=plan.without_key,
    )
    text, models_path = config_text(merge_config(user_content(environ), config)), None
    if len(text.encode()) > content_limit():
        config, catalogue = move_models(config, plan.agent_catalogue())
        text = config_text(merge_config(user_content(environ), config))
        models_path = folder / "models.json"
        _write_private(models_path, config_text(catalogue))
    config_file = folder / "opencode.json"
    _write_private(config_file, config_text(config))
    child = agent_environment(
        environ,
        config_json=text,
        config_path=config_file,
        launch_token=token,
        hidden=plan.hidden,
        disable_default_plugins=plan.disable_default_plugins,
        models_path=models_path,
        is_private_copy=plan.agent.is_private,
    )
    # In our own folder, whatever `--dir` says: Opencode goes there itself.
    return start_agent([str(plan.agent.path), *plan.agent_arguments], child)


def _write_private(file: Path, text: str) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w", encoding="utf-8") as opened:
        opened.write(text)


def _stop(agent: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(OSError):
        agent.terminate()


def _log_tail(folder: Path) -> tuple[str, ...]:
    try:
        text = (folder / "gateway.log").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ()
    return tuple(text.splitlines()[-3:])
