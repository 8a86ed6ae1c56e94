"""Opencode must be found wherever a package manager puts it, without being started."""

import json
import os
import sqlite3
import stat
from pathlib import Path

import pytest
from msgspec.structs import replace

from opencode_gate.agents.opencode.locate import (
    TESTED_VERSION,
    find_opencode,
    install_global,
    install_private,
    require_supported,
)
from opencode_gate.config.paths import paths
from opencode_gate.core.errors import AgentMissing, AgentUnusable


def executable(path: Path, text: str = "#!/bin/sh\nexit 1\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def package(root: Path, version: str = "1.18.33") -> Path:
    """An npm installation below `root`; its binary fails when run, so nobody may run it."""
    folder = root / "node_modules" / "opencode-ai"
    folder.mkdir(parents=True)
    (folder / "package.json").write_text(json.dumps({"name": "opencode-ai", "version": version}))
    return executable(folder / "bin" / "opencode.exe")


def found(*folders: Path, **options):
    path = os.pathsep.join(str(folder) for folder in folders)
    return find_opencode(paths(), {"PATH": path, "HOME": os.environ["HOME"]}, **options)


def test_a_link_into_node_modules(tmp_path):
    binary = package(tmp_path)
    link = tmp_path / "bin" / "opencode"
    link.parent.mkdir()
    link.symlink_to(binary)
    installation = found(link.parent)
    assert installation.version == "1.18.33"
    assert installation.path == binary
    assert installation.package_json == binary.parent.parent / "package.json"
    assert installation.is_verified


@pytest.mark.parametrize(
    ("name", "shim", "platform"),
    [
        (
            "opencode",
            '#!/bin/sh\nbasedir=$(dirname "$0")\n'
            'exec "$basedir/node_modules/opencode-ai/bin/opencode.exe" "$@"\n',
            "linux",
        ),
        (
            "opencode.cmd",
            '@ECHO off\r\n"%~dp0\\node_modules\\opencode-ai\\bin\\opencode.exe"   %*\r\n',
            "win32",
        ),
        (
            "opencode.cmd",
            '@SETLOCAL\r\n"%dp0%\\node_modules\\opencode-ai\\bin\\opencode.exe"   %*\r\n',
            "win32",
        ),
    ],
)
def test_a_shim_is_followed_to_the_binary(tmp_path, name, shim, platform):
    binary = package(tmp_path)
    executable(tmp_path / name, shim)
    installation = found(tmp_path, platform=platform)
    assert installation.path == binary
    assert installation.version == "1.18.33"


def test_a_plain_binary_is_asked_once_and_again_when_it_changed(tmp_path):
    counter = tmp_path / "count"
    script = f"#!/bin/sh\necho x >> {counter}\necho 1.2.3\n"
    binary = executable(tmp_path / "opencode", script)
    assert [found(tmp_path).version for _ in range(3)] == ["1.2.3"] * 3
    assert counter.read_text().count("x") == 1
    executable(binary, script.replace("1.2.3", "1.10.0"))
    assert found(tmp_path).version == "1.10.0"


def test_homebrew_says_the_version_in_the_folder(tmp_path):
    binary = executable(tmp_path / "Cellar" / "opencode" / "1.17.2" / "bin" / "opencode")
    assert found(binary.parent).version == "1.17.2"


def test_our_own_wrapper_is_never_taken_for_opencode(tmp_path):
    wrapper = executable(tmp_path / "a" / "opencode", '#!/bin/sh\nexec ogate run -- "$@"\n')
    binary = package(tmp_path / "b")
    link = tmp_path / "c" / "opencode"
    link.parent.mkdir()
    link.symlink_to(binary)
    assert found(wrapper.parent, link.parent).path == binary
    with pytest.raises(AgentMissing):
        found(wrapper.parent)


def test_nothing_installed_says_how_to_install(tmp_path):
    with pytest.raises(AgentMissing) as raised:
        found(tmp_path)
    assert raised.value.exit_code == 127
    assert "npm install -g opencode-ai" in (raised.value.hint or "")


def test_the_installers_folder_is_looked_at_though_it_is_not_on_path(tmp_path):
    home = Path(os.environ["HOME"])
    executable(home / ".opencode" / "bin" / "opencode", "#!/bin/sh\necho 1.18.0\n")
    assert found(tmp_path).version == "1.18.0"


def test_a_file_that_cannot_be_executed_is_126(tmp_path):
    (tmp_path / "opencode").write_text("#!/bin/sh\n")
    with pytest.raises(AgentUnusable) as raised:
        found(tmp_path)
    assert raised.value.exit_code == 126


def test_an_installation_whose_script_did_not_run_is_named(tmp_path):
    binary = package(tmp_path)
    executable(binary, 'echo "Error: opencode-ai\'s postinstall script was not run." >&2\n')
    with pytest.raises(AgentUnusable) as raised:
        found(binary.parent, agent_path=str(binary))
    assert "did not finish" in raised.value.message


def test_the_configured_path_wins_and_must_exist(tmp_path):
    binary = package(tmp_path)
    assert found(agent_path=str(binary)).path == binary
    with pytest.raises(AgentMissing):
        found(agent_path=str(tmp_path / "absent"))


def test_the_private_copy_is_used_when_nothing_else_fits(tmp_path):
    private = package(paths().private_agent)
    assert found(tmp_path).path == private
    assert found(tmp_path).is_private
    other = executable(tmp_path / "opencode", "#!/bin/sh\necho 1.9.0\n")
    assert found(tmp_path).path == other
    executable(other, "#!/bin/sh\necho 2.0.11\n")
    assert found(tmp_path).path == private


def npm(folder: Path, script: str) -> dict[str, str]:
    """An environment in which `npm` is `script`; `$3` is the folder to install into."""
    executable(folder / "npm", f"#!/bin/sh\n{script}\n")
    return {"PATH": f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin", "HOME": os.environ["HOME"]}


def test_a_private_copy_is_installed_below_our_own_folder(tmp_path, capfd):
    made = package(tmp_path / "made").parent.parent.parent
    environ = npm(tmp_path, f'echo talk; test "$5" = opencode-ai || cp -r {made} "$3"')
    installed = install_private(paths(), environ)
    assert installed.is_private
    assert installed.version == TESTED_VERSION
    assert installed.path.is_relative_to(paths().private_agent)
    assert found(tmp_path) == installed
    assert capfd.readouterr().out == "", "what npm says is no data"


def test_an_installation_for_everything_is_npms_own(tmp_path, capfd):
    install_global(npm(tmp_path, f'echo "$1 $2 $3"; echo "$1 $2 $3" > {tmp_path / "asked"}'))
    assert (tmp_path / "asked").read_text() == "install -g opencode-ai\n"
    assert capfd.readouterr().out == "", "what npm says is no data"


@pytest.mark.parametrize(
    "install", [lambda environ: install_private(paths(), environ), install_global]
)
def test_an_installation_that_fails_is_an_error(tmp_path, install):
    with pytest.raises(AgentMissing, match="exit status 7"):
        install(npm(tmp_path, "exit 7"))
    with pytest.raises(AgentMissing, match="npm is needed"):
        install({"PATH": str(tmp_path / "nothing")})


def test_the_private_copy_never_opens_a_database_of_a_newer_major(tmp_path):
    package(paths().private_agent)
    database = tmp_path / "opencode.db"
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE session (version TEXT)")
        connection.execute("INSERT INTO session VALUES ('1.18.33'), ('2.0.3')")
    private = found(tmp_path)
    with pytest.raises(AgentUnusable, match=r"Opencode 2\.x"):
        require_supported(private, has_hard_rules=False, database=database)
    assert require_supported(private, has_hard_rules=False, database=None) is None
    users = replace(private, is_private=False)
    assert require_supported(users, has_hard_rules=False, database=database) is None


def test_another_major_is_unverified_and_refused_under_a_hard_rule(tmp_path):
    executable(tmp_path / "opencode", "#!/bin/sh\necho 2.1.0\n")
    installation = found(tmp_path)
    assert not installation.is_verified
    assert "unverified" in (require_supported(installation, has_hard_rules=False) or "")
    with pytest.raises(AgentUnusable):
        require_supported(installation, has_hard_rules=True)
