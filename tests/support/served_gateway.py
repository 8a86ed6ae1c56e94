"""`ogate serve` as a process, virtual keys for it, and clients of the plainest kind."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from opencode_gate.config.paths import paths
from opencode_gate.core.ids import new_ulid
from opencode_gate.governance.policy import Rules, VirtualKey, document_of
from opencode_gate.governance.virtual_keys import new_virtual_key
from opencode_gate.ledger.governance_store import PolicyDocument
from opencode_gate.ledger.records import ExchangeRecord
from opencode_gate.ledger.sqlite import open_store
from opencode_gate.ledger.sqlite.governance import open_governance
from tests.support.launcher import children_of

_SERVING = re.compile(r"serving \d+ providers on (https?)://.*:(\d+)$")
_CHAT = {"model": "scripted", "messages": [{"role": "user", "content": "hi"}]}


def put_key(name: str, **fields: Any) -> str:
    """A virtual key in the ledger of this test; its text."""
    key = new_virtual_key()
    put_rules(
        "vkey",
        name,
        VirtualKey(public_id=key.public_id, secret_hash=key.secret_hash, **fields),
    )
    return key.token


def change_key(name: str, **fields: Any) -> None:
    """Other fields for a key that is there, from another process's point of view."""
    governance = open_governance(paths().ledger_file)
    try:
        found = {doc.name: doc.text for doc in governance.policy()[1] if doc.kind == "vkey"}
    finally:
        governance.close()
    key = msgspec.json.decode(found[name] or "", type=VirtualKey)
    put_rules("vkey", name, msgspec.structs.replace(key, **fields))


def put_rules(kind: str, name: str, rules: Rules) -> None:
    governance = open_governance(paths().ledger_file)
    try:
        document = PolicyDocument(kind, name, document_of(rules))
        governance.put_policy([document], operator="test", at_us=1)
    finally:
        governance.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        code: str = self.document["error"]["code"]
        return code


@dataclass
class ServedGateway:
    """A running one; `said` are the lines on its stderr."""

    process: subprocess.Popen[str]
    port: int
    scheme: str
    tls: ssl.SSLContext | None = None
    said: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    @property
    def inner(self) -> int:
        """The process that serves."""
        (pid,) = self.workers
        return pid

    @property
    def workers(self) -> list[int]:
        """The processes that serve."""
        return sorted(children_of(self.process.pid))

    def connect(self) -> http.client.HTTPConnection:
        if self.tls is not None:
            return http.client.HTTPSConnection("127.0.0.1", self.port, context=self.tls, timeout=20)
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)

    def ask(
        self,
        method: str,
        path: str,
        key: str | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        connection = self.connect()
        try:
            sent = {} if key is None else {"authorization": f"Bearer {key}"}
            content = None if body is None else json.dumps(body)
            connection.request(method, path, content, {**sent, **(headers or {})})
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())
        finally:
            connection.close()

    def chat(self, key: str, provider: str = "practice") -> Answer:
        return self.ask("POST", f"/p/{provider}/v1/chat/completions", key, _CHAT)

    def stream(self, key: str, provider: str) -> http.client.HTTPResponse:
        """The beginning of a streamed answer."""
        connection = self.connect()
        connection.request(
            "POST",
            f"/p/{provider}/v1/chat/completions",
            json.dumps({**_CHAT, "stream": True}),
            {"authorization": f"Bearer {key}"},
        )
        response = connection.getresponse()
        assert response.status == 200, response.read()
        assert response.readline().startswith(b"data: ")
        return response

    def open_session(self, key: str, **said: Any) -> tuple[str, str]:
        """A session's id and its token."""
        wish = {
            "id": new_ulid(),
            "user": "ada",
            "agent": "opencode",
            "directory": "/home/ada/engine",
            "project": "x",
            **said,
        }
        answer = self.ask("POST", "/ogate/v1/sessions", key, wish)
        assert answer.status == 200, answer.body
        return wish["id"], answer.document["token"]

    def refuses(self) -> bool:
        """Whether nobody is let in any more."""
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except (ConnectionRefusedError, ConnectionResetError):
            return True
        return False

    def stop(self, sent: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(sent)
        return self.process.wait(30)

    def kill(self) -> None:
        """All its processes, without a word."""
        workers = self.workers
        self.process.kill()
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
        self.process.wait()


def _serve_command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "opencode_gate.cli.main", "serve", "--no-input", *arguments]


def not_served(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A gateway that does not come to serve: how it ended, and what it said."""
    return subprocess.run(
        _serve_command(*arguments),
        cwd=tmp_path,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@contextlib.contextmanager
def served(
    tmp_path: Path,
    *arguments: str,
    port: int = 0,
    tls: ssl.SSLContext | None = None,
    **environ: str,
) -> Iterator[ServedGateway]:
    """A gateway that serves; killed at the end if the test did not stop it."""
    process = subprocess.Popen(
        _serve_command("--port", str(port), *arguments),
        cwd=tmp_path,
        env={**os.environ, **environ},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    gateway = ServedGateway(process, 0, "http", tls)
    assert process.stderr is not None
    for line in process.stderr:
        gateway.said.append(line.rstrip())
        found = _SERVING.search(gateway.said[-1])
        if found is not None:
            gateway.scheme, gateway.port = found[1], int(found[2])
            break
    assert gateway.port, gateway.said
    reader = threading.Thread(target=_read, args=(gateway,), daemon=True)
    reader.start()
    try:
        yield gateway
    finally:
        if process.poll() is None:
            with contextlib.suppress(ValueError, ProcessLookupError):
                gateway.kill()
        process.wait()
        reader.join(10)
        process.stderr.close()


def until(condition: Callable[[], object]) -> None:
    """Waits for something another process is certain to do."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def _read(gateway: ServedGateway) -> None:
    assert gateway.process.stderr is not None
    for line in gateway.process.stderr:
        gateway.said.append(line.rstrip())


def running_sessions() -> list[dict[str, Any]]:
    """What runs, as `ogate top` has it."""
    looked = subprocess.run(
        [sys.executable, "-m", "opencode_gate.cli.main", "top", "--json"],
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    running: list[dict[str, Any]] = json.loads(looked.stdout)["running"]
    return running


def recorded() -> list[ExchangeRecord]:
    """Every exchange in the ledger."""
    store = open_store(paths().ledger_file, read_only=True)
    try:
        return [one for session in store.sessions() for one in store.exchanges(session.id)]
    finally:
        store.close()
