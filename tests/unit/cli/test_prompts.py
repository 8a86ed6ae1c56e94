"""Questions of single commands, and what is left on the screen by someone who leaves."""

import io
import sys

import pytest

from opencode_gate.cli.prompts import ask_text, require_yes


class _Interrupted(io.StringIO):
    def readline(self, size: int = -1) -> str:
        raise KeyboardInterrupt


def test_a_no_is_answered_in_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    with pytest.raises(KeyboardInterrupt):
        require_yes("Remove it?", may_ask=True, instead="x --yes")
    assert capsys.readouterr().err == "Remove it? [y/N]: nothing is changed\n"


@pytest.mark.parametrize("stdin", [_Interrupted(), io.StringIO("")])
def test_whoever_leaves_finds_the_next_line_empty(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], stdin: io.StringIO
) -> None:
    """Ctrl-C and Ctrl-D alike."""
    monkeypatch.setattr(sys, "stdin", stdin)
    with pytest.raises(KeyboardInterrupt):
        ask_text("Name")
    assert capsys.readouterr().err == "Name: \n"
