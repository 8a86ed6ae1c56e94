"""Isolation for every test: its own home, no proxies, no keys, no colour."""

import os
import signal
from pathlib import Path

import hypothesis
import pytest

# A shell that starts the tests in the background has them ignore Ctrl-C, and every child inherits
# that; the tests of Ctrl-C need it as a terminal has it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples on every run: a check that fails now and then says nothing about the change
# it is run for. HYPOTHESIS_PROFILE=random looks further.
hypothesis.settings.register_profile("same", derandomize=True)
hypothesis.settings.register_profile("random", derandomize=False)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

_LEAKS = ("_API_KEY", "_PROXY", "_proxy", "_TOKEN")
_PREFIXES = ("OPENCODE_", "OGATE_", "XDG_")


@pytest.fixture(autouse=True)
def isolated_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh home below `tmp_path`; nothing of the user's own is read or written."""
    for name in list(os.environ):
        if name.endswith(_LEAKS) or name.startswith(_PREFIXES):
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("OGATE_HOME", str(home / "ogate"))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("OGATE_CATALOG_REFRESH", "false")
    return home
