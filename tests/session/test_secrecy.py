"""A whole session leaves no provider key anywhere: searched byte for byte, during it and after."""

import base64
import json
import sys
from collections.abc import Iterable
from pathlib import Path

import pexpect
import pytest

from opencode_gate.config.paths import paths
from opencode_gate.core.secrets import Secret
from opencode_gate.credentials.encrypted_file import EncryptedFileStore
from opencode_gate.credentials.vault import Vault
from tests.support.launcher import command, environment, gateway_of, started
from tests.support.scripted_upstream_thread import threaded_upstream

FROM_FILE = "sk-file-0123456789abcdef0123456789"
FROM_VARIABLE = "sk-ant-0123456789abcdef0123456789"
FROM_AGENT = "gsk_0123456789abcdef0123456789"
VIRTUAL = "ogk-0123456789ab-0123456789abcdef0123456789"
ALL = (FROM_FILE, FROM_VARIABLE, FROM_AGENT)


def _provider(port: int) -> None:
    file = paths().config_file
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(
        f'[providers.acme]\nbase_url = "http://127.0.0.1:{port}/v1"\n'
        'wire = "openai-chat"\n[providers.acme.models.m]\n',
        encoding="utf-8",
    )


def _auth_file(home: Path) -> Path:
    file = home / ".local" / "share" / "opencode" / "auth.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"groq": {"type": "api", "key": FROM_AGENT}}), encoding="utf-8")
    return file


def _forms(keys: Iterable[str]) -> list[bytes]:
    """A key as it is, and in the usual disguises."""
    plain = [key.encode() for key in keys]
    return [
        *plain,
        *(base64.b64encode(key).rstrip(b"=")[:-1] for key in plain),
        *(key.hex().encode() for key in plain),
    ]


def _files_with(folder: Path, forms: list[bytes], *, besides: Path) -> list[Path]:
    return [
        file
        for file in folder.rglob("*")
        if file.is_file() and file != besides and any(form in file.read_bytes() for form in forms)
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_no_key_is_in_a_file_a_command_line_or_the_agents_environment(
    tmp_path: Path, isolated_home: Path
) -> None:
    Vault(paths(), {}).add("acme", "default", Secret(FROM_FILE), store="file")
    auth_file = _auth_file(isolated_home)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    forms = _forms(ALL)
    with threaded_upstream() as upstream:
        _provider(upstream.port)
        line = ("run", "--provider", "acme", "--", "run", "stream", "acme")
        with started(
            tmp_path, *line, ANTHROPIC_API_KEY=FROM_VARIABLE, TMPDIR=str(temporary)
        ) as launcher:
            assert launcher.stdout is not None
            agent = int(launcher.stdout.readline().split()[1])
            assert launcher.stdout.readline() == "streaming\n"
            gateway = gateway_of(launcher.pid)
            for process in (launcher.pid, gateway, agent):
                line_of_it = Path(f"/proc/{process}/cmdline").read_bytes()
                assert not any(form in line_of_it for form in forms)
            environ = Path(f"/proc/{agent}/environ").read_bytes()
            assert not any(form in environ for form in forms)
            kept = Path(f"/proc/{gateway}/environ").read_bytes()
            assert not any(form in kept for form in forms)
            assert list(paths().runtime.rglob("opencode.json"))
            assert _files_with(tmp_path, forms, besides=auth_file) == []
            upstream.release.set()
            out, err = launcher.communicate(timeout=40)
    assert launcher.returncode == 0, err
    # The key was really used, or nothing above would mean anything.
    assert f"bearer {FROM_FILE}".encode().lower() in upstream.requests[0].lower()
    assert not any(form in (out + err).encode() for form in forms)
    assert _files_with(tmp_path, forms, besides=auth_file) == []
    assert Vault(paths(), {}).index.require("acme", "default").last_used_at_us is not None


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("keep_env", ["false", "true"])
def test_the_gateway_inherits_no_key_whatever_its_variable_is_called(
    tmp_path: Path, keep_env: str
) -> None:
    """A name of the user's choice, Opencode's variables that hold a file with keys, and the virtual
    key for a gateway of others.
    """
    Vault(paths(), {}).add_reference("acme", "default", "WORK_PASS")
    with threaded_upstream() as upstream:
        _provider(upstream.port)
        line = ("run", "--provider", "acme", "--", "run", "stream", "acme")
        with started(
            tmp_path,
            *line,
            WORK_PASS=FROM_VARIABLE,
            OPENCODE_AUTH_CONTENT=json.dumps({"groq": {"type": "api", "key": FROM_AGENT}}),
            OPENCODE_CONFIG_CONTENT=json.dumps(
                {"provider": {"mine": {"options": {"apiKey": FROM_FILE}}}}
            ),
            OGATE_RUN_KEEP_ENV=keep_env,
            OGATE_KEY=VIRTUAL,
        ) as launcher:
            assert launcher.stdout is not None
            launcher.stdout.readline()
            assert launcher.stdout.readline() == "streaming\n"
            environ = Path(f"/proc/{gateway_of(launcher.pid)}/environ").read_bytes()
            upstream.release.set()
            launcher.communicate(timeout=40)
    assert not any(form in environ for form in _forms((*ALL, VIRTUAL)))
    assert f"bearer {FROM_VARIABLE}".encode() in upstream.requests[0].lower()


def _by_passphrase() -> None:
    def ask(is_new: bool) -> Secret:
        return Secret("correct horse")

    store = EncryptedFileStore(
        paths(), protection="passphrase", ask_passphrase=ask, scrypt_cost=2**10
    )
    store.set("acme", "default", Secret(FROM_FILE))
    Vault(paths(), {}, ask_passphrase=ask).add("acme", "default", Secret(FROM_FILE), store="file")


@pytest.mark.parametrize(("typed", "status"), [("correct horse", 42), ("wrong horse", 125)])
def test_a_passphrase_is_asked_before_the_agent_has_the_terminal(
    tmp_path: Path, typed: str, status: int
) -> None:
    _by_passphrase()
    _provider(1)
    (tmp_path / "project").mkdir()
    line = command("run", "--provider", "acme", "--model", "acme/m", "--", "run", "exit", "42")
    child = pexpect.spawn(
        line[0],
        line[1:],
        env=environment(tmp_path),
        cwd=str(tmp_path / "project"),
        encoding="utf-8",
        timeout=30,
    )
    child.expect("Passphrase of ogate's encrypted file")
    child.sendline(typed)
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == status, child.before
    assert typed not in child.before
