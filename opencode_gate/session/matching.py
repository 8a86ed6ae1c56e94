"""Which exchange belongs to which of the agent's turns, and which prompt paid for it.

Inside one conversation turns follow each other, so an exchange belongs to the last turn begun
before it, unless that turn had ended by then; tries that failed share the turn with the one
that succeeded. The invariant: an exchange gets a turn, a prompt and a mode only where the times
(and for an exchange that names no conversation also the model and the counts) agree; nothing is
given to the nearest turn for want of a better one.
"""

from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec
from msgspec.structs import replace

from opencode_gate.agents.opencode.run_record import RecordedPrompt, RecordedTurn, RunRecord
from opencode_gate.core.semconv import (
    ConversationKind,
    ExchangeStatus,
    Operation,
    UsageQuality,
)
from opencode_gate.core.usage import TokenUsage
from opencode_gate.ledger.records import ExchangeRecord

_ASIDE_KINDS = (ConversationKind.TITLE, ConversationKind.OTHER)


class Match(msgspec.Struct, frozen=True, kw_only=True):
    """What the agent's records say of one exchange; `None` where they say nothing.

    Attributes:
        conversation_id: the exchange's own, or for one that named none the turn's.
        kind: what it was for, where the records tell better than the request did.
        is_kept: the agent kept this answer as the turn's; else it is a try before that one.
        is_aside: it ran beside the one that was kept, so it is no try of the same turn.
        prompt_id: the message a person typed that led to it, also from a sub-agent.
        mode: the agent's mode the person had chosen (`plan`, `build`).
    """

    exchange: ExchangeRecord
    conversation_id: str | None
    kind: ConversationKind
    turn: RecordedTurn | None = None
    is_kept: bool = False
    is_aside: bool = False
    prompt_id: str | None = None
    mode: str | None = None


def match_exchanges(exchanges: Iterable[ExchangeRecord], record: RunRecord) -> tuple[Match, ...]:
    """Every exchange that was not denied, in its order, with what is known of it."""
    timeline = _Timeline(record)
    counted = [one for one in exchanges if one.status is not ExchangeStatus.DENIED]
    matches = [_placed(exchange, timeline) for exchange in counted]
    used = frozenset(match.conversation_id for match in matches)
    matches = [_set_aside(match, used, timeline) for match in matches]
    tries: dict[str, list[Match]] = {}
    for match in matches:
        if match.turn is not None:
            tries.setdefault(match.turn.id, []).append(match)
    kept = {turn_id: _kept(group).exchange for turn_id, group in tries.items()}
    return tuple(
        match if match.turn is None else _judged(match, kept[match.turn.id]) for match in matches
    )


class _Timeline:
    """The turns and prompts of each conversation by time."""

    def __init__(self, record: RunRecord) -> None:
        self._parents: Mapping[str, str | None] = {
            conversation.id: conversation.parent_id for conversation in record.conversations
        }
        self.turns = record.turns
        self._prompts = {prompt.id: prompt for prompt in record.prompts}
        self._turns_of: dict[str, list[RecordedTurn]] = {}
        for turn in record.turns:
            self._turns_of.setdefault(turn.conversation_id, []).append(turn)
        self._prompts_of: dict[str, list[RecordedPrompt]] = {}
        for prompt in record.prompts:
            self._prompts_of.setdefault(prompt.conversation_id, []).append(prompt)

    def kind(
        self, stated: ConversationKind, conversation_id: str | None, turn: RecordedTurn | None
    ) -> ConversationKind:
        """What an exchange was for, from what its request said and from its turn."""
        if turn is not None and turn.is_compaction:
            return ConversationKind.COMPACTION
        is_child = self._parents.get(conversation_id or "") is not None
        if stated is ConversationKind.MAIN and is_child:
            return ConversationKind.SUBAGENT
        return stated

    def turn_at(self, conversation_id: str, at_us: int) -> RecordedTurn | None:
        """The turn that a conversation was in."""
        turns = self._turns_of.get(conversation_id, [])
        # Opencode's times are whole milliseconds, rounded down.
        found = bisect_right(turns, at_us, key=lambda turn: turn.started_at_us)
        turn = turns[found - 1] if found else None
        if turn is None or not _spans(turn, at_us):
            return None
        return turn

    def prompt_of(self, turn: RecordedTurn) -> RecordedPrompt | None:
        """The message that a turn answers."""
        return None if turn.prompt_id is None else self._prompts.get(turn.prompt_id)

    def prompt_at(
        self, conversation_ids: Collection[str | None], at_us: int
    ) -> RecordedPrompt | None:
        """The last message to the model by then in any of these conversations."""
        earlier = [
            prompt
            for conversation_id in conversation_ids
            for prompt in self._prompts_of.get(conversation_id or "", ())
            if prompt.created_at_us <= at_us
        ]
        return max(earlier, key=lambda prompt: prompt.created_at_us, default=None)

    def of_person(self, prompt: RecordedPrompt) -> tuple[RecordedPrompt, RecordedPrompt]:
        """The message of the root conversation behind a prompt, and the one a person typed.

        They differ where Opencode wrote the first itself.
        """
        seen = {prompt.conversation_id}
        while (parent_id := self._parents.get(prompt.conversation_id)) is not None:
            turn = self.turn_at(parent_id, prompt.created_at_us)
            above = None if turn is None else self.prompt_of(turn)
            if above is None or above.conversation_id in seen:
                break
            seen.add(above.conversation_id)
            prompt = above
        earlier = self._prompts_of[prompt.conversation_id]
        typed = [found for found in earlier[: earlier.index(prompt) + 1] if found.is_typed]
        return prompt, typed[-1] if typed else prompt


def _spans(turn: RecordedTurn, at_us: int) -> bool:
    # The end is rounded down to a millisecond too.
    return turn.started_at_us <= at_us and (
        turn.ended_at_us is None or at_us < turn.ended_at_us + 1000
    )


def _placed(exchange: ExchangeRecord, timeline: _Timeline) -> Match:
    """An exchange with its turn and the prompt behind that."""
    conversation_id, turn = exchange.conversation_id, None
    if exchange.operation is Operation.GENERATE and exchange.kind not in _ASIDE_KINDS:
        if conversation_id is None:
            turn = _only_turn(exchange, timeline.turns)
            conversation_id = None if turn is None else turn.conversation_id
        else:
            turn = timeline.turn_at(conversation_id, exchange.started_at_us)
    match = Match(
        exchange=exchange,
        conversation_id=conversation_id,
        kind=timeline.kind(exchange.kind, conversation_id, turn),
        turn=turn,
    )
    if turn is not None:
        prompt = timeline.prompt_of(turn)
        if prompt is None:
            return replace(match, prompt_id=turn.prompt_id, mode=turn.agent_name)
        return _prompted(match, prompt, timeline)
    return match


def _set_aside(match: Match, used: Collection[str | None], timeline: _Timeline) -> Match:
    """A call beside the turns with its prompt: the last one typed before it.

    One that names no conversation belongs to one of those that were used.
    """
    exchange = match.exchange
    if exchange.kind not in _ASIDE_KINDS:
        return match
    possible = used if match.conversation_id is None else (match.conversation_id,)
    prompt = timeline.prompt_at(possible, exchange.started_at_us)
    if prompt is None:
        return match
    match = replace(match, conversation_id=prompt.conversation_id)
    return _prompted(match, prompt, timeline)


def _prompted(match: Match, prompt: RecordedPrompt, timeline: _Timeline) -> Match:
    last, typed = timeline.of_person(prompt)
    return replace(match, prompt_id=typed.id, mode=last.agent_name)


def _only_turn(exchange: ExchangeRecord, turns: Sequence[RecordedTurn]) -> RecordedTurn | None:
    """The one turn that can have been an exchange that names no conversation."""
    possible = [turn for turn in turns if could_be(exchange, turn)]
    alike = [turn for turn in possible if same_counts(turn.figures.usage, exchange.usage)]
    found = alike or possible
    return found[0] if len(found) == 1 else None


def could_be(exchange: ExchangeRecord, turn: RecordedTurn) -> bool:
    """Whether time, provider and, where the provider stated them, the counts allow it."""
    if turn.provider_id != exchange.provider_name or not _spans(turn, exchange.started_at_us):
        return False
    is_exact = exchange.usage_quality is UsageQuality.REPORTED and turn.is_answer
    return not is_exact or same_counts(turn.figures.usage, exchange.usage)


def _kept(group: Sequence[Match]) -> Match:
    """The try whose answer the agent kept: the last with the turn's counts, else the last whole."""
    for is_it in (_has_counts, _is_whole):
        found = [match for match in group if is_it(match)]
        if found:
            return found[-1]
    return group[-1]


def _has_counts(match: Match) -> bool:
    return match.turn is not None and same_counts(match.turn.figures.usage, match.exchange.usage)


def _is_whole(match: Match) -> bool:
    return match.exchange.status is ExchangeStatus.COMPLETED


def same_counts(theirs: TokenUsage, ours: TokenUsage) -> bool:
    """Whether both counted the same, and something; one that split the input less still agrees."""
    if not theirs.input_tokens and not theirs.output:
        return False
    return (theirs.input_tokens, theirs.output) == (ours.input_tokens, ours.output)


def _judged(match: Match, kept: ExchangeRecord) -> Match:
    is_kept = match.exchange.id == kept.id
    if not is_kept and _overlap(match.exchange, kept):
        return replace(match, is_aside=True, kind=ConversationKind.OTHER)
    return replace(match, is_kept=is_kept)


def _overlap(one: ExchangeRecord, other: ExchangeRecord) -> bool:
    """Whether two exchanges ran at the same time; the tries of one turn never do."""
    return one.started_at_us < _end_us(other) and other.started_at_us < _end_us(one)


def _end_us(exchange: ExchangeRecord) -> int:
    duration_us = 0 if exchange.duration_us is None else exchange.duration_us
    return exchange.started_at_us + duration_us
