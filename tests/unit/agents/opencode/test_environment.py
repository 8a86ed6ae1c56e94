"""Opencode's environment: the user's own, without keys, with what leads to the gateway."""

import json
from pathlib import Path

from opencode_gate.agents.opencode.environment import agent_environment, hidden_variables
from opencode_gate.core.secrets import Secret


def made(environ, **options):
    return agent_environment(
        environ,
        config_json="{}",
        config_path=Path("/run/opencode.json"),
        launch_token=Secret("token-of-this-launch"),
        **options,
    )


def test_the_users_variables_stay_and_hidden_ones_go():
    child = made({"EDITOR": "vi", "OPENAI_API_KEY": "sk"}, hidden=["OPENAI_API_KEY"])
    assert child["EDITOR"] == "vi"
    assert "OPENAI_API_KEY" not in child


def test_the_callers_environment_is_not_changed():
    environ = {"OPENAI_API_KEY": "sk"}
    made(environ, hidden=["OPENAI_API_KEY"])
    assert environ == {"OPENAI_API_KEY": "sk"}


def test_configuration_and_token_are_set():
    child = made({})
    assert child["OPENCODE_CONFIG_CONTENT"] == "{}"
    assert child["OPENCODE_CONFIG"] == "/run/opencode.json"
    assert child["OGATE_KEY"] == "token-of-this-launch"


def test_a_config_file_the_user_named_stays_named():
    assert made({"OPENCODE_CONFIG": "/mine.json"})["OPENCODE_CONFIG"] == "/mine.json"


def test_other_ways_to_a_provider_are_closed():
    child = made({"OPENCODE_EXPERIMENTAL_WEBSOCKETS": "1", "OPENCODE_EXPERIMENTAL_NATIVE_LLM": "1"})
    assert not [name for name in child if name.startswith("OPENCODE_EXPERIMENTAL")]


def test_loopback_is_never_proxied_and_the_users_exceptions_stay():
    child = made({"NO_PROXY": "corp.example", "no_proxy": "other.example, corp.example"})
    expected = "corp.example,other.example,127.0.0.1,localhost,::1"
    assert child["NO_PROXY"] == child["no_proxy"] == expected
    assert made({})["NO_PROXY"] == "127.0.0.1,localhost,::1"
    assert made({"NO_PROXY": "*"})["no_proxy"] == "*"


def test_windows_gets_one_spelling_because_its_names_have_no_case():
    assert "no_proxy" not in made({}, platform="win32")


def test_dangerous_variables_are_never_set():
    child = made({})
    assert "OPENCODE_AUTH_CONTENT" not in child
    assert "OPENCODE_CONFIG_DIR" not in child
    assert not [name for name in child if name.startswith("XDG_")]


def test_keys_in_the_users_replacement_for_auth_json_are_left_out():
    stored = {"openai": {"type": "oauth", "access": "a"}, "groq": {"type": "api", "key": "gsk"}}
    child = made({"OPENCODE_AUTH_CONTENT": json.dumps(stored)})
    assert json.loads(child["OPENCODE_AUTH_CONTENT"]) == {"openai": stored["openai"]}
    assert made({"OPENCODE_AUTH_CONTENT": "sk-broken"})["OPENCODE_AUTH_CONTENT"] == "{}"


def test_plugins_models_and_updates_only_when_asked():
    plain = made({})
    for name in (
        "OPENCODE_DISABLE_DEFAULT_PLUGINS",
        "OPENCODE_MODELS_PATH",
        "OPENCODE_DISABLE_AUTOUPDATE",
    ):
        assert name not in plain
    child = made(
        {}, disable_default_plugins=True, models_path=Path("/m.json"), is_private_copy=True
    )
    assert child["OPENCODE_DISABLE_DEFAULT_PLUGINS"] == "1"
    assert child["OPENCODE_MODELS_PATH"] == "/m.json"
    assert child["OPENCODE_DISABLE_AUTOUPDATE"] == "1"


def test_only_variables_that_are_set_are_said_to_be_hidden():
    environ = {"B_KEY": "x", "A_KEY": "y", "EMPTY": ""}
    assert hidden_variables(environ, ["B_KEY", "A_KEY", "EMPTY", "ABSENT"]) == ("A_KEY", "B_KEY")
