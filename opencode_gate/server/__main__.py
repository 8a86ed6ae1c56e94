"""The gateway process: `python -m opencode_gate.server`; with `fold` the one that folds for it,
with `settle` only the settling.

The order of a life: hear `hello` and `secrets`, wire up, serve the inherited socket, say `ready`;
at `finish`, or when the parent is gone, stop serving, fold every record, say `settled`, end.
Requests that come before `ready` wait in the socket's backlog.
"""

import os
import signal
import sys

from opencode_gate.config.paths import paths
from opencode_gate.config.settings import load_settings
from opencode_gate.core.errors import GateError
from opencode_gate.server.parent import Parent
from opencode_gate.server.protocol import Agent, Failed, Hello, Secrets


def serve(parent: Parent) -> None:
    """Serves the session that the launcher describes, to its end."""
    # Takes longest, and needs nothing of what is heard: the launcher meanwhile reads the keys.
    from opencode_gate.server.compose import compose
    from opencode_gate.server.serving import Serving

    hello: Hello | None = None
    secrets: Secrets | None = None
    agent: Agent | None = None
    while hello is None or secrets is None:
        match parent.hear():
            case Hello() as hello:
                continue
            case Secrets() as secrets:
                continue
            case Agent() as agent:
                continue
            case None:
                _orphaned(hello, agent)
                return
            case _:
                return
    settings = load_settings(paths(), os.environ)
    gateway = compose(hello, secrets, paths(), settings)
    parent.say(Serving(hello, gateway, parent, agent, settings).run())


def _orphaned(hello: Hello | None, agent: Agent | None) -> None:
    """The launcher died before it had told the secrets: its agent and its session end too."""
    from opencode_gate.server.compose import end_for_launcher
    from opencode_gate.server.processes import terminate

    if agent is not None:
        terminate(agent.pid, agent.started)
    if hello is not None:
        end_for_launcher(hello, paths())


def main(arguments: list[str]) -> int:
    """Runs the process and returns its exit status."""
    if arguments == ["fold"]:
        from opencode_gate.server.folding_child import fold

        return fold()
    if arguments == ["settle"]:
        from opencode_gate.server.compose import settle_dead

        settle_dead(paths(), load_settings(paths(), os.environ))
        return 0
    if hasattr(signal, "SIGHUP"):
        # A closed terminal is the agent's affair; this process ends with its parent.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    parent = Parent()
    try:
        serve(parent)
    except GateError as error:
        # The launcher says itself that it is the gateway that failed.
        code = "" if error.code == "gateway-failed" else f" [{error.code}]"
        parent.say(Failed(message=f"{error.message}{code}", hint=error.hint))
        return error.exit_code
    return 0


if __name__ == "__main__":
    status = main(sys.argv[1:])
    # Everything is in the ledger; the launcher waits for this process, and taking the interpreter
    # apart would only take longer than the settling did.
    sys.stderr.flush()
    os._exit(status)
