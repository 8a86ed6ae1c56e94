"""The session's configuration must route what is routed and change nothing else."""

import json
from decimal import Decimal

import pytest
from msgspec.structs import replace

from opencode_gate.agents.opencode.configuration import (
    client_base_path,
    config_text,
    merge_config,
    model_entry,
    move_models,
    session_config,
    user_content,
)
from opencode_gate.catalog.rows import ModelPrice, ModelRow, ProviderRow
from opencode_gate.core.errors import ConfigError

ANTHROPIC = ProviderRow(
    id="anthropic",
    name="Anthropic",
    base_url="https://api.anthropic.com/v1",
    npm="@ai-sdk/anthropic",
    env=("ANTHROPIC_API_KEY",),
    secret_env=("ANTHROPIC_API_KEY",),
)
GROQ = ProviderRow(id="groq", name="Groq", base_url="https://api.groq.com/openai/v1")
ZEN = ProviderRow(id="opencode", name="OpenCode Zen", base_url="https://opencode.ai/zen/v1")
MINE = ProviderRow(
    id="my server",
    name="Mine",
    base_url="http://10.0.0.1:9000/api/",
    wire="anthropic",
    source="config",
)
LOCAL = ProviderRow(
    id="lmstudio", name="LM Studio", base_url="http://127.0.0.1:1234/v1", source="local"
)


@pytest.mark.parametrize(
    ("row", "path"),
    [
        (ANTHROPIC, "/p/anthropic/v1"),
        (GROQ, "/p/groq/openai/v1"),
        (MINE, "/p/my%20server/api"),
        (replace(GROQ, base_url="https://host"), "/p/groq"),
        (replace(GROQ, base_url=None), "/p/groq"),
    ],
)
def test_the_base_path_keeps_the_version_prefix_the_sdk_expects(row, path):
    assert client_base_path(row) == path


def test_a_provider_of_the_catalogue_keeps_everything_but_address_and_key():
    config = session_config([ANTHROPIC], origin="http://127.0.0.1:4711")
    assert config["provider"] == {
        "anthropic": {
            "env": ["OGATE_KEY"],
            "options": {
                "baseURL": "http://127.0.0.1:4711/p/anthropic/v1",
                "apiKey": "{env:OGATE_KEY}",
            },
        }
    }
    assert "model" not in config
    assert "small_model" not in config


def test_enabled_providers_are_exactly_the_routed_and_the_direct_ones():
    config = session_config(
        [ANTHROPIC, GROQ], origin="http://127.0.0.1:1", direct=["openai", "groq"]
    )
    assert config["enabled_providers"] == ["anthropic", "groq", "openai"]
    assert set(config["provider"]) == {"anthropic", "groq"}


def test_a_provider_without_a_key_gets_the_token_in_a_header_and_no_env_trick():
    config = session_config([ZEN], origin="http://127.0.0.1:1", without_key=["opencode"])
    assert config["provider"]["opencode"] == {
        "options": {
            "baseURL": "http://127.0.0.1:1/p/opencode/zen/v1",
            "headers": {"x-ogate-token": "{env:OGATE_KEY}"},
        }
    }


def test_a_provider_of_the_users_own_configuration_carries_the_token_beside_its_own_headers():
    row = replace(MINE, source="agent")
    user = {"provider": {"my server": {"options": {"headers": {"Authorization": "Basic x"}}}}}
    merged = merge_config(user, session_config([row], origin="http://127.0.0.1:1"))
    assert merged["provider"]["my server"]["options"]["headers"] == {
        "Authorization": "Basic x",
        "x-ogate-token": "{env:OGATE_KEY}",
    }


def test_a_provider_opencode_does_not_know_comes_with_package_name_and_models():
    models = {"big one": {"name": "Big"}}
    config = session_config([MINE], origin="http://127.0.0.1:1", models={"my server": models})
    entry = config["provider"]["my server"]
    assert entry["npm"] == "@ai-sdk/anthropic"
    assert entry["name"] == "Mine"
    assert entry["models"] == models
    assert "whitelist" not in entry


def test_a_local_server_offers_only_what_it_has_loaded():
    config = session_config([LOCAL], origin="http://127.0.0.1:1", models={"lmstudio": {"qwen": {}}})
    assert config["provider"]["lmstudio"]["whitelist"] == ["qwen"]


def test_chosen_models_are_written():
    config = session_config(
        [ANTHROPIC], origin="http://127.0.0.1:1", model="anthropic/a", small_model="anthropic/b"
    )
    assert (config["model"], config["small_model"]) == ("anthropic/a", "anthropic/b")


def test_ours_wins_over_the_users_content_and_the_rest_stays():
    user = {
        "enabled_providers": ["evil"],
        "permission": {"edit": "ask"},
        "provider": {
            "anthropic": {"options": {"baseURL": "http://evil", "timeout": 5}, "models": {"x": {}}},
            "evil": {},
        },
    }
    merged = merge_config(user, session_config([ANTHROPIC], origin="http://127.0.0.1:1"))
    assert merged["enabled_providers"] == ["anthropic"]
    assert merged["permission"] == {"edit": "ask"}
    anthropic = merged["provider"]["anthropic"]
    assert anthropic["options"]["baseURL"] == "http://127.0.0.1:1/p/anthropic/v1"
    assert anthropic["options"]["timeout"] == 5
    assert anthropic["models"] == {"x": {}}
    assert user["enabled_providers"] == ["evil"], "the user's own object is left alone"


def test_the_users_own_content_is_read_with_comments():
    environ = {"OPENCODE_CONFIG_CONTENT": '{ // mine\n "model": "a//b", /* x */ }'}
    assert user_content(environ) == {"model": "a//b"}
    assert user_content({}) == {}


def test_broken_content_of_the_user_is_named():
    with pytest.raises(ConfigError) as raised:
        user_content({"OPENCODE_CONFIG_CONTENT": "{"})
    assert raised.value.code == "bad-config"
    assert "OPENCODE_CONFIG_CONTENT" in raised.value.message


def test_a_model_is_described_with_what_is_known_and_nothing_else():
    row = ModelRow(
        provider_id="mine",
        id="m",
        name="M",
        context_tokens=1000,
        output_tokens=100,
        tool_call=True,
        price=ModelPrice(input=Decimal("0.1"), output=Decimal("0.2"), cache_read=Decimal("0.01")),
        raw={"interleaved": {"field": "reasoning_content"}, "description": "not for Opencode"},
    )
    assert model_entry(row) == {
        "name": "M",
        "tool_call": True,
        "interleaved": {"field": "reasoning_content"},
        "limit": {"context": 1000, "output": 100},
        "cost": {"input": 0.1, "output": 0.2, "cache_read": 0.01},
    }


def test_an_unknown_price_is_left_out_not_zero():
    assert "cost" not in model_entry(ModelRow(provider_id="p", id="m", name="M"))
    half = ModelRow(provider_id="p", id="m", name="M", price=ModelPrice(input=Decimal(1)))
    assert "cost" not in model_entry(half)


def test_a_long_list_of_models_moves_to_the_catalogue_and_loses_nothing():
    config = session_config(
        [MINE, ANTHROPIC], origin="http://127.0.0.1:1", models={"my server": {"m": {"name": "M"}}}
    )
    base = {"anthropic": {"id": "anthropic", "models": {"c": {}}}}
    slim, catalogue = move_models(config, base)
    assert "models" not in slim["provider"]["my server"]
    assert slim["provider"]["anthropic"] == config["provider"]["anthropic"]
    assert catalogue["anthropic"] == base["anthropic"]
    mine = catalogue["my server"]
    assert mine["npm"] == "@ai-sdk/anthropic"
    assert mine["models"]["m"]["id"] == "m"
    assert mine["models"]["m"]["name"] == "M"
    assert "my server" not in base


def test_the_text_is_json_and_short():
    config = session_config([ANTHROPIC], origin="http://127.0.0.1:1")
    assert json.loads(config_text(config)) == config
    assert " " not in config_text(config)


@pytest.mark.parametrize(
    ("described", "limit"),
    [
        ({"context": 32768}, {"context": 32768, "output": 8192}),
        ({"context": 32768, "output": 0}, {"context": 32768, "output": 8192}),
        ({"context": 32768, "output": 32768}, {"context": 32768, "output": 32768}),
        ({"output": 8192}, None),
    ],
)
def test_a_limit_is_whole_or_left_out_because_opencode_refuses_half_of_one(described, limit):
    """Opencode keeps room for a whole answer free and compacts what is over it, at every turn
    where the answer alone fills the window; so one nobody described gets a quarter of it.
    """
    model = ModelRow(provider_id="work", id="m", name="m", raw={"limit": described})
    assert model_entry(model).get("limit") == limit
