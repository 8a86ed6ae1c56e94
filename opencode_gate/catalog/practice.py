"""The scripted provider: no key, no network, no cost, and it says so wherever it shows."""

from opencode_gate.catalog.model_entries import model_row
from opencode_gate.catalog.rows import ModelRow, ProviderRow

PRACTICE_ID = "practice"
PRACTICE_MODEL_ID = "scripted"


def practice_row() -> ProviderRow:
    """The provider; its address is one that can exist nowhere (RFC 2606), nothing is sent to it."""
    return ProviderRow(
        id=PRACTICE_ID,
        name="Practice (scripted, free)",
        base_url="http://practice.invalid/v1",
        npm="@ai-sdk/openai-compatible",
        keyless=True,
        wire="openai-chat",
        source="builtin",
    )


def practice_models() -> dict[str, ModelRow]:
    """Its one model."""
    raw: dict[str, object] = {
        "id": PRACTICE_MODEL_ID,
        "name": "Scripted practice model",
        "tool_call": True,
        "reasoning": True,
        "limit": {"context": 128_000, "output": 8_192},
        "modalities": {"input": ["text"], "output": ["text"]},
        "cost": {"input": 0, "output": 0},
    }
    return {PRACTICE_MODEL_ID: model_row(PRACTICE_ID, PRACTICE_MODEL_ID, raw)}
