"""`ogate env`: what a tool that `ogate run` does not start needs to go through a served gateway.

The invariant: the virtual key is in nothing that is printed; the variable that holds it is named.
"""

import json
import os
import shlex
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

from opencode_gate.cli.options import AsJson, NoInput
from opencode_gate.cli.prompts import may_ask
from opencode_gate.cli.render import Result, Text

if TYPE_CHECKING:
    from opencode_gate.cli.remote import Remote

Agent: TypeAlias = Literal["opencode"]


def command(
    agent: Annotated[Agent, typer.Argument(metavar="AGENT", help="opencode", show_default=False)],
    gateway: Annotated[
        str, typer.Option("--gateway", metavar="URL", help="The gateway.")
    ] = "http://127.0.0.1:4141",
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Plain HTTP is meant, also to another machine.")
    ] = False,
    shell: Annotated[
        bool, typer.Option("--shell", help="Lines for a shell instead of opencode.json.")
    ] = False,
    as_json: AsJson = False,
    no_input: NoInput = False,
) -> Result:
    """What a desktop app, an IDE or plain `opencode` needs to go through a served gateway.

    Prints an opencode.json; the virtual key belongs into the variable OGATE_KEY.
    """
    from opencode_gate.cli.remote import open_gateway
    from opencode_gate.config.paths import paths
    from opencode_gate.session.remote_gateway import gateway_address

    address = gateway_address(gateway, is_insecure=insecure)
    remote = open_gateway(address, paths(), can_ask=may_ask(no_input=no_input))
    config = _config(remote)
    variables = {"OPENCODE_CONFIG_CONTENT": json.dumps(config, separators=(",", ":"))}
    authority = os.environ.get("SSL_CERT_FILE") or os.environ.get("NODE_EXTRA_CA_CERTS")
    if authority and address.scheme == "https":
        variables["NODE_EXTRA_CA_CERTS"] = authority
    lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    where = "as a file that OPENCODE_CONFIG names" if not shell else "where the app is started"
    return Result(
        data={"variables": variables, "key_variable": "OGATE_KEY", "opencode_json": config},
        blocks=[Text("\n".join(lines) if shell else json.dumps(config, indent=2))],
        talk=[f"use it {where}, and beside it: export OGATE_KEY=ogk-… (your virtual key)"],
    )


def _config(remote: "Remote") -> dict[str, object]:
    from opencode_gate.agents.opencode.configuration import model_entry, session_config
    from opencode_gate.catalog.practice import PRACTICE_ID

    found = [one for one in remote.routed().values() if one.row.id != PRACTICE_ID]
    return session_config(
        [one.row for one in found],
        origin=remote.gateway.address.origin,
        is_elsewhere=True,
        models={
            one.row.id: {model.id: model_entry(model) for model in one.models.values()}
            for one in found
            if one.models
        },
        without_key=[one.row.id for one in found if one.source.kind == "none"],
    )
