"""Events of the audit trail, shown: as a line of JSON, as a document, as a row of a table."""

import json
from collections.abc import Sequence
from typing import Any

from opencode_gate.cli import figures
from opencode_gate.cli.render import Column, Table
from opencode_gate.ledger.audit import AuditEvent


def event_document(event: AuditEvent) -> dict[str, object]:
    """One event for machines."""
    return {
        "seq": event.seq,
        "at": figures.iso_text(event.at_us),
        "kind": event.kind,
        "event": _told(event),
        "hash": event.hash,
    }


def event_line(event: AuditEvent) -> str:
    """One event as a line of JSON."""
    document = json.dumps(event_document(event), separators=(",", ":"))
    return f"{document}\n"


def events_table(events: Sequence[AuditEvent]) -> Table:
    """Events below each other."""
    return Table(
        columns=(
            Column("no.", justify="right"),
            Column("time"),
            Column("what"),
            Column("who"),
            Column("about", wrap=True),
        ),
        rows=[
            (
                f"{event.seq:,}",
                figures.time_text(event.at_us),
                event.kind,
                _who(_told(event)),
                _about(event.kind, _told(event)),
            )
            for event in events
        ],
    )


def _told(event: AuditEvent) -> dict[str, Any]:
    """What an event says; of one that was tampered with, whatever stands there."""
    try:
        told = json.loads(event.document)
    except ValueError:
        told = None
    return told if isinstance(told, dict) else {"text": event.document}


def _who(told: dict[str, Any]) -> str:
    key = told.get("virtual_key")
    return f"vkey {key}" if key else str(told.get("operator") or told.get("user") or "")


def _about(kind: str, told: dict[str, Any]) -> str:
    if kind == "policy":
        before, after = told.get("before"), told.get("after")
        if before is None:
            change = "made"
        elif after is None:
            change = "removed"
        else:
            change = f"changed{_differences(before, after)}"
        return f"rules of {told.get('kind')} {told.get('name')} {change}"
    if kind == "break":
        known, found = (_seq(told.get(name)) for name in ("known", "found"))
        return f"the trail should end with event {known}, and was found to end with {found}"
    if "exchange" not in told:
        return str(told.get("text", ""))
    model = f"{told.get('provider')}/{told.get('model') or told.get('response_model') or '?'}"
    if kind == "refusal":
        return f"{model} {told.get('denial')}"
    cost = told.get("cost_nano_usd")
    counts = [
        f"{told[name]:,} {word}"
        for name, word in (("input_tokens", "in"), ("output_tokens", "out"))
        if isinstance(told.get(name), int)
    ]
    shown = figures.money_text(cost) if isinstance(cost, int) else "unknown cost"
    end = "" if told.get("status") == "completed" else str(told.get("status"))
    return ", ".join(part for part in (model, *counts, shown, end) if part)


def _differences(before: object, after: object) -> str:
    """Which rules became others, of budgets from what to what."""
    if not isinstance(before, dict) or not isinstance(after, dict):
        return ""
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    found = []
    for name in names:
        former, later = before.get(name), after.get(name)
        if name == "budgets":
            change = f"{_budgets(former, later) or 'none'} → {_budgets(later, former) or 'none'}"
            found.append(f"{name} {change}")
        elif name == "active":
            found.append("switched off" if later is False else "switched on")
        elif name == "secret_hash":
            found.append("another secret")
        elif isinstance(former or "", str) and isinstance(later or "", str):
            found.append(f"{name} {former or 'none'} → {later or 'none'}")
        else:
            found.append(name)
    return f": {', '.join(found)}" if found else ""


def _budgets(of: object, but: object) -> str:
    """Those of a list of budgets that another has not."""
    others = but if isinstance(but, list) else []
    texts = []
    for budget in of if isinstance(of, list) else []:
        if isinstance(budget, dict) and budget not in others:
            amount = f"${budget['usd']}" if "usd" in budget else f"{budget.get('tokens')} tokens"
            ways = [str(budget[name]) for name in ("at_end", "mode") if name in budget]
            texts.append(" ".join([str(budget.get("window")), amount, *ways]))
    return ", ".join(texts)


def _seq(head: object) -> object:
    return head.get("seq") if isinstance(head, dict) else "none"
