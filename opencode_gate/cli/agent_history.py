"""Opencode's own history as usage: what `ogate usage --source opencode` adds up.

The invariant: the amounts are Opencode's own. A zero of its is no amount: it writes one for a
subscription, for a free model and for a price it does not know, and does not say which.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from opencode_gate.core.errors import UsageError
from opencode_gate.core.local_time import local_day, local_hour
from opencode_gate.core.money import nano_usd
from opencode_gate.core.semconv import (
    ConversationKind,
    CostQuality,
    ExchangeStatus,
    Operation,
    UsageQuality,
    WireFormat,
)
from opencode_gate.ledger.records import ExchangeRecord
from opencode_gate.ledger.totals import UsageQuery, UsageRow, total_of

if TYPE_CHECKING:
    from pathlib import Path

    from opencode_gate.agents.opencode.database import RecordedAnswer

_END_OF_TIME_US = 2**53


def opencode_answers(environ: Mapping[str, str], query: UsageQuery) -> "Sequence[RecordedAnswer]":
    """What Opencode recorded in the span of a query.

    Raises:
        UsageError: it has no history here, or one that cannot be read.
    """
    from opencode_gate.agents.opencode.database import history
    from opencode_gate.agents.opencode.folders import agent_folders, database_file

    file = database_file(environ, agent_folders(environ))
    since_us = 0 if query.since_us is None else query.since_us
    until_us = _END_OF_TIME_US if query.until_us is None else query.until_us
    found = history(file, since_us, until_us)
    if found is None:
        raise _no_history(file)
    return found


def usage_rows(answers: "Iterable[RecordedAnswer]", query: UsageQuery) -> list[UsageRow]:
    """Totals per group of a query, in the order of the groups' keys."""
    groups: dict[tuple[str | None, ...], list[ExchangeRecord]] = {}
    for answer in answers:
        key = tuple(_key(answer, name, query.time_zone) for name in query.by)
        groups.setdefault(key, []).append(_exchange(answer))
    return [
        UsageRow(key=dict(zip(query.by, key, strict=True)), totals=total_of(groups[key]))
        for key in sorted(groups, key=lambda key: [part or "" for part in key])
    ]


def _key(answer: "RecordedAnswer", name: str, time_zone: str) -> str | None:
    """The group of an answer; `None` where Opencode records nothing of the kind."""
    match name:
        case "model":
            return f"{answer.provider_id}/{answer.model_id}"
        case "provider":
            return answer.provider_id
        case "session" | "conversation":
            return answer.conversation_id
        case "project":
            return answer.project
        case "day":
            return local_day(answer.at_us, time_zone).isoformat()
        case "hour":
            return f"{local_hour(answer.at_us, time_zone):02}"
        case "mode":
            return answer.agent_name
        case "kind":
            return _kind(answer)
        case _:
            return None


def _kind(answer: "RecordedAnswer") -> ConversationKind:
    return ConversationKind.MAIN if answer.parent_id is None else ConversationKind.SUBAGENT


def _exchange(answer: "RecordedAnswer") -> ExchangeRecord:
    """An answer in the ledger's words, so that one set of rules adds up both."""
    cost_nano_usd = nano_usd(answer.cost_usd) if answer.cost_usd else None
    return ExchangeRecord(
        id="",
        session_id=answer.conversation_id,
        kind=_kind(answer),
        operation=Operation.GENERATE,
        wire_format=WireFormat.UNKNOWN,
        provider_name=answer.provider_id,
        request_model=answer.model_id,
        status=ExchangeStatus.COMPLETED,
        started_at_us=answer.at_us,
        usage=answer.usage,
        usage_quality=UsageQuality.REPORTED,
        cost_nano_usd=cost_nano_usd,
        cost_quality=CostQuality.UNKNOWN if cost_nano_usd is None else CostQuality.PRICED,
        price_source="opencode",
    )


def _no_history(file: "Path | None") -> UsageError:
    if file is None or not file.exists():
        return UsageError(
            "usage",
            "Opencode has no history here",
            details=("it keeps none (OPENCODE_DB=:memory:)" if file is None else f"no {file}",),
        )
    return UsageError(
        "usage", f"Opencode's history cannot be read: {file}", hint="ogate usage --source ogate"
    )
