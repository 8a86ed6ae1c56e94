"""`ogate vkeys`: keys of a gateway that stand for people and programs.

The invariant: the secret of a key is printed once, by the command that makes it; ogate keeps a
hash of it and shows the public part alone ever after.
"""

from typing import TYPE_CHECKING, Annotated

import typer

from opencode_gate.cli import owner_verbs
from opencode_gate.cli.options import AsJson, NoInput, Yes
from opencode_gate.cli.render import Result, Text
from opencode_gate.cli.rule_options import (
    CLEARABLE,
    Allow,
    Clear,
    Concurrent,
    Deny,
    Rpm,
    Tpm,
    Zone,
    cleared,
    pattern_notes,
    ruled,
)
from opencode_gate.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opencode_gate.governance.policy import Rules, VirtualKey
    from opencode_gate.session.policy_owners import MadeKey

app = typer.Typer()

Name = Annotated[str, typer.Argument(metavar="NAME", show_default=False)]
TeamOf = Annotated[
    str | None, typer.Option("--team", metavar="NAME", help="The team it belongs to.")
]
Expires = Annotated[
    str | None,
    typer.Option(metavar="WHEN", help="Until when it holds: 2026-12-31, 30d, never."),
]
Tags = Annotated[
    list[str] | None, typer.Option("--tag", metavar="WORD", help="A free word; repeatable.")
]
CopyEnv = Annotated[
    bool,
    typer.Option("--copy-env", help="Print what a client needs, as lines for a shell."),
]
Gateway = Annotated[
    str | None,
    typer.Option(metavar="URL", help="With --copy-env: where the gateway is reached."),
]


@app.command()
def create(
    name: Name,
    team: TeamOf = None,
    expires: Expires = None,
    allow: Allow = None,
    deny: Deny = None,
    rpm: Rpm = None,
    tpm: Tpm = None,
    concurrent: Concurrent = None,
    tags: Tags = None,
    time_zone: Zone = None,
    copy_env: CopyEnv = False,
    gateway: Gateway = None,
    as_json: AsJson = False,
) -> Result:
    """Make a key. Its secret is shown now and never again."""
    from opencode_gate.config.paths import paths
    from opencode_gate.session.policy_owners import create_key

    _check_output(copy_env, gateway, as_json)
    owner = owner_verbs.owner_named("vkey", name)
    until = _expiry(expires)

    def rules(bare: "VirtualKey") -> "VirtualKey":
        key = ruled(
            bare,
            allow=allow,
            deny=deny,
            rpm=rpm,
            tpm=tpm,
            concurrent=concurrent,
            time_zone=time_zone,
        )
        return _with_own(key, team=team, expires_at=until, tags=tags)

    made = create_key(paths(), owner, rules, at_us=owner_verbs.now_us())
    said = [*pattern_notes(made.key), "next: ogate serve starts the gateway that takes it"]
    return _made(made, said, copy_env=copy_env, gateway=gateway, as_json=as_json)


@app.command("list")
def list_keys(as_json: AsJson = False) -> Result:
    """All virtual keys; never their secrets."""
    return owner_verbs.listed("vkey", as_json=as_json)


@app.command()
def show(name: Name, as_json: AsJson = False) -> Result:
    """One key: whether it is let in, its models, limits and budgets."""
    return owner_verbs.shown("vkey", name, as_json=as_json)


@app.command("set")
def set_key(
    name: Name,
    team: TeamOf = None,
    expires: Expires = None,
    allow: Allow = None,
    deny: Deny = None,
    rpm: Rpm = None,
    tpm: Tpm = None,
    concurrent: Concurrent = None,
    tags: Tags = None,
    time_zone: Zone = None,
    clear: Clear = None,
) -> Result:
    """Change a key's rules, from the next request on; what is not said stays."""
    gone = cleared(clear, (*CLEARABLE, "team", "tag"))
    until = _expiry(expires)

    def edit(rules: "Rules") -> "Rules":
        from opencode_gate.governance.policy import VirtualKey

        assert isinstance(rules, VirtualKey)
        key = ruled(
            rules,
            allow=allow,
            deny=deny,
            rpm=rpm,
            tpm=tpm,
            concurrent=concurrent,
            time_zone=time_zone,
            clear=gone,
        )
        return _with_own(
            key,
            team=team if team is not None else None if "team" in gone else rules.team,
            expires_at=rules.expires_at if expires is None else until,
            tags=tags or (() if "tag" in gone else rules.tags),
        )

    return owner_verbs.changed("vkey", name, edit)


@app.command()
def disable(name: Name) -> Result:
    """Switch a key off, from its next request on."""
    return _switched(name, is_active=False)


@app.command()
def enable(name: Name) -> Result:
    """Switch a key on again."""
    return _switched(name, is_active=True)


@app.command()
def rotate(
    name: Name,
    expires: Expires = None,
    copy_env: CopyEnv = False,
    gateway: Gateway = None,
    as_json: AsJson = False,
) -> Result:
    """Give a key a new secret; the old one is refused from its next request on."""
    from opencode_gate.config.paths import paths
    from opencode_gate.session.policy_owners import rotate_key

    _check_output(copy_env, gateway, as_json)
    made = rotate_key(
        paths(),
        owner_verbs.owner_named("vkey", name),
        expires_at=_expiry(expires),
        keeps_expiry=expires is None,
        at_us=owner_verbs.now_us(),
    )
    said = ["the one before is refused from the next request on"]
    return _made(made, said, copy_env=copy_env, gateway=gateway, as_json=as_json)


@app.command()
def revoke(name: Name, yes: Yes = False, no_input: NoInput = False) -> Result:
    """Remove a key for ever; what it spent stays in the ledger."""
    return owner_verbs.removed("vkey", name, yes=yes, no_input=no_input, verb="revoke")


def _switched(name: str, *, is_active: bool) -> Result:
    import msgspec

    from opencode_gate.config.paths import paths
    from opencode_gate.session.policy_owners import change_key, key_state

    owner = owner_verbs.owner_named("vkey", name)
    now_us = owner_verbs.now_us()
    key = change_key(
        paths(), owner, lambda key: msgspec.structs.replace(key, active=is_active), at_us=now_us
    )
    state = key_state(key, now_us)
    expired = [f"ogate vkeys rotate {owner.name} --expires 30d"] if state == "expired" else []
    return Result(data={}, blocks=[Text(f"{owner} is {state}")], talk=expired)


def _with_own(
    rules: "Rules", *, team: str | None, expires_at: str | None, tags: "Sequence[str] | None"
) -> "VirtualKey":
    import msgspec

    from opencode_gate.governance.policy import VirtualKey
    from opencode_gate.session.policy_names import normal

    assert isinstance(rules, VirtualKey)
    return msgspec.structs.replace(
        rules,
        team=None if team is None else normal(team),
        expires_at=expires_at,
        tags=tuple(tags or ()),
    )


def _expiry(text: str | None) -> str | None:
    from opencode_gate.core.local_time import local_zone_name
    from opencode_gate.session.policy_owners import expiry

    if text is None:
        return None
    return expiry(text, at_us=owner_verbs.now_us(), time_zone=local_zone_name())


def _check_output(copy_env: bool, gateway: str | None, as_json: bool) -> None:
    if copy_env and as_json:
        raise UsageError("usage", "--copy-env and --json exclude each other")
    if gateway is not None and not copy_env:
        raise UsageError("usage", "--gateway goes with --copy-env", hint="ogate vkeys --help")
    if gateway is not None:
        from opencode_gate.session.remote_gateway import gateway_address

        # Looked at before a key is made whose only look would be lost.
        gateway_address(gateway, is_insecure=True)


def _made(
    made: "MadeKey",
    said: "Sequence[str]",
    *,
    copy_env: bool,
    gateway: str | None,
    as_json: bool,
) -> Result:
    """What the one look at the secret shows."""
    from opencode_gate.cli.owner_view import rules_document

    if copy_env:
        return Result(data={}, blocks=[Text(line) for line in _env_lines(made, gateway)])
    document = rules_document(made.owner, made.key, (), owner_verbs.now_us())
    return Result(
        data={"vkey": document, "secret": made.token.reveal() if as_json else None},
        blocks=() if as_json else [Text(made.token.reveal())],
        talk=()
        if as_json
        else [
            f"this is {made.owner}, shown this once: ogate keeps only a hash of it",
            *said,
        ],
    )


def _env_lines(made: "MadeKey", gateway: str | None) -> list[str]:
    import os
    import shlex

    from opencode_gate.catalog.catalogue import open_catalogue
    from opencode_gate.config.paths import paths
    from opencode_gate.config.settings import load_settings
    from opencode_gate.session.client_variables import LOCAL_GATEWAY, client_variables
    from opencode_gate.session.remote_gateway import gateway_address

    rows = open_catalogue(paths(), load_settings(paths(), os.environ)).providers()
    address = gateway_address(gateway or LOCAL_GATEWAY, is_insecure=True).origin
    found = client_variables(rows, gateway=address, token=made.token.reveal())
    return [
        f"# {made.owner}; Opencode: ogate run --gateway {address}, or ogate env opencode",
        *(f"export {name}={shlex.quote(value)}" for name, value in found.items()),
    ]
