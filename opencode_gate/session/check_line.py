"""The comparison with Opencode in one line, for the end of a session.

The invariant: the amounts in the line add up to its two figures as exactly as they are written,
and a reason is named only if it makes a difference in the column the line is about.
"""

from collections.abc import Callable
from typing import Final

import msgspec

from opencode_gate.core.money import NANO_PER_USD
from opencode_gate.session.reconciliation import NOTHING, Figures, Reason, Reconciliation

WORDS: Final = {
    Reason.TITLES: "titles",
    Reason.SUB_AGENTS: "sub-agents",
    Reason.ASIDE: "calls beside the answers",
    Reason.INTERRUPTED: "interrupted answers",
    Reason.RETRIES: "retries",
    Reason.REFUSED: "refused requests",
    Reason.UNREAD_USAGE: "usage it did not read",
    Reason.ESTIMATED: "estimated usage",
    Reason.REPORTED_COST: "costs the provider reported",
    Reason.PRICES: "other prices",
    Reason.NO_PRICE: "models without a known price",
    Reason.NOT_RECORDED: "answers it does not have",
    Reason.COPIES: "forked conversations",
    Reason.RUNNING_TOTAL: "its running totals",
    Reason.BYPASS: "answers that did not pass the gateway",
    Reason.DIRECT: "subscriptions left direct",
    Reason.ROUNDING: "rounding",
    Reason.UNKNOWN: "unknown",
}
"""The reasons for people, as what the ledger has more or less of."""


def check_line(reconciliation: Reconciliation) -> str | None:
    """Opencode's figure, the ledger's, and what lies between; `None` if there is nothing.

    In amounts where they differ, else in tokens.
    """
    agent, ledger = reconciliation.agent, reconciliation.ledger
    if agent == ledger == NOTHING:
        return None
    cost = _Unit(_cost, _in_cents if max(_cost(agent), _cost(ledger)) >= NANO_PER_USD else _finely)
    tokens = _Unit(_tokens, _counted)
    for unit in (cost, tokens):
        found = _between(reconciliation, unit)
        if found:
            reasons = ", ".join(
                f"{WORDS[reason]} {'+' if amount > 0 else '-'}{unit.text(abs(amount))}"
                for reason, amount in found
            )
            theirs, ours = unit.text(unit.of(agent)), unit.text(unit.of(ledger))
            if unit is cost and reconciliation.unpriced_requests:
                ours = f"{ours} + ?" if ledger.cost_nano_usd else "?"
            return f"Opencode counted {theirs}, ogate {ours}: {reasons}"
    unit = cost if agent.cost_nano_usd else tokens
    return f"Opencode counted the same: {unit.text(unit.of(agent))}"


class _Unit(msgspec.Struct, frozen=True):
    """One column of figures, and how its sums are written."""

    of: Callable[[Figures], int]
    text: Callable[[int], str]


def _cost(figures: Figures) -> int:
    return figures.cost_nano_usd


def _tokens(figures: Figures) -> int:
    return figures.input_tokens + figures.output_tokens


def _counted(tokens: int) -> str:
    return f"{tokens:,} tokens"


def _in_cents(amount_nano_usd: int) -> str:
    return _dollars(amount_nano_usd, decimals=2)


def _finely(amount_nano_usd: int) -> str:
    return _dollars(amount_nano_usd, decimals=4)


def _dollars(amount_nano_usd: int, *, decimals: int) -> str:
    amount_usd = amount_nano_usd / NANO_PER_USD
    if 0 < amount_usd < 10**-decimals:
        return f"<${10**-decimals:.{decimals}f}"
    return f"${amount_usd:.{decimals}f}"


def _between(reconciliation: Reconciliation, unit: _Unit) -> list[tuple[Reason, int]]:
    """The differences in one column, the largest first; rounding is not worth a word."""
    found = [
        (difference.reason, unit.of(difference.figures))
        for difference in reconciliation.differences
        if difference.reason is not Reason.ROUNDING and unit.of(difference.figures)
    ]
    return sorted(found, key=lambda entry: -abs(entry[1]))
