"""What the how-to pages about providers tell a person to type does what the pages promise."""

import re
import shlex
from pathlib import Path

import pytest

from opencode_gate.catalog.catalogue import open_catalogue
from opencode_gate.catalog.header_values import sent_headers
from opencode_gate.cli.main import main
from opencode_gate.config.paths import paths
from opencode_gate.config.settings import load_settings, parse_settings

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "cloudflare-ai-gateway.md"


def edits() -> list[list[str]]:
    """The `ogate providers edit` lines of the page, as words."""
    text = PAGE.read_text(encoding="utf-8").replace("\\\n", " ")
    return [shlex.split(line)[1:] for line in re.findall(r"^ogate providers edit .*$", text, re.M)]


def test_its_edits_send_the_provider_through_cloudflare(capsys) -> None:
    for line in edits():
        assert main(line) == 0, capsys.readouterr().err
    row = open_catalogue(paths(), load_settings(paths(), {}), {}).provider("anthropic")
    assert row.base_url == ("https://gateway.ai.cloudflare.com/v1/ACCOUNT/GATEWAY/anthropic/v1")
    assert row.why_not is None
    assert sent_headers(row.headers, {"CF_AIG_TOKEN": "t"}) == {"cf-aig-authorization": "Bearer t"}
    assert "CF_AIG_TOKEN" in row.secret_env


def test_it_has_five_steps() -> None:
    assert re.findall(r"^## (\d)\.", PAGE.read_text(encoding="utf-8"), re.M) == list("12345")


@pytest.mark.parametrize(
    "page",
    [
        "cloudflare-ai-gateway.md",
        "add-a-provider.md",
        "correct-a-price.md",
        "what-if.md",
        "serve-a-team.md",
    ],
)
def test_every_command_on_the_page_is_one_that_exists(page) -> None:
    from opencode_gate.cli.registry import COMMANDS

    text = (PAGE.parent / page).read_text(encoding="utf-8")
    assert set(re.findall(r"^ogate (\w+)", text, re.M)) <= set(COMMANDS)


def test_the_lines_about_adding_a_server_work(capsys) -> None:
    text = (PAGE.parent / "add-a-provider.md").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = re.findall(r"^ogate (?:providers (?:add|edit)|config set) .*$", text, re.M)
    assert len(lines) >= 6
    for line in lines:
        assert main(shlex.split(line)[1:]) == 0, (line, capsys.readouterr().err)
    settings = load_settings(paths(), {})
    assert settings.providers["work"].models["qwen3-coder"].context == 262144
    assert str(settings.prices["work/qwen3-coder"][0].input) == "0.30"


def test_the_prices_on_the_page_are_what_the_page_says_they_are() -> None:
    text = (PAGE.parent / "correct-a-price.md").read_text(encoding="utf-8")
    own, dated, tiered = (
        parse_settings(block, source="page").prices
        for block in re.findall(r"```toml\n(.*?)```", text, re.S)
    )
    assert str(own["work/qwen3-coder"][0].output) == "1.20"
    earlier, later = dated["openai/gpt-5.6"]
    assert (str(earlier.until), str(later.since)) == ("2026-08-20", "2026-08-21")
    (tier,) = tiered["openai/gpt-5.6"][0].tiers
    assert (tier.above_input_tokens, tier.input) == (272_000, 8)


def test_the_caveats_on_the_page_are_those_there_are() -> None:
    from opencode_gate.catalog import what_if

    text = (PAGE.parent / "what-if.md").read_text(encoding="utf-8")
    source = Path(what_if.__file__).read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([a-z-]+)` \|", text, re.M)) == set(
        re.findall(r'code="([a-z-]+)"', source)
    )
