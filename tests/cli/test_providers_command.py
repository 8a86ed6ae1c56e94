"""`ogate providers`: each one with its state and what would change it, and servers of one's own."""

import json
import tomllib

import pytest

from opencode_gate.cli.main import main
from opencode_gate.config.paths import paths


@pytest.fixture(autouse=True)
def no_local_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """What happens to listen on this machine is no part of these tests."""
    monkeypatch.setattr("opencode_gate.session.discovery.find_local_servers", lambda: ())


def listed(capsys, *arguments: str) -> dict[str, dict]:
    assert main(["providers", "list", *arguments, "--json"]) == 0
    return {row["id"]: row for row in json.loads(capsys.readouterr().out)["providers"]}


def config() -> dict:
    return tomllib.loads(paths().config_file.read_text())


def test_without_a_key_only_what_needs_none_is_ready(capsys) -> None:
    assert set(listed(capsys)) == {"opencode", "practice"}


def test_a_key_in_the_environment_makes_a_provider_ready(capsys, monkeypatch) -> None:
    monkeypatch.setenv("MISTRAL_API_KEY", "secret-of-mistral")
    row = listed(capsys)["mistral"]
    assert (row["state"], row["key"]) == ("ready", "MISTRAL_API_KEY")
    assert main(["providers", "show", "mistral"]) == 0
    assert "secret-of-mistral" not in capsys.readouterr().out


def test_all_of_them_have_a_state_and_a_reason(capsys) -> None:
    rows = listed(capsys, "--all")
    assert len(rows) == 226
    states = {state: [i for i, row in rows.items() if row["state"] == state] for state in STATES}
    assert sum(len(ids) for ids in states.values()) == 226
    assert all(rows[one]["why_not"] for one in states["unsupported"])
    assert all(rows[one]["missing_variables"] for one in states["needs-variable"])
    assert "amazon-bedrock" in states["unsupported"]
    assert "databricks" in states["needs-variable"]
    assert "anthropic" in states["no-key"]


STATES = ("ready", "no-key", "needs-variable", "unsupported")


def test_a_text_finds_providers_that_are_not_ready(capsys) -> None:
    assert set(listed(capsys, "bedrock")) == {"amazon-bedrock"}


@pytest.mark.parametrize(
    ("provider_id", "says"),
    [
        ("anthropic", "ogate keys add anthropic"),
        ("databricks", "--variable DATABRICKS_HOST="),
        ("amazon-bedrock", "binary event stream"),
    ],
)
def test_a_provider_that_is_not_ready_says_what_is_missing(capsys, provider_id, says) -> None:
    assert main(["providers", "show", provider_id]) == 0
    assert says in capsys.readouterr().out


@pytest.mark.parametrize("verb", [["show"], ["edit", "--name", "x"]])
def test_an_unknown_name_brings_the_nearest(capsys, verb) -> None:
    assert main(["providers", verb[0], "antropic", *verb[1:]]) == 2
    heard = capsys.readouterr().err
    assert "[unknown-provider]" in heard
    assert "anthropic" in heard


def test_a_server_of_ones_own_is_added_with_its_models(capsys) -> None:
    line = ["providers", "add", "mine", "--base-url", "http://127.0.0.1:9/v1", "--wire"]
    assert main([*line, "anthropic", "--no-key", "--model", "a/b:c", "--model", "d"]) == 0
    assert "ogate run --provider mine" in capsys.readouterr().err
    assert config()["providers"]["mine"] == {
        "base_url": "http://127.0.0.1:9/v1",
        "wire": "anthropic",
        "keyless": True,
        "models": {"a/b:c": {}, "d": {}},
    }
    row = listed(capsys)["mine"]
    assert (row["state"], row["wire"], row["model_count"]) == ("ready", "anthropic", 2)


def test_a_server_that_needs_a_key_says_how_to_add_it(capsys) -> None:
    assert main(["providers", "add", "mine", "--base-url", "https://h/v1", "--wire", "gemini"]) == 0
    heard = capsys.readouterr().err
    assert "ogate keys add mine" in heard
    assert "--model ID" in heard
    assert listed(capsys, "mine")["mine"]["state"] == "no-key"


@pytest.mark.parametrize(
    ("line", "status", "says"),
    [
        (["openai", "--base-url", "https://h/v1", "--wire", "gemini"], 2, "providers edit openai"),
        (["Mine", "--base-url", "https://h/v1", "--wire", "gemini"], 3, "small letters"),
        (["mine", "--base-url", "h/v1", "--wire", "gemini"], 3, "https://"),
        (["mine", "--base-url", "https://h/v1", "--wire", "soap"], 2, "openai-chat"),
        (["mine", "--wire", "gemini"], 2, "--base-url"),
    ],
)
def test_what_cannot_be_a_server_is_refused_and_nothing_written(capsys, line, status, says) -> None:
    assert main(["providers", "add", *line]) == status
    assert says in capsys.readouterr().err
    assert not paths().config_file.exists()


def test_a_built_in_provider_is_sent_elsewhere_and_back(capsys) -> None:
    line = ["providers", "edit", "anthropic", "--base-url", "https://gw.example/anthropic/v1"]
    header = "cf-aig-authorization=Bearer {env:CF_AIG_TOKEN}"
    assert main([*line, "--header", header, "--auth-header", "x-key"]) == 0
    assert main(["providers", "edit", "anthropic", "--subscription", "key"]) == 0
    assert main(["providers", "edit", "anthropic", "--stream-usage", "never"]) == 0
    capsys.readouterr()
    row = listed(capsys, "anthropic")["anthropic"]
    assert row["base_url"] == "https://gw.example/anthropic/v1"
    assert row["headers"] == {"cf-aig-authorization": "Bearer {env:CF_AIG_TOKEN}"}
    assert (row["auth_header"], row["subscription"]) == ("x-key", "key")
    assert row["stream_usage"] == "never"
    assert main(["providers", "remove", "anthropic", "--yes"]) == 0
    capsys.readouterr()
    back = listed(capsys, "anthropic")["anthropic"]
    assert (back["base_url"], back["headers"]) == ("https://api.anthropic.com/v1", {})


def test_a_variable_of_a_header_that_is_not_set_is_said(capsys, monkeypatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "x")
    main(["providers", "edit", "anthropic", "--header", "x-token={env:CF_AIG_TOKEN}"])
    capsys.readouterr()
    row = listed(capsys, "anthropic")["anthropic"]
    assert (row["state"], row["unset_variables"]) == ("needs-variable", ["CF_AIG_TOKEN"])
    monkeypatch.setenv("CF_AIG_TOKEN", "t")
    assert listed(capsys, "anthropic")["anthropic"]["state"] == "ready"


def test_a_secret_is_not_written_into_a_header(capsys) -> None:
    line = ["providers", "edit", "anthropic", "--header", "x-api-key=sk-ant-verysecret"]
    assert main(line) == 2
    heard = capsys.readouterr().err
    assert "{env:" in heard
    assert "sk-ant-verysecret" not in heard
    assert not paths().config_file.exists()


def test_a_variable_of_an_address_is_kept(capsys) -> None:
    assert main(["providers", "edit", "databricks", "--variable", "DATABRICKS_HOST=h.example"]) == 0
    capsys.readouterr()
    row = listed(capsys, "databricks")["databricks"]
    assert row["base_url"] == "https://h.example/ai-gateway/mlflow/v1"


def test_an_address_without_encryption_is_remarked_on(capsys) -> None:
    assert main(["providers", "edit", "openai", "--base-url", "http://proxy.corp/v1"]) == 0
    assert "not encrypted" in capsys.readouterr().err
    assert main(["providers", "edit", "openai", "--base-url", "http://127.0.0.1:1/v1"]) == 0
    assert "not encrypted" not in capsys.readouterr().err


def test_a_servers_address_without_encryption_is_remarked_on_where_a_key_goes_there(
    capsys,
) -> None:
    line = ["providers", "add", "work", "--base-url", "http://llm.example/v1", "--wire", "gemini"]
    assert main(line) == 0
    assert "not encrypted" in capsys.readouterr().err
    line[2], line[4] = "here", "http://127.0.0.1:9/v1"
    assert main(line) == 0
    assert "not encrypted" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (["edit", "openai"], "nothing to change"),
        (["edit", "openai", "--header", "no-value"], "NAME=VALUE"),
        (["remove", "openai", "--yes"], "says nothing about"),
        (["remove", "nobody", "--yes"], "[unknown-provider]"),
    ],
)
def test_a_change_that_makes_no_sense_is_a_usage_error(capsys, line, says) -> None:
    assert main(["providers", *line]) == 2
    assert says in capsys.readouterr().err


def test_removing_asks_and_without_a_terminal_needs_a_yes(capsys) -> None:
    main(["providers", "add", "mine", "--base-url", "https://h/v1", "--wire", "gemini"])
    before = paths().config_file.read_text()
    capsys.readouterr()
    assert main(["providers", "remove", "mine"]) == 2
    assert "--yes" in capsys.readouterr().err
    assert paths().config_file.read_text() == before
    assert main(["providers", "remove", "mine", "--yes"]) == 0
    assert config() == {} or "mine" not in config().get("providers", {})
