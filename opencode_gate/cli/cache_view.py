"""The prompt cache of a session: what each conversation read from it, and where it fell out.

The invariant: a cause is said only as far as it was seen, and money only where both prices are
known.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from opencode_gate.cli import figures
from opencode_gate.cli.plot import share_line
from opencode_gate.cli.render import Block, Column, Table, Text
from opencode_gate.core.money import usd_text
from opencode_gate.core.semconv import ConversationKind
from opencode_gate.core.usage import sum_known

if TYPE_CHECKING:
    from opencode_gate.ledger.records import ExchangeRecord, SessionRecord
    from opencode_gate.session.cache_doctor import CacheHistory, Fall

_SHOWN_TOOLS = 3
_LINE_WIDTH = 72


def cache_document(
    session: "SessionRecord", histories: "Sequence[CacheHistory]", titles: Mapping[str, str]
) -> dict[str, object]:
    """The histories for machines."""
    from opencode_gate.cli.summary_view import session_document

    falls = [fall for history in histories for fall in history.falls]
    return {
        "session": session_document(session),
        "lost_tokens": sum(fall.lost_tokens for fall in falls),
        "extra_cost_usd": _usd(_extra_cost(falls)),
        "conversations": [
            {
                "id": history.conversation_id,
                "kind": str(history.kind),
                "title": titles.get(history.conversation_id or ""),
                "is_cached": history.is_cached,
                "input_tokens": history.input_tokens,
                "cache_read_input_tokens": history.cache_read_tokens,
                "requests": [
                    {
                        "id": exchange.id,
                        "started_at": figures.iso_text(exchange.started_at_us),
                        "input_tokens": exchange.usage.input_tokens,
                        "cache_read_input_tokens": exchange.usage.cache_read,
                    }
                    for exchange in history.exchanges
                ],
                "falls": [_fall_document(fall) for fall in history.falls],
            }
            for history in histories
        ],
    }


def _fall_document(fall: "Fall") -> dict[str, object]:
    return {
        "request_id": fall.exchange.id,
        "before_id": fall.before.id,
        "started_at": figures.iso_text(fall.exchange.started_at_us),
        "cause": str(fall.cause),
        "lost_tokens": fall.lost_tokens,
        "extra_cost_usd": _usd(fall.extra_cost_nano_usd),
        "pause_s": fall.pause_us / 1_000_000,
        "lifetime_s": fall.lifetime_us / 1_000_000,
        "message": fall.position,
        "messages": fall.messages,
        "tools_added": list(fall.tools_added),
        "tools_removed": list(fall.tools_removed),
        "tools_resized": list(fall.tools_resized),
    }


def cache_blocks(
    headline: str, histories: "Sequence[CacheHistory]", titles: Mapping[str, str]
) -> list[Block]:
    """The histories for people: each conversation that fell, the others in a line."""
    blocks: list[Block] = [Text(f"{headline} · prompt cache", "bold")]
    if not histories:
        return [
            *blocks,
            Text(""),
            Text("no provider said what it read from a prompt cache"),
        ]
    for history in histories:
        blocks += [Text(""), *_history_blocks(history, titles)]
    falls = [fall for history in histories for fall in history.falls]
    if falls:
        blocks += [Text(""), Text(_sum_line(falls), "bold")]
    return blocks


def _history_blocks(history: "CacheHistory", titles: Mapping[str, str]) -> Iterable[Block]:
    yield Text(_title(history, titles))
    yield Text(_share(history), "dim")
    if len(history.exchanges) > 1 and history.is_cached:
        shares = [_share_of(exchange) for exchange in history.exchanges]
        yield Text(f"{share_line(shares, width=_LINE_WIDTH)}  cached share of each request", "dim")
    if history.falls:
        yield _falls_table(history.falls)
    elif history.is_cached and len(history.exchanges) > 1:
        yield Text("nothing fell out of the cache")


def _title(history: "CacheHistory", titles: Mapping[str, str]) -> str:
    name = "sub-agent" if history.kind is ConversationKind.SUBAGENT else str(history.kind)
    title = titles.get(history.conversation_id or "")
    return f"{name}: {title}" if title else f"{name} {history.conversation_id or ''}".rstrip()


def _share(history: "CacheHistory") -> str:
    requests = figures.counted(len(history.exchanges), "request")
    tokens = f"{requests} · {figures.count_text(history.input_tokens)} input"
    if not history.is_cached:
        return f"{tokens} · nothing was ever read from a cache: it may have none for this model"
    share = figures.percent_text(history.cache_read_tokens, history.input_tokens)
    return f"{tokens} · {share} from the cache"


def _share_of(exchange: "ExchangeRecord") -> float:
    total = exchange.usage.input_tokens
    return (exchange.usage.cache_read or 0) / total if total else 0.0


def _falls_table(falls: "Iterable[Fall]") -> Table:
    return Table(
        columns=(
            Column("at"),
            Column("cached", "right"),
            Column("before", "right"),
            Column("read anew", "right"),
            Column("cost more", "right"),
            Column("because", wrap=True),
        ),
        rows=[
            (
                figures.time_text(fall.exchange.started_at_us)[-5:],
                _percent(fall.exchange),
                _percent(fall.before),
                figures.count_text(fall.lost_tokens),
                figures.money_text(fall.extra_cost_nano_usd),
                because(fall),
            )
            for fall in falls
        ],
    )


def _percent(exchange: "ExchangeRecord") -> str:
    return figures.percent_text(exchange.usage.cache_read, exchange.usage.input_tokens)


def because(fall: "Fall") -> str:
    """The cause of a fall in words."""
    from opencode_gate.session.cache_doctor import Cause

    match fall.cause:
        case Cause.MODEL:
            return f"the model was {_model(fall.before)} and is {_model(fall.exchange)}"
        case Cause.KEY:
            return "another key was used, and each account has a cache of its own"
        case Cause.COMPACTION:
            return "the conversation was compacted"
        case Cause.TOOLS:
            return f"the tools changed{_tools(fall)}"
        case Cause.SYSTEM:
            return "the system prompt changed"
        case Cause.MESSAGE:
            return f"message {(fall.position or 0) + 1} of {fall.messages} changed"
        case Cause.PAUSE:
            pause, lifetime = map(figures.duration_text, (fall.pause_us, fall.lifetime_us))
            return f"a pause of {pause}; the cache keeps for {lifetime}"
        case Cause.UNKNOWN:
            return _unknown(fall)


def _unknown(fall: "Fall") -> str:
    if fall.before.parts is None or fall.exchange.parts is None:
        return "not known: nothing is kept of what the request was made of"
    return "nothing changed here: the provider let go of it"


def _model(exchange: "ExchangeRecord") -> str:
    return f"{exchange.provider_name}/{exchange.request_model or figures.UNKNOWN}"


def _tools(fall: "Fall") -> str:
    changes = [
        f"{sign} {_names(names)}"
        for sign, names in (
            ("+", fall.tools_added),
            ("−", fall.tools_removed),
            ("reworded", fall.tools_resized),
        )
        if names
    ]
    return f": {', '.join(changes)}" if changes else ": their order or wording"


def _names(names: Sequence[str]) -> str:
    rest = len(names) - _SHOWN_TOOLS
    shown = ", ".join(names[:_SHOWN_TOOLS])
    return f"{shown} and {rest} more" if rest > 0 else shown


def _extra_cost(falls: "Iterable[Fall]") -> int | None:
    return sum_known(*(fall.extra_cost_nano_usd for fall in falls))


def _sum_line(falls: "Sequence[Fall]") -> str:
    unknown = sum(fall.extra_cost_nano_usd is None for fall in falls)
    tokens = figures.count_text(sum(fall.lost_tokens for fall in falls))
    cost = figures.brief_money(_extra_cost(falls), unknown_requests=unknown)
    times = figures.counted(len(falls), "fall")
    return f"{times}: {tokens} tokens read anew, {cost} more than from the cache"


def _usd(amount_nano_usd: int | None) -> str | None:
    return None if amount_nano_usd is None else usd_text(amount_nano_usd)
