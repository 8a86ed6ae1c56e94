"""`ogate keys`: provider keys, kept in the OS keyring.

The invariant: no verb shows more of a key than its last four characters, takes one on the
command line, or leaves a change half done.
"""

import os
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

from opencode_gate.cli import key_entry, key_view, prompts
from opencode_gate.cli.options import AsJson, NoInput, Yes
from opencode_gate.cli.prompts import may_ask
from opencode_gate.cli.render import Result, Text, talk
from opencode_gate.core.errors import CredentialError, UsageError
from opencode_gate.credentials.entries import PLACE_WORDS

if TYPE_CHECKING:
    from opencode_gate.catalog.catalogue import Catalogue
    from opencode_gate.catalog.rows import ProviderRow
    from opencode_gate.core.secrets import Secret
    from opencode_gate.credentials.entries import CredentialEntry
    from opencode_gate.credentials.found import FoundKey
    from opencode_gate.credentials.vault import Vault
    from opencode_gate.credentials.verdicts import KeyTest

app = typer.Typer(add_completion=False)

Provider: TypeAlias = Annotated[str, typer.Argument(metavar="PROVIDER", show_default=False)]
Name: TypeAlias = Annotated[str | None, typer.Argument(metavar="NAME", show_default=False)]
SomeProvider: TypeAlias = Annotated[
    str | None, typer.Argument(metavar="PROVIDER", show_default=False)
]
FromStdin: TypeAlias = Annotated[bool, typer.Option("--stdin", help="Read the key from stdin.")]
FromEnv: TypeAlias = Annotated[
    str | None, typer.Option("--from-env", metavar="VAR", help="Read the key from this variable.")
]
Tested: TypeAlias = Annotated[
    bool | None,
    typer.Option("--test/--no-test", help="Test it first, without asking.", show_default=False),
]

_STORE_CODES = ("no-keyring", "keyring-locked", "credentials-unreadable")


@app.command()
def add(
    provider: Provider,
    name: Annotated[
        str, typer.Option(help="What to call it, where a provider has several.")
    ] = "default",
    from_stdin: FromStdin = False,
    from_env: FromEnv = None,
    reference: Annotated[
        bool,
        typer.Option("--reference", help="With --from-env: keep the variable's name, not the key."),
    ] = False,
    store: Annotated[
        Literal["keyring", "file"] | None,
        typer.Option(help="Where to keep it; the keyring, where there is one."),
    ] = None,
    passphrase: Annotated[
        bool,
        typer.Option("--passphrase", help="With --store file: a passphrase, not a key file."),
    ] = False,
    make_default: Annotated[
        bool, typer.Option("--default", help="Use it when no --key is given.")
    ] = False,
    test: Tested = None,
    no_input: NoInput = False,
) -> Result:
    """Keep a key for a provider.

    Typed on a hidden prompt, unless --stdin or --from-env says where it is.
    """
    _check_add(from_stdin, from_env, reference, store, passphrase)
    if from_env is not None:
        key_entry.check_variable(from_env, provider)
    asks = may_ask(no_input=no_input)
    row = _catalogue().provider(provider)
    _warn_about(row)
    vault = _vault(asks=asks, by_passphrase=passphrase)
    vault.check_new(provider, name)
    variables = key_entry.ask_variables(row) if asks else {}
    place: key_entry.Place
    place, variable = ("env", from_env) if reference else (store or "keyring", None)
    if place == "keyring":
        place, variable = key_entry.keeping_place(
            vault, row, os.environ, is_explicit=store is not None, may_ask=asks
        )
    if place == "passphrase":
        vault = _vault(asks=asks, by_passphrase=True)
    if variable is not None:
        key_entry.keep_variables(row, variables)
        if not os.environ.get(variable, "").strip():
            talk(f"note: {variable} is not set in this shell; it must be when a session starts")
        entry = vault.add_reference(row.id, name, variable, make_default=make_default)
        return Result(
            data={},
            blocks=[Text(key_view.kept_line(entry))],
            talk=key_entry.still_missing(row, variables),
        )
    secret = key_entry.read_key(
        row, os.environ, from_stdin=from_stdin, variable=from_env, may_ask=asks
    )
    tested = _test_if_wanted(key_entry.filled(row, variables), secret, wanted=test, asks=asks)
    key_entry.keep_variables(row, variables)
    kept_in: Literal["keyring", "file"] = "keyring" if place == "keyring" else "file"
    entry = vault.add(provider, name, secret, store=kept_in, make_default=make_default)
    _tag(vault, entry, tested)
    return Result(
        data={},
        blocks=[Text(key_view.kept_line(entry))],
        talk=key_entry.still_missing(row, variables),
    )


@app.command("list")
def list_keys(
    provider: SomeProvider = None,
    as_json: AsJson = False,
) -> Result:
    """The keys there are, and those found elsewhere. Never the keys themselves."""
    vault = _vault(asks=False)
    catalogue = _catalogue()
    entries = vault.index.entries(provider)
    if provider is not None and not entries:
        catalogue.provider(provider)
    found = [key for key in _found(catalogue, vault) if provider in (None, key.provider_id)]
    talk_lines = []
    if found:
        talk_lines.append(
            "keys without a name are used as they are; `ogate keys import` keeps them"
        )
    if not entries and not found:
        talk_lines.append("no keys yet; `ogate keys add PROVIDER` keeps one")
    return Result(
        data={
            "keys": [key_view.entry_document(entry) for entry in entries],
            "found": [key_view.found_document(key) for key in found],
        },
        blocks=key_view.key_table(entries, found),
        talk=() if as_json else talk_lines,
    )


@app.command("test")
def test_keys(
    provider: SomeProvider = None,
    name: Name = None,
    prompt: Annotated[
        bool, typer.Option("--prompt", help="Send a real prompt; costs a few tokens.")
    ] = False,
    model: Annotated[
        str | None, typer.Option(help="The model to prompt; otherwise the cheapest.")
    ] = None,
    as_json: AsJson = False,
) -> Result:
    """Ask a provider whether its key works; without PROVIDER, all of them.

    Lists models, which costs nothing. Ends with 1 unless every key is ok.
    """
    from opencode_gate.cli import key_testing

    if model is not None and not prompt:
        raise UsageError("usage", "--model goes with --prompt", hint="ogate keys test --help")
    catalogue, vault = _catalogue(), _vault(asks=may_ask())
    targets = key_testing.targets(catalogue, vault, list(_found(catalogue, vault)), provider, name)
    outcomes = [
        (target, key_testing.test_one(catalogue, vault, target, prompt=prompt, model=model))
        for target in targets
    ]
    return Result(
        data={"tests": [target.document(test) for target, test in outcomes]},
        blocks=key_testing.outcome_table(outcomes),
        talk=() if as_json else key_testing.outcome_talk(outcomes),
        exit_code=0 if all(test.result == "ok" for _, test in outcomes) else 1,
    )


@app.command("default")
def make_default(
    provider: Provider, name: Annotated[str, typer.Argument(metavar="NAME", show_default=False)]
) -> Result:
    """Choose which key is used when no --key is given."""
    entry = _vault(asks=False).index.set_default(provider, name)
    return Result(data={}, blocks=[Text(f"{provider} now uses {entry.name}")])


@app.command()
def rename(
    provider: Provider,
    name: Annotated[str, typer.Argument(metavar="NAME", show_default=False)],
    new_name: Annotated[str, typer.Argument(metavar="NEW", show_default=False)],
) -> Result:
    """Give a key another name."""
    entry = _vault(asks=may_ask()).rename(provider, name, new_name)
    return Result(data={}, blocks=[Text(f"{provider}: {name} is now {entry.name}")])


@app.command()
def rotate(
    provider: Provider,
    name: Name = None,
    from_stdin: FromStdin = False,
    from_env: FromEnv = None,
    test: Tested = None,
    no_input: NoInput = False,
) -> Result:
    """Put a new key in the place of an old one, under the same name."""
    if from_stdin and from_env is not None:
        raise UsageError("usage", "--stdin and --from-env exclude each other")
    if from_env is not None:
        key_entry.check_variable(from_env, provider)
    asks = may_ask(no_input=no_input)
    vault = _vault(asks=asks)
    entry = _chosen(vault, provider, name)
    if entry.store == "env":
        raise UsageError(
            "usage",
            f"the key {entry.name!r} of {provider} is the variable {entry.variable}",
            hint="change the variable where your shell sets it",
        )
    row = _catalogue().provider(provider)
    secret = key_entry.read_key(
        row, os.environ, from_stdin=from_stdin, variable=from_env, may_ask=asks
    )
    tested = _test_if_wanted(row, secret, wanted=test, asks=asks)
    entry = vault.rotate(provider, entry.name, secret)
    _tag(vault, entry, tested)
    return Result(data={}, blocks=[Text(key_view.kept_line(entry))])


@app.command()
def remove(
    provider: Provider, name: Name = None, yes: Yes = False, no_input: NoInput = False
) -> Result:
    """Delete a key from its store and from the list."""
    asks = may_ask(no_input=no_input)
    vault = _vault(asks=asks)
    entry = _chosen(vault, provider, name)
    if not yes:
        prompts.require_yes(
            f"Remove {provider}/{entry.name} (…{entry.last_four})?",
            may_ask=asks,
            instead=f"ogate keys remove {provider} {entry.name} --yes",
        )
    try:
        heir = vault.remove(provider, entry.name)
    except CredentialError as error:
        if error.code not in _STORE_CODES or not asks or yes:
            raise
        talk(f"{error.message} ({', '.join(error.details)})")
        if not prompts.confirm("Take it off the list all the same?", default=False):
            raise
        heir = vault.forget(provider, entry.name)
        talk(f"it may still lie in the {PLACE_WORDS[entry.store]}")
    lines = [Text(f"{provider}/{entry.name} is removed")]
    if heir is not None and entry.is_default:
        lines.append(Text(f"{provider} now uses {heir.name}"))
    return Result(data={}, blocks=lines)


@app.command("import")
def import_keys(
    providers: Annotated[
        list[str] | None, typer.Argument(metavar="PROVIDER", show_default=False)
    ] = None,
    store: Annotated[
        Literal["keyring", "file"] | None,
        typer.Option(help="Where to keep them; the keyring, where there is one."),
    ] = None,
    yes: Yes = False,
    no_input: NoInput = False,
) -> Result:
    """Keep the keys found in the environment and in Opencode's auth.json.

    Both are only read. A provider that has a key already is left alone.
    """
    asks = may_ask(no_input=no_input)
    vault, catalogue = _vault(asks=asks), _catalogue()
    wanted = {catalogue.provider(name).id for name in providers or ()}
    found = [key for key in _found(catalogue, vault) if not wanted or key.provider_id in wanted]
    if not found:
        return Result(data={}, talk=["no key found that ogate does not keep already"])
    for key in found:
        talk(f"  {key.provider_id}  …{key.secret.last_four}  from {key.label}")
    if not yes:
        question = "Keep them?" if len(found) > 1 else "Keep it?"
        prompts.require_yes(question, may_ask=asks, instead="ogate keys import --yes", default=True)
    place = store or vault.keeping_store()
    kept = [_import_one(vault, key, place) for key in found]
    return Result(
        data={}, blocks=[Text(key_view.kept_line(entry)) for entry in kept if entry is not None]
    )


def _check_add(
    from_stdin: bool, from_env: str | None, reference: bool, store: str | None, passphrase: bool
) -> None:
    wrong: str | None = None
    if from_stdin and from_env is not None:
        wrong = "--stdin and --from-env exclude each other"
    elif reference and from_env is None:
        wrong = "--reference needs --from-env VAR"
    elif reference and store is not None:
        wrong = "--reference stores nothing, so --store has no meaning with it"
    elif passphrase and store != "file":
        wrong = "--passphrase goes with --store file"
    if wrong is not None:
        raise UsageError("usage", wrong, hint="ogate keys add --help")


def _test_if_wanted(
    row: "ProviderRow", secret: "Secret", *, wanted: bool | None, asks: bool
) -> "KeyTest | None":
    if wanted is None:
        wanted = asks and prompts.confirm(f"Ask {row.name} whether it works?", default=True)
    if not wanted:
        return None
    return key_entry.test_before_keeping(row, secret, may_ask=asks)


def _tag(vault: "Vault", entry: "CredentialEntry", test: "KeyTest | None") -> None:
    if test is not None:
        vault.mark_tested(entry, test.result)


def _import_one(
    vault: "Vault", key: "FoundKey", place: "Literal['keyring', 'file']"
) -> "CredentialEntry | None":
    from opencode_gate.credentials.index import DEFAULT_NAME
    from opencode_gate.credentials.shape import problem_with

    problem = problem_with(key.secret)
    if problem is not None:
        talk(f"{key.provider_id}: what {key.label} holds is not a key: {problem}")
        return None
    return vault.add(key.provider_id, DEFAULT_NAME, key.secret, store=place)


def _chosen(vault: "Vault", provider: str, name: str | None) -> "CredentialEntry":
    """The key a verb is about; its name may be left out where there is only one."""
    if name is not None:
        return vault.index.require(provider, name)
    entries = vault.index.entries(provider)
    if len(entries) != 1:
        if not entries:
            return vault.index.require(provider, "default")
        names = ", ".join(entry.name for entry in entries)
        raise UsageError(
            "usage", f"{provider} has several keys: {names}", hint="say which one by its name"
        )
    return entries[0]


def _warn_about(row: "ProviderRow") -> None:
    if row.keyless and not row.key_env:
        raise UsageError("usage", f"{row.name} needs no key", hint=f"ogate run --provider {row.id}")
    if row.why_not is not None:
        talk(f"note: {row.name} cannot be used through the gateway yet: {row.why_not}")


def _catalogue() -> "Catalogue":
    from opencode_gate.catalog.catalogue import open_catalogue
    from opencode_gate.config.paths import paths
    from opencode_gate.config.settings import load_settings

    return open_catalogue(paths(), load_settings(paths(), os.environ))


def _vault(*, asks: bool, by_passphrase: bool = False) -> "Vault":
    from opencode_gate.config.paths import paths
    from opencode_gate.credentials.vault import Vault

    return Vault(
        paths(),
        os.environ,
        protection="passphrase" if by_passphrase else "key-file",
        ask_passphrase=key_entry.ask_passphrase if asks else None,
    )


def _found(catalogue: "Catalogue", vault: "Vault") -> "list[FoundKey]":
    """Keys in the environment and in Opencode's own file, of providers without a stored one."""
    from opencode_gate.agents.opencode.auth import read_auth
    from opencode_gate.agents.opencode.folders import agent_folders
    from opencode_gate.credentials.found import find_keys

    auth = read_auth(agent_folders(os.environ).auth_file, os.environ)
    rows = (row for row in catalogue.providers().values() if row.why_not is None)
    return list(find_keys(rows, vault.index, os.environ, auth.keys))
