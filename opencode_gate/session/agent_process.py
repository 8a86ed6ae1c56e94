"""The agent as a child in the launcher's own process group and terminal.

The invariants: Ctrl-C and Ctrl-Z reach the agent from the terminal itself and the launcher only
stays out of the way; SIGTERM and SIGHUP are passed on, unless they were ignored when it started;
the launcher never ends before the agent.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType

from opencode_gate.core.errors import AgentMissing, AgentUnusable

_PASSED_ON = ("SIGTERM", "SIGHUP")
_SIGNALLED = 128


def start_agent(command: Sequence[str], environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Starts the agent; standard streams, process group, terminal and folder are the launcher's.

    Raises:
        AgentMissing: there is no such program.
        AgentUnusable: it cannot be executed.
    """
    try:
        return subprocess.Popen(list(command), env=dict(environ))
    except OSError as error:
        raise _not_started(command[0], error) from error


def _not_started(program: str, error: OSError) -> AgentMissing | AgentUnusable:
    hint = "npm install -g opencode-ai"
    if isinstance(error, FileNotFoundError):
        return AgentMissing("agent-missing", f"{program} is gone", hint=hint)
    return AgentUnusable(
        "agent-unusable", f"{program} cannot be executed: {error.strerror}", hint=hint
    )


def wait_for(agent: subprocess.Popen[bytes]) -> int:
    """Waits for the agent's end; a shell's status: 128 + n for an end by signal n."""
    status = agent.wait()
    return status if status >= 0 else _SIGNALLED - status


def was_killed(status: int) -> bool:
    """Whether a signal ended the agent, so that it may not have put the terminal back.

    Not only SIGKILL: a crash of its runtime is one too.
    """
    return status > _SIGNALLED


class SignalsWhileRunning:
    """The launcher's manners with signals, from before the agent starts until it has ended."""

    def __init__(self) -> None:
        self._agent: subprocess.Popen[bytes] | None = None
        self._pending: int | None = None

    def pass_on_to(self, agent: subprocess.Popen[bytes]) -> None:
        """From now on signals have somebody to go to; one that came before goes now."""
        self._agent = agent
        if self._pending is not None:
            agent.send_signal(self._pending)

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Handlers in force inside the block, the former ones after it."""
        # A handler, not SIG_IGN: an ignored signal would stay ignored in the agent.
        handlers = {signal.SIGINT: self._stay}
        for name in _PASSED_ON:
            if hasattr(signal, name) and sys.platform != "win32":
                handlers[getattr(signal, name)] = self._pass_on
        # What is ignored from the outset, as under `nohup`, stays so, here and in the agent.
        former = {
            number: signal.signal(number, handler)
            for number, handler in handlers.items()
            if signal.getsignal(number) != signal.SIG_IGN
        }
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)

    def _stay(self, number: int, frame: FrameType | None) -> None:
        """Ctrl-C is the agent's: the terminal has sent it there too."""
        if self._agent is None:
            raise KeyboardInterrupt

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        if self._agent is None:
            self._pending = number
        elif self._agent.poll() is None:
            self._agent.send_signal(number)


def run_untouched(command: Sequence[str]) -> int:
    """Runs the agent with nothing of ours around it, and returns its status.

    On POSIX this process becomes the agent and the call does not return.

    Raises:
        AgentMissing: there is no such program.
        AgentUnusable: it cannot be executed.
    """
    if sys.platform != "win32":
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            os.execv(command[0], list(command))
        except OSError as error:
            raise _not_started(command[0], error) from error
    with SignalsWhileRunning().installed():
        return wait_for(start_agent(command, os.environ))
