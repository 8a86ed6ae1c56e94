"""`ogate config`: settings shown with their source, changed from text, edited with a net."""

import json
import signal
import stat
import sys

import pytest

from opencode_gate.cli.main import main
from opencode_gate.config.paths import paths


def put_file(text: str) -> None:
    file = paths().config_file
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def document(capsys) -> dict:
    return json.loads(capsys.readouterr().out)


def test_path_names_the_places(capsys) -> None:
    assert main(["config", "path", "--json"]) == 0
    assert document(capsys)["paths"]["config_file"] == str(paths().config_file)


def test_show_says_where_each_setting_is_from(capsys, monkeypatch) -> None:
    put_file('[run]\nkeep_env = true\n[prices."a/b"]\ninput = 0.10\noutput = 1\n')
    monkeypatch.delenv("OGATE_CATALOG_REFRESH", raising=False)
    monkeypatch.setenv("OGATE_RUN_SUMMARY", "off")
    assert main(["config", "show", "--json"]) == 0
    shown = {row["key"]: (row["value"], row["source"]) for row in document(capsys)["settings"]}
    assert shown["run.keep_env"] == (True, "config.toml")
    assert shown["run.summary"] == ("off", "OGATE_RUN_SUMMARY")
    assert shown["catalog.refresh"] == (True, "default")
    assert shown['prices."a/b".input'] == ("0.10", "config.toml")


def test_set_and_get_are_each_others_mirror(capsys) -> None:
    put_file("# mine\n")
    assert main(["config", "set", "run.summary", "json"]) == 0
    assert main(["config", "set", 'prices."openai/gpt-5".input', "0.30"]) == 0
    capsys.readouterr()
    assert main(["config", "get", "run.summary"]) == 0
    assert capsys.readouterr().out == "json\n"
    assert main(["config", "get", 'prices."openai/gpt-5"', "--json"]) == 0
    assert document(capsys)["value"]['prices."openai/gpt-5".input'] == "0.30"
    assert paths().config_file.read_text().startswith("# mine\n")
    assert stat.S_IMODE(paths().config_file.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (["set", "run.sumary", "x"], "did you mean summary?"),
        (["set", "run.summary", "x"], "table, json, off"),
        (["get", "run.sumary"], "did you mean run.summary?"),
        (["get", "a b"], "not the name of a setting"),
    ],
)
def test_a_wrong_name_or_value_is_a_configuration_error(capsys, line, says) -> None:
    assert main(["config", *line]) == 3
    heard = capsys.readouterr()
    assert says in heard.err
    assert heard.out == ""


def test_a_secret_is_not_set_as_a_header(capsys) -> None:
    """`config.toml` holds none; a reference to a variable is taken."""
    key = "providers.anthropic.headers.x-api-key"
    assert main(["config", "set", key, "sk-ant-verysecret"]) == 2
    assert "sk-ant-verysecret" not in capsys.readouterr().err
    assert not paths().config_file.exists()
    assert main(["config", "set", key, "{env:MY_KEY}"]) == 0
    assert main(["config", "set", "providers.anthropic.headers.x-title", "loom"]) == 0


def test_a_broken_file_names_its_line(capsys) -> None:
    put_file('[run]\nsummry = "json"\n')
    assert main(["config", "show"]) == 3
    assert f"{paths().config_file}, line 2: run.summry" in capsys.readouterr().err


def editor(monkeypatch, script: str) -> None:
    monkeypatch.delenv("VISUAL", raising=False)
    code = f"import pathlib, sys; p = pathlib.Path(sys.argv[1]); {script}"
    monkeypatch.setenv("EDITOR", f"{sys.executable} -c '{code}'")


def test_an_edit_is_taken_over_when_it_is_valid(capsys, monkeypatch) -> None:
    put_file('[run]\nsummary = "json"\n')
    editor(monkeypatch, 'p.write_text(p.read_text().replace("json", "off"))')
    assert main(["config", "edit"]) == 0
    assert 'summary = "off"' in paths().config_file.read_text()
    assert [file.name for file in paths().config.iterdir()] == ["config.toml"]


def test_ctrl_c_in_the_editor_is_the_editors(capsys, monkeypatch) -> None:
    """The terminal sends it to both; who waits for the editor goes on waiting."""
    put_file('[run]\nsummary = "json"\n')
    interrupt = "import os, signal; os.kill(os.getppid(), signal.SIGINT); "
    editor(monkeypatch, interrupt + 'p.write_text(p.read_text().replace("json", "off"))')
    assert main(["config", "edit"]) == 0
    assert 'summary = "off"' in paths().config_file.read_text()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_edit_that_breaks_the_file_is_kept_as_a_draft(capsys, monkeypatch) -> None:
    put_file('[run]\nsummary = "json"\n')
    editor(monkeypatch, 'p.write_text("[run]\\nkeep = 1\\n")')
    assert main(["config", "edit"]) == 3
    heard = capsys.readouterr().err
    assert paths().config_file.read_text() == '[run]\nsummary = "json"\n'
    (draft,) = [file for file in paths().config.iterdir() if file.name != "config.toml"]
    assert str(draft) in heard
    assert "keep = 1" in draft.read_text()


def test_what_was_set_while_the_editor_was_open_is_not_undone(capsys, monkeypatch) -> None:
    put_file('[run]\nsummary = "json"\n')
    meanwhile = f'pathlib.Path("{paths().config_file}").write_text("[run]\\nkeep_env = true\\n"); '
    editor(monkeypatch, meanwhile + 'p.write_text(p.read_text().replace("json", "off"))')
    assert main(["config", "edit"]) == 3
    heard = capsys.readouterr().err
    assert paths().config_file.read_text() == "[run]\nkeep_env = true\n"
    (draft,) = [file for file in paths().config.iterdir() if file.name != "config.toml"]
    assert "changed meanwhile" in heard
    assert str(draft) in heard
    assert draft.read_text() == '[run]\nsummary = "off"\n'


def test_a_folder_without_room_for_a_draft_is_said(capsys, monkeypatch) -> None:
    put_file('[run]\nsummary = "json"\n')

    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    assert main(["config", "edit"]) == 3
    assert "Permission denied  [folder-unwritable]" in capsys.readouterr().err


def test_an_edit_that_changes_nothing_writes_nothing(capsys, monkeypatch) -> None:
    editor(monkeypatch, "pass")
    assert main(["config", "edit"]) == 0
    assert "nothing changed" in capsys.readouterr().err
    assert not paths().config_file.exists()


@pytest.mark.parametrize("command", ["no-such-editor-anywhere", "false"])
def test_an_editor_that_fails_is_said(capsys, monkeypatch, command) -> None:
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", command)
    assert main(["config", "edit"]) == 2
    assert command in capsys.readouterr().err
    assert list(paths().config.iterdir()) == []


def test_prices_of_several_spans_are_shown_with_their_place(capsys) -> None:
    paths().config_file.parent.mkdir(parents=True, exist_ok=True)
    paths().config_file.write_text(
        '[[prices."a/b"]]\nuntil = 2026-10-31\ninput = 1\n'
        '[[prices."a/b"]]\nsince = 2026-11-01\ninput = 2\n'
        '[prices."c/d"]\ninput = 3\n',
        encoding="utf-8",
    )
    assert main(["config", "get", 'prices."a/b"']) == 0
    assert capsys.readouterr().out == (
        'prices."a/b"[0].until = 2026-10-31\nprices."a/b"[0].input = 1\n'
        'prices."a/b"[1].since = 2026-11-01\nprices."a/b"[1].input = 2\n'
    )
    assert main(["config", "get", 'prices."c/d".input']) == 0
    assert capsys.readouterr().out == "3\n"
    assert main(["config", "set", 'prices."c/d".since', "2026-11-02"]) == 0
    assert main(["config", "set", 'prices."a/b".input', "4"]) == 3
    heard = capsys.readouterr().err
    assert 'prices."a/b" is several tables' in heard
    assert "hint: ogate config edit" in heard
