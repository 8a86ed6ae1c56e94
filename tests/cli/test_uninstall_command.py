"""`ogate uninstall`: everything goes, nothing of anybody else's, and never by accident."""

from pathlib import Path

import keyring
import pytest

from opencode_gate.cli.main import main
from opencode_gate.config.paths import paths
from opencode_gate.core.secrets import Secret
from opencode_gate.credentials.keyring_store import KeyringStore
from opencode_gate.credentials.vault import Vault
from opencode_gate.ledger.journal import Journal
from opencode_gate.ledger.sqlite import open_store
from tests.support.ledger_records import a_session, an_exchange
from tests.support.memory_keyring import MemoryKeyring


@pytest.fixture
def ring(monkeypatch: pytest.MonkeyPatch) -> MemoryKeyring:
    """A keyring in memory, which `keyring` finds."""
    found = MemoryKeyring()
    monkeypatch.setattr(keyring, "get_keyring", lambda: found)
    return found


@pytest.fixture
def installed(ring: MemoryKeyring, isolated_home: Path) -> Path:
    """A home in which ogate has been used."""
    vault = Vault(paths(), {}, keyring=KeyringStore(environ={}, backend=ring))
    vault.add("openai", "work", Secret("sk-0123456789abcdef"), store="keyring")
    store = open_store(paths().ledger_file)
    store.add_session(a_session())
    store.close()
    (paths().private_agent / "node_modules").mkdir(parents=True)
    paths().config.mkdir(exist_ok=True)
    paths().config_file.write_text("[run]\n")
    (isolated_home / ".bashrc").write_text("export A=1\n")
    assert main(["alias", "install", "bash"]) == 0
    assert main(["completion", "install", "bash"]) == 0
    assert main(["completion", "install", "fish"]) == 0
    return isolated_home


def _files(folder: Path) -> list[str]:
    return sorted(str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file())


def test_everything_goes_and_the_rest_stays(installed, ring, capsys) -> None:
    assert main(["uninstall", "--yes"]) == 0
    assert ring.passwords == {}
    assert _files(installed) == [".bashrc"]
    assert (installed / ".bashrc").read_text() == "export A=1\n"
    out, err = capsys.readouterr()
    assert "removed the key 'work' of openai in the OS keyring" in out
    assert "uv tool uninstall opencode-gate" in err


def test_a_dry_run_names_all_and_removes_nothing(installed, ring, capsys) -> None:
    before = _files(installed)
    capsys.readouterr()
    assert main(["uninstall", "--dry-run"]) == 0
    named = capsys.readouterr().out
    for part in ("OS keyring", "alias lines", "completion lines", "ogate.fish", str(paths().data)):
        assert part in named
    assert _files(installed) == before
    assert len(ring.passwords) == 1


def test_the_ledger_can_stay(installed) -> None:
    assert main(["uninstall", "--yes", "--keep-ledger"]) == 0
    open_store(paths().ledger_file).fold([an_exchange()])
    assert main(["uninstall", "--yes", "--keep-ledger"]) == 0
    others = [name for name in _files(installed) if "ledger.db" not in name]
    assert {Path(name).name for name in others} == {".bashrc", "audit.key", "ledger.audit-head"}
    assert open_store(paths().ledger_file, read_only=True).sessions()


def test_nobody_to_ask_is_an_error_that_names_the_flag(installed, capsys) -> None:
    before = _files(installed)
    assert main(["uninstall", "--no-input"]) == 2
    err = capsys.readouterr().err
    assert "[no-terminal]" in err
    assert "--yes" in err
    assert _files(installed) == before


def test_a_locked_keyring_stops_it_before_anything_is_gone(installed, monkeypatch, capsys) -> None:
    class Locked(MemoryKeyring):
        def get_password(self, service, username):
            raise keyring.errors.KeyringLocked("locked")

    monkeypatch.setattr(keyring, "get_keyring", Locked)
    before = _files(installed)
    assert main(["uninstall", "--yes"]) == 4
    assert "[keyring-locked]" in capsys.readouterr().err
    assert _files(installed) == before


def test_a_running_session_stops_it(installed, capsys) -> None:
    journal = Journal.create(paths().journals, session=a_session())
    try:
        assert main(["uninstall", "--yes"]) == 1
    finally:
        journal.close()
    assert "[session-running]" in capsys.readouterr().err
    assert paths().ledger_file.exists()


def test_a_folder_that_holds_other_things_is_left_alone(installed, capsys) -> None:
    """`OGATE_HOME` may point anywhere, and `data` is a common name."""
    (installed / "ogate" / "thesis.tex").write_text("x")
    assert main(["uninstall", "--yes"]) == 1
    err = capsys.readouterr().err
    assert "[foreign-files]" in err
    assert "thesis.tex" in err
    assert paths().ledger_file.exists()


def test_nothing_to_remove_is_said(capsys) -> None:
    assert main(["uninstall", "--yes"]) == 0
    assert capsys.readouterr().out == "nothing to remove\n"
