"""`ogate serve`: the gateway for a team, in the foreground.

The invariant: nothing goes to stdout; what a service manager or a person wants to know goes to
stderr, and no key is in it.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from opencode_gate.cli.options import NoInput
from opencode_gate.cli.prompts import may_ask
from opencode_gate.cli.render import talk
from opencode_gate.core.errors import UsageError

if TYPE_CHECKING:
    from opencode_gate.session.launch import KeysRead
    from opencode_gate.session.serve import ServePlan, ServeRequest

_LAST_PORT = 65535
_GRACE_MAX_S = 86_400


def command(
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="Where to listen.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", metavar="PORT", help="Where to listen.")] = 4141,
    tls_cert: Annotated[
        Path | None,
        typer.Option("--tls-cert", metavar="FILE", help="Certificate chain (PEM): speak HTTPS."),
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option("--tls-key", metavar="FILE", help="Its key (PEM).")
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option("--name", metavar="HOST", help="A name clients use for it; repeatable."),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Plain HTTP also where others can listen in.")
    ] = False,
    grace: Annotated[
        float, typer.Option("--grace", metavar="SECONDS", help="For running answers at the end.")
    ] = 30.0,
    workers: Annotated[
        int,
        typer.Option(
            "--workers", metavar="N", help="Gateway processes that share the address, one a core."
        ),
    ] = 1,
    no_input: NoInput = False,
) -> int:
    """The gateway for a team: provider keys stay here, people get virtual keys.

    Serves until Ctrl-C or SIGTERM; answers that run then may end, a second signal cuts them.
    """
    from opencode_gate.session.serve import WORKERS_MAX, ServeRequest

    if not 0 <= port <= _LAST_PORT:
        raise UsageError("usage", f"{port} is no port", hint="--port takes 1 to 65535")
    if not 1 <= workers <= WORKERS_MAX:
        hint = f"--workers takes 1 to {WORKERS_MAX}: as many as there are cores to spare"
        raise UsageError("usage", f"{workers} gateway processes are not possible", hint=hint)
    if not 0 <= grace <= _GRACE_MAX_S:
        hint = f"--grace takes 0 to {_GRACE_MAX_S} seconds"
        raise UsageError("usage", f"{grace:g} seconds are no time to wait", hint=hint)
    request = ServeRequest(
        host=host,
        port=port,
        tls_cert=tls_cert,
        tls_key=tls_key,
        names=tuple(name or ()),
        is_insecure=insecure,
        grace_s=grace,
        workers=workers,
    )
    return _serve(request, can_ask=may_ask(no_input=no_input))


def _serve(request: "ServeRequest", *, can_ask: bool) -> int:
    from opencode_gate.cli.key_entry import ask_passphrase
    from opencode_gate.config.paths import paths
    from opencode_gate.config.settings import load_settings
    from opencode_gate.session.discovery import discover
    from opencode_gate.session.keys import open_vault, read_keys
    from opencode_gate.session.serve import plan_service, serve, virtual_key_count
    from opencode_gate.session.serve_listening import listen_on

    where = paths()
    settings = load_settings(where, os.environ)
    discovery = discover(where, settings, os.environ)
    plan = plan_service(request, discovery, settings, os.environ)
    agent_secrets = {**discovery.auth.keys, **discovery.user_config.keys}
    vault = open_vault(plan, where, os.environ, ask_passphrase if can_ask else None)
    if virtual_key_count(where) == 0:
        talk("ogate · there is no virtual key yet, so nobody is let in: ogate vkeys create NAME")
    listeners = listen_on(request.host, request.port, workers=request.workers)
    address = _address(request, listeners[0].getsockname()[1])
    try:
        serve(
            plan,
            listeners,
            where,
            lambda: read_keys(plan, vault, os.environ, agent_secrets),
            lambda keys: _say_ready(plan, keys, address),
            lambda: _say_stopping(request.grace_s),
        )
    finally:
        for listener in listeners:
            listener.close()
    talk("ogate · stopped; everything is in the ledger")
    return 0


def _say_ready(plan: "ServePlan", keys: "KeysRead", address: str) -> None:
    talk(f"ogate · serving {len(plan.rows)} providers on {address}")
    for provider_id, problem in keys.problems.items():
        talk(f"ogate · {provider_id} has no key: {problem}")


def _say_stopping(grace_s: float) -> None:
    talk(f"ogate · answers that run have {grace_s:g} s to end; a second signal cuts them")


def _address(request: "ServeRequest", port: int) -> str:
    scheme = "http" if request.tls_cert is None else "https"
    host = f"[{request.host}]" if ":" in request.host else request.host
    return f"{scheme}://{host}:{port}"
