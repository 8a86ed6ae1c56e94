"""The remembered choice: per folder, private, and never in the way."""

import json
import stat
import threading
from pathlib import Path

import pytest

from opencode_gate.core.errors import ConfigError
from opencode_gate.session.choices import Choice, remember, remembered

CHOICE = Choice(provider_id="anthropic", model_id="claude-x", small_model_id="claude-small")


def test_each_folder_has_its_own_memory(tmp_path: Path) -> None:
    """What is chosen in one folder is offered there and nowhere else."""
    file = tmp_path / "data" / "choices.json"
    other = Choice(provider_id="practice", model_id="scripted")
    remember(file, tmp_path / "a", CHOICE)
    remember(file, tmp_path / "b", other)
    assert remembered(file, tmp_path / "a") == CHOICE
    assert remembered(file, tmp_path / "b") == other
    assert remembered(file, tmp_path / "c") is None


def test_file_is_private_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    """The file is 0600, and no temporary file stays beside it and its lock."""
    file = tmp_path / "data" / "choices.json"
    remember(file, tmp_path, CHOICE)
    remember(file, tmp_path, CHOICE)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    beside = sorted(path.name for path in file.parent.iterdir())
    assert beside == ["choices.json", "choices.json.lock"]


def test_sessions_that_start_together_all_remember_their_choice(tmp_path: Path) -> None:
    file = tmp_path / "data" / "choices.json"
    folders = [tmp_path / str(number) for number in range(8)]
    threads = [threading.Thread(target=remember, args=(file, each, CHOICE)) for each in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [remembered(file, each) for each in folders] == [CHOICE] * 8


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"folders": 3}', '{"folders": {"FOLDER": 3}}', '{"folders": {"FOLDER": {}}}'],
)
def test_damaged_file_counts_as_empty_and_is_mended(tmp_path: Path, text: str) -> None:
    """A file nobody can read costs one question, not the start."""
    file = tmp_path / "choices.json"
    file.write_text(text.replace("FOLDER", str(tmp_path)))
    assert remembered(file, tmp_path) is None
    remember(file, tmp_path, CHOICE)
    assert remembered(file, tmp_path) == CHOICE


def test_wrong_types_inside_an_entry_are_dropped(tmp_path: Path) -> None:
    """A model that is not text is no model."""
    file = tmp_path / "choices.json"
    entry = {"provider_id": "anthropic", "model_id": 3}
    file.write_text(json.dumps({"folders": {str(tmp_path): entry}}))
    assert remembered(file, tmp_path) == Choice(provider_id="anthropic")


def test_the_longest_unused_folders_are_forgotten(tmp_path: Path) -> None:
    """The file does not grow for ever, and a folder chosen again counts as new."""
    file = tmp_path / "choices.json"
    folders = {f"/old/{n}": {"provider_id": "p"} for n in range(500)}
    file.write_text(json.dumps({"version": 1, "folders": folders}))
    remember(file, Path("/old/0"), CHOICE)
    remember(file, tmp_path, CHOICE)
    assert remembered(file, Path("/old/0")) == CHOICE
    assert remembered(file, Path("/old/1")) is None
    assert len(json.loads(file.read_text())["folders"]) == 500


def test_unwritable_place_is_an_error_with_a_hint(tmp_path: Path) -> None:
    """A file where the folder should be gives a clear error, not a traceback."""
    (tmp_path / "data").write_text("")
    with pytest.raises(ConfigError) as caught:
        remember(tmp_path / "data" / "choices.json", tmp_path, CHOICE)
    assert caught.value.code == "folder-unwritable"
    assert caught.value.hint is not None
