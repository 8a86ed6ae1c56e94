"""A real terminal (tmux) with one program in it, for tests that look at the screen."""

import os
import shlex
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

PATIENCE_S = 60.0
_SHELL = ("env", "PS1=$ ", "bash", "--norc", "--noprofile")


class TerminalScreen:
    """One tmux server of its own with one window; closed by `close` or at the end of `with`."""

    def __init__(
        self,
        folder: Path,
        *,
        columns: int = 80,
        rows: int = 24,
        environ: dict[str, str] | None = None,
    ) -> None:
        self._socket = str(folder / "tmux.sock")
        environ = dict(os.environ) if environ is None else environ
        self._environ = {**environ, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
        self._tmux("new-session", "-d", "-x", str(columns), "-y", str(rows), *_SHELL)
        self.wait_for(lambda screen: screen.startswith("$"))

    def __enter__(self) -> "TerminalScreen":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, command: Sequence[str]) -> None:
        """Types a command into the shell."""
        self.type(shlex.join(command))
        self.press("Enter")

    def type(self, text: str) -> None:
        """Types text as it is."""
        self._tmux("send-keys", "-l", text)

    def press(self, *keys: str) -> None:
        """Presses keys by their tmux names (`Enter`, `Escape`, `C-c`, `Down`)."""
        self._tmux("send-keys", *keys)

    def resize(self, columns: int, rows: int) -> None:
        """Changes the size of the window."""
        self._tmux("resize-window", "-x", str(columns), "-y", str(rows))

    def text(self, *, colours: bool = False) -> str:
        """What is on the screen now."""
        return self._tmux("capture-pane", "-p", *(["-e"] if colours else []))

    def modes(self) -> dict[str, bool]:
        """Which of the modes that a full-screen program sets are in force."""
        names = ("alternate_on", "mouse_any_flag", "keypad_cursor_flag")
        shown = self._tmux("display-message", "-p", " ".join(f"#{{{name}}}" for name in names))
        modes = {name: value == "1" for name, value in zip(names, shown.split(), strict=True)}
        return {**modes, "cursor_hidden": self._tmux("display", "-p", "#{cursor_flag}") == "0\n"}

    def shell_pid(self) -> int:
        """The shell in the window."""
        return int(self._tmux("display-message", "-p", "#{pane_pid}"))

    def server_pid(self) -> int:
        """The process that plays the terminal."""
        return int(self._tmux("display-message", "-p", "#{pid}"))

    def hang_up(self) -> None:
        """Closes the window as a person does who clicks it away."""
        self._tmux("kill-pane")

    def wait_for(self, seen: str | Callable[[str], bool]) -> str:
        """The screen once it contains the text (or fulfils the condition).

        Raises:
            AssertionError: it did not within the patience of a slow machine.
        """
        deadline = time.monotonic() + PATIENCE_S
        while True:
            screen = self.text()
            if seen in screen if isinstance(seen, str) else seen(screen):
                return screen
            if time.monotonic() > deadline:
                raise AssertionError(f"{seen!r} did not appear on the screen:\n{screen}")
            time.sleep(0.05)

    def close(self) -> None:
        """Ends the terminal and what runs in it."""
        subprocess.run(["tmux", "-S", self._socket, "kill-server"], check=False)

    def _tmux(self, *arguments: str) -> str:
        done = subprocess.run(
            ["tmux", "-S", self._socket, "-f", "/dev/null", *arguments],
            env=self._environ,
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout
