"""Changes to config.toml: comments stay, the file is private, and it is never broken."""

import os
import stat
import threading

import pytest

from opencode_gate.config.editing import current_text, replace_text, set_text, set_values
from opencode_gate.config.paths import paths
from opencode_gate.config.settings import load_settings
from opencode_gate.core.errors import ConfigError

COMMENTED = """\
# my settings
[run]
summary = "json"  # for the scripts

# the proxy at work
[providers.anthropic]
base_url = "https://proxy/v1"
"""


def put_file(text: str) -> None:
    file = paths().config_file
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def test_comments_and_order_survive_a_change() -> None:
    put_file(COMMENTED)
    settings = set_values(
        paths(),
        {
            ("run", "summary"): "off",
            ("providers", "anthropic", "headers", "x-team"): "blue",
            ("providers", "mine", "models", "a/b"): {},
        },
    )
    text = current_text(paths().config_file)
    assert "# my settings" in text
    assert 'summary = "off"  # for the scripts' in text
    assert text.index("# the proxy at work") < text.index("[providers.anthropic]")
    assert settings == load_settings(paths(), {})
    assert settings.providers["anthropic"].headers == {"x-team": "blue"}
    assert list(settings.providers["mine"].models) == ["a/b"]


@pytest.mark.parametrize(
    "said",
    [
        '[providers.mine.models."a/b"]\ncontext = 32000\n',
        '[providers.mine.models]\n"a/b" = { context = 32000 }\n',
    ],
)
def test_a_table_that_is_asked_for_keeps_what_it_says(said) -> None:
    """`providers edit --model` names a model again that has settings of its own."""
    put_file(said)
    settings = set_values(paths(), {("providers", "mine", "models", "a/b"): {}})
    assert settings.providers["mine"].models["a/b"].context == 32000


def test_none_takes_a_key_out_and_leaves_the_rest() -> None:
    put_file(COMMENTED)
    settings = set_values(paths(), {("providers", "anthropic"): None, ("catalog", "refresh"): None})
    assert settings.providers == {}
    assert settings.run.summary == "json"


def test_the_file_is_readable_by_its_owner_alone() -> None:
    put_file(COMMENTED)
    os.chmod(paths().config_file, 0o644)
    set_values(paths(), {("run", "summary"): "off"})
    assert stat.S_IMODE(paths().config_file.stat().st_mode) == 0o600


def test_a_change_that_would_break_the_file_leaves_it_untouched() -> None:
    put_file(COMMENTED)
    for change in ({("run", "sumary"): "off"}, {("run", "summary"): "loud"}, {("x",): 1}):
        with pytest.raises(ConfigError):
            set_values(paths(), change)
    with pytest.raises(ConfigError):
        replace_text(paths(), "[run\n", before=COMMENTED)
    assert current_text(paths().config_file) == COMMENTED


def test_of_changes_at_the_same_time_none_is_lost() -> None:
    put_file(COMMENTED)
    names = [f"x-{number}" for number in range(8)]
    threads = [
        threading.Thread(
            target=set_values, args=(paths(), {("providers", "anthropic", "headers", name): "a"})
        )
        for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(load_settings(paths(), {}).providers["anthropic"].headers) == names


def test_a_text_made_from_another_one_does_not_replace_it() -> None:
    put_file(COMMENTED)
    with pytest.raises(ConfigError, match="changed meanwhile"):
        replace_text(paths(), "[run]\n", before="")
    assert current_text(paths().config_file) == COMMENTED


def test_a_broken_file_is_not_edited_over() -> None:
    put_file("[run\n")
    with pytest.raises(ConfigError, match="not TOML"):
        set_values(paths(), {("run", "summary"): "off"})
    assert current_text(paths().config_file) == "[run\n"


def test_a_linked_file_is_replaced_where_it_lies(tmp_path) -> None:
    real = tmp_path / "dotfiles.toml"
    real.write_text(COMMENTED)
    paths().config_file.parent.mkdir(parents=True)
    paths().config_file.symlink_to(real)
    set_values(paths(), {("run", "summary"): "off"})
    assert paths().config_file.is_symlink()
    assert '"off"' in real.read_text()


def test_no_draft_is_left_when_the_folder_cannot_be_written(monkeypatch) -> None:
    put_file(COMMENTED)

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(ConfigError, match="No space left"):
        set_values(paths(), {("run", "summary"): "off"})
    assert [file.name for file in paths().config.iterdir()] == ["config.toml"]
    assert current_text(paths().config_file) == COMMENTED


@pytest.mark.parametrize(
    ("key", "text", "written"),
    [
        ("run.keep_env", "yes", "keep_env = true"),
        ("run.summary", "off", 'summary = "off"'),
        ('prices."openai/gpt-5".input', "0.10", "input = 0.10"),
        ("providers.mine.models.m.context", "32000", "context = 32000"),
        ("providers.mine.headers.x-a", "b", 'x-a = "b"'),
    ],
)
def test_text_becomes_a_value_of_the_declared_type(key, text, written) -> None:
    set_text(paths(), key, text)
    assert written in current_text(paths().config_file)


@pytest.mark.parametrize(
    ("key", "text", "says"),
    [
        ("run.keep_env", "perhaps", "true or false"),
        ("run.sumary", "off", "did you mean summary?"),
        ("run", "off", "is a table"),
        ("run.summary.x", "off", "single value"),
        ("providers.mine.models.m.context", "many", "whole number"),
        ("providers.mine.base_url", "h", "https://"),
    ],
)
def test_text_that_is_no_value_is_refused(key, text, says) -> None:
    with pytest.raises(ConfigError) as caught:
        set_text(paths(), key, text)
    assert says in f"{caught.value.message} {caught.value.hint}"
    assert not paths().config_file.exists()
