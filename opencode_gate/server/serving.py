"""A gateway between `ready` and the end of its server, whether it serves one session or many.

The invariant: records are drained after the server has stopped, never in a shutdown hook before
it, because a stream may still be open there.
"""

import asyncio
import contextlib
import gc
import signal
import ssl
import sys
import threading
from collections.abc import Callable

from opencode_gate.catalog.refresh import BackgroundRefresh
from opencode_gate.config.paths import paths
from opencode_gate.config.settings import Settings
from opencode_gate.core.errors import GatewayError
from opencode_gate.gateway.http_server import HttpServer
from opencode_gate.server.compose import Gateway, end_for_launcher
from opencode_gate.server.parent import Parent
from opencode_gate.server.processes import allow_many_connections, terminate
from opencode_gate.server.protocol import Agent, Finish, Hello, Ready, Service, Settled
from opencode_gate.server.socket_handoff import unpack

GRACE_S = 5.0
"""How long requests in flight may go on after SIGTERM, when the agent is still there to read."""

SWITCH_INTERVAL_S = 0.0005


class Serving:
    """Serves; ends at `finish`, at SIGTERM, or when the parent is gone."""

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
        # Other threads look names up, ask the ledger, hear the parent; the event loop waits at
        # most this long for its turn.
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        allow_many_connections()
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
        served = self._hello.served
        server = HttpServer(self._gateway.app, tls=None if served is None else tls_context(served))
        if hasattr(loop, "add_signal_handler"):
            with contextlib.suppress(NotImplementedError):
                loop.add_signal_handler(
                    signal.SIGTERM, server.stop, GRACE_S if served is None else served.grace_s
                )
        await server.start([unpack(self._hello.socket)])
        self._parent.say(Ready())
        self._gateway.folding.begin()
        threading.Thread(
            target=self._listen,
            args=(loop.call_soon_threadsafe, server),
            name="parent-messages",
            daemon=True,
        ).start()
        is_first = served is None or served.worker == 0
        refresh = BackgroundRefresh()
        try:
            if is_first:
                await refresh.start(paths(), self._settings)
            await server.wait_stopped()
        finally:
            await refresh.stop()
        await self._gateway.upstream.close()

    def _listen(self, in_loop: Callable[..., object], server: HttpServer) -> None:
        """Hears the parent out, in a thread: a pipe cannot be awaited on every platform."""
        is_finishing = False
        # The loop may have ended by the time of the last word.
        with contextlib.suppress(RuntimeError):
            while (message := self._parent.hear()) is not None:
                match message:
                    case Agent() as agent:
                        self._agent = agent
                    case Finish(grace_s=grace_s):
                        is_finishing = True
                        in_loop(server.stop, grace_s)
                    case _:
                        continue
            self._is_orphan = True
            if not is_finishing:
                # The launcher is gone without a word: the agent must not outlive it.
                if self._agent is not None:
                    terminate(self._agent.pid, self._agent.started)
                served = self._hello.served
                in_loop(server.stop, 0.0 if served is None else served.grace_s)


def tls_context(served: Service) -> ssl.SSLContext | None:
    """What a served gateway proves itself with; `None` where it speaks plain HTTP.

    Raises:
        GatewayError: the files are no certificate and its key.
    """
    if served.tls_cert is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    try:
        # Without a password of ours OpenSSL asks on stdin, which is the launcher's.
        context.load_cert_chain(served.tls_cert, served.tls_key, password="")
    except (OSError, ssl.SSLError) as error:
        raise GatewayError(
            "gateway-failed",
            f"{served.tls_cert} and {served.tls_key} cannot be used for TLS: {error}",
            hint="give a chain with --tls-cert and its key, without a password, with --tls-key",
        ) from error
    return context


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
