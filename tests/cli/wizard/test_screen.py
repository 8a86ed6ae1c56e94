"""The wizard on a real terminal, as a person sees it, over the models of the whole catalogue."""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.terminal_screen import TerminalScreen
from tests.support.wizard_driver import GOOD_KEY

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed"),
]

REPOSITORY = Path(__file__).parents[3]

Show = Callable[..., TerminalScreen]


@pytest.fixture
def show(tmp_path: Path) -> Iterator[Show]:
    """Opens a terminal of a given size with the wizard running in it."""
    screens: list[TerminalScreen] = []
    # A socket's path has about 100 characters at most; pytest's folders are longer.
    with tempfile.TemporaryDirectory(prefix="wz") as folder:

        def open_screen(
            *arguments: str, columns: int = 80, rows: int = 24, colour: bool = False
        ) -> TerminalScreen:
            environ = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
            if colour:
                del environ["NO_COLOR"]
            screen = TerminalScreen(Path(folder), columns=columns, rows=rows, environ=environ)
            screens.append(screen)
            driver = [sys.executable, "-m", "tests.support.wizard_driver", *arguments]
            screen.type("clear; cd " + str(tmp_path))
            screen.press("Enter")
            screen.run([*driver, "--log", str(tmp_path / "log")])
            return screen

        yield open_screen
        for screen in screens:
            screen.close()


def deeds_in(tmp_path: Path) -> list[str]:
    log = tmp_path / "log"
    return log.read_text().splitlines() if log.exists() else []


def test_from_nothing_to_a_session(show: Show, tmp_path: Path) -> None:
    """Provider, key, model, ready: all four screens, and nothing of them is left behind."""
    screen = show()
    first = screen.wait_for("step 1 of 4")
    assert "Anthropic" in first and "OS keyring" in first
    assert "OPENAI_API_KEY" in first and "Opencode's auth.json" in first
    assert "free, no account" in first and "scripted practice model" in first
    screen.type("groq")
    screen.wait_for("1 of 209")
    screen.press("Enter")
    assert "https://console.groq.com/keys" in screen.wait_for("Key for Groq")
    screen.type("sk-not-the-right-one")
    screen.press("Enter")
    screen.wait_for("refused this key")
    screen.press("Enter")
    screen.wait_for("Key for Groq")
    screen.type(GOOD_KEY)
    hidden = screen.wait_for("*" * len(GOOD_KEY))
    assert GOOD_KEY not in hidden
    screen.press("Enter")
    models = screen.wait_for("step 3 of 4")
    assert "context" in models and "$/M in" in models and "tools" in models
    screen.press("Enter")
    ready = screen.wait_for("step 4 of 4")
    for shown in ("Groq", "claude-sonnet-5", "claude-haiku-5", "/home/you/my-repo", "1.18.33"):
        assert shown in ready
    assert "budget       session $0 of $5.00 · today $6.40 of $20.00" in ready
    assert not [deed for deed in deeds_in(tmp_path) if deed.startswith("store")]
    screen.press("Enter")
    after = screen.wait_for('"provider": "groq"')
    assert "step" not in after and "enter start" not in after
    assert deeds_in(tmp_path)[-1] == "store groq …abcd"


def test_search_over_the_whole_catalogue(show: Show) -> None:
    """Thousands of models, narrowed word by word to the one that is picked."""
    screen = show("--start", "openrouter")
    screen.wait_for("Which model of OpenRouter?")
    screen.type("anthropic/claude")
    screen.wait_for(lambda text: "? Which" in text and " of 7," in text)
    screen.type(" sonnet-4-5 20250929")
    screen.wait_for("❯ anthropic/claude-sonnet-4-5-20250929")
    screen.press("Enter")
    assert "anthropic/claude-sonnet-4-5-20250929" in screen.wait_for("step 4 of 4")


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (60, 24), (60, 12), (120, 40)])
def test_every_screen_fits(show: Show, columns: int, rows: int) -> None:
    """Question and keys are both visible at any reasonable size, before and after a resize."""
    screen = show("--start", "openrouter", columns=columns, rows=rows)
    models = screen.wait_for("enter choose")
    assert "Which model of OpenRouter?" in models and "❯" in models
    screen.press("Enter")
    ready = screen.wait_for("enter start")
    assert "OpenRouter" in ready
    screen.press("p")
    providers = screen.wait_for("step 1 of 4")
    assert "Where do the models come from?" in providers and "enter choose" in providers
    screen.resize(70, 20)
    screen.press("Down")
    assert "❯ ● Ollama" in screen.wait_for("❯ ● Ollama")


@pytest.mark.parametrize("keys", [[], ["p"], ["m"]])
def test_ctrl_c_leaves_a_clean_terminal(show: Show, tmp_path: Path, keys: list[str]) -> None:
    """130, nothing done, no traceback, and the shell works as before."""
    screen = show("--start", "anthropic", "claude-sonnet-5")
    screen.wait_for("step 4 of 4")
    for key in keys:
        screen.press(key)
        screen.wait_for("enter choose")
    screen.press("C-c")
    screen.wait_for(lambda text: text.rstrip().endswith("$"))
    screen.type("echo status $?")
    screen.press("Enter")
    after = screen.wait_for("status 130")
    assert "Traceback" not in after and "step" not in after.replace("--start", "")
    assert deeds_in(tmp_path) == []


def test_escape_goes_back_and_arrows_are_not_taken_for_it(show: Show) -> None:
    """Esc from the last screen through the models to the providers."""
    screen = show()
    screen.wait_for("step 1 of 4")
    screen.press("Enter")
    screen.wait_for("step 3 of 4")
    screen.press("Down", "Up", "Down")
    screen.wait_for("❯ claude-haiku-5")
    screen.press("Enter")
    screen.wait_for("step 4 of 4")
    screen.press("Escape")
    screen.wait_for("step 3 of 4")
    screen.press("Escape")
    screen.wait_for("step 1 of 4")


def test_no_colour_when_it_is_not_wanted(show: Show) -> None:
    """With NO_COLOR no colour code is sent; bold and dim remain."""
    plain = show("--start", "openrouter")
    plain.wait_for("step 3 of 4")
    assert "\x1b[3" not in plain.text(colours=True).replace("\x1b[39m", "")


def test_colour_marks_what_is_usable(show: Show) -> None:
    """Where a key lies is green."""
    screen = show(colour=True)
    screen.wait_for("step 1 of 4")
    assert "\x1b[32m" in screen.text(colours=True)
