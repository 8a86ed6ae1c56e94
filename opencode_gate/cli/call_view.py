"""One model call, shown: as a document for programs, as a row of a table, as a running line.

The invariant: nothing of a prompt or an answer is here, because the ledger holds none.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from opencode_gate.cli import figures
from opencode_gate.cli.render import Block, Fact, Facts, printable
from opencode_gate.core.money import usd_text
from opencode_gate.core.semconv import ExchangeStatus

if TYPE_CHECKING:
    from opencode_gate.cli.fitted_table import FittedColumn
    from opencode_gate.ledger.records import ExchangeRecord, SessionRecord

_LONGEST_MODEL = 32
_ENDS = {
    ExchangeStatus.OPEN: "open",
    ExchangeStatus.COMPLETED: "ok",
    ExchangeStatus.CLIENT_DISCONNECTED: "left",
    ExchangeStatus.UPSTREAM_ERROR: "error",
    ExchangeStatus.INTERRUPTED: "cut",
    ExchangeStatus.DENIED: "denied",
}


def exchange_document(
    session: "SessionRecord | None", exchange: "ExchangeRecord"
) -> dict[str, object]:
    """One model call for machines, with the names of the summary's document."""
    usage = exchange.usage
    return {
        "id": exchange.id,
        "session_id": exchange.session_id,
        "user": None if session is None else session.user,
        "agent": None if session is None else session.agent,
        "project": None if session is None else session.project,
        "repository": None if session is None else session.repository,
        "branch": None if session is None else session.branch,
        "commit": None if session is None else session.commit,
        "conversation_id": exchange.conversation_id,
        "parent_conversation_id": exchange.parent_conversation_id,
        "prompt_id": exchange.prompt_id,
        "kind": exchange.kind,
        "mode": exchange.mode,
        "operation": exchange.operation,
        "wire_format": exchange.wire_format,
        "provider_name": exchange.provider_name,
        "credential_name": exchange.credential_name,
        "request_model": exchange.request_model,
        "response_model": exchange.response_model,
        "streamed": exchange.streamed,
        "status": exchange.status,
        "http_status": exchange.http_status,
        "error_type": exchange.error_type,
        "denial": exchange.denial,
        "finish_reason": exchange.finish_reason,
        "repaired": exchange.repaired,
        "attempts": exchange.attempts,
        "started_at": figures.iso_text(exchange.started_at_us),
        "queued_s": _seconds(exchange.queued_us),
        "time_to_first_chunk_s": _seconds(exchange.time_to_first_chunk_us),
        "duration_s": _seconds(exchange.duration_us),
        "gateway_s": _seconds(exchange.gateway_us),
        "input_tokens": usage.input_tokens,
        "cache_read_input_tokens": usage.cache_read,
        "cache_creation_input_tokens": usage.cache_creation_input_tokens,
        "output_tokens": usage.output,
        "reasoning_output_tokens": usage.reasoning,
        "usage_quality": exchange.usage_quality,
        "tools_called": list(exchange.tools_called),
        "cost_usd": _usd(exchange.cost_nano_usd),
        "cost_quality": exchange.cost_quality,
        "price_source": exchange.price_source,
        "reported_cost_usd": _usd(exchange.reported_cost_nano_usd),
        "priced_cost_usd": _usd(exchange.priced_cost_nano_usd),
        "superseded_cost_usd": _usd(exchange.superseded_cost_nano_usd),
        "superseded_price_source": exchange.superseded_price_source,
        "virtual_key": exchange.virtual_key,
        "team": exchange.team,
        "customer": exchange.customer,
        "reserved_cost_usd": _usd(exchange.reserved_cost_nano_usd),
        "output_limit_tokens": exchange.output_limit_tokens,
        "downgraded_from": exchange.downgraded_from,
        "decisions": _decision_documents(exchange),
    }


def calls_table(
    exchanges: "Sequence[ExchangeRecord]",
    sessions: "Mapping[str, SessionRecord]",
    *,
    width: int,
) -> Block:
    """A table of calls; what a terminal has no room for is in `logs show` and `--json`."""
    from opencode_gate.cli.fitted_table import FittedColumn, fitted_table

    def column(
        title: str, cells: "list[str]", rank: int = 0, *, is_text: bool = False
    ) -> FittedColumn:
        is_figure = title in ("in", "out", "cost", "tries", "took")
        justify: Literal["left", "right"] = "right" if is_figure else "left"
        return FittedColumn(title=title, cells=cells, rank=rank, is_text=is_text, justify=justify)

    return fitted_table(
        [
            column("call", [figures.short_id(each.id) for each in exchanges], 1),
            column("time", [clock_text(each.started_at_us) for each in exchanges]),
            column("user", [_user(sessions.get(each.session_id)) for each in exchanges], 6),
            *_owner_columns(exchanges, column),
            column("session", [figures.short_id(each.session_id) for each in exchanges], 4),
            column("conversation", [_conversation(each) for each in exchanges], 5),
            column("model", [model_text(each) for each in exchanges], is_text=True),
            column("ended", [end_text(each) for each in exchanges], is_text=True),
            column("in", [_count(each, each.usage.input_tokens) for each in exchanges]),
            column("out", [_count(each, each.usage.output) for each in exchanges]),
            column("cost", [cost_text(each) for each in exchanges]),
            column("tries", [str(each.attempts) for each in exchanges], 3),
            column("took", [_took(each) for each in exchanges], 2),
        ],
        width=width,
    )


def _owner_columns(
    exchanges: "Sequence[ExchangeRecord]", column: "Callable[..., FittedColumn]"
) -> "Iterable[FittedColumn]":
    """Virtual key and team, where anything came under one."""
    keys = [each.virtual_key or figures.NOTHING for each in exchanges]
    teams = [each.team or figures.NOTHING for each in exchanges]
    if any(each.virtual_key for each in exchanges):
        yield column("vkey", keys, 5)
    if any(each.team for each in exchanges):
        yield column("team", teams, 7)


def running_line(exchange: "ExchangeRecord") -> str:
    """A call as a line of `logs tail`, in columns that stay where they are."""
    usage = exchange.usage
    cells = (
        clock_text(exchange.started_at_us),
        figures.short_id(exchange.session_id),
        f"{model_text(exchange)[:_LONGEST_MODEL]:<{_LONGEST_MODEL}}",
        f"{_count(exchange, usage.input_tokens):>7} in",
        f"{_count(exchange, usage.output):>7} out",
        f"{cost_text(exchange):>9}",
        f"{_took(exchange):>7}",
        end_text(exchange),
    )
    return printable("  ".join(cells)).replace("\n", "\N{REPLACEMENT CHARACTER}")


def call_facts(session: "SessionRecord | None", exchange: "ExchangeRecord") -> list[Block]:
    """Everything that is known of one call; lines with nothing to say are left out."""
    usage = exchange.usage
    where = "" if session is None else f" · {session.project}"
    branch = f" ({session.branch})" if session is not None and session.branch else ""
    facts = {
        "call": exchange.id,
        "session": f"{exchange.session_id}{where}{branch}",
        "user": None if session is None else session.user,
        "conversation": _line(
            (exchange.conversation_id, ""),
            (exchange.parent_conversation_id, "below "),
            (exchange.kind.value, ""),
            (exchange.mode, "mode "),
            (exchange.prompt_id, "prompt "),
        ),
        "under": _line(
            (exchange.virtual_key, "virtual key "),
            (exchange.team, "team "),
            (exchange.customer, "customer "),
        ),
        "asked": _line(
            (model_text(exchange), ""),
            (exchange.credential_name, "key "),
            (exchange.operation.value, ""),
            ("streamed" if exchange.streamed else None, ""),
            (exchange.wire_format.value, ""),
        ),
        "answered as": exchange.response_model,
        "ended": _line(
            (end_text(exchange), ""),
            (exchange.http_status, "HTTP "),
            (exchange.finish_reason, ""),
            (exchange.repaired, "repaired: "),
        ),
        "started": f"{figures.time_text(exchange.started_at_us)}"
        f"   {figures.iso_text(exchange.started_at_us)}",
        "times": _times(exchange),
        "tries": str(exchange.attempts),
        "input": _line(
            (_known(usage.input_uncached), "uncached "),
            (_known(usage.cache_read), "from the cache "),
            (_known(usage.cache_write_5m), "written for 5 min "),
            (_known(usage.cache_write_1h), "written for 1 h "),
            (_known(usage.input_audio), "audio "),
        ),
        "output": _line(
            (_known(usage.output), ""),
            (_known(usage.reasoning), "reasoning "),
            (_known(usage.output_audio), "audio "),
        ),
        "counts are": exchange.usage_quality.value,
        "provider said": exchange.raw_usage,
        "tools called": ", ".join(exchange.tools_called),
        "cost": _costs(exchange),
        "reserved": _reserved(exchange),
        "downgraded": _downgraded(exchange),
        "limited": _limited(exchange),
    }
    rows = [Fact(label, text) for label, text in facts.items() if text]
    return [Facts([*rows, *_decision_facts(exchange)])]


def json_line(session: "SessionRecord | None", exchange: "ExchangeRecord") -> str:
    """A call as one line of JSON."""
    return json.dumps(exchange_document(session, exchange))


def model_text(exchange: "ExchangeRecord") -> str:
    """The model as `provider/model`; what is no generation says what it is."""
    model = exchange.request_model or exchange.response_model
    name = exchange.provider_name if model is None else f"{exchange.provider_name}/{model}"
    return name if exchange.operation.value == "generate" else f"{name} ({exchange.operation})"


def end_text(exchange: "ExchangeRecord") -> str:
    """How it ended in a word or two, with the reason where there is one."""
    reason = exchange.denial or exchange.error_type
    if reason is None and exchange.http_status is not None and exchange.http_status >= 400:
        reason = str(exchange.http_status)
    return " ".join(filter(None, (_ENDS[exchange.status], reason)))


def cost_text(exchange: "ExchangeRecord") -> str:
    """What it cost: `?` where that is unknown, nothing where nothing was to be paid."""
    from opencode_gate.ledger.totals import asks_for_cost

    if not asks_for_cost(exchange):
        return figures.NOTHING
    return figures.money_text(exchange.cost_nano_usd, exchange.cost_quality)


def clock_text(time_us: int) -> str:
    """A moment in local time to the second; the day only if it is not today."""
    moment, now = datetime.fromtimestamp(time_us / 1e6), datetime.now()
    if moment.date() == now.date():
        return moment.strftime("%H:%M:%S")
    return moment.strftime("%m-%d %H:%M:%S" if moment.year == now.year else "%Y-%m-%d %H:%M")


def _user(session: "SessionRecord | None") -> str:
    return figures.UNKNOWN if session is None else session.user


def _conversation(exchange: "ExchangeRecord") -> str:
    """The end of the agent's own id, which is what tells two of them apart."""
    if exchange.conversation_id is None:
        return figures.NOTHING
    return f"…{exchange.conversation_id[-6:]}"


def _count(exchange: "ExchangeRecord", count: int | None) -> str:
    if count is None and exchange.status is ExchangeStatus.DENIED:
        return figures.NOTHING
    return figures.count_text(count)


def _took(exchange: "ExchangeRecord") -> str:
    if exchange.duration_us is None:
        return figures.NOTHING
    return figures.seconds_text(exchange.duration_us / 1e6)


def _times(exchange: "ExchangeRecord") -> str:
    times = (
        ("first content after", exchange.time_to_first_chunk_us),
        ("end after", exchange.duration_us),
        ("waited here", exchange.queued_us),
        ("gateway's own time", exchange.gateway_us),
    )
    return " · ".join(
        f"{label} {figures.brief_time_text(us)}" for label, us in times if us is not None
    )


def _costs(exchange: "ExchangeRecord") -> str:
    amounts = [f"{cost_text(exchange)} {exchange.cost_quality}"]
    if exchange.price_source is not None:
        amounts[0] += f" by {exchange.price_source}"
    for label, amount in (
        ("the provider said", exchange.reported_cost_nano_usd),
        ("the price book says", exchange.priced_cost_nano_usd),
    ):
        if amount is not None and amount != exchange.cost_nano_usd:
            amounts.append(f"{label} {figures.money_text(amount)}")
    if exchange.superseded_price_source is not None:
        first = figures.money_text(exchange.superseded_cost_nano_usd)
        amounts.append(f"first counted {first} by {exchange.superseded_price_source}")
    return " · ".join(amounts)


def _reserved(exchange: "ExchangeRecord") -> str | None:
    """Its worst case, and by how much the provider billed more."""
    if exchange.reserved_cost_nano_usd is None:
        return None
    from opencode_gate.session.decided import excess_of

    text = f"{figures.money_text(exchange.reserved_cost_nano_usd)} at most"
    excess = excess_of(exchange)
    return f"{text} · {figures.money_text(excess)} was billed beyond that" if excess else text


def _downgraded(exchange: "ExchangeRecord") -> str | None:
    asked = exchange.downgraded_from
    return None if asked is None else f"{asked} was asked for"


def _limited(exchange: "ExchangeRecord") -> str | None:
    limit = exchange.output_limit_tokens
    return None if limit is None else f"the output limit was lowered to {limit:,} tokens"


def _decision_facts(exchange: "ExchangeRecord") -> "list[Fact]":
    if exchange.decisions is None:
        return []
    from opencode_gate.cli.decided_view import decision_text
    from opencode_gate.session.decided import decisions_of

    return [Fact(f"rule: {one.outcome}", decision_text(one)) for one in decisions_of(exchange)]


def _decision_documents(exchange: "ExchangeRecord") -> list[dict[str, object]]:
    if exchange.decisions is None:
        return []
    from opencode_gate.cli.decided_view import decision_document
    from opencode_gate.session.decided import decisions_of

    return [decision_document(one) for one in decisions_of(exchange)]


def _known(count: int | None) -> str | None:
    return None if count is None else f"{count:,}"


def _line(*parts: tuple[object | None, str]) -> str:
    return " · ".join(f"{label}{value}" for value, label in parts if value is not None)


def _seconds(time_us: int | None) -> float | None:
    return None if time_us is None else time_us / 1_000_000


def _usd(amount_nano_usd: int | None) -> str | None:
    return None if amount_nano_usd is None else usd_text(amount_nano_usd)


def documents(
    exchanges: "Iterable[ExchangeRecord]", sessions: "Mapping[str, SessionRecord]"
) -> list[dict[str, object]]:
    """Calls for machines."""
    return [exchange_document(sessions.get(each.session_id), each) for each in exchanges]
