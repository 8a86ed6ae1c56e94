"""`ogate models`: what can be used now, its limits, and a price that is never made up."""

import json

import pytest

from opencode_gate.catalog import refresh as refreshing
from opencode_gate.catalog.refresh import Refreshed
from opencode_gate.cli.main import main
from opencode_gate.core.errors import UpstreamError


@pytest.fixture(autouse=True)
def no_local_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """What happens to listen on this machine is no part of these tests."""
    monkeypatch.setattr("opencode_gate.session.discovery.find_local_servers", lambda: ())


def listed(capsys, *arguments: str) -> list[dict]:
    assert main(["models", "list", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)["models"]


def shown(capsys, model: str) -> dict:
    assert main(["models", "show", model, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_newcomer_sees_the_free_models_and_the_scripted_one(capsys) -> None:
    models = listed(capsys)
    assert {model["provider"] for model in models} == {"opencode", "practice"}
    assert all(model["price_usd_per_million"]["input"] == "0" for model in models)


def test_with_a_key_the_models_of_its_provider_are_there(capsys, monkeypatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "x")
    (found,) = [m for m in listed(capsys) if m["id"] == "claude-sonnet-4-5"]
    assert found["provider"] == "anthropic"
    assert found["context_tokens"] == 1_000_000
    assert found["tool_call"] is True
    assert found["price_usd_per_million"]["output"] == "15"


def test_a_provider_named_is_listed_ready_or_not(capsys) -> None:
    assert {model["provider"] for model in listed(capsys, "groq")} == {"groq"}


def test_all_lists_the_whole_catalogue_and_a_search_narrows_it(capsys) -> None:
    assert len(listed(capsys, "--all")) > 8000
    found = listed(capsys, "--all", "--search", "deepseek v3.1")
    assert found
    for model in found:
        line = f"{model['provider']}/{model['id']} {model['name']}".lower()
        assert "deepseek" in line
        assert "v3.1" in line


def test_a_model_shows_the_price_a_session_is_charged_and_its_book(capsys) -> None:
    model = shown(capsys, "openai/gpt-5.6")
    assert model["price_source"].startswith("genai-prices ")
    assert model["price_usd_per_million"]["input"] == "4"
    (tier,) = model["price_usd_per_million"]["tiers"]
    assert (tier["above_input_tokens"], tier["input"]) == (272_000, "8")


def test_a_price_of_ones_own_beats_the_books(capsys) -> None:
    main(["config", "set", 'prices."openai/gpt-5.6".input', "1.5"])
    capsys.readouterr()
    model = shown(capsys, "openai/gpt-5.6")
    assert model["price_source"] == "config.toml"
    assert model["price_usd_per_million"]["input"] == "1.5"
    assert model["price_usd_per_million"]["output"] is None


def test_a_model_without_a_price_is_unknown_and_not_free(capsys) -> None:
    line = ["providers", "add", "mine", "--base-url", "http://127.0.0.1:9/v1", "--wire"]
    main([*line, "openai-chat", "--no-key", "--model", "m"])
    capsys.readouterr()
    assert shown(capsys, "mine/m")["price_usd_per_million"] is None
    assert main(["models", "show", "mine/m"]) == 0
    text = capsys.readouterr().out
    assert "unknown" in text
    assert "free" not in text
    assert main(["models", "list", "mine"]) == 0
    assert "?" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("model", "code", "says"),
    [
        ("openai/gpt5", "unknown-model", "gpt-5"),
        ("opnai/gpt-5", "unknown-provider", "openai"),
        ("claude-sonnet-4-5", "unknown-model", "anthropic/claude-sonnet-4-5"),
        ("no-such-model-anywhere", "unknown-model", "ogate models list --all"),
    ],
)
def test_a_name_that_is_missed_brings_the_nearest(capsys, model, code, says) -> None:
    assert main(["models", "show", model]) == 2
    heard = capsys.readouterr().err
    assert f"[{code}]" in heard
    assert says in heard


def test_an_unknown_provider_in_a_list_is_an_error(capsys) -> None:
    assert main(["models", "list", "opnai"]) == 2
    assert "openai" in capsys.readouterr().err


def test_refresh_says_what_came_of_it(capsys, monkeypatch) -> None:
    monkeypatch.setattr(
        refreshing, "refresh", lambda _: Refreshed(outcome="updated", date="2026-09-28")
    )
    assert main(["models", "refresh", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["outcome"], answer["provider_count"]) == ("updated", 226)


def test_a_refresh_that_fails_is_an_upstream_error(capsys, monkeypatch) -> None:
    def fail(_: object) -> None:
        raise UpstreamError("upstream-unreachable", "cannot fetch it", hint="stays in use")

    monkeypatch.setattr(refreshing, "refresh", fail)
    assert main(["models", "refresh"]) == 8
    assert "stays in use" in capsys.readouterr().err
