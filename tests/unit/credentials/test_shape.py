"""What can be a key and what cannot, without ever repeating it."""

import pytest

from opencode_gate.core.errors import CredentialError
from opencode_gate.core.secrets import Secret
from opencode_gate.credentials.shape import checked_key, looks_like_another

KEY = "sk-test-0123456789abcdef"


@pytest.mark.parametrize(
    "text",
    [KEY, f" {KEY}\n", f"'{KEY}'", f'"{KEY}"', f"Bearer {KEY}", f"bearer {KEY}\r\n", f' "{KEY}" '],
)
def test_what_comes_along_when_pasting_is_taken_off(text):
    assert checked_key(text) == Secret(KEY)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  \n",
        "sk-0123",
        "sk-0123 456789",
        "sk-0123\n456789",
        "sk-0123\x00456789",
        "schlüssel-0123",
        "x" * 4097,
    ],
)
def test_what_cannot_be_a_key_is_refused_and_not_quoted(text):
    with pytest.raises(CredentialError) as caught:
        checked_key(text)
    error = caught.value
    assert error.code == "bad-credential"
    if text.strip():
        assert text.strip() not in f"{error.message} {error.hint} {error.details}"


@pytest.mark.parametrize(
    ("key", "provider_id", "other"),
    [
        ("sk-ant-api03-0123456789", "openai", "anthropic"),
        ("sk-ant-api03-0123456789", "anthropic", None),
        ("gsk_0123456789", "xai", "groq"),
        ("sk-0123456789", "deepseek", None),
        ("0123456789abcdef", "openai", None),
    ],
)
def test_a_key_of_another_provider_is_recognised(key, provider_id, other):
    assert looks_like_another(Secret(key), provider_id) == other
