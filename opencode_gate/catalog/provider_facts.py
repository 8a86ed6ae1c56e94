"""What the catalogue does not say about providers, as tables by SDK package or by id.

The idea: a fact about a provider is a line here, never a branch elsewhere. The addresses are the
defaults in the SDK packages that Opencode 1.18 carries, with the version path each of them
expects; who needs an entry in the other tables was found by trying Opencode against them.
"""

BASE_URL_BY_NPM: dict[str, str] = {
    "@ai-sdk/anthropic": "https://api.anthropic.com/v1",
    "@ai-sdk/cerebras": "https://api.cerebras.ai/v1",
    "@ai-sdk/cohere": "https://api.cohere.com/v2",
    "@ai-sdk/deepinfra": "https://api.deepinfra.com/v1",
    "@ai-sdk/google": "https://generativelanguage.googleapis.com/v1beta",
    "@ai-sdk/groq": "https://api.groq.com/openai/v1",
    "@ai-sdk/mistral": "https://api.mistral.ai/v1",
    "@ai-sdk/openai": "https://api.openai.com/v1",
    "@ai-sdk/perplexity": "https://api.perplexity.ai",
    "@ai-sdk/togetherai": "https://api.together.xyz/v1",
    "@ai-sdk/vercel": "https://api.v0.dev/v1",
    "@ai-sdk/xai": "https://api.x.ai/v1",
    "@openrouter/ai-sdk-provider": "https://openrouter.ai/api/v1",
    "venice-ai-sdk-provider": "https://api.venice.ai/api/v1",
}
"""The address of a provider that the catalogue lists without one, by its SDK package."""

BASE_URL_BY_ID: dict[str, str] = {
    "azure": "https://${AZURE_RESOURCE_NAME}.openai.azure.com/openai/v1",
    "azure-cognitive-services": (
        "https://${AZURE_COGNITIVE_SERVICES_RESOURCE_NAME}.cognitiveservices.azure.com/openai/v1"
    ),
}
"""The same where the package alone does not tell; `${NAMES}` are filled in by the user."""

WIRE_BY_NPM: dict[str, str] = {
    "@ai-sdk/openai-compatible": "openai-chat",
    "@ai-sdk/openai": "openai-responses",
    "@ai-sdk/anthropic": "anthropic",
    "@ai-sdk/google": "gemini",
}
NPM_BY_WIRE: dict[str, str] = {wire: npm for npm, wire in WIRE_BY_NPM.items()}
"""The SDK package that speaks a wire format, for servers the user adds; Opencode has them all."""

_OTHER_PACKAGE = "its SDK package is not among those Opencode carries, so its address is not ours"

WHY_NOT_BY_NPM: dict[str, str] = {
    "@ai-sdk/amazon-bedrock": "speaks Bedrock's binary event stream with AWS signatures",
    "@ai-sdk/cohere": "speaks Cohere's own format (/v2/chat)",
    "@ai-sdk/gateway": "speaks the Vercel AI Gateway's own format (/language-model)",
    "@ai-sdk/google-vertex": "needs Google application-default credentials, which expire hourly",
    "@ai-sdk/google-vertex/anthropic": (
        "needs Google application-default credentials, which expire hourly"
    ),
    "@aihubmix/ai-sdk-provider": _OTHER_PACKAGE,
    "@jerome-benoit/sap-ai-provider-v2": _OTHER_PACKAGE,
    "@qvac/ai-sdk-provider": "runs models inside Opencode itself, nothing goes over HTTP",
    "@saladtechnologies-oss/ai-sdk-provider": _OTHER_PACKAGE,
    "ai-gateway-provider": (
        "stands in front of other providers: point those at it with `ogate providers edit`"
    ),
    "gitlab-ai-provider": "speaks GitLab Duo's own format and signs in with GitLab",
    "merge-gateway-ai-sdk-provider": _OTHER_PACKAGE,
    "watsonx-ai-provider": _OTHER_PACKAGE,
}
WHY_NOT_BY_ID: dict[str, str] = {
    "github-copilot": "signs in with a GitHub account, which Opencode keeps to itself",
}
"""Why a provider does not work through the gateway yet."""

STREAM_USAGE_BY_NPM: dict[str, str] = {
    "@ai-sdk/cerebras": "always",
    "@ai-sdk/groq": "always",
    "@ai-sdk/mistral": "never",
    "@ai-sdk/perplexity": "always",
}
"""Who sends token counts unasked (`always`) or refuses `stream_options` (`never`)."""

KEYLESS_IDS = frozenset({"opencode"})
"""Providers with models that need no key: OpenCode Zen's free ones."""

_KEY_ENDINGS = ("_KEY", "_APIKEY", "_TOKEN", "_PAT")
_BEDROCK_KEY = "AWS_BEARER_TOKEN_BEDROCK"

_GENERAL_PURPOSE_FAMILIES = ("AWS_", "CLOUDFLARE_")
_GENERAL_PURPOSE = frozenset(
    {
        "GITHUB_TOKEN",
        "GITLAB_TOKEN",
        "HF_TOKEN",
        "DATABRICKS_TOKEN",
        "DIGITALOCEAN_ACCESS_TOKEN",
        "HETZNER_API_KEY",
        "MODELSCOPE_API_KEY",
        "SCALEWAY_API_KEY",
        "STACKIT_API_KEY",
        "VULTR_API_KEY",
        "WANDB_API_KEY",
        "CLARIFAI_PAT",
    }
)
"""Keys that open more than language models; tools the agent runs need them."""


def key_variables(env: tuple[str, ...]) -> tuple[str, ...]:
    """Those of a provider's variables that hold a key, not an account or a host."""
    return tuple(name for name in env if _holds_a_key(name))


def secret_variables(key_env: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the key variables that are for language models alone and may be hidden."""
    return tuple(
        name
        for name in key_env
        if name not in _GENERAL_PURPOSE and not name.startswith(_GENERAL_PURPOSE_FAMILIES)
    )


def _holds_a_key(name: str) -> bool:
    # The other variables of AWS sign requests, which this gateway cannot do.
    return name == _BEDROCK_KEY or (name.endswith(_KEY_ENDINGS) and not name.startswith("AWS_"))
