"""Values for the shell: what is in the index, when it is rebuilt, and how little it needs."""

import pytest

from opencode_gate.cli import completion_index
from opencode_gate.cli.main import main
from opencode_gate.config.paths import paths
from opencode_gate.credentials.entries import CredentialEntry
from opencode_gate.credentials.index import CredentialIndex
from opencode_gate.ledger.sqlite import open_store
from tests.support.ledger_records import a_session


def _complete(capsys: pytest.CaptureFixture[str], kind: str, prefix: str = "") -> list[str]:
    capsys.readouterr()
    assert main(["__complete", kind, prefix]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return [line.partition("\t")[0] for line in out.splitlines()]


def _add_key(provider_id: str, name: str) -> None:
    CredentialIndex(paths()).add(
        CredentialEntry(
            provider_id=provider_id, name=name, store="env", variable="X", added_at_us=1
        )
    )


def _add_session(id: str) -> None:
    store = open_store(paths().ledger_file)
    store.add_session(a_session(id=id))
    store.close()


def test_without_an_index_there_is_nothing_and_no_complaint(capsys) -> None:
    for line in (["provider", "an"], ["nonsense"], []):
        assert main(["__complete", *line]) == 0
    assert capsys.readouterr() == ("", "")


def test_a_damaged_index_is_no_reason_to_speak(capsys) -> None:
    index = paths().completion_index
    index.parent.mkdir(parents=True)
    index.write_bytes(b"provider\tanthropic\tA\n\xff\xfe\nprovider\nprovider\topenai\tO\n")
    assert _complete(capsys, "provider") == ["anthropic", "openai"]


def test_all_kinds_of_values_are_in_it(capsys, monkeypatch) -> None:
    """All providers, but only the models of those that can be used."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-0123456789abcdef0123456789")
    _add_key("openai", "work")
    _add_session("01JDAAAAAAAAAAAAAAAAAAAAAA")
    completion_index.rebuild()
    assert {"anthropic", "openai", "practice", "groq"} <= set(_complete(capsys, "provider"))
    models = _complete(capsys, "model")
    assert "practice/scripted" in models
    assert any(model.startswith("anthropic/claude") for model in models)
    assert not any(model.startswith("groq/") for model in models)
    assert _complete(capsys, "key", "wo") == ["work"]
    assert _complete(capsys, "session", "01JD") == ["01JDAAAAAAAAAAAAAAAAAAAAAA"]


def test_no_secret_and_nobody_else_may_read_it(monkeypatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-0123456789abcdef0123456789")
    completion_index.rebuild()
    index = paths().completion_index
    assert "sk-ant" not in index.read_text()
    assert index.parent.stat().st_mode & 0o077 == 0


def test_a_command_that_changes_values_rebuilds_it(capsys) -> None:
    """Only where something is newer than the index."""
    assert main(["keys", "list", "--json"]) == 0
    assert _complete(capsys, "key") == []
    _add_key("openai", "work")
    assert main(["keys", "list", "--json"]) == 0
    assert _complete(capsys, "key") == ["work"]
    before = paths().completion_index.stat().st_mtime_ns
    assert main(["keys", "list", "--json"]) == 0
    assert paths().completion_index.stat().st_mtime_ns == before


def test_help_and_reading_commands_leave_it_alone() -> None:
    assert main(["keys", "--help"]) == 0
    assert main(["usage"]) == 0
    assert not paths().completion_index.exists()


def test_the_end_of_a_session_adds_it_and_keeps_the_rest(capsys) -> None:
    completion_index.rebuild()
    providers = _complete(capsys, "provider")
    _add_session("01JDAAAAAAAAAAAAAAAAAAAAAA")
    completion_index.keep_fresh(after_session=True)
    assert _complete(capsys, "session") == ["01JDAAAAAAAAAAAAAAAAAAAAAA"]
    assert _complete(capsys, "provider") == providers


def test_the_end_of_a_session_does_not_make_an_index_nobody_uses() -> None:
    completion_index.keep_fresh(after_session=True)
    assert not paths().completion_index.exists()


def test_one_broken_source_costs_only_its_own_values(capsys) -> None:
    paths().config.mkdir(parents=True)
    paths().config_file.write_text("this is not toml")
    _add_session("01JDAAAAAAAAAAAAAAAAAAAAAA")
    completion_index.rebuild()
    assert _complete(capsys, "session") == ["01JDAAAAAAAAAAAAAAAAAAAAAA"]
    assert _complete(capsys, "provider") == []


def test_a_cache_that_cannot_be_made_is_no_error() -> None:
    paths().cache.parent.mkdir(parents=True)
    paths().cache.write_text("a file where the folder should be")
    completion_index.rebuild()
    completion_index.keep_fresh()


def test_tabs_and_line_ends_in_a_description_do_not_break_the_index(capsys) -> None:
    store = open_store(paths().ledger_file)
    store.add_session(a_session(id="01JDAAAAAAAAAAAAAAAAAAAAAA", project="a\tb\nc"))
    store.close()
    completion_index.rebuild()
    assert _complete(capsys, "session") == ["01JDAAAAAAAAAAAAAAAAAAAAAA"]
