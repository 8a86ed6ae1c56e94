"""The summary of a session: one document for machines, one screen for people.

The idea: both are made from the same `Summary`, and the totals `T` of the document have the
same names in `ogate usage --json`. The invariant: nothing unknown is written as zero, and a
bill nobody could add up is never shown as `$0`.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from opencode_gate.cli import figures
from opencode_gate.cli.budget_view import (
    standing_document,
    standing_line,
    standing_style,
    warning_lines,
)
from opencode_gate.cli.decided_view import decided_document, decided_facts
from opencode_gate.cli.render import Block, Column, Fact, Facts, Table, Text
from opencode_gate.core.clock import SystemClock
from opencode_gate.core.money import usd_text
from opencode_gate.core.semconv import ConversationKind, CostQuality
from opencode_gate.core.usage import sum_known
from opencode_gate.ledger.totals import worst_quality

if TYPE_CHECKING:
    from opencode_gate.ledger.records import SessionRecord
    from opencode_gate.ledger.totals import Totals
    from opencode_gate.session.reconciliation import Bypass
    from opencode_gate.session.summary import ConversationTotals, Summary

TOTALS_COLUMNS = (
    Column("requests", "right"),
    Column("input", "right"),
    Column("cached", "right"),
    Column("output", "right"),
    Column("cost", "right"),
)
"""The columns every table of totals ends with; `totals_cells` fills them."""
_CONTRADICTED = "answers whose counts do not fit them"


def summary_document(summary: "Summary") -> dict[str, object]:
    """The summary for machines, version 1."""
    return {
        "version": 1,
        "session": session_document(summary.session),
        "totals": totals_document(summary.totals),
        "models": [
            {
                "provider_name": model.provider_name,
                "request_model": model.request_model,
                "response_model": model.response_model,
                **totals_document(model.totals),
            }
            for model in summary.models
        ],
        "conversations": [
            {
                "id": conversation.record.id or None,
                "parent_id": conversation.record.parent_id,
                "title": conversation.record.title,
                "kind": str(conversation.record.kind),
                **totals_document(conversation.totals),
            }
            for conversation in summary.conversations
        ],
        "trouble": {
            "retries": summary.trouble.retries,
            "failovers": summary.trouble.failovers,
            "interrupted": summary.trouble.interrupted,
            "errors": summary.trouble.errors,
            "contradicted": summary.trouble.contradicted,
        },
        "timing": {
            "time_to_first_chunk_s_p50": _rounded(summary.timing.time_to_first_chunk_s_p50),
            "time_to_first_chunk_s_p95": _rounded(summary.timing.time_to_first_chunk_s_p95),
            "output_tokens_per_s": _rounded(summary.timing.output_tokens_per_s),
            "gateway_us_p50": _rounded(summary.timing.gateway_us_p50),
        },
        "budgets": [standing_document(standing) for standing in summary.budgets],
        "rules": decided_document(summary.decided),
    }


def session_document(session: "SessionRecord") -> dict[str, object]:
    """A session for machines; times are ISO 8601 in UTC."""
    return {
        "id": session.id,
        "user": session.user,
        "agent": session.agent,
        "agent_version": session.agent_version,
        "project": session.project,
        "repository": session.repository,
        "branch": session.branch,
        "commit": session.commit,
        "started_at": figures.iso_text(session.started_at_us),
        "ended_at": figures.iso_text(session.ended_at_us),
        "exit_status": session.exit_status,
    }


def totals_document(totals: "Totals") -> dict[str, object]:
    """Totals for machines; `cost_usd` is an exact decimal string, or null when unknown."""
    cost_nano_usd = totals.cost_nano_usd
    return {
        "requests": totals.requests,
        "input_tokens": totals.input_tokens,
        "cache_read_input_tokens": totals.cache_read_input_tokens,
        "cache_creation_input_tokens": totals.cache_creation_input_tokens,
        "output_tokens": totals.output_tokens,
        "reasoning_output_tokens": totals.reasoning_output_tokens,
        "cost_usd": None if cost_nano_usd is None else usd_text(cost_nano_usd),
        "cost_quality": str(totals.cost_quality),
        "unknown_cost_requests": totals.unknown_cost_requests,
    }


def totals_cells(totals: "Totals") -> tuple[str, ...]:
    """Totals for the columns of `TOTALS_COLUMNS`."""
    return (
        str(totals.requests),
        figures.count_text(totals.input_tokens),
        figures.percent_text(totals.cache_read_input_tokens, totals.input_tokens),
        figures.count_text(totals.output_tokens),
        figures.money_text(
            totals.cost_nano_usd,
            totals.cost_quality,
            unknown_requests=totals.unknown_cost_requests,
        ),
    )


def cost_notes(totals: "Totals") -> list[str]:
    """What the marks `~` and `?` in a table of these totals mean; nothing where it has none."""
    notes = []
    if totals.unknown_cost_requests:
        requests = figures.counted(totals.unknown_cost_requests, "request")
        notes.append(f"? has no known price ({requests}), and is not in the sum")
    if totals.cost_quality is CostQuality.ESTIMATED:
        notes.append(
            "~ is estimated: an answer was cut before its usage arrived,"
            " or its provider reports no usage"
        )
    return notes


def summary_blocks(summary: "Summary") -> list[Block]:
    """The summary for people; lines with nothing to say are left out."""
    blocks: list[Block] = [Text(headline(summary.session), "bold"), Text("")]
    blocks += map(bypass_line, summary.bypass)
    if summary.models:
        blocks += [_models_table(summary), Text("")]
    else:
        blocks += [Text("no model call went through the gateway"), Text("")]
    facts = [fact for fact in _facts(summary) if fact.text]
    return [*blocks, Facts(facts)] if facts else blocks


def headline(session: "SessionRecord") -> str:
    """Which session it is, for the first line of a screen."""
    where = f"{session.project} ({session.branch})" if session.branch else session.project
    parts = ["ogate", f"session {figures.short_id(session.id)}", where]
    if session.ended_at_us is not None:
        parts.append(figures.duration_text(session.ended_at_us - session.started_at_us))
    return " · ".join(parts)


def _models_table(summary: "Summary") -> Table:
    return Table(
        columns=(Column("model", wrap=True), *TOTALS_COLUMNS),
        rows=[
            (_model_name(model.provider_name, model.request_model), *totals_cells(model.totals))
            for model in summary.models
        ],
        footer=("total", *totals_cells(summary.totals)),
    )


def _model_name(provider_name: str, model: str | None) -> str:
    return f"{provider_name}/{model or figures.UNKNOWN}"


def bypass_line(bypass: "Bypass") -> Text:
    """Answers the gateway never saw: loudly, unless the user wanted it so."""
    answers = figures.counted(bypass.answers, "answer")
    model = _model_name(bypass.provider_name, bypass.model)
    if bypass.is_expected:
        return Text(f"{answers} of {model} not through the gateway, covered by plan")
    doubt = "" if bypass.is_certain else " (if another Opencode ran in this folder, they are its)"
    mend = "" if bypass.mend is None else f": {bypass.mend}"
    return Text(
        f"not counted: {answers} of {model} did not pass the gateway{doubt}{mend}", "bold red"
    )


def _facts(summary: "Summary") -> Iterable[Fact]:
    yield Fact("by conversation", _by_conversation(summary.conversations))
    yield Fact("cache", _cache(summary))
    yield Fact("speed", _speed(summary))
    yield Fact("trouble", _trouble(summary), "yellow")
    yield from _budget_facts(summary)
    yield from decided_facts(summary.decided)
    for note in cost_notes(summary.totals):
        yield Fact("cost", note)
    yield Fact("check", summary.check or "")
    yield Fact("hidden", _hidden(summary.hidden))
    yield Fact("resume", summary.resume or "")


def _budget_facts(summary: "Summary") -> Iterable[Fact]:
    """How the budgets stand, and a sentence for each that has reached a threshold."""
    now_us = SystemClock().now_us()
    style = standing_style(summary.budgets)
    yield Fact("budget", standing_line(summary.budgets, now_us), style)
    for warning in warning_lines(summary.budgets):
        yield Fact("warning", warning, style)


_GROUPS: Mapping[ConversationKind, str] = {
    ConversationKind.MAIN: "main",
    ConversationKind.SUBAGENT: "sub-agent",
    ConversationKind.TITLE: "titles and compaction",
    ConversationKind.COMPACTION: "titles and compaction",
    ConversationKind.OTHER: "other",
}


def _by_conversation(conversations: "Iterable[ConversationTotals]") -> str:
    """Cost by kind of conversation; nothing where there is one kind, or nothing to divide."""
    # One of which nothing was sent has no part in the cost.
    entries = [one for one in conversations if one.totals.requests]
    groups: dict[str, list[ConversationTotals]] = {}
    for conversation in entries:
        groups.setdefault(_GROUPS[conversation.record.kind], []).append(conversation)
    if len(groups) < 2 or not any(entry.totals.cost_nano_usd for entry in entries):
        return ""
    return " · ".join(
        f"{_group_name(name, groups[name])} {_group_cost(groups[name])}"
        for name in dict.fromkeys(_GROUPS.values())
        if name in groups
    )


def _group_name(name: str, members: "list[ConversationTotals]") -> str:
    if name != _GROUPS[ConversationKind.SUBAGENT]:
        return name
    return figures.counted(len({member.record.id for member in members}), name)


def _group_cost(members: "list[ConversationTotals]") -> str:
    totals = [member.totals for member in members]
    return figures.brief_money(
        sum_known(*(part.cost_nano_usd for part in totals)),
        worst_quality(part.cost_quality for part in totals if part.cost_nano_usd is not None),
        unknown_requests=sum(part.unknown_cost_requests for part in totals),
    )


def _cache(summary: "Summary") -> str:
    """What prompt caches saved; nothing where none was used, or only ones without a price."""
    saved_nano_usd = summary.cache_saved_nano_usd
    if not saved_nano_usd:
        return ""
    amount = figures.brief_money(
        abs(saved_nano_usd), unknown_requests=summary.cache_unknown_requests
    )
    if saved_nano_usd < 0:
        return f"cost {amount} more than uncached prices: more was written than read"
    return f"saved {amount} against uncached prices"


def _speed(summary: "Summary") -> str:
    timing = summary.timing
    parts = []
    if timing.time_to_first_chunk_s_p50 is not None:
        text = f"first token {figures.seconds_text(timing.time_to_first_chunk_s_p50)} median"
        if timing.time_to_first_chunk_s_p95 is not None and summary.totals.requests > 1:
            text += f", {figures.seconds_text(timing.time_to_first_chunk_s_p95)} p95"
        parts.append(text)
    if timing.output_tokens_per_s is not None:
        parts.append(f"{timing.output_tokens_per_s:.0f} tokens/s")
    if timing.gateway_us_p50 is not None:
        parts.append(f"gateway's own {figures.brief_time_text(timing.gateway_us_p50)}")
    return " · ".join(parts)


def _trouble(summary: "Summary") -> str:
    trouble = summary.trouble
    counts = (
        (trouble.retries, "retry", "retries"),
        (trouble.failovers, "failover", None),
        (trouble.interrupted, "interrupted answer", None),
        (trouble.errors, "error", None),
        (trouble.contradicted, "answer whose counts do not fit it", _CONTRADICTED),
    )
    return ", ".join(figures.counted(number, one, many) for number, one, many in counts if number)


def _hidden(names: Iterable[str]) -> str:
    hidden = list(names)
    if not hidden:
        return ""
    verb = "was" if len(hidden) == 1 else "were"
    return f"{', '.join(hidden)} {verb} not shown to Opencode (keep_env keeps it)"


def _rounded(figure: float | None) -> float | None:
    return None if figure is None else round(figure, 3)
