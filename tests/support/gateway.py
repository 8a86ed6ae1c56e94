"""A real gateway process on a real socket, told what a launcher would tell it."""

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from opencode_gate.catalog.rows import ProviderRow
from opencode_gate.config.paths import Paths, paths, private_folder
from opencode_gate.core.ids import new_ulid
from opencode_gate.ledger.records import ExchangeRecord, SessionRecord
from opencode_gate.ledger.sqlite import open_store
from opencode_gate.server.processes import KEEPS_MEMORY
from opencode_gate.server.protocol import Finish, Hello, Secrets, packed
from opencode_gate.server.socket_handoff import pack

TOKEN = "ogs-0000aaaa1111bbbb2222cccc3333dddd"


@dataclass
class RunningGateway:
    """One gateway process; `exchanges()` reads what it left in the ledger."""

    process: subprocess.Popen[bytes]
    listener: socket.socket
    session: SessionRecord
    home: Paths
    log: Path
    said: list[dict[str, Any]] = field(default_factory=list)

    @property
    def port(self) -> int:
        port: int = self.listener.getsockname()[1]
        return port

    def url(self, provider_id: str, path: str) -> str:
        return f"http://127.0.0.1:{self.port}/p/{provider_id}{path}"

    def tell(self, message: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(packed(message))
        self.process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.log.read_text()
        message: dict[str, Any] = json.loads(line)
        self.said.append(message)
        return message

    def finish(self) -> dict[str, Any]:
        """Ends it as a launcher does and returns its last word."""
        self.tell(Finish())
        settled = self.hear()
        assert self.process.wait(30) == 0
        return settled

    def exchanges(self) -> list[ExchangeRecord]:
        store = open_store(self.home.ledger_file)
        try:
            return store.exchanges(self.session.id)
        finally:
            store.close()


def session_record() -> SessionRecord:
    return SessionRecord(
        id=new_ulid(),
        user="tester",
        agent="opencode",
        agent_version="1.18.33",
        directory="/nowhere",
        project="nowhere",
        started_at_us=1_790_000_000_000_000,
    )


@contextlib.contextmanager
def running_gateway(
    rows: Sequence[ProviderRow],
    *,
    keys: dict[str, str] | None = None,
    problems: dict[str, str] | None = None,
    environ: dict[str, str] | None = None,
    is_told_secrets: bool = True,
) -> Iterator[RunningGateway]:
    """A gateway that is ready; killed at the end if the test did not finish it.

    One that is not told the secrets has only heard `hello` and is not ready.
    """
    home = paths()
    run_folder = private_folder(home.runtime / "test-run")
    log = run_folder / "gateway.log"
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    session = session_record()
    open_store(home.ledger_file).close()
    with log.open("wb") as log_file:
        process = subprocess.Popen(
            [sys.executable, "-m", "opencode_gate.server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log_file,
            pass_fds=(listener.fileno(),),
            start_new_session=True,
            env={**KEEPS_MEMORY, **os.environ, **(environ or {})},
        )
    gateway = RunningGateway(process, listener, session, home, log)
    try:
        gateway.tell(
            Hello(
                session=session,
                socket=pack(listener, process.pid),
                run_folder=str(run_folder),
                rows=tuple(rows),
            )
        )
        if is_told_secrets:
            gateway.tell(Secrets(launch_token=TOKEN, keys=keys or {}, problems=problems or {}))
            assert gateway.hear() == {"type": "ready"}, log.read_text()
        yield gateway
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                stream.close()  # type: ignore[union-attr]
        listener.close()
