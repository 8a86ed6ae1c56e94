"""Whether a text can be a provider key, before it is stored or sent.

The usual slips when pasting are mended (blanks, quotes, `Bearer `) or named. A shape that
belongs to another provider is only warned about: keys of proxies and resellers look like
anything. The invariant: an error never quotes the text.
"""

from typing import Final

from opencode_gate.core.errors import CredentialError
from opencode_gate.core.secrets import Secret

MIN_CHARACTERS: Final = 8
MAX_CHARACTERS: Final = 4096

_KNOWN_PREFIXES: Final = {
    "sk-ant-": "anthropic",
    "sk-or-v1-": "openrouter",
    "sk-proj-": "openai",
    "AIza": "google",
    "gsk_": "groq",
    "xai-": "xai",
    "pplx-": "perplexity",
    "csk-": "cerebras",
    "nvapi-": "nvidia",
    "hf_": "huggingface",
    "fw_": "fireworks-ai",
}
"""How keys start, where a provider prints it in its own documentation."""


def checked_key(text: str) -> Secret:
    """`text` as a key, without the blanks, quotes or `Bearer` that came along.

    Raises:
        CredentialError: it cannot be a key (`bad-credential`).
    """
    key = text.strip().strip("'\"").strip()
    if key[:7].lower() == "bearer ":
        key = key[7:].strip()
    problem = problem_with(Secret(key))
    if problem is not None:
        raise CredentialError(
            "bad-credential",
            f"this is not a key: {problem}",
            hint="copy the key alone, on one line, from the provider's page",
        )
    return Secret(key)


def looks_like_another(secret: Secret, provider_id: str) -> str | None:
    """The provider whose keys look like this one, when it is not `provider_id`."""
    for prefix, owner in _KNOWN_PREFIXES.items():
        if secret.reveal().startswith(prefix):
            return None if owner == provider_id else owner
    return None


def is_plainly_a_key(text: str) -> bool:
    """Whether a word can hardly be anything else: long, and begun as keys are."""
    begins = ("sk-", "ogk-", *_KNOWN_PREFIXES)
    return len(text) >= 2 * MIN_CHARACTERS and text.startswith(begins)


def quoted_name(text: str) -> str:
    """What was typed as a name, in quotes; in other words where it is plainly a key itself."""
    if is_plainly_a_key(text):
        return "what was typed, which looks like a key itself: make a new one, this one was shown"
    return repr(text)


def problem_with(secret: Secret) -> str | None:
    """Why a text cannot be a key, in words that follow "this is not a key:"; `None` if it can."""
    key = secret.reveal()
    if not key:
        return "it is empty"
    if any(character.isspace() for character in key):
        return "it has blanks or line breaks inside"
    # A key travels in an HTTP header (RFC 9110, section 5.5: visible ASCII).
    if not all("!" <= character <= "~" for character in key):
        return "it has characters that no HTTP header may carry"
    if len(key) < MIN_CHARACTERS:
        return f"it is shorter than {MIN_CHARACTERS} characters"
    if len(key) > MAX_CHARACTERS:
        return f"it is longer than {MAX_CHARACTERS} characters"
    return None
