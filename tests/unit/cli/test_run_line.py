"""The line of `ogate run` is read without Typer, and never otherwise than Typer reads it."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opencode_gate.cli import command_group, run_line
from opencode_gate.cli.commands import run
from opencode_gate.cli.run_line import RunLine, read

_WORDS = st.sampled_from(
    [
        *(run_line.spelled(field) for field in run_line.OPTIONS),
        *(f"{run_line.spelled(field)}=x" for field in run_line.OPTIONS),
        *("--mod", "--summary=json", "--summary=", "--json", "-h", "--help", "-m", "-", "--", ""),
        *(
            "json",
            "table",
            "off",
            "anthropic",
            "a=b",
            "=",
            "--no-input=1",
            "--key=",
            "--no-install",
        ),
    ]
)


def _by_typer(monkeypatch: pytest.MonkeyPatch, words: list[str]) -> Any:
    """What Typer hands to the command, or the error it stops with."""
    seen: list[RunLine] = []
    monkeypatch.setattr(run, "command", seen.append)
    try:
        with command_group.root().make_context("ogate", ["run", *words]) as context:
            context.command.invoke(context)
    except Exception as error:  # noqa: BLE001 - whichever it is, it is no line
        return error
    return seen[0] if seen else None


@given(words=st.lists(_WORDS, max_size=6))
@settings(max_examples=400, deadline=None)
def test_what_is_read_here_is_what_typer_reads(words: list[str]) -> None:
    """Any line that is understood without the parser means the same to it."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        line = read(words)
        assert line is None or _by_typer(monkeypatch, words) == line


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], RunLine()),
        (["--provider", "practice"], RunLine(provider="practice")),
        (
            ["--model=anthropic/claude", "--dry-run"],
            RunLine(model="anthropic/claude", dry_run=True),
        ),
        (["--summary", "json"], RunLine(summary="json")),
        (["--summary-file", "a b.json"], RunLine(summary_file="a b.json")),
        (
            ["--no-input", "--insecure", "--install"],
            RunLine(no_input=True, insecure=True, install=True),
        ),
        (
            [
                "--small-model",
                "m",
                "--key",
                "work",
                "--budget",
                "5",
                "--vkey",
                "v",
                "--gateway",
                "own",
            ],
            RunLine(small_model="m", key="work", budget="5", vkey="v", gateway="own"),
        ),
    ],
)
def test_plain_lines_need_no_parser(
    words: list[str], line: RunLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every option of the table, with what Typer makes of the same words."""
    assert read(words) == line == _by_typer(monkeypatch, words)


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["-h"],
        ["hello"],
        ["--provider"],
        ["--provider", ""],
        ["--provider", "--model"],
        ["--provider", "a", "--provider", "b"],
        ["--summary", "verbose"],
        ["--dry-run=yes"],
        ["--moedl", "x"],
        ["--json"],
    ],
    ids=" ".join,
)
def test_the_rest_is_left_to_the_parser(words: list[str]) -> None:
    """Help, mistakes and what is unusual keep Typer's own words."""
    assert read(words) is None


def test_the_table_and_the_values_have_the_same_fields() -> None:
    """An option that is shown is also read, and the other way round."""
    assert tuple(run_line.OPTIONS) == RunLine._fields
