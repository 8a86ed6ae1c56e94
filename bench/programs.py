"""Starting what is measured: the origin, nginx before it, our gateway before it in three ways.

Each is a process of its own on loopback, with a throw-away home, ended when its context is left.
`bench.rivals` starts those of others.
"""

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.rules import write_config, write_rules, write_virtual_key
from opencode_gate.catalog.rows import ProviderRow
from opencode_gate.core.ids import new_ulid
from opencode_gate.ledger.records import SessionRecord
from opencode_gate.server.processes import KEEPS_MEMORY
from opencode_gate.server.protocol import Finish, Hello, Ready, Secrets, packed, unpacked

TOKEN = "ogate-bench-token"
PROVIDER_ID = "bench"

_FOLDING_S = 0.3
"""Longer than our gateway gathers records for the ledger before it has them written."""
_SERVING = re.compile(rb"serving \d+ providers on http://.*:(\d+)$")
_NGINX_CONF = """
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  upstream origin {{ server {address}; keepalive 1024; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    keepalive_requests 1000000;
    client_body_buffer_size 2m;
    client_max_body_size 64m;
    location / {{
      proxy_pass {scheme}://origin;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
      {tls}
    }}
  }}
}}
"""
_NGINX_TLS = """proxy_ssl_verify on;
      proxy_ssl_name localhost;
      proxy_ssl_trusted_certificate {trusted};"""


class Absent(Exception):
    """A program that cannot be measured here; the message says why, for the report."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """What a program is put in front of; over TLS `trusted` is the authority's certificate."""

    port: int
    trusted: Path | None = None

    @property
    def url(self) -> str:
        """Its address without a path."""
        return f"{'http' if self.trusted is None else 'https'}://127.0.0.1:{self.port}"

    def variables(self) -> dict[str, str]:
        """What has a program trust it."""
        if self.trusted is None:
            return {}
        return {"SSL_CERT_FILE": str(self.trusted), "NODE_EXTRA_CA_CERTS": str(self.trusted)}


@dataclass(frozen=True, slots=True)
class Running:
    """A program that answers chat requests.

    Attributes:
        pid: of the process from which all its others descend.
        prefix: of its paths.
        model: what a request to it has to name.
        token: what authorises a client.
        fields: further header lines it wants, each with its line end.
        lag_s: how long after an answer it may still begin to work on that request.
        ledger: the file in which it writes a row for each request, if it does.
    """

    pid: int
    port: int
    prefix: str = ""
    model: str = "bench"
    token: str = TOKEN
    fields: str = ""
    lag_s: float = 0.0
    ledger: Path | None = None

    @property
    def path(self) -> str:
        """Where it takes chat requests."""
        return f"{self.prefix}/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Origin:
    """The scripted provider."""

    pid: int
    port: int
    tls_port: int | None

    def counts(self) -> dict[str, int]:
        """How many requests came under each tag."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("GET", "/counts")
        counts: dict[str, int] = json.loads(connection.getresponse().read())
        connection.close()
        return counts


def environment(home: Path) -> dict[str, str]:
    """An environment in which nothing of the user's own is read or written."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OGATE_", "OPENCODE_", "XDG_"))
        and not name.upper().endswith(("_PROXY", "_API_KEY", "_TOKEN"))
    }
    return {**kept, "HOME": str(home), "OGATE_HOME": str(home / "ogate"), "NO_COLOR": "1"}


@contextlib.contextmanager
def origin(certificate: Path | None = None) -> Iterator[Origin]:
    """The scripted provider, with a certificate also over TLS."""
    more = [] if certificate is None else ["--certificate", str(certificate)]
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.origin", *more],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the origin has no pipes")
    try:
        ports = [int(port) for port in process.stdout.readline().split()]
        yield Origin(process.pid, ports[0], ports[1] if certificate is not None else None)
    finally:
        process.stdin.close()
        process.wait(10)
        process.stdout.close()


@contextlib.contextmanager
def nginx(upstream: Upstream, folder: Path) -> Iterator[Running]:
    """The floor: nginx as a plain reverse proxy, with one worker."""
    program = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if program is None:
        raise Absent("not installed")
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    conf = folder / "nginx.conf"
    conf.write_text(
        _NGINX_CONF.format(
            folder=folder,
            port=port,
            address=f"127.0.0.1:{upstream.port}",
            scheme=upstream.url.partition(":")[0],
            tls=_NGINX_TLS.format(trusted=upstream.trusted) if upstream.trusted else "",
        ),
        encoding="utf-8",
    )
    command = [program, "-p", str(folder), "-c", str(conf), "-e", str(folder / "error.log")]
    with started(command, folder, listening(port), environment(folder)) as process:
        yield Running(process.pid, port)


@contextlib.contextmanager
def gateway(upstream: Upstream, folder: Path, *, is_governed: bool = False) -> Iterator[Running]:
    """The real gateway process, told what a launcher would tell it.

    Governed, the rules of `bench.rules` have a say in every request.
    """
    folder.mkdir(parents=True, exist_ok=True)
    home = folder / "ogate"
    if is_governed:
        write_rules(home, "bench")
    else:
        write_config(home)
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    with (folder / "gateway.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "opencode_gate.server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=KEEPS_MEMORY | environment(folder) | upstream.variables(),
            pass_fds=(listener.fileno(),),
        )
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the gateway has no pipes")
    row = ProviderRow(id=PROVIDER_ID, name="bench", base_url=f"{upstream.url}/v1", source="config")
    session = SessionRecord(
        id=new_ulid(),
        user="bench",
        agent="opencode",
        agent_version=None,
        directory=str(folder),
        project="bench",
        started_at_us=time.time_ns() // 1000,
    )
    hello = Hello(
        session=session, socket=str(listener.fileno()), run_folder=str(folder / "run"), rows=(row,)
    )
    try:
        for message in (hello, Secrets(launch_token=TOKEN, keys={PROVIDER_ID: "sk-bench"})):
            process.stdin.write(packed(message))
        process.stdin.flush()
        first = process.stdout.readline()
        if not first or not isinstance(unpacked(first), Ready):
            raise RuntimeError(f"no gateway: {first!r} {(folder / 'gateway.log').read_text()}")
        yield Running(
            process.pid,
            listener.getsockname()[1],
            f"/p/{PROVIDER_ID}",
            lag_s=_FOLDING_S,
            ledger=home / "data" / "ledger.db",
        )
        process.stdin.write(packed(Finish()))
        process.stdin.flush()
        process.wait(60)
    finally:
        process.kill()
        process.wait(10)
        process.stdin.close()
        process.stdout.close()
        listener.close()


@contextlib.contextmanager
def served_gateway(upstream: Upstream, folder: Path, *more: str) -> Iterator[Running]:
    """`ogate serve`, asked with a virtual key."""
    folder.mkdir(parents=True, exist_ok=True)
    home = folder / "ogate"
    token = write_virtual_key(home, "bench", f"{upstream.url}/v1")
    with (folder / "gateway.log").open("wb") as log:
        command = [sys.executable, "-m", "opencode_gate.cli.main", "serve", "--no-input"]
        process = subprocess.Popen(
            [*command, "--port", "0", *more],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.PIPE,
            env=environment(folder) | upstream.variables(),
        )
    if process.stderr is None:
        raise RuntimeError("the gateway has no pipe")
    try:
        said = []
        for line in process.stderr:
            said.append(line.strip())
            found = _SERVING.search(said[-1])
            if found is not None:
                break
        else:
            raise Absent(f"ended with {b' '.join(said).decode()}")
        yield Running(
            process.pid,
            int(found[1]),
            f"/p/{PROVIDER_ID}",
            token=token,
            lag_s=_FOLDING_S,
            ledger=home / "data" / "ledger.db",
        )
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait(10)
        process.stderr.close()


def rows_in(ledger: Path) -> int:
    """How many requests a ledger has a row for."""
    with contextlib.closing(sqlite3.connect(ledger)) as connection:
        rows: int = connection.execute("SELECT count(*) FROM exchanges").fetchone()[0]
        return rows


@contextlib.contextmanager
def started(
    command: Sequence[str],
    folder: Path,
    is_up: Callable[[], bool],
    environ: dict[str, str],
    wait_s: float = 20,
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is up within `wait_s`; `Absent` if it does not get there."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "output.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        ends = time.monotonic() + wait_s
        while not is_up():
            if process.poll() is not None:
                raise Absent(f"ended with status {process.returncode}")
            if time.monotonic() > ends:
                raise Absent(f"was not up within {wait_s:g} s")
            time.sleep(0.02)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def listening(port: int) -> Callable[[], bool]:
    """Tells whether something listens there."""

    def listens() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            return False
        return True

    return listens
