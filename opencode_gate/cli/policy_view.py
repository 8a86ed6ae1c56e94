"""Differences of policies and what rules said of a request, shown.

The invariant: a decision is shown with every number it has, in the words it was made in.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from opencode_gate.cli import figures
from opencode_gate.cli.render import Block, Fact, Facts, Text

if TYPE_CHECKING:
    from opencode_gate.governance.decisions import Decision
    from opencode_gate.ledger.records import ExchangeRecord
    from opencode_gate.session.policy_diff import OwnerChange

_MARKS = {"added": "+", "changed": "~", "removed": "-"}
_STYLES = {"+": "green", "-": "red"}

OUTCOMES = {
    "deny": "refused",
    "warn": "warned",
    "shadow": "would have refused, and only recorded it",
    "lower": "lowered the output limit",
    "downgrade": "put another model in its place",
    "wait": "held it back a while",
    "stop": "cut the answer",
}
"""What a rule did, in a word or a few."""


def diff_blocks(changes: "Iterable[OwnerChange]") -> list[Block]:
    """What becomes other, as lines with `+` and `-`."""
    blocks: list[Block] = []
    for change in changes:
        blocks.append(Text(f"{_MARKS[change.change]} {change.owner}", "bold"))
        blocks += [Text(f"    {line}", _STYLES.get(line[:1], "")) for line in change.lines]
    return blocks


def diff_document(changes: "Iterable[OwnerChange]") -> list[dict[str, object]]:
    """The same for programs."""
    return [
        {
            "owner_kind": change.owner.kind,
            "owner": change.owner.name,
            "change": change.change,
            "lines": list(change.lines),
        }
        for change in changes
    ]


def diff_summary(changes: "Sequence[OwnerChange]") -> str:
    """`1 added, 2 changed`."""
    counts = {
        word: sum(change.change == word for change in changes)
        for word in ("added", "changed", "removed")
    }
    return ", ".join(f"{count} {word}" for word, count in counts.items() if count)


def decision_facts(decision: "Decision") -> Facts:
    """One decision with all its numbers."""
    numbers = [
        ("limit", decision.limit),
        ("spent", decision.spent),
        ("reserved", decision.reserved),
        ("needed at most", decision.needed),
    ]
    rows = [
        ("rule", _rule_text(decision)),
        ("outcome", OUTCOMES[decision.outcome]),
        ("because", decision.message.removeprefix("ogate: ")),
        *((label, _amount(decision, amount)) for label, amount in numbers),
        ("begins anew", _moment(decision.resets_at_us)),
        ("to change it", decision.command),
    ]
    style = "red" if decision.outcome in ("deny", "stop") else ""
    return Facts(
        [
            Fact(label, text, style if label == "outcome" else "")
            for label, text in rows
            if text is not None
        ]
    )


def exchange_facts(exchange: "ExchangeRecord") -> Facts:
    """Which request it was, and what became of it."""
    model = exchange.request_model or figures.UNKNOWN
    ended = exchange.status.value
    if exchange.denial is not None:
        ended += f" ({exchange.denial})"
    reserved = exchange.reserved_cost_nano_usd
    limit = exchange.output_limit_tokens
    rows = [
        ("request", exchange.id),
        ("at", figures.time_text(exchange.started_at_us)),
        ("model", f"{exchange.provider_name}/{model}"),
        ("asked for", exchange.downgraded_from),
        ("session", exchange.session_id),
        ("ended", ended),
        ("reserved", None if reserved is None else figures.money_text(reserved, decimals=4)),
        ("cost", _cost(exchange)),
        ("output limit", None if limit is None else f"lowered to {limit:,} tokens"),
    ]
    return Facts([Fact(label, text) for label, text in rows if text])


def _cost(exchange: "ExchangeRecord") -> str | None:
    if exchange.cost_nano_usd is None:
        return None
    text = figures.money_text(exchange.cost_nano_usd, exchange.cost_quality, decimals=4)
    reserved = exchange.reserved_cost_nano_usd
    if reserved is not None and exchange.cost_nano_usd > reserved:
        text += ", more than was reserved: the provider billed beyond the limits it was given"
    return text


def _rule_text(decision: "Decision") -> str:
    window = "" if decision.window is None else f"{decision.window} "
    owner = "" if decision.owner is None else f" of {decision.owner}"
    return f"{window}{decision.rule}{owner}"


def _amount(decision: "Decision", amount: int | None) -> str | None:
    from opencode_gate.governance.wording import amount_text

    if amount is None:
        return None
    return f"{amount:,}" if decision.unit is None else amount_text(amount, decision.unit)


def _moment(time_us: int | None) -> str | None:
    return None if time_us is None else figures.time_text(time_us)
