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
    VirtualKey,
    document_of,
)
from opencode_gate.governance.virtual_keys import new_virtual_key
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

_CONFIG = "[catalog]\nrefresh = false\n"
"""No catalogue is fetched while something is measured."""

_PRICES = '[prices."bench/*"]\ninput = 3.0\noutput = 15.0\n'
"""Of the bench's only model, in USD per million tokens."""


def write_config(home: Path, more: str = "") -> None:
    """The settings of a gateway with that `OGATE_HOME`."""
    config = home / "config" / "config.toml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(_CONFIG + more, encoding="utf-8")


def write_virtual_key(home: Path, name: str, base_url: str) -> str:
    """Gives the ledger below `home` a virtual key, and its gateway the one provider it is for.

    Returns the key's text.
    """
    write_config(
        home, f'[providers.bench]\nname = "bench"\nbase_url = "{base_url}"\nkeyless = true\n'
    )
    key = new_virtual_key()
    _put(home, "vkey", name, VirtualKey(public_id=key.public_id, secret_hash=key.secret_hash))
    return key.token


def write_rules(home: Path, user: str) -> None:
    """Gives `user` the rules, in the ledger below `home`."""
    write_config(home, _PRICES)
    owner = Owner("user", user)
    _put(home, owner.kind, owner.name, RULES)


def _put(home: Path, kind: str, name: str, rules: Rules) -> None:
    store = open_governance(home / "data" / "ledger.db")
    store.put_policy([PolicyDocument(kind, name, document_of(rules))], operator="bench", at_us=0)
    store.close()
