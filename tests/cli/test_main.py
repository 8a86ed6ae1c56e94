"""The entry point: what it answers itself, how it splits the line, and how everything ends."""

import errno
import sys
import types
from collections.abc import Callable

import pytest

from opencode_gate import __version__
from opencode_gate.cli import registry
from opencode_gate.cli.main import main
from opencode_gate.cli.render import Result, Text
from opencode_gate.cli.run_line import RunLine
from opencode_gate.core.errors import CredentialError


@pytest.fixture
def put_command(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, object], None]:
    """Replaces the module behind a command, so that only the frame around it is tested."""

    def put(name: str, command: object) -> None:
        module = types.ModuleType(registry.COMMANDS[name].module)
        module.command = command  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)

    return put


@pytest.fixture
def ran(put_command) -> list[tuple[str | None, tuple[str, ...]]]:
    """What `run` was called with: its provider and the words behind `--`."""
    calls: list[tuple[str | None, tuple[str, ...]]] = []

    def command(line: RunLine) -> int:
        calls.append((line.provider, registry.tail_arguments()))
        return 3

    put_command("run", command)
    return calls


def test_version_is_one_line(capsys) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"ogate {__version__}\n"


@pytest.mark.parametrize(
    ("line", "provider", "tail"),
    [
        ([], None, ()),
        (["run"], None, ()),
        (["--provider", "p"], "p", ()),
        (["run", "--provider", "p", "--", "run", "fix it"], "p", ("run", "fix it")),
        (["--", "-s", "ses_1"], None, ("-s", "ses_1")),
        (["run", "--", "--version"], None, ("--version",)),
        (["run", "--", "a", "--", "b"], None, ("a", "--", "b")),
        (["run", "--", "--debug", "--help"], None, ("--debug", "--help")),
        (["run", "--"], None, ()),
    ],
)
def test_the_line_is_split_at_its_first_double_dash(ran, line, provider, tail) -> None:
    """What is behind reaches the command untouched; without a name the line is for `run`."""
    assert main(line) == 3
    assert ran == [(provider, tail)]


def test_words_before_the_double_dash_are_refused_with_the_right_form(ran, capsys) -> None:
    assert main(["run", "--provider", "p", "fix the test"]) == 2
    assert ran == []
    assert "hint: ogate run --provider p -- run 'fix the test'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        (["run", "--provider", "p", "run", "fix it"], "run --provider p -- run 'fix it'"),
        (["--provider", "p", "run", "fix it"], "run --provider p -- run 'fix it'"),
        (["run", "serve"], "run -- serve"),
        (["run", "auth", "login"], "run -- auth login"),
    ],
)
def test_a_command_of_opencode_before_the_double_dash_is_put_behind_it(
    ran, capsys, line, hint
) -> None:
    """Also where ogate has one of the same name."""
    assert main(line) == 2
    assert f"hint: ogate {hint}\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        (["run", "--wrong"], "no such option: --wrong", "ogate run --help"),
        (["uage"], "no such command 'uage'. Did you mean 'usage'?", "ogate --help"),
        (["uage", "--", "x"], "no such command 'uage'", "ogate --help"),
        (["usage", "--", "x"], "`ogate usage` takes nothing behind `--`", "ogate usage --help"),
        (["env"], "missing argument 'AGENT'. Choose from: opencode", "ogate env --help"),
        (["--no-input", "usage"], "come after its name", "ogate usage --help"),
    ],
)
def test_usage_errors_have_our_form_and_exit_2(ran, capsys, line, message, hint) -> None:
    assert main(line) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert message in err
    assert "[usage]" in err
    assert f"  hint: {hint}\n" in err


def test_a_gate_error_is_rendered_with_its_parts_and_status(put_command, capsys) -> None:
    def command() -> None:
        raise CredentialError(
            "missing-credential",
            "no credential for x",
            hint="ogate keys add x",
            details=("looked",),
        )

    put_command("doctor", command)
    assert main(["doctor"]) == 4
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "error: no credential for x  [missing-credential]\n  looked\n  hint: ogate keys add x\n"
    )


def test_ctrl_c_is_130_and_silent(put_command, capsys) -> None:
    def command() -> None:
        raise KeyboardInterrupt

    put_command("doctor", command)
    assert main(["doctor"]) == 130
    assert capsys.readouterr() == ("", "")


def test_a_bug_is_one_line_and_70_and_a_traceback_only_with_debug(put_command, capsys) -> None:
    def command() -> None:
        raise RuntimeError("first\nsecond")

    put_command("doctor", command)
    assert main(["doctor"]) == 70
    err = capsys.readouterr().err
    assert "RuntimeError: first  [bug]" in err
    assert "Traceback" not in err
    assert main(["doctor", "--debug"]) == 70
    assert "Traceback" in capsys.readouterr().err


def test_a_full_disk_is_no_bug_of_ours(put_command, capsys) -> None:
    """As in `ogate usage >report.txt`."""

    def fill() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    put_command("doctor", fill)
    assert main(["doctor"]) == 3
    assert "No space left on device  [folder-unwritable]" in capsys.readouterr().err


def test_a_returned_result_is_rendered_once_as_json_or_for_people(put_command, capsys) -> None:
    """`--json` puts one document with its version on stdout, the talk stays on stderr."""

    def command(as_json: bool = False) -> Result:
        return Result(data={"n": 1}, blocks=[Text("for people")], talk=["said"], exit_code=1)

    import typer

    command.__annotations__["as_json"] = bool
    command.__defaults__ = (typer.Option(False, "--json"),)
    put_command("doctor", command)
    assert main(["doctor", "--json"]) == 1
    out, err = capsys.readouterr()
    assert out == '{\n  "version": 1,\n  "n": 1\n}\n'
    assert err == "said\n"
    assert main(["doctor"]) == 1
    assert capsys.readouterr().out == "for people\n"
