"""`ogate doctor`: every trouble is found, comes with what mends it, and decides the status."""

import json
import os
import sqlite3
import stat
import subprocess
from contextlib import closing
from datetime import date
from pathlib import Path

import pytest

from opencode_gate.cli.checks import CHECKS, Finding, Surroundings, all_findings
from opencode_gate.cli.main import main
from opencode_gate.config.paths import paths
from opencode_gate.ledger.sqlite import open_store
from tests.support.ledger_records import a_session, an_exchange


@pytest.fixture
def opencode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An Opencode of the tested version on PATH."""
    package = tmp_path / "node_modules" / "opencode-ai"
    (package / "bin").mkdir(parents=True)
    program = package / "bin" / "opencode"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    (package / "package.json").write_text('{"name": "opencode-ai", "version": "1.18.33"}')
    folder = tmp_path / "path"
    folder.mkdir()
    (folder / "opencode").symlink_to(program)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")
    return package


def _findings(check: str, **environ: str) -> list[Finding]:
    surroundings = Surroundings(
        paths=paths(), environ={**os.environ, **environ}, today=date(2026, 11, 21)
    )
    return [finding for finding in all_findings(surroundings) if finding.check == check]


def _only(check: str, **environ: str) -> Finding:
    [finding] = _findings(check, **environ)
    return finding


def _changed_ledger(statement: str) -> None:
    store = open_store(paths().ledger_file)
    store.add_session(a_session())
    store.fold([an_exchange()])
    store.close()
    with closing(sqlite3.connect(paths().ledger_file)) as database, database:
        database.execute(statement)


@pytest.mark.usefixtures("opencode")
def test_a_sound_machine_ends_with_0(capsys) -> None:
    assert main(["doctor", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["version"] == 1
    levels = {finding["check"]: finding["level"] for finding in document["findings"]}
    assert set(levels) <= set(CHECKS)
    assert "bad" not in levels.values()
    for finding in document["findings"]:
        assert set(finding) == {"check", "level", "summary", "mend"}


@pytest.mark.usefixtures("opencode")
def test_a_bad_finding_ends_with_1_and_names_the_mending_command(capsys) -> None:
    paths().config.mkdir(parents=True)
    paths().config_file.write_text("[run]\nkep_env = true\n")
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "✗ settings" in out
    assert "→ " in out


def test_a_missing_opencode_is_found(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    finding = _only("opencode")
    assert (finding.level, finding.summary) == ("bad", "Opencode is not installed")
    assert "npm install -g opencode-ai" in (finding.mend or "")


def test_an_untested_major_version_is_worth_knowing(opencode) -> None:
    (opencode / "package.json").write_text('{"name": "opencode-ai", "version": "2.0.1"}')
    finding = _only("opencode")
    assert finding.level == "note"
    assert "2.0.1 is unverified" in finding.summary


@pytest.mark.usefixtures("opencode")
def test_a_damaged_ledger_is_found() -> None:
    paths().data.mkdir(parents=True)
    paths().ledger_file.write_bytes(b"this is no database, however long it is" * 100)
    finding = _only("ledger")
    assert finding.level == "bad"
    assert finding.mend


@pytest.mark.usefixtures("opencode")
def test_a_ledger_whose_sums_alone_are_wrong_is_not_moved_away() -> None:
    """Its rows are sound, and there is a command that adds them up anew."""
    _changed_ledger("UPDATE usage_sums SET requests = requests + 1")
    finding = _only("ledger")
    assert (finding.level, finding.mend) == ("bad", "ogate ledger vacuum")


@pytest.mark.usefixtures("opencode")
def test_a_damaged_ledger_is_moved_away_with_all_that_belongs_to_it() -> None:
    """SQLite would play the log of the old one into the new one."""
    _changed_ledger("INSERT INTO budget_windows VALUES ('run/usd', 0, 7)")
    file = paths().ledger_file
    sides = [file.with_name(f"{file.name}{ending}") for ending in ("-wal", "-shm")]
    mend = _only("ledger").mend
    for side in sides:
        side.touch()
    assert mend is not None
    subprocess.run(["/bin/sh", "-c", mend], check=True, env={"PATH": "/usr/bin:/bin"})
    assert not any(each.exists() for each in (file, *sides))
    assert (file.parent / "damaged" / file.name).exists()


@pytest.mark.usefixtures("opencode")
def test_a_sound_ledger_is_said_to_be_sound() -> None:
    store = open_store(paths().ledger_file)
    store.add_session(a_session())
    store.close()
    assert _only("ledger").summary.startswith("sound")


@pytest.mark.usefixtures("opencode")
def test_a_folder_open_to_others_is_found() -> None:
    paths().data.mkdir(parents=True)
    paths().data.chmod(0o755)
    finding = _only("folders")
    assert (finding.level, finding.mend) == ("bad", f"chmod 700 '{paths().data}'")
    paths().data.chmod(0o700)
    assert stat.S_IMODE(paths().data.stat().st_mode) == 0o700
    assert _only("folders").level == "ok"


@pytest.mark.usefixtures("opencode")
def test_a_proxy_is_named_without_its_password() -> None:
    finding = _only("proxies", HTTPS_PROXY="http://ada:secret@proxy.example:3128")
    assert finding.level == "ok"
    assert "http://proxy.example:3128 (HTTPS_PROXY)" in finding.summary
    assert "secret" not in finding.summary


@pytest.mark.usefixtures("opencode")
@pytest.mark.parametrize(
    "address", ["socks5://127.0.0.1:1080", "https://proxy.example", "http://[::1", "http://"]
)
def test_a_proxy_we_cannot_use_is_found(address) -> None:
    finding = _only("proxies", all_proxy=address)
    assert finding.level == "bad"
    assert "unset all_proxy" in (finding.mend or "")


@pytest.mark.usefixtures("opencode")
def test_a_stored_sign_in_that_bypasses_the_gateway_is_named() -> None:
    auth = '{"openai": {"type": "oauth", "access": "x", "refresh": "y", "expires": 1}}'
    finding = _only("sign-ins", OPENCODE_AUTH_CONTENT=auth)
    assert finding.level == "note"
    assert finding.mend == "ogate providers edit openai --subscription direct|key"


@pytest.mark.usefixtures("opencode")
def test_an_old_catalogue_is_worth_refreshing() -> None:
    surroundings = Surroundings(paths=paths(), environ=os.environ, today=date(2030, 1, 1))
    [finding] = [found for found in all_findings(surroundings) if found.check == "catalogue"]
    assert (finding.level, finding.mend) == ("note", "ogate models refresh")


@pytest.mark.usefixtures("opencode")
def test_no_keyring_is_only_bad_when_a_key_is_in_it() -> None:
    from opencode_gate.credentials.entries import CredentialEntry
    from opencode_gate.credentials.index import CredentialIndex

    assert _only("keyring").level == "note"
    CredentialIndex(paths()).add(
        CredentialEntry(provider_id="openai", name="work", store="keyring", added_at_us=1)
    )
    assert _only("keyring").level == "bad"


@pytest.mark.usefixtures("opencode")
def test_the_checks_change_nothing(isolated_home) -> None:
    before = sorted(isolated_home.rglob("*"))
    main(["doctor", "--json"])
    assert sorted(isolated_home.rglob("*")) == before
