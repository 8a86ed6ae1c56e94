"""Lines in a shell's start-up file: put once, taken out without a trace."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from opencode_gate.cli import shell_files
from opencode_gate.cli.main import main

SHELLS = ["bash", "zsh", "fish", "powershell"]
START_FILES = {
    "bash": ".bashrc",
    "zsh": ".zshrc",
    "fish": ".config/fish/config.fish",
    "powershell": ".config/powershell/Microsoft.PowerShell_profile.ps1",
}


@pytest.fixture(autouse=True)
def on_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    """The files are those of Linux, whatever this machine is."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("ZDOTDIR", raising=False)


@pytest.mark.parametrize("before", ["", "export A=1\n", "export A=1", "a\n\n\n", "ü\udcff\n"])
@pytest.mark.parametrize("shell", SHELLS)
def test_the_alias_comes_once_and_goes_without_a_trace(
    isolated_home, capsys, shell, before
) -> None:
    """Also where the file has no last line end, empty lines, or bytes that are no text."""
    file = isolated_home / START_FILES[shell]
    file.parent.mkdir(parents=True, exist_ok=True)
    written = before.encode(errors="surrogateescape")
    file.write_bytes(written)
    assert main(["alias", "install", shell]) == 0
    once = file.read_bytes()
    assert b"ogate run --" in once
    assert main(["alias", "install", shell]) == 0
    assert file.read_bytes() == once
    assert main(["alias", "remove"]) == 0
    ended = written if not written or written.endswith(b"\n") else written + b"\n"
    assert file.read_bytes() == ended
    assert capsys.readouterr().out == ""


def test_a_link_and_a_mode_survive(isolated_home, tmp_path) -> None:
    """Start-up files are often links into a folder under version control."""
    target = tmp_path / "dotfiles" / "bashrc"
    target.parent.mkdir()
    target.write_text("export A=1\n")
    target.chmod(0o640)
    (isolated_home / ".bashrc").symlink_to(target)
    assert main(["alias", "install", "bash"]) == 0
    assert (isolated_home / ".bashrc").is_symlink()
    assert "alias opencode" in target.read_text()
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_old_lines_are_replaced_in_their_place(tmp_path) -> None:
    file = tmp_path / "rc"
    file.write_text("a\n# >>> ogate alias >>>\nold\n# <<< ogate alias <<<\nb\n")
    assert shell_files.put_block(file, "alias", ["new"])
    assert file.read_text() == "a\n# >>> ogate alias >>>\nnew\n# <<< ogate alias <<<\nb\n"


def test_removing_what_is_not_there_says_so(capsys) -> None:
    assert main(["alias", "remove"]) == 0
    assert capsys.readouterr().err == "no alias found\n"


def test_a_file_that_cannot_be_written_is_a_clear_error(isolated_home, capsys) -> None:
    (isolated_home / ".bashrc").mkdir()
    assert main(["alias", "install", "bash"]) == 3
    assert "[folder-unwritable]" in capsys.readouterr().err


def test_the_shell_is_taken_from_the_environment(monkeypatch, isolated_home) -> None:
    monkeypatch.setenv("SHELL", "/usr/bin/zsh")
    assert main(["alias", "install"]) == 0
    assert (isolated_home / ".zshrc").exists()


@pytest.mark.parametrize("shell", ["", "/bin/tcsh"])
def test_an_unknown_shell_has_to_be_named(monkeypatch, capsys, shell) -> None:
    monkeypatch.setenv("SHELL", shell)
    assert main(["alias", "install"]) == 2
    assert "hint: name one of bash, zsh, fish, powershell" in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize("token", [None, "", "token", "ogs-1-2-3", "ogk-1-2"])
def test_the_alias_works_outside_a_session_and_not_inside(
    isolated_home, tmp_path, shell, token
) -> None:
    """Inside a session `OGATE_KEY` is its token, and `opencode` is Opencode: no start within a
    start. Outside it may be the virtual key of somebody who works through a gateway of others.
    """
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    assert main(["alias", "install", shell]) == 0
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("ogate", "opencode"):
        (folder / name).write_text(f'#!/bin/sh\necho {name} "$@"\n')
        (folder / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "TERM": "dumb"}
    if token is not None:
        environment["OGATE_KEY"] = token
    done = subprocess.run(
        [program, "-i", "-c", "opencode models"] if shell == "fish" else [program, "-i"],
        input=None if shell == "fish" else "opencode models\nexit\n",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    said = [line for line in done.stdout.splitlines() if line.startswith(("ogate ", "opencode "))]
    is_inside = token in ("token", "ogs-1-2-3")
    assert said == ["opencode models" if is_inside else "ogate run -- models"]


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_is_put_in_place_once(isolated_home, capsys, shell) -> None:
    assert main(["completion", "install", shell]) == 0
    first = {
        file: file.read_bytes()
        for file in isolated_home.rglob("*")
        if file.suffix != ".tsv" and file.is_file()
    }
    assert first
    capsys.readouterr()
    assert main(["completion", "install", shell]) == 0
    assert "already in place" in capsys.readouterr().err
    assert {file: file.read_bytes() for file in first} == first


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_show_prints_the_committed_script(capsys, shell) -> None:
    from opencode_gate.cli.completion_scripts import FILE_NAMES

    assert main(["completion", "show", shell]) == 0
    committed = Path(__file__).parent.parent.parent / "completions" / FILE_NAMES[shell]
    assert capsys.readouterr().out == committed.read_text()


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_new_shell_has_the_completion(isolated_home, shell) -> None:
    """What was written to the start-up file loads the script."""
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    assert main(["completion", "install", shell]) == 0
    ask = {"bash": "complete -p ogate", "zsh": "print -r -- $_comps[ogate]"}[shell]
    done = subprocess.run(
        [program, "-i"],
        input=f"{ask}\nexit\n",
        env={**os.environ, "TERM": "dumb", "ZDOTDIR": str(isolated_home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "_ogate" in done.stdout


def test_fish_finds_the_completion_in_its_own_folder(isolated_home) -> None:
    program = shutil.which("fish")
    if program is None:
        pytest.skip("fish is not installed")
    assert main(["completion", "install", "fish"]) == 0
    done = subprocess.run(
        [program, "-c", "complete -C 'ogate usa'"],
        # Fish loads completions only for programs there are.
        env={
            **os.environ,
            "TERM": "dumb",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.startswith("usage\t")
