"""A person whose only provider is the scripted one, at prices that Opencode knows too."""

from opencode_gate.config.paths import paths
from opencode_gate.ledger.records import ConversationRecord, ExchangeRecord, SessionRecord
from opencode_gate.ledger.sqlite import open_store
from opencode_gate.session.reconciliation import Figures, Reason, Reconciliation, decoded
from tests.support.real_session import Person
from tests.support.scripted_provider import Given, ScriptedProvider

MODEL = "own/m-1"
INPUT, CACHED, OUTPUT = 1_000, 100, 2_000
"""Prices in nano-dollars a token."""


def configure(person: Person, provider: ScriptedProvider) -> None:
    """Writes the provider into Opencode's own configuration."""
    model = {
        "name": "M1",
        "tool_call": True,
        "limit": {"context": 200_000, "output": 4_000},
        "cost": {"input": INPUT / 1_000, "output": OUTPUT / 1_000, "cache_read": CACHED / 1_000},
    }
    own = {
        "npm": "@ai-sdk/openai-compatible",
        "name": "Own",
        "options": {"baseURL": provider.base_url, "apiKey": "sk-own"},
        "models": {"m-1": model},
    }
    person.write(
        person.opencode_config,
        {"$schema": "https://opencode.ai/config.json", "provider": {"own": own}},
    )


class Recorded:
    """What the last session left in the ledger."""

    def __init__(self) -> None:
        store = open_store(paths().ledger_file, read_only=True)
        try:
            self.session: SessionRecord = store.session("last")
            self.exchanges: list[ExchangeRecord] = store.exchanges(self.session.id)
            self.conversations: list[ConversationRecord] = store.conversations(self.session.id)
            document = store.reconciliation(self.session.id)
        finally:
            store.close()
        found = None if document is None else decoded(document)
        assert found is not None, "the session was not compared"
        self.reconciliation: Reconciliation = found

    def explained(self) -> dict[Reason, Figures]:
        """The differences by reason, once they are seen to add up to the ledger."""
        found = self.reconciliation
        assert sum((one.figures for one in found.differences), found.agent) == found.ledger
        return {one.reason: one.figures for one in found.differences}


def figures(given: list[Given]) -> Figures:
    """What the provider billed for whole answers: counts as it stated them, at its prices."""
    assert all(one.is_whole for one in given)
    input_tokens = sum(one.input_tokens or 0 for one in given)
    cached_tokens = sum(one.cached_tokens or 0 for one in given)
    output_tokens = sum(one.output_tokens or 0 for one in given)
    return Figures(
        requests=len(given),
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cost_nano_usd=(input_tokens - cached_tokens) * INPUT
        + cached_tokens * CACHED
        + output_tokens * OUTPUT,
    )
