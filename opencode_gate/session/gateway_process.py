"""The gateway process as its launcher sees it: started, told, heard, started again.

The launcher owns the listening socket for as long as the agent lives. When the gateway dies,
another is started on the same socket, so the agent's own retry finds a door that is still there.
The invariant: a request is refused by the system only after `close`, never in between.
"""

import collections
import contextlib
import functools
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import msgspec

from opencode_gate.core.errors import GatewayError
from opencode_gate.server.processes import KEEPS_MEMORY, start_time
from opencode_gate.server.protocol import (
    Agent,
    Failed,
    Finish,
    Hello,
    Ready,
    Secrets,
    Settled,
    packed,
    unpacked,
)
from opencode_gate.server.socket_handoff import pack

RESTARTS = 5
RESTART_WINDOW_S = 60.0
SETTLE_TIMEOUT_S = 30.0

_SECRET_ENDINGS = ("_KEY", "_TOKEN", "_SECRET", "_PASSWORD")
_WITH_KEYS_INSIDE = ("OPENCODE_AUTH_CONTENT", "OPENCODE_CONFIG_CONTENT")

if sys.platform == "win32":
    _CREATION_FLAGS = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
else:
    _CREATION_FLAGS = 0


class Served(msgspec.Struct, frozen=True):
    """What the gateway needs to be told, whichever process it is.

    Attributes:
        hello: makes the first message, given the listening socket as it is handed over.
        log_file: where its stderr goes; `None` is our own.
        key_variables: variables of this environment that hold a provider's key.
    """

    hello: Callable[[str], Hello]
    log_file: Path | None
    key_variables: tuple[str, ...] = ()


def _opened(log_file: Path | None) -> contextlib.AbstractContextManager[IO[bytes] | None]:
    if log_file is None:
        return contextlib.nullcontext()
    return open(log_file, "ab", opener=functools.partial(os.open, mode=0o600))


def listen() -> socket.socket:
    """A listening socket on a free loopback port.

    Raises:
        GatewayError: the machine gives none.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise GatewayError(
            "gateway-failed",
            f"cannot listen on 127.0.0.1: {error.strerror}",
            hint="is the loopback interface up, and are there free ports?",
        ) from error
    return listener


class GatewayProcess:
    """Keeps one gateway alive on one socket until `finish`."""

    def __init__(self, served: Served, listener: socket.socket) -> None:
        self._served = served
        self._listener: socket.socket | None = listener
        self._lock = threading.Lock()
        self._secrets: Secrets | None = None
        self._agent: Agent | None = None
        self._is_finishing = False
        self._deaths: collections.deque[float] = collections.deque(maxlen=RESTARTS)
        self._on_failure: Callable[[], object] = lambda: None
        self._on_ready: Callable[[], object] = lambda: None
        self.was_ready = False
        self.failure: str | None = None
        self.hint = "ogate doctor"
        self.settled: Settled | None = None
        self._process = self._spawn()
        self._watcher = threading.Thread(target=self._watch, name="gateway", daemon=True)
        self._watcher.start()

    def _spawn(self) -> subprocess.Popen[bytes]:
        assert self._listener is not None
        try:
            with _opened(self._served.log_file) as log:
                process = subprocess.Popen(
                    [sys.executable, "-m", "opencode_gate.server"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env=self._environment(),
                    pass_fds=() if sys.platform == "win32" else (self._listener.fileno(),),
                    # Kept apart from the terminal: its Ctrl-C, Ctrl-Z, hang-up are the agent's.
                    start_new_session=sys.platform != "win32",
                    creationflags=_CREATION_FLAGS,
                )
        except OSError as error:
            raise GatewayError(
                "gateway-failed",
                f"the gateway process cannot be started: {error.strerror}",
                hint="ogate doctor",
            ) from error
        self._tell(self._served.hello(pack(self._listener, process.pid)), process)
        return process

    def on_failure(self, deed: Callable[[], object]) -> None:
        """What to do when the gateway cannot be kept alive (the agent must be stopped)."""
        self._on_failure = deed
        if self.failure is not None:
            deed()

    def on_ready(self, deed: Callable[[], object]) -> None:
        """What to do, in another thread, whenever a gateway accepts requests."""
        self._on_ready = deed

    def give_secrets(self, secrets: Secrets) -> None:
        """Tells token and keys, to this gateway and to any that replaces it."""
        with self._lock:
            self._secrets = secrets
            self._tell(secrets, self._process)

    def name_agent(self, pid: int) -> None:
        """Tells whom to end should the launcher be killed."""
        with self._lock:
            self._agent = Agent(pid=pid, started=start_time(pid))
            self._tell(self._agent, self._process)

    def hurry(self) -> None:
        """Cuts short the grace of a `finish` that another thread is in."""
        with self._lock:
            self._tell(Finish(), self._process)

    def finish(self, *, grace_s: float = 0.0) -> Settled | None:
        """Ends the gateway; `None` if it could not settle (the ledger then settles later).

        Answers that still stream get `grace_s` to end.
        """
        with self._lock:
            self._is_finishing = True
            self._tell(Finish(grace_s=grace_s), self._process)
        # Nobody accepts any more: who connects now is told so at once.
        self._close_listener()
        self._watcher.join(grace_s + SETTLE_TIMEOUT_S)
        if self._watcher.is_alive():
            self._process.kill()
            self._watcher.join()
        if self.settled is None and self.was_ready:
            self._settle_behind_it()
        return self.settled

    def _settle_behind_it(self) -> None:
        """Folds what a gateway that died last has left in its journal."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(
                [sys.executable, "-m", "opencode_gate.server", "settle"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                env=self._environment(),
                timeout=SETTLE_TIMEOUT_S,
                check=False,
            )

    def _tell(self, message: object, process: subprocess.Popen[bytes]) -> None:
        # A gateway that has just died is seen by the watcher, which tells its successor.
        stdin = process.stdin
        assert stdin is not None
        with contextlib.suppress(OSError):
            stdin.write(packed(message))
            stdin.flush()

    def _watch(self) -> None:
        while True:
            process = self._process
            assert process.stdout is not None
            self._hear(process.stdout)
            status = process.wait()
            with self._lock:
                if self._is_finishing:
                    return
                self.failure = self._problem(status) or self._replaced()
                if self.failure is None:
                    continue
            self._close_listener()
            self._on_failure()
            return

    def _hear(self, stdout: IO[bytes]) -> None:
        for line in stdout:
            try:
                message = unpacked(line)
            except ValueError:
                # Of its interpreter, before it had stdout for itself.
                continue
            match message:
                case Ready():
                    self.was_ready = True
                    self._on_ready()
                case Failed() as failed:
                    self.hint = failed.hint or self.hint
                    self.failure = failed.message
                case Settled() as settled if self._is_finishing:
                    self.settled = settled
                case _:
                    pass

    def _problem(self, status: int) -> str | None:
        """Why the gateway is not started again, `None` if it is."""
        if self.failure is not None:
            return self.failure
        if not self.was_ready:
            return f"the gateway ended before it was ready (status {status})"
        now_s = time.monotonic()
        if len(self._deaths) == RESTARTS and now_s - self._deaths[0] < RESTART_WINDOW_S:
            return f"the gateway died {RESTARTS + 1} times within a minute (status {status})"
        self._deaths.append(now_s)
        return None

    def _replaced(self) -> str | None:
        """Starts a successor and tells it all; why that failed, `None` if it did not."""
        try:
            self._process = self._spawn()
        except GatewayError as error:
            return error.message
        for message in (self._agent, self._secrets):
            if message is not None:
                self._tell(message, self._process)
        return None

    def _environment(self) -> dict[str, str]:
        """Ours without anything that holds a provider's key, or looks like a secret."""
        left_out = {*self._served.key_variables, *_WITH_KEYS_INSIDE}
        return (
            KEEPS_MEMORY
            | {
                name: value
                for name, value in os.environ.items()
                if name not in left_out and not name.endswith(_SECRET_ENDINGS)
            }
            | {"PYTHONUTF8": "1"}
        )

    def _close_listener(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
