"""Files of the user's own: replaced whole, readable by nobody else, nothing left behind."""

import os
import stat
from pathlib import Path

import pytest

from opencode_gate.config.private_files import replace_private
from opencode_gate.core.errors import ConfigError


@pytest.mark.parametrize("is_cache", [False, True])
def test_the_new_content_replaces_the_old_and_is_private(tmp_path: Path, is_cache: bool) -> None:
    """Also where the old file could be read by others."""
    file = tmp_path / "folder" / "file"
    file.parent.mkdir()
    file.write_bytes(b"old")
    file.chmod(0o644)
    replace_private(file, b"new", is_cache=is_cache)
    assert file.read_bytes() == b"new"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.iterdir()] == ["file"]


def test_ctrl_c_leaves_the_old_content_and_no_draft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A draft could hold what was not meant to be kept."""
    file = tmp_path / "folder" / "file"
    file.parent.mkdir()
    file.write_bytes(b"old")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        replace_private(file, b"new")
    assert file.read_bytes() == b"old"
    assert [path.name for path in file.parent.iterdir()] == ["file"]


def test_what_cannot_be_written_is_an_error_with_a_hint(tmp_path: Path) -> None:
    """The place is named, and what to do."""
    (tmp_path / "file").mkdir()
    with pytest.raises(ConfigError) as caught:
        replace_private(tmp_path / "file", b"new")
    assert caught.value.code == "folder-unwritable"
    assert str(tmp_path / "file") in caught.value.message
    assert caught.value.hint is not None
