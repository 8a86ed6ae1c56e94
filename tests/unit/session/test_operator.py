"""Whose budgets hold is not a matter of the environment."""

import os
import pwd

import pytest

from opencode_gate.session.operator import os_user


def test_a_variable_makes_nobody_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "somebody-else")
    assert os_user() == pwd.getpwuid(os.getuid()).pw_name


def test_a_number_without_a_name_goes_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_: int) -> None:
        raise KeyError

    monkeypatch.setattr("pwd.getpwuid", unknown)
    monkeypatch.setenv("LOGNAME", "somebody")
    assert os_user() == "somebody"
