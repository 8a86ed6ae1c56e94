"""The gateway processes of one `ogate serve`, each on a listening socket of its own.

Each is kept alive for itself, as the one of a session is: the death of one is nothing to the
others. The invariants: none is heard of as ready before all are; what one cannot go on from ends
all, so that nobody is left connecting to a socket that is not accepted from.
"""

import functools
import socket
import threading
from collections.abc import Callable, Sequence

from opencode_gate.core.errors import GatewayError
from opencode_gate.server.protocol import Secrets
from opencode_gate.session.gateway_process import GatewayProcess, Served


class Workers:
    """As many gateway processes as there are sockets, told and ended together.

    Raises:
        GatewayError: one of them cannot be started.
    """

    def __init__(self, served: Sequence[Served], listeners: Sequence[socket.socket]) -> None:
        self._workers: list[GatewayProcess] = []
        self._lock = threading.Lock()
        self._ready: set[int] = set()
        try:
            for one, listener in zip(served, listeners, strict=True):
                self._workers.append(GatewayProcess(one, listener))
        except GatewayError:
            self.finish()
            raise

    @property
    def failure(self) -> GatewayError | None:
        """Why one of them could not be kept alive; `None` while all are."""
        for worker in self._workers:
            if worker.failure is not None:
                return GatewayError("gateway-failed", worker.failure, hint=worker.hint)
        return None

    def on_failure(self, deed: Callable[[], object]) -> None:
        """What to do, in another thread, when one cannot be kept alive."""
        for worker in self._workers:
            worker.on_failure(deed)

    def on_ready(self, deed: Callable[[], object]) -> None:
        """What to do, in another thread, when all accept requests, and when one does again."""
        for number, worker in enumerate(self._workers):
            worker.on_ready(functools.partial(self._is_ready, number, deed))

    def give_secrets(self, secrets: Secrets) -> None:
        """Tells the keys to all, and to any that takes the place of one."""
        for worker in self._workers:
            worker.give_secrets(secrets)

    def hurry(self) -> None:
        """Cuts short the grace of a `finish` that another thread is in."""
        for worker in self._workers:
            worker.hurry()

    def finish(self, *, grace_s: float = 0.0) -> None:
        """Ends all at once; answers that still stream get `grace_s` to end."""
        threads = [
            threading.Thread(target=worker.finish, kwargs={"grace_s": grace_s}, name="finish")
            for worker in self._workers
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _is_ready(self, number: int, deed: Callable[[], object]) -> None:
        with self._lock:
            self._ready.add(number)
            are_all = len(self._ready) == len(self._workers)
        if are_all:
            deed()
