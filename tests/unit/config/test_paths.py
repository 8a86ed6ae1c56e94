"""Folders of ogate's own are closed to others, whichever of them is made first."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from opencode_gate.config.paths import private_folder


@pytest.fixture(autouse=True)
def usual_mask() -> Iterator[None]:
    """The mask of most systems, under which a folder is open to all unless something is said."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(folder: Path) -> int:
    return folder.stat().st_mode & 0o777


def test_folders_above_are_made_private_too(tmp_path: Path) -> None:
    """The first thing a new user has made may be two folders down, as `--install` does."""
    private_folder(tmp_path / "share" / "ogate" / "opencode")
    made = ("share", "share/ogate", "share/ogate/opencode")
    assert {name: oct(mode(tmp_path / name)) for name in made} == dict.fromkeys(made, "0o700")


def test_folders_that_are_there_stay_as_they_are(tmp_path: Path) -> None:
    """Whoever opened a folder to a group meant it; `ogate doctor` says so."""
    (tmp_path / "shared").mkdir(mode=0o755)
    private_folder(tmp_path / "shared" / "ogate")
    private_folder(tmp_path / "shared")
    assert mode(tmp_path / "shared") == 0o755
    assert mode(tmp_path / "shared" / "ogate") == 0o700
