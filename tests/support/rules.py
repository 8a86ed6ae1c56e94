"""A governor over a real ledger, as a gateway process has it, and rules for it to hold."""

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

from opencode_gate.catalog.rows import ModelPrice
from opencode_gate.config.settings import RunawaySettings
from opencode_gate.core.clock import Clock, SystemClock
from opencode_gate.governance.budgeting import Budgeting
from opencode_gate.governance.governor import Governor
from opencode_gate.governance.pacing import Pacing
from opencode_gate.governance.policy import Owner, Rules, document_of
from opencode_gate.governance.rates import RateMeter
from opencode_gate.governance.request_case import Cases, ModelTerms
from opencode_gate.governance.reservations import Reservations
from opencode_gate.governance.rulebook import Rulebook
from opencode_gate.governance.runaway import Runaway
from opencode_gate.ledger.governance_store import PolicyDocument
from opencode_gate.ledger.sqlite.governance import open_governance

PRICE = ModelPrice(input=Decimal(1), output=Decimal(10))
"""USD per million tokens: a nano-dollar is a thousandth of an input token."""
TERMS = ModelTerms(price=PRICE, context_tokens=200_000, output_tokens=8_000)


def give(ledger: Path, *given: tuple[Owner, Rules | None]) -> None:
    """Puts rules of owners into a ledger, or with `None` takes them out."""
    store = open_governance(ledger)
    store.put_policy(
        [
            PolicyDocument(owner.kind, owner.name, None if rules is None else document_of(rules))
            for owner, rules in given
        ],
        operator="tester",
        at_us=0,
    )
    store.close()


def a_governor(
    ledger: Path,
    *,
    process_id: str = "process",
    clock: Clock | None = None,
    terms_of: Callable[[str, str | None], ModelTerms] = lambda provider, model: TERMS,
    zone: str = "UTC",
) -> Governor:
    """A governor; nothing is folded, so what it reserves stays reserved."""
    now = SystemClock() if clock is None else clock
    rulebook = Rulebook(lambda: open_governance(ledger), zone=zone)
    reservations = Reservations(
        process_id,
        lambda: open_governance(ledger),
        clock=now,
        recover=lambda: None,
        hurry=lambda: None,
    )
    return Governor(
        rulebook=rulebook,
        reservations=reservations,
        budgeting=Budgeting(reservations, rulebook.standings, Cases(terms_of, now), now),
        pacing=Pacing(RateMeter(), now),
        runaway=Runaway(RunawaySettings(), now, lambda: None),
        count_text=lambda text, model: len(text) // 4,
        price_rule=None,
        clock=now,
    )
