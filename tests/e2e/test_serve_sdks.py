"""Official SDKs pointed at a served gateway, with a virtual key where they want an API key."""

from collections.abc import Iterator
from pathlib import Path

import anthropic
import openai
import pytest
from google import genai

from opencode_gate.config.paths import paths
from opencode_gate.ledger.sqlite import open_store
from tests.support.provider_stub import Answer, Asked, ProviderStub, provider_stub
from tests.support.served_gateway import ServedGateway, put_key, served

pytestmark = pytest.mark.e2e

KEY = "sk-live-0123456789abcdef0123456789abcdef"


def _answer(asked: Asked) -> Answer:
    if asked.method == "GET":
        return 200, {"object": "list", "data": [{"id": "m", "object": "model"}]}
    if asked.path.endswith("/messages"):
        return 200, {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "claude-sonnet-4-5",
            "content": [{"type": "text", "text": "Hello."}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": 11, "output_tokens": 3},
        }
    if "generateContent" in asked.path:
        return 200, {
            "candidates": [
                {
                    "content": {"role": "model", "parts": [{"text": "Hello."}]},
                    "finishReason": "STOP",
                }
            ],
            "usageMetadata": {
                "promptTokenCount": 11,
                "candidatesTokenCount": 3,
                "totalTokenCount": 14,
            },
        }
    return 200, {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-5",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello."},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14},
    }


@pytest.fixture
def provider() -> Iterator[ProviderStub]:
    with provider_stub(_answer) as stub:
        file = paths().config_file
        file.parent.mkdir(parents=True)
        base = f"http://127.0.0.1:{stub.port}"
        file.write_text(
            f'[providers.openai]\nbase_url = "{base}/v1"\n'
            f'[providers.anthropic]\nbase_url = "{base}/v1"\n'
            f'[providers.google]\nbase_url = "{base}/v1beta"\n',
            encoding="utf-8",
        )
        yield stub


@pytest.fixture
def gateway(tmp_path: Path, provider: ProviderStub) -> Iterator[ServedGateway]:
    keys = {"OPENAI_API_KEY": KEY, "ANTHROPIC_API_KEY": KEY, "GEMINI_API_KEY": KEY}
    with served(tmp_path, **keys) as running:
        yield running


def _check(provider: ProviderStub, key: str, header: str, value: str) -> None:
    """The provider got its key where it wants it, and nothing of ours."""
    (asked,) = provider.asked
    assert asked.headers[header] == value
    assert key not in f"{asked.headers} {asked.path}"
    store = open_store(paths().ledger_file, read_only=True)
    try:
        (record,) = [r for session in store.sessions() for r in store.exchanges(session.id)]
    finally:
        store.close()
    assert record.virtual_key == "ada"
    assert (record.usage.input_tokens, record.usage.output) == (11, 3)


def test_openais_sdk(gateway: ServedGateway, provider: ProviderStub) -> None:
    """Its key is the Bearer token."""
    key = put_key("ada")
    client = openai.OpenAI(base_url=f"{gateway.url}/p/openai/v1", api_key=key)
    answer = client.chat.completions.create(
        model="gpt-5", messages=[{"role": "user", "content": "hi"}]
    )
    assert answer.choices[0].message.content == "Hello."
    gateway.stop()
    _check(provider, key, "authorization", f"Bearer {KEY}")


def test_openais_sdk_with_the_key_beside_its_own(
    gateway: ServedGateway, provider: ProviderStub
) -> None:
    """Where the SDK's own key is taken for something else."""
    key = put_key("ada")
    client = openai.OpenAI(
        base_url=f"{gateway.url}/p/openai/v1",
        api_key="unused",
        default_headers={"x-ogate-key": key},
    )
    client.chat.completions.create(model="gpt-5", messages=[{"role": "user", "content": "hi"}])
    gateway.stop()
    _check(provider, key, "authorization", f"Bearer {KEY}")


@pytest.mark.parametrize("place", ["api_key", "auth_token"])
def test_anthropics_sdk(gateway: ServedGateway, provider: ProviderStub, place: str) -> None:
    """Both ways it knows to say who it is."""
    key = put_key("ada")
    client = anthropic.Anthropic(base_url=f"{gateway.url}/p/anthropic", **{place: key})
    answer = client.messages.create(
        model="claude-sonnet-4-5",
        max_tokens=100,
        messages=[{"role": "user", "content": "hi"}],
    )
    assert answer.content[0].type == "text"
    gateway.stop()
    _check(provider, key, "x-api-key", KEY)


def test_googles_sdk(gateway: ServedGateway, provider: ProviderStub) -> None:
    """Its key is in a header of its own."""
    key = put_key("ada")
    client = genai.Client(api_key=key, http_options={"base_url": f"{gateway.url}/p/google"})
    answer = client.models.generate_content(model="gemini-2.5-pro", contents="hi")
    assert answer.text == "Hello."
    gateway.stop()
    _check(provider, key, "x-goog-api-key", KEY)


def test_a_refused_key_is_an_error_each_sdk_understands(gateway: ServedGateway) -> None:
    """And is not tried again."""
    with pytest.raises(openai.AuthenticationError) as told:
        openai.OpenAI(base_url=f"{gateway.url}/p/openai/v1", api_key="ogk-wrong").models.list()
    assert told.value.code == "unknown-virtual-key"
    with pytest.raises(anthropic.AuthenticationError):
        anthropic.Anthropic(base_url=f"{gateway.url}/p/anthropic", api_key="x").messages.create(
            model="m", max_tokens=1, messages=[{"role": "user", "content": "hi"}]
        )
