"""Opencode's folders on platforms that this machine is not."""

from pathlib import Path, PurePosixPath, PureWindowsPath

from opencode_gate.agents.opencode.folders import (
    agent_folders,
    content_limit,
    database_file,
    managed_folder,
    managed_preferences,
)


def test_the_xdg_layout_is_used_on_every_platform():
    for platform, variable in (("linux", "HOME"), ("darwin", "HOME"), ("win32", "USERPROFILE")):
        folders = agent_folders({variable: "/u"}, platform=platform)
        assert folders.config == Path("/u/.config/opencode")
        assert folders.auth_file == Path("/u/.local/share/opencode/auth.json")
        assert folders.recent_models_file == Path("/u/.local/state/opencode/model.json")
        assert folders.models_cache == Path("/u/.cache/opencode/models.json")


def test_xdg_variables_are_honoured():
    folders = agent_folders({"HOME": "/u", "XDG_DATA_HOME": "/d", "XDG_CONFIG_HOME": "/c"})
    assert folders.data == Path("/d/opencode")
    assert folders.config == Path("/c/opencode")


def test_the_administrators_folder_differs():
    assert managed_folder({}, platform="linux") == PurePosixPath("/etc/opencode")
    assert managed_folder({}, platform="darwin") == PurePosixPath(
        "/Library/Application Support/opencode"
    )
    assert managed_folder({"ProgramData": "D:\\PD"}, platform="win32") == PureWindowsPath(
        "D:\\PD\\opencode"
    )
    assert managed_preferences("ann", platform="linux") == ()
    assert len(managed_preferences("ann", platform="darwin")) == 2


def test_the_database_may_be_moved():
    folders = agent_folders({"HOME": "/u"})
    assert database_file({}, folders) == Path("/u/.local/share/opencode/opencode.db")
    assert database_file({"OPENCODE_DB": "/x.db"}, folders) == Path("/x.db")
    assert database_file({"OPENCODE_DB": "x.db"}, folders) == folders.data / "x.db"
    assert database_file({"OPENCODE_DB": ":memory:"}, folders) is None
    windows = {"OPENCODE_DB": "C:\\x.db"}
    assert database_file(windows, folders, platform="win32") == Path("C:\\x.db")


def test_an_environment_variable_has_a_limit():
    assert content_limit(platform="linux") < 131_072
    assert content_limit(platform="win32") < 32_767
