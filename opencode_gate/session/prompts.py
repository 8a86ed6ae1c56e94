"""What each prompt the user typed cost, and each mode it was typed in.

Both are sums over exchanges that carry the prompt and the mode the agent's own records gave
them (see `session.matching`); a sub-agent's exchanges carry those of the person's prompt behind
them. The invariant: every exchange is in exactly one sum, those of no known prompt or mode in
one of their own, so that the parts are the session.
"""

from collections.abc import Hashable, Iterable, Mapping

import msgspec
from msgspec.structs import replace

from opencode_gate.core.semconv import ExchangeStatus
from opencode_gate.ledger.records import ConversationRecord, ExchangeRecord
from opencode_gate.ledger.totals import Totals, total_of


class PromptCost(msgspec.Struct, frozen=True, kw_only=True):
    """One prompt with everything it led to: answers, sub-agents, titles, compactions.

    Attributes:
        prompt_id: the agent's id of the message; `None` for what belongs to no known prompt.
        conversation_id: the root conversation it was typed in, `None` where none is known.
        text: what was typed; only ever read from the agent's own database, for the person who
            asks, and never stored.
        mode: the agent's mode it was typed in (`plan`, `build`).
    """

    prompt_id: str | None
    conversation_id: str | None
    text: str | None = None
    mode: str | None
    started_at_us: int
    totals: Totals


class ModeCost(msgspec.Struct, frozen=True, kw_only=True):
    """One mode of the agent; `None` for what belongs to no known one."""

    mode: str | None
    prompts: int
    totals: Totals


def prompt_costs(
    exchanges: Iterable[ExchangeRecord], conversations: Iterable[ConversationRecord]
) -> tuple[PromptCost, ...]:
    """The prompts in the order they were typed; what belongs to none comes last."""
    counted = _counted(exchanges)
    root_of = _roots(counted, conversations)
    groups: dict[tuple[str | None, str | None], list[ExchangeRecord]] = {}
    for exchange in counted:
        root_id = root_of.get(exchange.conversation_id or "", exchange.conversation_id)
        groups.setdefault((exchange.prompt_id, root_id), []).append(exchange)
    costs = [
        PromptCost(
            prompt_id=prompt_id,
            conversation_id=root_id,
            mode=next((exchange.mode for exchange in group if exchange.mode is not None), None),
            started_at_us=min(exchange.started_at_us for exchange in group),
            totals=total_of(group),
        )
        for (prompt_id, root_id), group in groups.items()
    ]
    return tuple(sorted(costs, key=lambda cost: (cost.prompt_id is None, cost.started_at_us)))


def with_texts(
    costs: Iterable[PromptCost], texts: Mapping[str, str] | None
) -> tuple[PromptCost, ...]:
    """The same with what was typed, by prompt id."""
    found = {} if texts is None else texts
    return tuple(
        cost if cost.prompt_id is None else replace(cost, text=found.get(cost.prompt_id))
        for cost in costs
    )


def mode_costs(exchanges: Iterable[ExchangeRecord]) -> tuple[ModeCost, ...]:
    """The modes, the dearest first; what belongs to none comes last."""
    groups: dict[str | None, list[ExchangeRecord]] = {}
    for exchange in _counted(exchanges):
        groups.setdefault(exchange.mode, []).append(exchange)
    costs = [
        ModeCost(mode=mode, prompts=_prompts_in(group), totals=total_of(group))
        for mode, group in groups.items()
    ]
    return tuple(sorted(costs, key=_dearest_first))


def _counted(exchanges: Iterable[ExchangeRecord]) -> list[ExchangeRecord]:
    return [exchange for exchange in exchanges if exchange.status is not ExchangeStatus.DENIED]


def _prompts_in(group: Iterable[ExchangeRecord]) -> int:
    return len({exchange.prompt_id for exchange in group if exchange.prompt_id is not None})


def _dearest_first(cost: ModeCost) -> tuple[Hashable, ...]:
    amount = cost.totals.cost_nano_usd
    return (cost.mode is None, 0 if amount is None else -amount, cost.mode or "")


def _roots(
    exchanges: Iterable[ExchangeRecord], conversations: Iterable[ConversationRecord]
) -> dict[str, str]:
    """The root of each conversation that has a parent."""
    parents = {
        exchange.conversation_id: exchange.parent_conversation_id
        for exchange in exchanges
        if exchange.conversation_id is not None and exchange.parent_conversation_id is not None
    }
    parents.update(
        {record.id: record.parent_id for record in conversations if record.parent_id is not None}
    )
    return {conversation_id: _root(conversation_id, parents) for conversation_id in parents}


def _root(conversation_id: str, parents: Mapping[str, str]) -> str:
    seen = {conversation_id}
    while (parent_id := parents.get(conversation_id)) is not None and parent_id not in seen:
        seen.add(parent_id)
        conversation_id = parent_id
    return conversation_id
