"""What rules did to requests, shown: lines of a summary, and a document for programs.

The invariant: a change of a request (a lower output limit, another model) is always said.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from opencode_gate.cli import figures
from opencode_gate.cli.render import Fact
from opencode_gate.core.money import usd_text

if TYPE_CHECKING:
    from opencode_gate.governance.decisions import Decision
    from opencode_gate.session.decided import Decided

_SHOWN_FIRINGS = 3


def decided_facts(decided: "Decided") -> Iterable[Fact]:
    """A line for each thing rules did; none where they let everything pass as it was."""
    for refused in decided.refused:
        requests = figures.counted(refused.requests, "request")
        yield Fact("refused", f"{requests}: {decision_text(refused.last)}", "red")
    for replaced in decided.replaced:
        requests = figures.counted(replaced.requests, "request")
        why = f"{replaced.taken or figures.UNKNOWN} answered for {replaced.asked}"
        if replaced.last is not None:
            why = decision_text(replaced.last)
        yield Fact("downgraded", f"{requests}: {why}")
    yield Fact("limited", _limited(decided))
    for firing in decided.firings[-_SHOWN_FIRINGS:]:
        why = f"ogate policy why {figures.short_id(firing.exchange_id)}"
        yield Fact("runaway", f"{_said(firing.decision)} → {why}", "yellow")
    if len(decided.firings) > _SHOWN_FIRINGS:
        yield Fact("runaway", f"{len(decided.firings) - _SHOWN_FIRINGS} more before these")
    yield Fact("waited", _waited(decided))
    yield Fact("excess", _excess(decided), "yellow")
    if decided.shadow_requests:
        requests = figures.counted(decided.shadow_requests, "request")
        yield Fact("shadow", f"{requests} would have been refused by rules that only record")


def decided_document(decided: "Decided") -> dict[str, object]:
    """The same for programs; amounts in dollars are exact decimal strings."""
    return {
        "refused": [
            {
                "code": refused.code,
                "requests": refused.requests,
                "last": decision_document(refused.last),
            }
            for refused in decided.refused
        ],
        "downgraded": [
            {
                "asked": one.asked,
                "taken": one.taken,
                "requests": one.requests,
                "last": None if one.last is None else decision_document(one.last),
            }
            for one in decided.replaced
        ],
        "runaway": [
            {"exchange_id": one.exchange_id, **decision_document(one.decision)}
            for one in decided.firings
        ],
        "lowered_output_limits": decided.lowered_requests,
        "stopped_answers": decided.stopped_requests,
        "waited_requests": decided.waited_requests,
        "waited_s": round(decided.waited_us / 1e6, 3),
        "would_have_been_refused": decided.shadow_requests,
        "beyond_reservation_requests": decided.excess_requests,
        "beyond_reservation_usd": usd_text(decided.excess_nano_usd),
    }


def decision_document(decision: "Decision") -> dict[str, object]:
    """One decision for programs; amounts in dollars are exact decimal strings."""

    def exact(amount: int | None) -> str | int | None:
        return usd_text(amount) if amount is not None and decision.unit == "usd" else amount

    return {
        "rule": decision.rule,
        "outcome": decision.outcome,
        "code": decision.code,
        "owner": decision.owner,
        "message": decision.message,
        "window": decision.window,
        "unit": decision.unit,
        "spent": exact(decision.spent),
        "reserved": exact(decision.reserved),
        "limit": exact(decision.limit),
        "needed": exact(decision.needed),
        "resets_at": figures.iso_text(decision.resets_at_us),
        "command": decision.command,
    }


def decision_text(decision: "Decision") -> str:
    """What was decided, with what to type to change it."""
    said = _said(decision)
    return said if decision.command is None else f"{said} → {decision.command}"


def _said(decision: "Decision") -> str:
    return decision.message.removeprefix("ogate: ")


def _limited(decided: "Decided") -> str:
    parts = []
    if decided.lowered_requests:
        answers = figures.counted(decided.lowered_requests, "answer")
        parts.append(f"{answers} got a lower output limit, to fit what a budget had left")
    if decided.stopped_requests:
        answers = figures.counted(decided.stopped_requests, "answer")
        parts.append(f"{answers} cut at what was reserved")
    return " · ".join(parts)


def _waited(decided: "Decided") -> str:
    if not decided.waited_requests:
        return ""
    requests = figures.counted(decided.waited_requests, "request")
    return f"{figures.seconds_text(decided.waited_us / 1e6)} for rate limits, in {requests}"


def _excess(decided: "Decided") -> str:
    if not decided.excess_requests:
        return ""
    requests = figures.counted(decided.excess_requests, "request")
    amount = figures.money_text(decided.excess_nano_usd, decimals=4, unit="$")
    return f"{amount} was billed beyond what was reserved, in {requests}"
