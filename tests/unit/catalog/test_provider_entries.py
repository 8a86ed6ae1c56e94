"""A provider's row: its address, its key variables, what stands in the way, the user's changes."""

from urllib.parse import urlsplit

import pytest

from opencode_gate.catalog.catalogue import open_catalogue
from opencode_gate.catalog.header_values import sent_headers
from opencode_gate.catalog.rows import ProviderRow
from opencode_gate.config.paths import paths
from opencode_gate.config.settings import Settings, parse_settings
from opencode_gate.core.errors import ConfigError
from tests.support.small_catalogue import plain_model, small_api, small_catalogue


def rows(text: str = "", environ: dict[str, str] | None = None) -> dict[str, ProviderRow]:
    return dict(
        open_catalogue(paths(), parse_settings(text, source="f"), environ or {}).providers()
    )


@pytest.fixture(scope="module")
def plain() -> dict[str, ProviderRow]:
    return dict(open_catalogue(paths(), Settings(), {}).providers())


def test_every_provider_works_or_says_why_not(plain) -> None:
    for row in plain.values():
        usable = row.base_url is not None and urlsplit(row.base_url).hostname
        assert usable or row.missing_variables or row.why_not, row.id
    working = [row for row in plain.values() if row.why_not is None]
    assert len(working) == 212


@pytest.mark.parametrize(
    ("provider_id", "base_url"),
    [
        ("anthropic", "https://api.anthropic.com/v1"),
        ("openai", "https://api.openai.com/v1"),
        ("google", "https://generativelanguage.googleapis.com/v1beta"),
        ("groq", "https://api.groq.com/openai/v1"),
        ("mistral", "https://api.mistral.ai/v1"),
        ("deepinfra", "https://api.deepinfra.com/v1"),
        ("xai", "https://api.x.ai/v1"),
        ("openrouter", "https://openrouter.ai/api/v1"),
        ("inception", "https://api.inceptionlabs.ai/v1"),
    ],
)
def test_an_address_is_there_with_its_version_path_and_no_slash_behind(
    plain, provider_id, base_url
) -> None:
    assert plain[provider_id].base_url == base_url


def test_a_variable_in_an_address_is_named_until_somebody_fills_it_in(plain) -> None:
    assert plain["databricks"].missing_variables == ("DATABRICKS_HOST",)
    assert plain["databricks"].base_url is None
    said = '[providers.databricks.variables]\nDATABRICKS_HOST = "from-file"\n'
    address = "https://{}/ai-gateway/mlflow/v1"
    environ = {"DATABRICKS_HOST": "from-env"}
    assert rows(environ=environ)["databricks"].base_url == address.format("from-env")
    assert rows(said, environ)["databricks"].base_url == address.format("from-file")
    assert rows(said)["databricks"].missing_variables == ()


def test_a_variable_may_be_a_whole_address(plain) -> None:
    environ = {"NEON_AI_GATEWAY_BASE_URL": "https://n.example/"}
    row = rows(environ=environ)["neon"]
    assert row.base_url == "https://n.example/v1"
    assert row.wire_bases == {"openai-responses": "https://n.example/openai/v1"}


def test_a_variable_that_makes_no_address_is_not_used() -> None:
    assert rows(environ={"NEON_AI_GATEWAY_BASE_URL": "nonsense"})["neon"].base_url is None


def test_a_format_served_elsewhere_has_its_own_address(plain) -> None:
    assert plain["zenmux"].wire_bases == {"anthropic": "https://zenmux.ai/api/anthropic/v1"}


@pytest.mark.parametrize(
    ("provider_id", "key_env", "secret_env"),
    [
        ("anthropic", ("ANTHROPIC_API_KEY",), ("ANTHROPIC_API_KEY",)),
        ("azure", ("AZURE_API_KEY",), ("AZURE_API_KEY",)),
        ("huggingface", ("HF_TOKEN",), ()),
        ("github-copilot", ("GITHUB_TOKEN",), ()),
        ("amazon-bedrock", ("AWS_BEARER_TOKEN_BEDROCK",), ()),
        ("google-vertex", (), ()),
        ("cloudflare-workers-ai", ("CLOUDFLARE_API_KEY",), ()),
        ("wandb", ("WANDB_API_KEY",), ()),
    ],
)
def test_keys_are_told_from_settings_and_model_keys_from_keys_of_more(
    plain, provider_id, key_env, secret_env
) -> None:
    assert plain[provider_id].key_env == key_env
    assert plain[provider_id].secret_env == secret_env


def test_nothing_of_aws_or_a_code_host_is_ever_hidden(plain) -> None:
    hidden = {name for row in plain.values() for name in row.secret_env}
    assert not {name for name in hidden if name.startswith(("AWS_", "GITHUB_", "GITLAB_"))}
    assert not hidden & {"HF_TOKEN", "GOOGLE_APPLICATION_CREDENTIALS", "DATABRICKS_HOST"}


def test_only_zen_is_used_without_a_key(plain) -> None:
    assert {row.id for row in plain.values() if row.keyless} == {"opencode", "practice"}


def test_who_refuses_to_be_asked_for_usage_is_not_asked(plain) -> None:
    assert plain["mistral"].stream_usage == "never"
    assert plain["groq"].stream_usage == "always"
    assert plain["deepseek"].stream_usage == "ask"


@pytest.mark.parametrize(
    "provider_id", ["amazon-bedrock", "google-vertex", "cohere", "gitlab", "github-copilot"]
)
def test_what_cannot_work_says_why(plain, provider_id) -> None:
    assert plain[provider_id].why_not


def test_a_built_in_provider_is_sent_elsewhere() -> None:
    row = rows(
        """
        [providers.anthropic]
        base_url = "https://proxy.example/anthropic/v1/"
        auth_header = "x-proxy-key"
        subscription = "key"
        stream_usage = "never"
        name = "Claude at work"
        [providers.anthropic.headers]
        x-team = "blue"
        cf-aig-authorization = "Bearer {env:CF_AIG_TOKEN}"
        [providers.azure]
        base_url = "https://proxy.example/azure"
        """
    )["anthropic"]
    assert row.base_url == "https://proxy.example/anthropic/v1"
    assert (row.auth_header, row.subscription, row.stream_usage) == ("x-proxy-key", "key", "never")
    assert (row.name, row.npm, row.source) == ("Claude at work", "@ai-sdk/anthropic", "catalogue")
    assert row.secret_env == ("ANTHROPIC_API_KEY", "CF_AIG_TOKEN")
    assert row.key_env == ("ANTHROPIC_API_KEY",)
    assert row.headers["cf-aig-authorization"] == "Bearer {env:CF_AIG_TOKEN}"


def test_an_address_of_ones_own_answers_for_variables_and_formats() -> None:
    changed = rows(
        '[providers.azure]\nbase_url="https://p/v1"\n[providers.zenmux]\nbase_url="https://q/v1"\n'
    )
    assert changed["azure"].missing_variables == ()
    assert changed["zenmux"].wire_bases == {}


def test_a_server_without_an_address_says_so() -> None:
    assert "base_url" in (rows("[providers.mine]\nname = 'x'\n")["mine"].why_not or "")


def test_a_provider_with_no_address_at_all_is_not_offered_as_working(tmp_path) -> None:
    api = small_api(odd={"api": None, "npm": "unknown-package"})
    assert small_catalogue(tmp_path, api).provider("odd").why_not
    api = small_api(odd={"api": "javascript:alert(1)"})
    assert small_catalogue(tmp_path, api).provider("odd").base_url is None


def test_a_header_is_filled_in_only_where_it_is_sent() -> None:
    headers = {"a": "plain", "b": "Bearer {env:TOKEN}-{env:MORE}"}
    assert sent_headers(headers, {"TOKEN": "t", "MORE": "m"}) == {"a": "plain", "b": "Bearer t-m"}
    with pytest.raises(ConfigError, match="MORE"):
        sent_headers(headers, {"TOKEN": "t", "MORE": ""})


def test_a_model_with_its_own_package_keeps_it(tmp_path) -> None:
    models = {"c": plain_model("c", provider={"npm": "@ai-sdk/anthropic"})}
    catalogue = small_catalogue(tmp_path, small_api(a={"models": models}))
    assert catalogue.model("a", "c").npm == "@ai-sdk/anthropic"
