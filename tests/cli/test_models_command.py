"""`ogate models`: what can be used now, its limits, and a price that is never made up."""

import json

import pytest

from opencode_gate.catalog import refresh as refreshing
from opencode_gate.catalog.refresh import Refreshed
from opencode_gate.cli.main import main
from opencode_gate.config.paths import paths
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


def test_what_each_request_costs_besides_its_tokens_is_shown(capsys) -> None:
    assert main(["models", "show", "perplexity/sonar-pro"]) == 0
    assert "$ 0.014 besides its tokens" in capsys.readouterr().out
    assert main(["models", "show", "perplexity/sonar-pro", "--json"]) == 0
    first, *_ = json.loads(capsys.readouterr().out)["prices"]
    assert first["usd_per_request"] == "0.014"


def test_a_price_of_ones_own_beats_the_books(capsys) -> None:
    main(["config", "set", 'prices."openai/gpt-5.6".input', "1.5"])
    capsys.readouterr()
    model = shown(capsys, "openai/gpt-5.6")
    assert model["price_source"] == "config.toml"
    assert model["price_usd_per_million"]["input"] == "1.5"
    assert model["price_usd_per_million"]["output"] is None


def test_a_price_is_explained_line_by_line_with_its_tiers_its_book_and_its_days(capsys) -> None:
    paths().config_file.parent.mkdir(parents=True, exist_ok=True)
    paths().config_file.write_text(
        '[[prices."openai/gpt-5.6"]]\nuntil = 2026-01-31\ninput = 7\n'
        '[[prices."openai/gpt-5.6"]]\nsince = 2026-02-01\nuntil = 2099-12-31\n'
        "input = 1.5\noutput = 2\ncache_write = 1.75\n"
        '[[prices."openai/gpt-5.6".tiers]]\nabove_input_tokens = 100_000\ninput = 3\n',
        encoding="utf-8",
    )
    model = shown(capsys, "openai/gpt-5.6")
    lines = {line["kind"]: line for line in model["price_lines"]}
    assert (lines["input"]["usd_per_million"], lines["input"]["tiers"]) == (
        "1.5",
        [{"above_input_tokens": 100_000, "usd_per_million": "3"}],
    )
    assert (lines["cache_read"]["usd_per_million"], lines["cache_read"]["charged_as"]) == (
        None,
        "input",
    )
    assert lines["reasoning"]["charged_as"] == "output"
    used, *others = model["prices"]
    assert (used["source"], used["since"], used["until"], used["is_used"]) == (
        "config.toml",
        "2026-02-01",
        "2099-12-31",
        True,
    )
    assert [other["source"].split()[0] for other in others] == ["genai-prices", "catalogue"]
    assert not any(other["is_used"] for other in others)
    assert others[0]["address"].startswith("https://")
    assert main(["models", "show", "openai/gpt-5.6"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for part in (
        "up to 100.0 k input above 100.0 k",
        "input $ 1.5 $ 3",
        "cache read as input as input",
        "cache write, 1 hour $ 1.75 $ 1.75",
        "price from config.toml, since 2026-02-01 until 2099-12-31",
        'written as [prices."openai/gpt-5.6"]',
        "not used genai-prices",
        "not used catalogue 20",
    ):
        assert part in text, part


def test_a_free_model_is_free_by_the_catalogue_and_its_date(capsys) -> None:
    assert main(["models", "show", "opencode/big-pickle"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "price free" in text
    assert "price from catalogue 20" in text


def test_a_provider_that_a_subscription_pays_for_is_said_to_be_covered(
    capsys, monkeypatch, tmp_path
) -> None:
    """The list price is shown, and that it is not charged."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    auth = tmp_path / "opencode" / "auth.json"
    auth.parent.mkdir()
    auth.write_text('{"anthropic": {"type": "oauth", "refresh": "r", "access": "a", "expires": 1}}')
    auth.chmod(0o600)
    assert shown(capsys, "anthropic/claude-sonnet-4-5")["is_covered_by_plan"] is True
    assert main(["models", "show", "anthropic/claude-sonnet-4-5"]) == 0
    assert "covered by plan" in capsys.readouterr().out
    main(["config", "set", "providers.anthropic.subscription", "key"])
    capsys.readouterr()
    assert shown(capsys, "anthropic/claude-sonnet-4-5")["is_covered_by_plan"] is False
    assert shown(capsys, "openai/gpt-5")["is_covered_by_plan"] is False


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
