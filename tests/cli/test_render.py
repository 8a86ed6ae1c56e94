"""What reaches a terminal, a pipe, and a program that reads JSON."""

import json
import os
import subprocess
import sys
import types
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pexpect
import pytest

from opencode_gate.cli import registry
from opencode_gate.cli.exit_codes import ExitCode
from opencode_gate.cli.main import main
from opencode_gate.cli.render import (
    Column,
    Fact,
    Facts,
    Result,
    Table,
    Text,
    render,
    render_error,
    talk,
)
from opencode_gate.core import errors
from opencode_gate.core.errors import GateError, UsageError

WIDE = "x" * 150
TABLE = Table(
    columns=(Column("name", wrap=True), Column("amount", "right")),
    rows=[(WIDE, "$ 1.5"), ("b", "$ 10.25")],
    footer=("total", "$ 11.75"),
)


def test_nothing_is_cut_on_its_way_into_a_pipe(capsys) -> None:
    """Also not when the terminal behind the pipe is narrow."""
    assert render(Result(data={}, blocks=[TABLE]), as_json=False) == 0
    assert capsys.readouterr().out == (
        f"{'name':<150}    amount\n{WIDE}     $ 1.5\n{'b':<150}   $ 10.25\n"
        f"{'total':<150}   $ 11.75\n"
    )


def test_a_table_adapts_to_a_narrow_terminal(capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    render(Result(data={}, blocks=[TABLE]), as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 40
    assert "$ 10.25" in "\n".join(lines)


def test_a_width_of_nothing_is_none() -> None:
    """`COLUMNS=0` is of a terminal that does not know its width: all is shown, in a pipe too."""
    line = [sys.executable, "-m", "opencode_gate.cli.main", "config", "path"]
    environ = dict(os.environ, COLUMNS="0", PYTHONUNBUFFERED="1")
    piped = subprocess.run(line, env=environ, capture_output=True, text=True, check=True).stdout
    assert "ledger_file" in piped
    terminal = pexpect.spawn(line[0], line[1:], env=environ, encoding="utf-8", timeout=30)
    terminal.expect("ledger_file")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0


def test_what_a_server_said_cannot_drive_the_terminal(capsys) -> None:
    """Its words are quoted in what is said and in errors."""
    talk("it said \x1b]0;title\x07")
    render_error(UsageError("usage", "no \x1b[2J", hint="h\x9b", details=("d\x1b",)))
    said = capsys.readouterr().err
    assert not any(character in said for character in "\x1b\x07\x9b")
    assert said.count("\n") == 4


def test_markup_and_control_characters_are_only_text(capsys) -> None:
    """Names and titles come from models and other people."""
    blocks = [Text("[red]a[/red]"), Facts([Fact("t", "b\x1b[31mc\x9b")]), Text("plain\x07")]
    render(Result(data={}, blocks=blocks), as_json=False)
    assert capsys.readouterr().out == "[red]a[/red]\nt   b\ufffd[31mc\ufffd\nplain\ufffd\n"


def test_json_is_one_document_and_amounts_stay_exact(capsys) -> None:
    result = Result(
        data={"amount": Decimal("0.10")}, blocks=[TABLE], talk=["by the way"], exit_code=1
    )
    assert render(result, as_json=True) == 1
    out, err = capsys.readouterr()
    assert json.loads(out) == {"version": 1, "amount": "0.10"}
    assert err == "by the way\n"


def _ogate(*line: str) -> list[str]:
    return [sys.executable, "-m", "opencode_gate.cli.main", *line]


@pytest.mark.parametrize(("no_colour", "coloured"), [("", True), ("1", False)])
def test_an_error_is_red_on_a_terminal_unless_that_is_not_wanted(no_colour, coloured) -> None:
    environment = {**os.environ, "NO_COLOR": no_colour, "TERM": "xterm"}
    said = pexpect.run(" ".join(_ogate("nonsense")), env=environment, encoding="utf-8")
    assert ("\x1b[31merror:\x1b[0m" in said) == coloured
    assert "error:" in said


def test_no_colour_in_a_pipe() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    done = subprocess.run(_ogate("nonsense"), env=environment, capture_output=True, check=False)
    assert done.returncode == 2
    assert b"\x1b" not in done.stderr


@pytest.mark.parametrize("line", ["completion show fish", "--help", "usage", "doctor --json"])
def test_a_reader_that_goes_away_is_no_error(line) -> None:
    """`ogate … | head -1` ends quietly with the status of a program that SIGPIPE ended."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        _ogate(*line.split()), stdout=writing, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_terminal_that_knows_only_ascii_gets_the_rest() -> None:
    done = subprocess.run(
        _ogate("doctor"),
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1)
    assert "? python" in done.stdout


def test_ctrl_c_on_the_terminal_ends_with_130_and_no_traceback(tmp_path: Path) -> None:
    """Also when it comes in the middle of a question."""
    (tmp_path / "home" / ".bashrc").write_text("")
    subprocess.run(_ogate("alias", "install", "bash"), check=True, capture_output=True)
    child = pexpect.spawn(
        sys.executable, _ogate("uninstall")[1:], encoding="utf-8", timeout=30, env=dict(os.environ)
    )
    child.expect("Remove all of this")
    child.sendintr()
    child.expect(pexpect.EOF)
    child.close()
    assert "Traceback" not in (child.before or "")
    assert (child.exitstatus, child.signalstatus) == (130, None)


def test_every_documented_way_to_end_is_reachable(monkeypatch, capsys) -> None:
    """The status of each family of errors is the one of the table."""
    families = {
        errors.CheckFailed: ExitCode.CHECK_FAILED,
        errors.UsageError: ExitCode.USAGE,
        errors.ConfigError: ExitCode.CONFIGURATION,
        errors.CredentialError: ExitCode.CREDENTIAL,
        errors.GatewayError: ExitCode.GATEWAY,
        errors.LedgerError: ExitCode.LEDGER,
        errors.PolicyDenied: ExitCode.DENIED,
        errors.UpstreamError: ExitCode.UPSTREAM,
        errors.AgentUnusable: ExitCode.AGENT_UNUSABLE,
        errors.AgentMissing: ExitCode.AGENT_MISSING,
        errors.GateError: ExitCode.RUN_FAILED,
    }
    for family, status in families.items():
        module = types.ModuleType(registry.COMMANDS["doctor"].module)
        module.command = _raising(family)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        assert main(["doctor"]) == status
        assert "it went wrong" in capsys.readouterr().err


def _raising(family: type[GateError]) -> Callable[[], None]:
    def command() -> None:
        raise family("usage", "it went wrong")

    return command
