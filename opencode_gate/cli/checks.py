"""What `ogate doctor` looks at: each check gives findings, each bad finding the mending command.

The invariant: a check changes nothing, reaches no network beyond this machine, and never stops
the others: an error of ours is itself a finding.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from opencode_gate.config.paths import Paths
from opencode_gate.core.errors import CredentialError, GateError

Level: TypeAlias = Literal["ok", "note", "bad"]

OLD_CATALOGUE_DAYS = 45


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What a check found.

    Attributes:
        check: what was looked at, one word.
        level: `note` is worth knowing, `bad` keeps something from working.
        summary: one sentence.
        mend: the command that mends it.
    """

    check: str
    level: Level
    summary: str
    mend: str | None = None


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the checks look."""

    paths: Paths
    environ: Mapping[str, str]
    today: date


Check: TypeAlias = Callable[[Surroundings], Iterator[Finding]]


def all_findings(surroundings: Surroundings) -> list[Finding]:
    """The findings of every check, in order."""
    findings: list[Finding] = []
    for name, check in CHECKS.items():
        try:
            findings += check(surroundings)
        except GateError as error:
            findings.append(
                Finding(check=name, level="bad", summary=error.message, mend=error.hint)
            )
    return findings


def _python(_: Surroundings) -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding(check="python", level="ok", summary=f"{version} ({sys.executable})")


def _opencode(around: Surroundings) -> Iterator[Finding]:
    from opencode_gate.agents.opencode.locate import find_opencode, require_supported
    from opencode_gate.config.settings import load_settings

    settings = load_settings(around.paths, around.environ)
    found = find_opencode(around.paths, around.environ, agent_path=settings.run.agent_path)
    version = "of unknown version" if found.version is None else found.version
    warning = require_supported(found, has_hard_rules=bool(_hard_rules(around)))
    yield Finding(
        check="opencode",
        level="ok" if warning is None else "note",
        summary=f"{version} ({found.path})" if warning is None else warning,
        mend=None if warning is None else "ogate run --install",
    )


def _settings(around: Surroundings) -> Iterator[Finding]:
    from opencode_gate.config.settings import load_settings

    load_settings(around.paths, around.environ)
    file = around.paths.config_file
    yield Finding(
        check="settings", level="ok", summary=f"{file}" if file.exists() else f"none in {file}"
    )


def _folders(around: Surroundings) -> Iterator[Finding]:
    problems = 0
    for folder in dict.fromkeys((around.paths.config, around.paths.data, around.paths.cache)):
        nearest = next((place for place in (folder, *folder.parents) if place.exists()), folder)
        if not os.access(nearest, os.W_OK):
            problems += 1
            yield Finding(
                check="folders",
                level="bad",
                summary=f"{folder} cannot be written",
                mend="set OGATE_HOME to a folder you can write",
            )
        elif folder.exists() and os.name == "posix" and folder.stat().st_mode & 0o077:
            problems += 1
            yield Finding(
                check="folders",
                level="bad",
                summary=f"{folder} is open to others",
                mend=f"chmod 700 '{folder}'",
            )
    if not problems:
        yield Finding(check="folders", level="ok", summary=str(around.paths.data))


def _keyring(around: Surroundings) -> Iterator[Finding]:
    from opencode_gate.credentials.index import CredentialIndex
    from opencode_gate.credentials.keyring_store import KeyringStore

    entries = CredentialIndex(around.paths).entries()
    try:
        keyring = KeyringStore(environ=around.environ)
        name = keyring.describe()
        keyring.open()
    except CredentialError as error:
        is_needed = any(entry.store == "keyring" for entry in entries)
        yield Finding(
            check="keyring",
            level="bad" if is_needed else "note",
            summary=error.message,
            mend=error.hint,
        )
    else:
        yield Finding(check="keyring", level="ok", summary=name)


def _providers(around: Surroundings) -> Iterator[Finding]:
    from opencode_gate.config.settings import load_settings
    from opencode_gate.session.discovery import discover

    settings = load_settings(around.paths, around.environ)
    found = discover(around.paths, settings, around.environ)
    names = [id for id in found.usable if id != "practice"]
    if names:
        yield Finding(check="providers", level="ok", summary=f"usable now: {', '.join(names)}")
    else:
        yield Finding(
            check="providers",
            level="note",
            summary="no key was found, only the practice provider can be used",
            mend="ogate keys add PROVIDER",
        )


def _catalogue(around: Surroundings) -> Iterator[Finding]:
    from opencode_gate.catalog.catalogue import open_catalogue
    from opencode_gate.config.settings import load_settings

    settings = load_settings(around.paths, around.environ)
    catalogue = open_catalogue(around.paths, settings, around.environ)
    age_days = (around.today - date.fromisoformat(catalogue.date)).days
    is_old = age_days > OLD_CATALOGUE_DAYS
    origin = "bundled" if catalogue.is_bundled else "refreshed"
    yield Finding(
        check="catalogue",
        level="note" if is_old else "ok",
        summary=f"of {catalogue.date} ({origin}, {age_days} days old)",
        mend="ogate models refresh" if is_old else None,
    )


def _ledger(around: Surroundings) -> Iterator[Finding]:
    from opencode_gate.ledger.journal import orphans
    from opencode_gate.ledger.sqlite import open_store
    from opencode_gate.ledger.sqlite.usage import WRONG_SUMS

    file = around.paths.ledger_file
    store = open_store(file, read_only=True)
    try:
        damage = store.integrity()
    finally:
        store.close()
    # With its side files: SQLite would play an orphaned log into the next ledger.
    folder = file.with_name("damaged")
    aside = f"mkdir '{folder}' && mv '{file}'* '{folder}'"
    for sentence in damage:
        mend = "ogate ledger vacuum" if sentence.endswith(WRONG_SUMS) else aside
        yield Finding(check="ledger", level="bad", summary=sentence, mend=mend)
    if not damage:
        summary = f"sound ({file})" if file.exists() else "empty, no session yet"
        yield Finding(check="ledger", level="ok", summary=summary)
    left = orphans(around.paths.journals)
    if left:
        yield Finding(
            check="ledger",
            level="note",
            summary=f"{len(left)} journal(s) of sessions that were killed wait to be settled",
            mend=f"'{sys.executable}' -m opencode_gate.server settle",
        )


def _policy(around: Surroundings) -> Iterator[Finding]:
    from opencode_gate.cli.policy_checks import policy_findings
    from opencode_gate.core.clock import SystemClock

    yield from policy_findings(
        around.paths.ledger_file, around.paths.journals, now_us=SystemClock().now_us()
    )


def _hard_rules(around: Surroundings) -> tuple[str, ...]:
    """What of the user's own rules would stand against a session that passes the gateway by."""
    from opencode_gate.config.settings import load_settings
    from opencode_gate.session.naming import RunRequest
    from opencode_gate.session.run_rules import read_rules

    settings = load_settings(around.paths, around.environ)
    try:
        return read_rules(RunRequest(), settings, around.paths).hard
    except GateError:
        # Said by the check of the rules or of the ledger.
        return ()


def _ports(_: Surroundings) -> Iterator[Finding]:
    import socket

    try:
        with (
            socket.create_server(("127.0.0.1", 0)) as server,
            socket.create_connection(server.getsockname(), timeout=2),
        ):
            pass
    except OSError as error:
        yield Finding(
            check="ports",
            level="bad",
            summary=f"127.0.0.1 cannot be listened on and reached: {error}",
            mend="allow connections to 127.0.0.1 in the firewall or sandbox",
        )
    else:
        yield Finding(check="ports", level="ok", summary="127.0.0.1 can be listened on and reached")


def _proxies(around: Surroundings) -> Iterator[Finding]:
    from opencode_gate.config.proxies import read_proxy

    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"):
        variable = name.lower() if around.environ.get(name.lower()) else name
        address = around.environ.get(variable)
        if not address:
            continue
        proxy = read_proxy(address)
        if proxy.unusable is not None:
            yield Finding(
                check="proxies",
                level="bad",
                summary=f"{variable} cannot be used: {proxy.unusable}",
                mend=f"export {variable}=http://HOST:PORT, or: unset {variable}",
            )
        else:
            yield Finding(
                check="proxies",
                level="ok",
                summary=f"providers are reached through http://{proxy.host}:{proxy.port} "
                f"({variable})",
            )


def _sign_ins(around: Surroundings) -> Iterator[Finding]:
    from opencode_gate.agents.opencode.auth import read_auth
    from opencode_gate.agents.opencode.folders import agent_folders
    from opencode_gate.agents.opencode.user_config import read_user_config
    from opencode_gate.config.settings import load_settings

    settings = load_settings(around.paths, around.environ)
    auth = read_auth(agent_folders(around.environ).auth_file, around.environ)
    hard = _hard_rules(around)
    for provider_id in auth.oauth:
        said = settings.providers.get(provider_id)
        answer = None if said is None else said.subscription
        if answer != "key":
            yield Finding(
                check="sign-ins",
                level="bad" if hard else "note",
                summary=f"Opencode's sign-in for {provider_id} does not pass the gateway"
                + (" (left direct)" if answer == "direct" else "")
                + (f", and {hard[0]} lets nothing pass it by" if hard else ""),
                mend=f"ogate providers edit {provider_id} --subscription "
                + ("key" if answer == "direct" or hard else "direct|key"),
            )
    for plugin in read_user_config(around.environ).auth_plugins:
        yield Finding(
            check="sign-ins",
            level="bad" if hard else "note",
            summary=f"the plugin {plugin} may send requests past the gateway; "
            + (f"{hard[0]} allows no session with it" if hard else "the summary says so"),
            mend="ogate run -- --pure" if hard else None,
        )


def _managed(around: Surroundings) -> Iterator[Finding]:
    from opencode_gate.agents.opencode.database import has_organisation
    from opencode_gate.agents.opencode.folders import agent_folders, database_file
    from opencode_gate.agents.opencode.user_config import read_user_config

    for file in read_user_config(around.environ).managed:
        yield Finding(
            check="managed",
            level="note",
            summary=f"{file} outranks what ogate tells Opencode",
            mend="ogate run -- debug config",
        )
    if has_organisation(database_file(around.environ, agent_folders(around.environ))):
        yield Finding(
            check="managed",
            level="note",
            summary="the configuration of Opencode's console organisation outranks ogate's",
            mend="ogate run -- debug config",
        )


def _completion(_: Surroundings) -> Iterator[Finding]:
    from opencode_gate.cli.commands.completion import script_file
    from opencode_gate.cli.shell_files import SHELLS

    for shell in SHELLS:
        script = script_file(shell)
        if script.is_file() and _is_outdated(script, shell):
            yield Finding(
                check="completion",
                level="note",
                summary=f"the completion for {shell} is of another version",
                mend=f"ogate completion install {shell}",
            )


def _is_outdated(script: Path, shell: str) -> bool:
    from opencode_gate.cli import completion_scripts
    from opencode_gate.cli.shell_files import SHELLS

    known = next(known for known in SHELLS if known == shell)
    return script.read_text(encoding="utf-8") != completion_scripts.completion_script(known)


CHECKS: Mapping[str, Check] = {
    "python": _python,
    "opencode": _opencode,
    "settings": _settings,
    "folders": _folders,
    "keyring": _keyring,
    "providers": _providers,
    "catalogue": _catalogue,
    "ledger": _ledger,
    "policy": _policy,
    "ports": _ports,
    "proxies": _proxies,
    "sign-ins": _sign_ins,
    "managed": _managed,
    "completion": _completion,
}
"""Every check, in the order it is run and shown."""
