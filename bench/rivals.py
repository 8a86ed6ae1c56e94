"""Starting the gateways of others, as `scripts/install_rivals.sh` has installed them.

Each is set up as its own documentation says for one OpenAI-compatible provider, as leanly as it
allows: no database, no cache, limits out of the way. Two of them can only bind every address:
they are run in a private network or not at all.
"""

import contextlib
import os
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from bench.programs import Absent, Running, Upstream, environment, free_port, listening, started

INSTALLED = Path(__file__).parent.parent / ".ogate-bench"
VERSIONS = {
    "ferrogw": "1.5.10",
    "tensorzero": "2026.6.0",
    "portkey": "1.15.2",
    "litellm": "1.106.2",
}
"""As `scripts/install_rivals.sh` names them; a test compares the two."""

_START_S = 90.0
_ADDRESS = re.compile(r"http://127\.0\.0\.1:(\d+)(/.*)/v1/?$")

_FERROGW = "strategy: {mode: fallback}\ntargets:\n  - virtual_key: openai\n"
_FERROGW_MODEL = "gpt-4o-mini"
_LITELLM = """
model_list:
  - model_name: bench
    litellm_params: {{model: openai/bench, api_base: "{url}/v1", api_key: sk-bench}}
"""
_TENSORZERO = """
[models.bench]
routing = ["origin"]
[models.bench.providers.origin]
type = "openai"
model_name = "bench"
api_base = "{url}/v1/"
api_key_location = "none"
"""
_TENSORZERO_HOST = """
import os, sys, time
import tensorzero
from openai import OpenAI
client = OpenAI(api_key="sk-bench")
tensorzero.patch_openai_client(client, config_file=sys.argv[1], async_setup=False)
with open(sys.argv[2] + ".new", "w") as told:
    told.write(str(client.base_url))
os.rename(sys.argv[2] + ".new", sys.argv[2])
time.sleep(7200)
"""


def _program(name: str, *path: str) -> str:
    installed = INSTALLED / name
    if not (installed / "installed").exists():
        raise Absent(reasons().get(name, "not installed (scripts/install_rivals.sh)"))
    return str(installed.joinpath(*path))


def reasons() -> dict[str, str]:
    """Why what could not be installed could not be installed, by name."""
    told = INSTALLED / "absent.txt"
    lines = told.read_text(encoding="utf-8").splitlines() if told.exists() else []
    return {name: reason for name, _, reason in (line.partition("\t") for line in lines)}


def _needs_private_network(is_private: bool) -> None:
    if not is_private:
        raise Absent("binds every address; no private network could be made to run it in")


@contextlib.contextmanager
def ferrogw(upstream: Upstream, folder: Path, *, is_private: bool) -> Iterator[Running]:
    """ferrogw: a compiled gateway in Go."""
    program = _program("ferrogw", "bin", "ferrogw")
    _needs_private_network(is_private)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(_FERROGW, encoding="utf-8")
    port = free_port()
    environ = environment(folder) | upstream.variables()
    environ |= {
        "GATEWAY_CONFIG": str(folder / "config.yaml"),
        "MASTER_KEY": "fgw_" + secrets.token_hex(16),
        "OPENAI_API_KEY": "sk-bench",
        "OPENAI_BASE_URL": upstream.url,
        "PORT": str(port),
        "RATE_LIMIT_RPS": "1000000",
        "RATE_LIMIT_BURST": "1000000",
        "ALLOW_UNAUTHENTICATED_PROXY": "true",
        "GATEWAY_ENV": "development",
    }
    with started([program, "serve"], folder, listening(port), environ) as process:
        yield Running(process.pid, port, model=_FERROGW_MODEL)


@contextlib.contextmanager
def tensorzero(upstream: Upstream, folder: Path, *, is_private: bool) -> Iterator[Running]:
    """TensorZero: a compiled gateway in Rust, embedded in a Python process that only waits."""
    program = _program("tensorzero", "bin", "python")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tensorzero.toml").write_text(_TENSORZERO.format(url=upstream.url), encoding="utf-8")
    told = folder / "address"
    command = [program, "-c", _TENSORZERO_HOST, str(folder / "tensorzero.toml"), str(told)]
    environ = environment(folder) | upstream.variables()
    with started(command, folder, told.exists, environ) as process:
        address = _ADDRESS.match(told.read_text(encoding="utf-8"))
        if address is None:
            raise Absent("it told no address")
        model = "tensorzero::model_name::bench"
        yield Running(process.pid, int(address[1]), address[2], model)


@contextlib.contextmanager
def portkey(upstream: Upstream, folder: Path, *, is_private: bool) -> Iterator[Running]:
    """Portkey's gateway, on Node."""
    build = ("node_modules", "@portkey-ai", "gateway", "build", "start-server.js")
    program = _program("portkey", *build)
    _needs_private_network(is_private)
    port = free_port()
    environ = environment(folder) | upstream.variables()
    command = ["node", program, "--headless", f"--port={port}"]
    with started(command, folder, listening(port), environ) as process:
        fields = f"x-portkey-provider: openai\r\nx-portkey-custom-host: {upstream.url}/v1\r\n"
        yield Running(process.pid, port, fields=fields)


@contextlib.contextmanager
def litellm(upstream: Upstream, folder: Path, *, is_private: bool) -> Iterator[Running]:
    """LiteLLM's proxy, with one worker."""
    program = _program("litellm", "bin", "litellm")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(_LITELLM.format(url=upstream.url), encoding="utf-8")
    port, key = free_port(), "sk-" + secrets.token_hex(24)
    environ = environment(folder) | upstream.variables()
    environ |= {"LITELLM_MASTER_KEY": key, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    command = [program, "--config", str(folder / "config.yaml"), "--host", "127.0.0.1"]
    command += ["--port", str(port), "--num_workers", "1"]
    path = os.pathsep.join([str(Path(program).parent), environ.get("PATH", "")])
    with started(command, folder, listening(port), environ | {"PATH": path}, _START_S) as process:
        # It takes connections a little before it takes requests.
        time.sleep(1)
        yield Running(process.pid, port, token=key)
