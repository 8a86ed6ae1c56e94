"""A configuration above ours must be noticed where it moves a provider, and only there."""

import json
from pathlib import Path

import pytest

from opencode_gate.agents.opencode.configuration import merge_config, session_config
from opencode_gate.agents.opencode.in_force import overruled_settings
from opencode_gate.catalog.rows import ProviderRow

ANTHROPIC = ProviderRow(id="anthropic", name="Anthropic", base_url="https://api.anthropic.com/v1")
CONFIG = session_config([ANTHROPIC], origin="http://127.0.0.1:1", direct=["openai"])


def asked(tmp_path: Path, answer: str, status: int = 0):
    """What is said about a stub that answers `debug config` with `answer`."""
    (tmp_path / "answer").write_text(answer)
    program = tmp_path / "opencode"
    program.write_text(
        f'#!/bin/sh\n[ "$*" = "debug config" ] && cat "$PWD/answer"; exit {status}\n'
    )
    program.chmod(0o700)
    return overruled_settings(program, {"PATH": "/bin:/usr/bin"}, tmp_path, CONFIG)


def test_agreement_is_silence(tmp_path):
    assert asked(tmp_path, json.dumps({**CONFIG, "share": "disabled"})) == ()


@pytest.mark.parametrize(
    ("above", "sentence", "passes_by"),
    [
        (
            {"provider": {"anthropic": {"options": {"baseURL": "https://u:p@corp.example/v1"}}}},
            'provider anthropic is sent to "https://corp.example"',
            True,
        ),
        (
            {"enabled_providers": ["anthropic", "openai", "groq"]},
            "provider groq is enabled and does not pass the gateway",
            True,
        ),
        ({"enabled_providers": ["anthropic"]}, "provider openai is not enabled", False),
        ({"disabled_providers": ["anthropic", "x"]}, "provider anthropic is disabled", False),
    ],
)
def test_what_is_in_force_instead_is_named(tmp_path, above, sentence, passes_by):
    assert asked(tmp_path, json.dumps(merge_config(CONFIG, above))) == ((sentence, passes_by),)


def test_a_configuration_without_a_list_enables_everything(tmp_path):
    answer = {key: value for key, value in CONFIG.items() if key != "enabled_providers"}
    (overruled,) = asked(tmp_path, json.dumps(answer)) or ()
    assert "every provider is enabled" in overruled.sentence
    assert overruled.passes_by


def test_no_answer_is_not_agreement(tmp_path):
    assert asked(tmp_path, "Configuration is invalid", 1) is None
    assert overruled_settings(tmp_path / "absent", {}, tmp_path, CONFIG) is None


def test_the_opencode_that_is_asked_sees_no_key_either(tmp_path):
    program = tmp_path / "opencode"
    program.write_text("#!/bin/sh\nenv > seen\n")
    program.chmod(0o700)
    environ = {"PATH": "/bin:/usr/bin", "OPENAI_API_KEY": "sk-1", "EDITOR": "vi"}
    overruled_settings(program, environ, tmp_path, CONFIG, hidden=["OPENAI_API_KEY"])
    seen = (tmp_path / "seen").read_text()
    assert "EDITOR=vi" in seen
    assert "sk-1" not in seen
