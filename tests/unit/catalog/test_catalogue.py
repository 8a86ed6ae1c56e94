"""What exists: bundled or refreshed, the user's own over it, and names that help when missed."""

import pytest

from opencode_gate.catalog.archive import pack
from opencode_gate.catalog.catalogue import open_catalogue
from opencode_gate.config.paths import paths, private_folder
from opencode_gate.config.settings import Settings, parse_settings
from opencode_gate.core.errors import UsageError
from tests.support.small_catalogue import small_api, small_catalogue


@pytest.fixture(scope="module")
def bundled():
    return open_catalogue(paths(), Settings(), {})


def put_refreshed(content: bytes) -> None:
    private_folder(paths().cache)
    paths().catalogue.write_bytes(content)


def test_all_providers_and_the_practice_one_are_there(bundled) -> None:
    assert len(bundled.providers()) == 226
    assert bundled.provider("practice").source == "builtin"
    assert list(bundled.models("practice")) == ["scripted"]
    assert bundled.model("anthropic", "claude-sonnet-4-5").price.input == 3


def test_a_newer_refreshed_catalogue_is_used() -> None:
    put_refreshed(pack(small_api(), date="2099-01-01"))
    catalogue = open_catalogue(paths(), Settings(), {})
    assert catalogue.date == "2099-01-01"
    assert not catalogue.is_bundled


@pytest.mark.parametrize(
    "content", [b"", b"not a zip", pack(small_api(), date="2020-01-01"), pack(small_api())[:-40]]
)
def test_an_older_or_damaged_one_is_passed_over(content) -> None:
    put_refreshed(content)
    assert open_catalogue(paths(), Settings(), {}).is_bundled


def test_one_provider_is_read_without_the_others(bundled, monkeypatch) -> None:
    fresh = open_catalogue(paths(), Settings(), {})
    asked: list[str] = []
    read = fresh._archive.models
    monkeypatch.setattr(
        fresh._archive, "models", lambda provider_id: asked.append(provider_id) or read(provider_id)
    )
    fresh.models("openai")
    fresh.models("openai")
    fresh.search("gpt-5")
    assert asked == ["openai"]


@pytest.mark.parametrize(
    ("ask", "code", "says"),
    [
        (lambda c: c.provider("antropic"), "unknown-provider", "anthropic"),
        (lambda c: c.models("opnai"), "unknown-provider", "openai"),
        (lambda c: c.model("openai", "gpt5"), "unknown-model", "gpt-5"),
        (lambda c: c.model("practice", "script"), "unknown-model", "scripted"),
    ],
)
def test_a_name_that_is_missed_brings_the_nearest_ones(bundled, ask, code, says) -> None:
    with pytest.raises(UsageError) as caught:
        ask(bundled)
    assert caught.value.code == code
    assert says in caught.value.details[0]
    assert caught.value.hint is not None


def test_a_search_needs_every_word_and_stops_at_its_limit(bundled) -> None:
    hits = bundled.search("openai gpt-5 codex", limit=1000)
    assert hits
    for hit in hits:
        line = f"{hit.provider_id} {hit.model_id} {hit.name}".lower()
        assert all(word in line for word in ("openai", "gpt-5", "codex"))
    assert len(bundled.search("gpt", limit=7)) == 7
    assert bundled.search("no such model anywhere") == ()


def test_a_model_without_its_provider_is_most_likely_of_one_that_is_in_use() -> None:
    """Not of the first in the alphabet."""
    text = """
        [providers.zz]
        base_url = "https://zz.example/v1"
        wire = "openai-chat"
        [providers.zz.models."gpt-5-own"]
    """
    catalogue = open_catalogue(paths(), parse_settings(text, source="f"), {})
    exact = catalogue.likely_models("gpt-5", limit=3)
    assert exact[0] == "openai/gpt-5"
    assert {name.partition("/")[2] for name in exact} == {"gpt-5"}
    assert catalogue.likely_models("gpt-5-")[0] == "zz/gpt-5-own"
    assert catalogue.likely_models("claude sonnet 5")[0].startswith("anthropic/")
    assert catalogue.likely_models("no such model anywhere") == ()


def test_a_server_of_the_user_is_a_provider_with_its_models(tmp_path) -> None:
    settings = parse_settings(
        '[providers.mine]\nbase_url="http://h:1/v1/"\nwire="anthropic"\nkeyless=true\n'
        '[providers.mine.models."a/b"]\ncontext=5\n',
        source="f",
    )
    catalogue = small_catalogue(tmp_path, small_api(), settings)
    row = catalogue.provider("mine")
    assert (row.base_url, row.npm, row.keyless) == ("http://h:1/v1", "@ai-sdk/anthropic", True)
    assert (row.source, row.why_not) == ("config", None)
    model = catalogue.model("mine", "a/b")
    assert (model.context_tokens, model.tool_call, model.price) == (5, True, None)
    assert catalogue.search("mine a/b")[0].model_id == "a/b"
    assert catalogue.model_counts()["mine"] == 1


def test_a_model_added_to_a_known_provider_stands_beside_its_own(tmp_path) -> None:
    settings = parse_settings("[providers.plain-00.models.new]\n", source="f")
    catalogue = small_catalogue(tmp_path, small_api(), settings)
    assert set(catalogue.models("plain-00")) == {"m", "new"}
    assert catalogue.model_counts()["plain-00"] == 2
