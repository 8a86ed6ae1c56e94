"""Starting what is measured: the origin, nginx before it, the gateway before it.

Each is a process of its own on loopback, with a throw-away home, ended when its context is left.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.rules import write_rules
from opencode_gate.catalog.rows import ProviderRow
from opencode_gate.core.ids import new_ulid
from opencode_gate.ledger.records import SessionRecord
from opencode_gate.server.protocol import Finish, Hello, Ready, Secrets, packed, unpacked

TOKEN = "ogate-bench-token"
PROVIDER_ID = "bench"

_NGINX_CONF = """
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  upstream origin {{ server 127.0.0.1:{origin_port}; keepalive 64; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port};
    keepalive_requests 1000000;
    client_body_buffer_size 2m;
    client_max_body_size 64m;
    location / {{
      proxy_pass http://origin;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Running:
    """A process that answers on a port, under a path prefix."""

    pid: int
    port: int
    prefix: str = ""


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
def origin() -> Iterator[Running]:
    """The scripted provider."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.origin"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the origin has no pipes")
    try:
        yield Running(process.pid, int(process.stdout.readline()))
    finally:
        process.stdin.close()
        process.wait(10)
        process.stdout.close()


@contextlib.contextmanager
def nginx(origin_port: int, folder: Path) -> Iterator[Running | None]:
    """The floor: nginx as a plain reverse proxy; `None` where it is not installed."""
    program = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if program is None:
        yield None
        return
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    conf = folder / "nginx.conf"
    conf.write_text(
        _NGINX_CONF.format(folder=folder, port=port, origin_port=origin_port), encoding="utf-8"
    )
    process = subprocess.Popen(
        [program, "-p", str(folder), "-c", str(conf), "-e", str(folder / "error.log")]
    )
    try:
        _wait_for(port)
        yield Running(process.pid, port)
    finally:
        process.terminate()
        process.wait(10)


@contextlib.contextmanager
def gateway(origin_port: int, folder: Path, *, is_governed: bool = False) -> Iterator[Running]:
    """The real gateway process, told what a launcher would tell it.

    Governed, the rules of `bench.rules` have a say in every request.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if is_governed:
        write_rules(folder / "ogate", "bench")
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    with (folder / "gateway.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "opencode_gate.server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment(folder),
            pass_fds=(listener.fileno(),),
        )
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the gateway has no pipes")
    row = ProviderRow(
        id=PROVIDER_ID,
        name="bench",
        base_url=f"http://127.0.0.1:{origin_port}/v1",
        source="config",
    )
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
        yield Running(process.pid, listener.getsockname()[1], f"/p/{PROVIDER_ID}")
        process.stdin.write(packed(Finish()))
        process.stdin.flush()
        process.wait(30)
    finally:
        process.kill()
        process.wait(10)
        process.stdin.close()
        process.stdout.close()
        listener.close()


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _wait_for(port: int) -> None:
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise RuntimeError(f"nothing listens on port {port}")
