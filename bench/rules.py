"""Rules that have a say in every request of a bench: three budgets, two limits, a list of models.

They are as wide as can be, so that nothing is ever refused: what is measured is the asking.
"""

from decimal import Decimal
from pathlib import Path

from opencode_gate.governance.policy import (
    Budget,
    ModelRules,
    Owner,
    RateLimit,
    Rules,
    document_of,
)
from opencode_gate.ledger.governance_store import PolicyDocument
from opencode_gate.ledger.sqlite.governance import open_governance

RULES = Rules(
    budgets=(
        Budget(window="day", usd=Decimal(5_000_000)),
        Budget(window="month", usd=Decimal(9_000_000)),
        Budget(window="total", tokens=10**15),
    ),
    limits=(
        RateLimit(requests=10**9, per="minute"),
        RateLimit(tokens=10**15, per="minute"),
    ),
    models=ModelRules(allow=("bench/*", "anthropic/*"), deny=("*/secret*",)),
)

PRICES = '[prices."bench/*"]\ninput = 3.0\noutput = 15.0\n'
"""Of the bench's only model, in USD per million tokens, as `config.toml` says it."""


def write_rules(home: Path, user: str) -> None:
    """Gives `user` the rules, in the ledger below `home` (an `OGATE_HOME`)."""
    config = home / "config" / "config.toml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(PRICES, encoding="utf-8")
    store = open_governance(home / "data" / "ledger.db")
    owner = Owner("user", user)
    change = PolicyDocument(owner.kind, owner.name, document_of(RULES))
    store.put_policy([change], operator="bench", at_us=0)
    store.close()
