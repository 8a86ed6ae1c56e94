"""The providers most people have an account with, and the page where each hands out its keys.

Data only: it orders a list and saves a search. A provider that is missing here works just the
same; its documentation page from the catalogue stands in for the key page.
"""

from opencode_gate.catalog.rows import ProviderRow

KEY_PAGES: dict[str, str] = {
    "anthropic": "https://platform.claude.com/settings/keys",
    "openai": "https://platform.openai.com/api-keys",
    "google": "https://aistudio.google.com/apikey",
    "openrouter": "https://openrouter.ai/settings/keys",
    "opencode": "https://opencode.ai/auth",
    "deepseek": "https://platform.deepseek.com/api_keys",
    "mistral": "https://console.mistral.ai/api-keys",
    "xai": "https://console.x.ai",
    "groq": "https://console.groq.com/keys",
    "moonshotai": "https://platform.moonshot.ai/console/api-keys",
    "zai": "https://z.ai/manage-apikey/apikey-list",
    "cerebras": "https://cloud.cerebras.ai",
    "togetherai": "https://api.together.ai/settings/api-keys",
    "fireworks-ai": "https://app.fireworks.ai/settings/users/api-keys",
    "huggingface": "https://huggingface.co/settings/tokens",
    "vercel": "https://vercel.com/dashboard/ai-gateway/api-keys",
}
"""Vendors' own pages, most used provider first; the order is the order of the lists."""

_RANKS = {provider_id: rank for rank, provider_id in enumerate(KEY_PAGES)}


def familiarity_rank(provider_id: str) -> int:
    """0 for the most used provider; all that are not in the table share the last rank."""
    return _RANKS.get(provider_id, len(_RANKS))


def key_page(row: ProviderRow) -> str | None:
    """Where a person gets a key for this provider, or reads how."""
    return KEY_PAGES.get(row.id, row.doc_url)
