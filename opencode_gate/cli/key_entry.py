"""How a key gets in: where it will lie, where it is read from, whether it works.

Shared by the verbs of `ogate keys`. The invariant: a key is read from a hidden prompt, from
stdin or from a variable, never from the command line, and is shown as its last four only.
"""

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, TypeAlias

from msgspec.structs import replace

from opencode_gate.cli import prompts
from opencode_gate.cli.render import talk
from opencode_gate.core.errors import CredentialError, UsageError
from opencode_gate.core.secrets import Secret

if TYPE_CHECKING:
    from opencode_gate.catalog.rows import ProviderRow
    from opencode_gate.credentials.vault import Vault
    from opencode_gate.credentials.verdicts import KeyTest

Place: TypeAlias = Literal["keyring", "file", "passphrase", "env"]
"""Where a key may be kept: `passphrase` is the encrypted file without a key file."""


def ask_passphrase(is_new: bool) -> Secret:
    """The passphrase of the encrypted file; a new one is asked twice.

    Raises:
        KeyboardInterrupt: the person left.
    """
    if not is_new:
        return Secret(prompts.ask_hidden("Passphrase of ogate's encrypted file"))
    while True:
        first = prompts.ask_hidden("New passphrase for ogate's encrypted file")
        if len(first) < 8:
            talk("  at least 8 characters: who has the file can try as often as he likes")
        elif prompts.ask_hidden("The same again") != first:
            talk("  the two are not the same")
        else:
            return Secret(first)


def read_key(
    row: "ProviderRow",
    environ: Mapping[str, str],
    *,
    from_stdin: bool,
    variable: str | None,
    may_ask: bool,
) -> Secret:
    """The key, from where the user said it comes from; its shape is checked.

    Raises:
        CredentialError: it is not there, or cannot be a key.
        UsageError: nobody said where and nobody can be asked.
        KeyboardInterrupt: the person left.
    """
    from opencode_gate.catalog.familiar import key_page
    from opencode_gate.credentials.shape import checked_key, looks_like_another

    if variable is not None:
        text = environ.get(variable, "")
        if not text.strip():
            raise unset(variable)
    elif from_stdin:
        text = sys.stdin.read()
    elif may_ask:
        page = key_page(row)
        if page is not None:
            talk(f"  {row.name}: {page}")
        text = prompts.ask_hidden(f"Key for {row.name} (hidden)")
    else:
        raise UsageError(
            "no-terminal",
            "there is no terminal to type the key on",
            hint=f"ogate keys add {row.id} --stdin < FILE, or --from-env VAR",
        )
    secret = checked_key(text)
    other = looks_like_another(secret, row.id)
    if other is not None:
        talk(f"note: this looks like a key of {other}, not of {row.id}")
    return secret


def check_variable(variable: str, provider_id: str) -> None:
    """Refuses what is not the name of a variable; what stands there may be a key.

    Raises:
        UsageError: it is no name, or it is unset and does not look like one.
    """
    from opencode_gate.config.settings import variable_name_problem

    is_name = variable_name_problem(variable) is None
    if variable not in os.environ and not (is_name and variable == variable.upper()):
        # Not quoted: it may well be the key itself.
        raise UsageError(
            "usage",
            "--from-env takes the name of a variable, such as PROVIDER_API_KEY",
            hint=f"to type the key, leave --from-env out: ogate keys add {provider_id}",
        )


def keeping_place(
    vault: "Vault",
    row: "ProviderRow",
    environ: Mapping[str, str],
    *,
    is_explicit: bool,
    may_ask: bool,
) -> tuple[Place, str | None]:
    """Where a new key goes: the keyring, or what is to be done where there is none.

    Returns:
        The place, and the variable to refer to when it is `env`.

    Raises:
        CredentialError: no keyring, and the user insists on it or cannot be asked.
        KeyboardInterrupt: the person left.
    """
    try:
        if is_explicit:
            vault.stores.keyring.open()
            return "keyring", None
        place = vault.keeping_store()
    except CredentialError as error:
        if is_explicit:
            raise
        return _place_without_keyring(error, row, environ, may_ask=may_ask)
    if place == "file":
        talk("no OS keyring can be used here: the key goes into ogate's encrypted file")
    return place, None


def _place_without_keyring(
    error: CredentialError, row: "ProviderRow", environ: Mapping[str, str], *, may_ask: bool
) -> tuple[Place, str | None]:
    """What to do instead of the keyring: asked for, or said in the error."""
    variable = next((name for name in row.key_env if environ.get(name, "").strip()), None)
    if not may_ask:
        command = f"ogate keys add {row.id}"
        in_file = f"{command} --store file"
        by_name = f"{command} --from-env {variable or example_variable(row)} --reference"
        first, second = (by_name, in_file) if variable else (in_file, by_name)
        raise CredentialError(
            error.code,
            error.message,
            details=error.details,
            hint=f"`{first}`, or `{second}`",
        ) from error
    talk(f"{error.message} ({', '.join(error.details)}); the key can lie elsewhere:")
    offers: dict[str, str] = {
        "file": "in ogate's encrypted file, opened by a key file only you can read",
        "passphrase": "in ogate's encrypted file, opened by a passphrase at every start",
    }
    if variable is not None:
        reference = {"env": f"in {variable}, where it is now: ogate remembers the name only"}
        offers = reference | offers
    place: Place
    match prompts.choose("Where", offers):
        case "env":
            place = "env"
        case "passphrase":
            place = "passphrase"
        case _:
            place = "file"
    return place, variable if place == "env" else None


def test_before_keeping(row: "ProviderRow", secret: Secret, *, may_ask: bool) -> "KeyTest":
    """Tests a new key; one that does not work is kept only if the user says so.

    Raises:
        CredentialError: it was refused and nobody wants it kept (`bad-credential`).
        KeyboardInterrupt: the person left.
    """
    from opencode_gate.credentials.testing import test_key

    test = test_key(row, secret)
    talk(f"  {test.result}: {test.detail}")
    if test.hint is not None and test.result != "ok":
        talk(f"  {test.hint}")
    if test.result in ("ok", "unclear"):
        return test
    if may_ask and prompts.confirm("Keep the key all the same?", default=False):
        return test
    raise CredentialError(
        "bad-credential",
        f"the key of {row.id} was not kept: {test.detail}",
        hint=test.hint or f"`ogate keys add {row.id} --no-test` keeps it untested",
    )


def ask_variables(row: "ProviderRow") -> dict[str, str]:
    """What the provider's address still needs, asked one by one.

    Raises:
        KeyboardInterrupt: the person left.
    """
    given: dict[str, str] = {}
    for name in row.missing_variables:
        while not given.get(name):
            given[name] = prompts.ask_text(f"{name} (the address of {row.name} needs it)")
    return given


def keep_variables(row: "ProviderRow", given: Mapping[str, str]) -> None:
    """Writes them to `config.toml`."""
    from opencode_gate.config.editing import set_values
    from opencode_gate.config.paths import paths

    if given:
        set_values(
            paths(),
            {("providers", row.id, "variables", name): value for name, value in given.items()},
        )


def still_missing(row: "ProviderRow", given: Mapping[str, str]) -> list[str]:
    """How to set what the provider's address needs and nobody has given."""
    names = tuple(name for name in row.missing_variables if name not in given)
    if not names:
        return []
    left = replace(row, missing_variables=names)
    return [f"its address still needs {', '.join(names)}: {left.command_for_variables}"]


def filled(row: "ProviderRow", given: Mapping[str, str]) -> "ProviderRow":
    """The row as it is once the variables are written."""
    if not given or row.base_url is None:
        return row
    base_url = row.base_url
    for name, value in given.items():
        base_url = base_url.replace("${" + name + "}", value)
    return replace(row, base_url=base_url, missing_variables=())


def unset(variable: str) -> CredentialError:
    """The error for a variable that holds nothing."""
    return CredentialError(
        "missing-credential",
        f"the variable {variable} is not set, or empty",
        hint=f"export {variable}=… in this shell",
    )


def example_variable(row: "ProviderRow") -> str:
    """The variable that usually holds the provider's key."""
    if row.key_env:
        return row.key_env[0]
    return row.id.upper().replace("-", "_").replace(".", "_") + "_API_KEY"
