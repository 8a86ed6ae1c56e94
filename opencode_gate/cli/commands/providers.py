"""`ogate providers`: which there are, which work now, why others do not, and your own.

The invariant: every provider has exactly one state and a sentence for it, and each state that is
not `ready` says what would make it so.
"""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

from opencode_gate.cli import prompts, typed_secrets
from opencode_gate.cli.options import AsJson, NoInput, Yes
from opencode_gate.cli.prompts import may_ask
from opencode_gate.cli.render import Block, Column, Fact, Facts, Result, Table, Text
from opencode_gate.core.errors import UsageError

if TYPE_CHECKING:
    from opencode_gate.catalog.rows import ProviderRow
    from opencode_gate.config.toml_shape import KeyPath
    from opencode_gate.session.discovery import Discovery

app = typer.Typer()

State: TypeAlias = Literal["ready", "no-key", "needs-variable", "unsupported"]
Wire = Literal["openai-chat", "openai-responses", "anthropic", "gemini"]

Id = Annotated[str, typer.Argument(metavar="ID", help="The provider's id, such as anthropic.")]
BaseUrl = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Its address with the version path: https://host/v1"),
]
Models = Annotated[
    list[str] | None, typer.Option("--model", metavar="ID", help="A model it has; repeatable.")
]
AuthHeader = Annotated[
    str | None, typer.Option(metavar="NAME", help="Send the key in this header instead.")
]
Headers = Annotated[
    list[str] | None,
    typer.Option(
        "--header", metavar="NAME=VALUE", help="One more header; {env:VAR} stays a reference."
    ),
]
Variables = Annotated[
    list[str] | None,
    typer.Option("--variable", metavar="NAME=VALUE", help="A ${NAME} of its address."),
]


@app.command("list")
def list_providers(
    text: Annotated[
        str | None, typer.Argument(metavar="TEXT", help="Only those with this in id or name.")
    ] = None,
    show_all: Annotated[
        bool, typer.Option("--all", help="Those too that are not ready to use.")
    ] = False,
    as_json: AsJson = False,
) -> Result:
    """Providers you can use now; with --all or a TEXT, those you cannot, and why."""
    found = _discover()
    rows = sorted(_rows(found).values(), key=lambda row: row.id)
    shown = [
        row for row in rows if _is_wanted(row, text) and _is_listed(row, found, text, show_all)
    ]
    hidden = len(rows) - len(shown)
    talk = [f"{hidden} more: ogate providers list --all"] if hidden and not as_json else []
    return Result(
        data={
            "catalogue_date": found.catalogue.date,
            "providers": [_document(row, found) for row in shown],
        },
        blocks=() if as_json else [_table(shown, found)],
        talk=talk if text is None else (),
    )


@app.command()
def show(provider_id: Id, as_json: AsJson = False) -> Result:
    """One provider: address, format, key, and what stands in the way."""
    found = _discover()
    row = _row(found, provider_id)
    return Result(data=_document(row, found), blocks=() if as_json else [_facts(row, found)])


@app.command()
def add(
    provider_id: Id,
    base_url: Annotated[
        str, typer.Option(metavar="URL", help="Its address with the version path: https://host/v1")
    ],
    wire: Annotated[Wire, typer.Option(metavar="WIRE", help="The format it speaks.")],
    no_key: Annotated[bool, typer.Option("--no-key", help="It needs no key.")] = False,
    models: Models = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="How it is shown.")] = None,
    auth_header: AuthHeader = None,
    headers: Headers = None,
) -> Result:
    """Adds a server of your own that speaks one of the four formats."""
    known = _catalogue_row(provider_id)
    if known is not None:
        own = known.source == "config"
        raise UsageError(
            "usage",
            f"{provider_id} is {'there' if own else 'built in'} already",
            hint=f"ogate providers edit {provider_id} --base-url {base_url}",
        )
    changes: dict[KeyPath, object] = {
        ("base_url",): base_url,
        ("wire",): wire,
        ("name",): name,
        ("keyless",): True if no_key else None,
        ("auth_header",): auth_header,
        **_pairs("headers", headers),
        **{("models", model): {} for model in models or ()},
    }
    _write(provider_id, changes)
    next_step = f"ogate run --provider {provider_id}" if no_key else f"ogate keys add {provider_id}"
    talk = [f"{provider_id} added; next: {next_step}"]
    if not models:
        talk.append(f"it has no models yet: ogate providers edit {provider_id} --model ID")
    if not no_key:
        talk += _notes_on(base_url)
    return Result(data={}, talk=talk)


@app.command()
def edit(
    provider_id: Id,
    base_url: BaseUrl = None,
    auth_header: AuthHeader = None,
    headers: Headers = None,
    variables: Variables = None,
    models: Models = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="How it is shown.")] = None,
    subscription: Annotated[
        Literal["direct", "key"] | None,
        typer.Option(help="A sign-in stored in Opencode: leave it direct, or use your key."),
    ] = None,
    stream_usage: Annotated[
        Literal["ask", "always", "never"] | None,
        typer.Option(help="Whether to ask for token counts in streamed chat answers."),
    ] = None,
) -> Result:
    """Changes where a provider is reached or how; `remove` takes the changes back."""
    row = _row(_discover(), provider_id)
    changes: dict[KeyPath, object] = {
        ("base_url",): base_url,
        ("auth_header",): auth_header,
        ("name",): name,
        ("subscription",): subscription,
        ("stream_usage",): stream_usage,
        **_pairs("headers", headers),
        **_pairs("variables", variables),
        **{("models", model): {} for model in models or ()},
    }
    if all(value is None for value in changes.values()):
        raise UsageError(
            "usage",
            "nothing to change",
            hint=f"ogate providers edit {provider_id} --help",
        )
    _write(provider_id, changes)
    talk = [f"{row.id} changed; ogate providers show {row.id}", *_notes_on(base_url)]
    return Result(data={}, talk=talk)


@app.command()
def remove(provider_id: Id, yes: Yes = False, no_input: NoInput = False) -> Result:
    """Removes a provider of your own, or your changes to a built-in one; keys stay."""
    from opencode_gate.config.editing import set_values
    from opencode_gate.config.paths import paths
    from opencode_gate.config.settings import load_settings
    from opencode_gate.config.toml_shape import nearest

    said = load_settings(paths(), os.environ).providers
    if provider_id not in said:
        close = nearest(provider_id, said)
        raise UsageError(
            "unknown-provider",
            f"config.toml says nothing about {provider_id!r}",
            details=(f"nearest: {', '.join(close)}",) if close else (),
            hint="ogate config show",
        )
    if not yes:
        prompts.require_yes(
            f"Remove [providers.{provider_id}] from config.toml?",
            may_ask=may_ask(no_input=no_input),
            instead=f"ogate providers remove {provider_id} --yes",
        )
    set_values(paths(), {("providers", provider_id): None})
    return Result(data={}, talk=[f"{provider_id} removed from config.toml"])


def _discover() -> "Discovery":
    from opencode_gate.config.paths import paths
    from opencode_gate.config.settings import load_settings
    from opencode_gate.session.discovery import discover

    places = paths()
    return discover(places, load_settings(places, os.environ), os.environ)


def _catalogue_row(provider_id: str) -> "ProviderRow | None":
    from opencode_gate.catalog.catalogue import open_catalogue
    from opencode_gate.config.paths import paths
    from opencode_gate.config.settings import load_settings

    places = paths()
    return open_catalogue(places, load_settings(places, os.environ)).providers().get(provider_id)


def _rows(found: "Discovery") -> "dict[str, ProviderRow]":
    """The catalogue's providers and those found elsewhere: local servers, Opencode's own."""
    usable = {provider_id: usable.row for provider_id, usable in found.usable.items()}
    return {**found.catalogue.providers(), **usable}


def _row(found: "Discovery", provider_id: str) -> "ProviderRow":
    return _rows(found).get(provider_id) or found.catalogue.provider(provider_id)


def _is_wanted(row: "ProviderRow", text: str | None) -> bool:
    return text is None or text.lower() in f"{row.id} {row.name}".lower()


def _is_listed(row: "ProviderRow", found: "Discovery", text: str | None, show_all: bool) -> bool:
    return show_all or text is not None or _state(row, found) == "ready"


def _state(row: "ProviderRow", found: "Discovery") -> State:
    if row.why_not is not None:
        return "unsupported"
    if row.missing_variables or _unset_variables(row):
        return "needs-variable"
    return "ready" if row.id in found.usable else "no-key"


def _unset_variables(row: "ProviderRow") -> tuple[str, ...]:
    """The variables that its extra headers refer to and nobody has exported."""
    from opencode_gate.catalog.header_values import variables_in

    named = (name for value in row.headers.values() for name in variables_in(value))
    return tuple(name for name in named if not os.environ.get(name))


def _sentence(row: "ProviderRow", found: "Discovery") -> str:
    match _state(row, found):
        case "ready":
            return f"ready: {found.usable[row.id].source.label}"
        case "unsupported":
            return f"does not work yet: {row.why_not}"
        case "needs-variable" if not row.missing_variables:
            name = _unset_variables(row)[0]
            return f"needs {name} for a header: export {name}=… in this shell"
        case "needs-variable":
            return f"needs {', '.join(row.missing_variables)}: {row.command_for_variables}"
        case _:
            return f"no key: ogate keys add {row.id}"


def _document(row: "ProviderRow", found: "Discovery") -> dict[str, object]:
    usable = found.usable.get(row.id)
    return {
        "id": row.id,
        "name": row.name,
        "state": _state(row, found),
        "key": usable.source.label if usable is not None else None,
        "base_url": row.base_url,
        "wire": row.wire,
        "npm": row.npm,
        "source": row.source,
        "keyless": row.keyless,
        "env": list(row.env),
        "headers": dict(row.headers),
        "auth_header": row.auth_header,
        "stream_usage": row.stream_usage,
        "subscription": row.subscription,
        "missing_variables": list(row.missing_variables),
        "unset_variables": list(_unset_variables(row)),
        "why_not": row.why_not,
        "doc_url": row.doc_url,
        "model_count": _model_count(row, found),
    }


def _model_count(row: "ProviderRow", found: "Discovery") -> int | None:
    usable = found.usable.get(row.id)
    if usable is not None and usable.models is not None:
        return len(usable.models)
    return found.catalogue.model_counts().get(row.id)


def _table(rows: "Sequence[ProviderRow]", found: "Discovery") -> Block:
    return (
        Table(
            columns=(
                Column("id"),
                Column("name"),
                Column("models", "right"),
                Column("state", wrap=True),
            ),
            rows=[
                (
                    row.id,
                    row.name,
                    "–" if (count := _model_count(row, found)) is None else str(count),
                    _sentence(row, found),
                )
                for row in rows
            ],
        )
        if rows
        else Text("no provider is ready: ogate keys add PROVIDER")
    )


def _facts(row: "ProviderRow", found: "Discovery") -> Block:
    count = _model_count(row, found)
    lines = [
        ("provider", f"{row.name} ({row.id}, from {_ORIGINS[row.source]})"),
        ("state", _sentence(row, found)),
        ("address", row.base_url),
        ("format", row.wire if row.wire is not None else "by path, as its SDK package sends it"),
        ("variables", ", ".join(row.env)),
        ("headers", ", ".join(f"{name}: {value}" for name, value in row.headers.items())),
        ("key header", row.auth_header),
        ("sign-in", row.subscription),
        ("stream usage", row.stream_usage),
        ("models", None if count is None else f"{count}: ogate models list {row.id}"),
        ("documents", row.doc_url),
    ]
    return Facts([Fact(label, text) for label, text in lines if text])


_ORIGINS = {
    "builtin": "ogate itself",
    "catalogue": "the catalogue",
    "config": "config.toml",
    "agent": "Opencode's configuration",
    "local": "this machine",
}


def _pairs(table: str, given: Sequence[str] | None) -> "dict[KeyPath, object]":
    pairs: dict[KeyPath, object] = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError("usage", f"--{table[:-1]} takes NAME=VALUE, not {text!r}")
        if table == "headers":
            typed_secrets.refuse_in_header(name, value)
        pairs[table, name.strip()] = value.strip()
    return pairs


def _write(provider_id: str, changes: "dict[KeyPath, object]") -> None:
    from opencode_gate.config.editing import set_values
    from opencode_gate.config.paths import paths

    values = {
        ("providers", provider_id, *path): value
        for path, value in changes.items()
        if value is not None
    }
    set_values(paths(), values)  # type: ignore[arg-type]  # only text, flags and empty tables


def _notes_on(base_url: str | None) -> list[str]:
    from urllib.parse import urlsplit

    from opencode_gate.config.proxies import is_loopback

    parts = urlsplit(base_url or "")
    if parts.scheme != "http" or is_loopback(parts.hostname or ""):
        return []
    return ["note: this address is not encrypted; the key travels in the clear"]
