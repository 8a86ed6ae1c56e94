"""Where a conversation fell out of its provider's prompt cache, why, and what that cost.

The idea: a request that goes on a conversation begins with the request before it, so what that
one left in the cache should be read from there. Where it was not, the parts of the two (hashes
and lengths, see `wire.prompt_parts`) show the first thing that changed. The invariants: only
counts that a provider reported are compared, never estimated ones; a fall without a visible
cause is `UNKNOWN`, not the likeliest guess; without a price there is no amount, never zero.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from itertools import pairwise

import msgspec
from msgspec.structs import replace

from opencode_gate.catalog.arithmetic import cost_of
from opencode_gate.catalog.rows import ModelPrice
from opencode_gate.core.money import nano_usd
from opencode_gate.core.semconv import ConversationKind, ExchangeStatus, Operation
from opencode_gate.core.usage import TokenUsage
from opencode_gate.ledger.records import ExchangeRecord
from opencode_gate.wire.prompt_parts import MESSAGES, SYSTEM, TOOLS, unpacked

SHORT_LIFETIME_US = 5 * 60 * 1_000_000
"""How long an unused cache entry lives at least, at every vendor that says so."""
LONG_LIFETIME_US = 60 * 60 * 1_000_000
"""The tier that a client can pay for (Anthropic's `ttl: 1h`)."""
SMALLEST_FALL_TOKENS = 1024
"""Less is never cached by most providers, and others round by as much."""
SMALLEST_FALL_SHARE = 0.1

_CONTINUED = (ConversationKind.MAIN, ConversationKind.SUBAGENT)

PriceOf = Callable[[ExchangeRecord], ModelPrice | None]


class Cause(StrEnum):
    """The first thing that changed between two requests."""

    MODEL = "model"
    KEY = "key"
    COMPACTION = "compaction"
    TOOLS = "tools"
    SYSTEM = "system"
    MESSAGE = "message"
    PAUSE = "pause"
    UNKNOWN = "unknown"


class Fall(msgspec.Struct, frozen=True, kw_only=True):
    """One request that was read anew although it had been read before.

    Attributes:
        before: the request whose cache entry was not used.
        lost_tokens: how many tokens could have come from the cache and did not.
        position: for `MESSAGE`, the number of the first message that changed, from 0.
        messages: for `MESSAGE`, how many messages the earlier request had.
        tools_added: for `TOOLS`, names that were not offered before.
        tools_removed: for `TOOLS`, names that are offered no more.
        tools_resized: for `TOOLS`, names whose definition has another length.
        pause_us: the time since the conversation's last request was sent.
        lifetime_us: how long what it left in the cache lives unused.
        extra_cost_nano_usd: what was paid more than with the cache, `None` without prices.
    """

    exchange: ExchangeRecord
    before: ExchangeRecord
    cause: Cause
    lost_tokens: int
    pause_us: int
    lifetime_us: int
    position: int | None = None
    messages: int | None = None
    tools_added: tuple[str, ...] = ()
    tools_removed: tuple[str, ...] = ()
    tools_resized: tuple[str, ...] = ()
    extra_cost_nano_usd: int | None = None


class CacheHistory(msgspec.Struct, frozen=True, kw_only=True):
    """One conversation: its requests with reported cache reads in their order, and its falls."""

    conversation_id: str | None
    kind: ConversationKind
    exchanges: tuple[ExchangeRecord, ...]
    falls: tuple[Fall, ...]

    @property
    def input_tokens(self) -> int:
        """The input of all requests."""
        return sum(exchange.usage.input_tokens or 0 for exchange in self.exchanges)

    @property
    def cache_read_tokens(self) -> int:
        """As much of it as came from the cache."""
        return sum(exchange.usage.cache_read or 0 for exchange in self.exchanges)

    @property
    def is_cached(self) -> bool:
        """Whether the cache was used at all."""
        return any(
            exchange.usage.cache_read or exchange.usage.cache_creation_input_tokens
            for exchange in self.exchanges
        )


def examine(
    exchanges: Iterable[ExchangeRecord],
    *,
    price_of: PriceOf,
    tool_sets: Mapping[str, Mapping[str, int]],
) -> tuple[CacheHistory, ...]:
    """The conversations of a session that have a cache history, in the order they began.

    Args:
        exchanges: of one session, in the order they started, with their parts.
        price_of: the prices that held for an exchange, `None` where they are unknown.
        tool_sets: the sizes of the tools in the sets that the exchanges name.
    """
    sent = [exchange for exchange in exchanges if _reached_a_provider(exchange)]
    compacted_at: dict[str | None, list[int]] = {}
    threads: dict[tuple[str | None, ConversationKind], list[ExchangeRecord]] = {}
    for exchange in sent:
        if exchange.kind in _CONTINUED:
            threads.setdefault((exchange.conversation_id, exchange.kind), []).append(exchange)
        elif exchange.kind is ConversationKind.COMPACTION:
            compacted_at.setdefault(exchange.conversation_id, []).append(exchange.started_at_us)
    histories = (
        _history(
            thread,
            compacted_at.get(conversation_id, ()),
            price_of=price_of,
            tool_sets=tool_sets,
        )
        for (conversation_id, _), thread in threads.items()
    )
    return tuple(history for history in histories if history.exchanges)


def _history(
    thread: Sequence[ExchangeRecord],
    compacted_at: Sequence[int],
    *,
    price_of: PriceOf,
    tool_sets: Mapping[str, Mapping[str, int]],
) -> CacheHistory:
    """The history of one conversation out of all its requests that reached a provider."""
    measured = [exchange for exchange in thread if _is_measured(exchange.usage)]
    place = {exchange.id: number for number, exchange in enumerate(thread)}
    found: list[Fall] = []
    for before, after in pairwise(measured):
        lost = _lost_tokens(before.usage, after.usage)
        if lost is None:
            continue
        used_at_us = thread[place[after.id] - 1].started_at_us
        fall = Fall(
            exchange=after,
            before=before,
            cause=Cause.UNKNOWN,
            lost_tokens=lost,
            pause_us=after.started_at_us - used_at_us,
            lifetime_us=_lifetime_us(measured),
            extra_cost_nano_usd=extra_cost(after.usage, lost, price_of(after)),
        )
        if any(before.started_at_us <= at_us <= after.started_at_us for at_us in compacted_at):
            fall = replace(fall, cause=Cause.COMPACTION)
        found.append(_explained(fall, tool_sets))
    history = CacheHistory(
        conversation_id=thread[0].conversation_id,
        kind=thread[0].kind,
        exchanges=tuple(measured),
        falls=tuple(found),
    )
    if history.is_cached:
        return history
    # Nothing fell that was never up; a change still says why it cannot rise.
    is_seen = (Cause.TOOLS, Cause.SYSTEM, Cause.MESSAGE)
    return replace(history, falls=tuple(fall for fall in found if fall.cause in is_seen))


def extra_cost(usage: TokenUsage, lost_tokens: int, price: ModelPrice | None) -> int | None:
    """What `lost_tokens` cost more than if they had been read from the cache, nano-dollars.

    They are taken for written again as far as the provider wrote, which costs more than plain
    input where writing has a price. `None` where a price is missing.
    """
    if price is None or (price.cache_read is None and not price.is_free):
        return None
    rewritten_1h = min(lost_tokens, usage.cache_write_1h or 0)
    rewritten_5m = min(lost_tokens - rewritten_1h, usage.cache_write_5m or 0)
    uncached = min(lost_tokens - rewritten_1h - rewritten_5m, usage.input_uncached or 0)
    as_read = msgspec.structs.replace(
        usage,
        input_uncached=_less(usage.input_uncached, uncached),
        cache_write_5m=_less(usage.cache_write_5m, rewritten_5m),
        cache_write_1h=_less(usage.cache_write_1h, rewritten_1h),
        cache_read=(usage.cache_read or 0) + rewritten_1h + rewritten_5m + uncached,
    )
    paid, possible = cost_of(usage, price), cost_of(as_read, price)
    return None if paid is None or possible is None else nano_usd(paid.usd - possible.usd)


def _less(count: int | None, part: int) -> int | None:
    return None if count is None else count - part


def _reached_a_provider(exchange: ExchangeRecord) -> bool:
    is_refused = exchange.http_status is not None and exchange.http_status >= 400
    return (
        exchange.operation is Operation.GENERATE
        and exchange.status not in (ExchangeStatus.DENIED, ExchangeStatus.OPEN)
        and not is_refused
    )


def _is_measured(usage: TokenUsage) -> bool:
    """Whether the provider said what it read from its cache; an estimate never says that."""
    return usage.input_tokens is not None and usage.cache_read is not None


def _lifetime_us(thread: Iterable[ExchangeRecord]) -> int:
    """How long what a conversation leaves in the cache lives unused."""
    is_long = any(exchange.usage.cache_write_1h for exchange in thread)
    return LONG_LIFETIME_US if is_long else SHORT_LIFETIME_US


def _lost_tokens(before: TokenUsage, after: TokenUsage) -> int | None:
    """How many tokens could have come from the cache and did not; `None` where that is little."""
    reusable = min(_left_in_cache(before), after.input_tokens or 0)
    lost = reusable - (after.cache_read or 0)
    return lost if lost >= max(SMALLEST_FALL_TOKENS, reusable * SMALLEST_FALL_SHARE) else None


def _left_in_cache(usage: TokenUsage) -> int:
    """How much of a request its provider has afterwards.

    One that reports what it writes has that and what it read; another keeps what it was sent.
    """
    written = usage.cache_creation_input_tokens
    if written is None:
        return usage.input_tokens or 0
    return written + (usage.cache_read or 0)


def _explained(fall: Fall, tool_sets: Mapping[str, Mapping[str, int]]) -> Fall:
    """The fall with the first cause that shows."""
    before, after = fall.before, fall.exchange
    if _target(before) != _target(after):
        return replace(fall, cause=Cause.MODEL)
    if before.credential_name != after.credential_name:
        return replace(fall, cause=Cause.KEY)
    if fall.cause is Cause.COMPACTION:
        return fall
    changed = _first_change(before, after)
    if changed == TOOLS:
        return _with_tools(replace(fall, cause=Cause.TOOLS), tool_sets)
    if changed == SYSTEM:
        return replace(fall, cause=Cause.SYSTEM)
    if changed is not None:
        return replace(
            fall,
            cause=Cause.MESSAGE,
            position=changed - MESSAGES,
            messages=len(unpacked(before.parts or b"")) - MESSAGES,
        )
    return replace(fall, cause=Cause.PAUSE) if fall.pause_us > fall.lifetime_us else fall


def _target(exchange: ExchangeRecord) -> tuple[str, str | None]:
    return exchange.provider_name, exchange.request_model


def _first_change(before: ExchangeRecord, after: ExchangeRecord) -> int | None:
    """The number of the first part that is not as it was; `None` if all are, or nobody knows."""
    if before.parts is None or after.parts is None:
        return None
    earlier, later = unpacked(before.parts), unpacked(after.parts)
    pairs = zip(earlier, later, strict=False)
    for number, (one, other) in enumerate(pairs):
        if one.hash != other.hash:
            return number
    return len(later) if len(later) < len(earlier) else None


def _with_tools(fall: Fall, tool_sets: Mapping[str, Mapping[str, int]]) -> Fall:
    before = tool_sets.get(fall.before.tool_set or "", {})
    after = tool_sets.get(fall.exchange.tool_set or "", {})
    return replace(
        fall,
        tools_added=tuple(sorted(after.keys() - before.keys())),
        tools_removed=tuple(sorted(before.keys() - after.keys())),
        tools_resized=tuple(
            sorted(name for name in before.keys() & after.keys() if before[name] != after[name])
        ),
    )
