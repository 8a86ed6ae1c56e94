"""A gateway between `ready` and the end of its server.

The invariant: records are drained after the server has stopped, never in a shutdown hook before
it, because a stream may still be open there.
"""

import asyncio
import contextlib
import gc
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn

from opencode_gate.catalog.refresh import BackgroundRefresh
from opencode_gate.config.paths import paths
from opencode_gate.config.settings import Settings
from opencode_gate.core.tasks import spawn
from opencode_gate.server.compose import Gateway, end_for_launcher
from opencode_gate.server.one_write import OneWriteProtocol
from opencode_gate.server.parent import Parent
from opencode_gate.server.processes import terminate
from opencode_gate.server.protocol import Agent, Finish, Hello, Ready, Settled
from opencode_gate.server.socket_handoff import unpack

GRACE_S = 5.0
"""How long requests in flight may go on after SIGTERM, when the agent is still there to read."""

SWITCH_INTERVAL_S = 0.0005


class _Server(uvicorn.Server):
    """uvicorn's server, told when to stop instead of asking itself ten times a second.

    Signals are left to this process, and a stop without grace waits for nothing.
    """

    def __init__(self, app: Any) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=OneWriteProtocol,
                lifespan="off",
                ws="none",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                date_header=False,
                timeout_keep_alive=75,
            )
        )
        self.up = asyncio.Event()
        self._stopped = asyncio.Event()
        self._grace_s = 0.0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self.up.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def stop(self, grace_s: float = 0.0) -> None:
        """Accepts nothing more; what is in flight gets `grace_s` to end."""
        self._grace_s = grace_s
        self._stopped.set()

    async def main_loop(self) -> None:
        await self._stopped.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        in_flight = set(self.server_state.tasks)
        if in_flight and self._grace_s:
            _, in_flight = await asyncio.wait(in_flight, timeout=self._grace_s)
        for task in in_flight:
            task.cancel()
        await asyncio.gather(*in_flight, return_exceptions=True)


class Serving:
    """Serves one session; ends at `finish`, at SIGTERM, or when the parent is gone."""

    def __init__(
        self,
        hello: Hello,
        gateway: Gateway,
        parent: Parent,
        agent: Agent | None,
        settings: Settings,
    ) -> None:
        self._settings = settings
        self._hello = hello
        self._gateway = gateway
        self._parent = parent
        self._agent = agent
        self._is_orphan = False

    def run(self) -> Settled:
        """Serves to the end and folds every record into the ledger."""
        # Another thread folds and prices; the event loop waits at most this long for its turn.
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        # What has been imported stays; the collector need not look at it again and again.
        gc.collect()
        gc.freeze()
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(self._serve())
        try:
            self._gateway.settle()
        finally:
            if self._is_orphan:
                end_for_launcher(self._hello, paths())
        return Settled(
            exchanges=self._gateway.recorder.exchanges,
            is_whole=self._gateway.journal.failure is None,
        )

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        server = _Server(self._gateway.app)
        if hasattr(loop, "add_signal_handler"):
            with contextlib.suppress(NotImplementedError):
                loop.add_signal_handler(signal.SIGTERM, server.stop, GRACE_S)
        serving = spawn(server.serve(sockets=[unpack(self._hello.socket)]), name="server")
        serving.add_done_callback(lambda _: server.up.set())
        await server.up.wait()
        if serving.done():
            await serving
        self._parent.say(Ready())
        threading.Thread(
            target=self._listen,
            args=(lambda deed: loop.call_soon_threadsafe(deed), server),
            name="parent-messages",
            daemon=True,
        ).start()
        refresh = BackgroundRefresh(paths(), self._settings)
        try:
            await serving
        finally:
            refresh.stop()
        await self._gateway.upstream.close()

    def _listen(self, in_loop: Callable[[Callable[[], None]], object], server: _Server) -> None:
        """Hears the parent out, in a thread: a pipe cannot be awaited on every platform."""
        while True:
            match self._parent.hear():
                case Agent() as agent:
                    self._agent = agent
                case Finish():
                    break
                case None:
                    # The launcher is gone without a word: the agent must not outlive it.
                    self._is_orphan = True
                    if self._agent is not None:
                        terminate(self._agent.pid, self._agent.started)
                    break
                case _:
                    continue
        with contextlib.suppress(RuntimeError):
            in_loop(server.stop)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
