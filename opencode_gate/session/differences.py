"""Finds why the ledger and Opencode differ over one session, case by case.

The idea: start with what Opencode shows, and step by step replace its running totals by its
answers, those by the exchanges they came from, and add the exchanges it has no answer for. The
invariant: each step gives its cases one reason each, so the steps add up to the ledger's figure
by construction (`session.reconciliation` says what a reason means).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from opencode_gate.agents.opencode.run_record import (
    AgentFigures,
    RecordedConversation,
    RecordedTurn,
    RunRecord,
)
from opencode_gate.core.money import nano_usd
from opencode_gate.core.semconv import (
    ConversationKind,
    CostQuality,
    ExchangeStatus,
    Operation,
    UsageQuality,
)
from opencode_gate.ledger.records import ExchangeRecord
from opencode_gate.ledger.totals import asks_for_cost
from opencode_gate.session.matching import Match, could_be, same_counts
from opencode_gate.session.reconciliation import (
    NOTHING,
    Bypass,
    Difference,
    Figures,
    Reason,
    Reconciled,
    Reconciliation,
)


class _Case(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that tells the two figures apart."""

    reason: Reason
    figures: Figures


def _case(reason: Reason, figures: Figures, *, roundings: int = 1) -> _Case:
    """A case; an amount alone that is no more than so many roundings is put down to them."""
    amount = figures.cost_nano_usd
    is_rounding = abs(amount) <= roundings and figures == Figures(cost_nano_usd=amount)
    return _Case(reason=Reason.ROUNDING if is_rounding else reason, figures=figures)


def reconcile(
    matches: Sequence[Match], record: RunRecord, *, direct: Collection[str] = ()
) -> Reconciliation:
    """The comparison of a session's exchanges with what Opencode recorded of the same span.

    Args:
        direct: providers whose subscription the user left as it is.
    """
    used = {match.conversation_id for match in matches}
    ours = {one.id: one for one in record.conversations if one.is_given or one.id in used}
    answered = _by_conversation(record.turns)
    turns = [turn for turn in record.turns if turn.conversation_id in ours]
    begun = {one.id for one in record.conversations if one.is_new} - ours.keys()
    strangers = [turn for turn in record.turns if turn.conversation_id in begun]
    cases = [
        *_cases_of_conversations(ours, answered),
        *_cases_of_exchanges(matches),
        *_cases_of_turns(turns, matches, direct),
    ]
    return Reconciliation(
        ledger=_sum(_of_exchange(match.exchange) for match in matches),
        agent=_sum(
            _shown(one, answered.get(one.id, ()))
            for one in ours.values()
            if one.parent_id not in ours
        ),
        reported=_reported(match.exchange for match in matches),
        unpriced_requests=sum(_is_unpriced(match.exchange) for match in matches),
        rows=tuple(_rows(matches, ours, answered)),
        differences=tuple(_differences(cases)),
        bypasses=(
            *_bypasses(_unseen(turns, matches), direct, is_certain=True),
            *_bypasses([turn for turn in strangers if turn.is_answer], direct, is_certain=False),
        ),
    )


def _cases_of_conversations(
    ours: Mapping[str, RecordedConversation], answered: Mapping[str, Sequence[RecordedTurn]]
) -> Iterable[_Case]:
    """What lies between the totals Opencode shows and the answers it has."""
    for conversation in ours.values():
        own = answered.get(conversation.id, ())
        counted = _sum(map(_of_turn, own))
        if conversation.parent_id in ours:
            yield _case(Reason.SUB_AGENTS, counted)
        else:
            left = counted - _shown(conversation, own)
            yield _case(Reason.RUNNING_TOTAL, left, roundings=len(own))


def _cases_of_exchanges(matches: Iterable[Match]) -> Iterable[_Case]:
    """Exchanges that are no turn's kept answer count whole, kept ones by what tells them apart."""
    for match in matches:
        figures = _of_exchange(match.exchange)
        if match.turn is not None and match.is_kept:
            figures -= _of_turn(match.turn)
            reason = _reason_of_pair(match.exchange, match.turn)
        else:
            reason = _reason_alone(match)
        yield _case(reason, figures)


def _cases_of_turns(
    turns: Sequence[RecordedTurn], matches: Sequence[Match], direct: Collection[str]
) -> Iterable[_Case]:
    """Answers that no exchange stands for."""
    copies = _copies(turns, matches)
    unseen = {turn.id for turn in _unseen(turns, matches)}
    matched = _matched(matches)
    for turn in turns:
        if turn.id in matched:
            continue
        if turn.id in copies:
            reason = Reason.COPIES
        elif turn.id in unseen:
            reason = Reason.DIRECT if turn.provider_id in direct else Reason.BYPASS
        else:
            reason = Reason.UNKNOWN
        yield _case(reason, NOTHING - _of_turn(turn))


def _reason_alone(match: Match) -> Reason:
    if match.turn is not None:
        return Reason.ASIDE if match.is_aside else Reason.RETRIES
    if match.kind is ConversationKind.TITLE:
        return Reason.TITLES
    if match.kind is ConversationKind.OTHER:
        return Reason.ASIDE
    return Reason.NOT_RECORDED


def _reason_of_pair(exchange: ExchangeRecord, turn: RecordedTurn) -> Reason:
    theirs = turn.figures.usage
    if same_counts(theirs, exchange.usage):
        return _reason_of_amount(exchange)
    if _is_refused(exchange):
        return Reason.REFUSED
    if theirs.input_tokens or theirs.output:
        is_estimate = exchange.usage_quality is not UsageQuality.REPORTED
        return Reason.ESTIMATED if is_estimate else Reason.UNKNOWN
    if exchange.status is not ExchangeStatus.COMPLETED or turn.error_name is not None:
        return Reason.INTERRUPTED
    is_reported = exchange.usage_quality is UsageQuality.REPORTED
    return Reason.UNREAD_USAGE if is_reported else Reason.ESTIMATED


def _reason_of_amount(exchange: ExchangeRecord) -> Reason:
    if exchange.cost_nano_usd is None:
        return Reason.NO_PRICE
    if exchange.cost_quality is CostQuality.REPORTED:
        return Reason.REPORTED_COST
    return Reason.PRICES


def _differences(cases: Iterable[_Case]) -> Iterable[Difference]:
    """The cases of each reason added up, in the order the reasons are defined."""
    groups: dict[Reason, list[Figures]] = {}
    for case in cases:
        if case.figures != NOTHING:
            groups.setdefault(case.reason, []).append(case.figures)
    for reason in Reason:
        figures = groups.get(reason)
        if figures is None:
            continue
        yield Difference(reason=reason, cases=len(figures), figures=_sum(figures))


def _rows(
    matches: Iterable[Match],
    ours: Mapping[str, RecordedConversation],
    answered: Mapping[str, Sequence[RecordedTurn]],
) -> Iterable[Reconciled]:
    exchanges: dict[str | None, list[ExchangeRecord]] = {}
    for match in matches:
        exchanges.setdefault(match.conversation_id, []).append(match.exchange)
    for conversation_id in dict.fromkeys([*ours, *exchanges]):
        own = exchanges.get(conversation_id, [])
        turns = answered.get(conversation_id or "", ())
        conversation = ours.get(conversation_id or "")
        if not own and not turns:
            continue
        yield Reconciled(
            conversation_id=conversation_id,
            parent_id=None if conversation is None else conversation.parent_id,
            title=None if conversation is None else conversation.title,
            ledger=_sum(map(_of_exchange, own)),
            agent=_sum(map(_of_turn, turns)),
            running_total=None
            if conversation is None or conversation.row is None
            else _shown(conversation, turns),
            reported=_reported(own),
        )


def _shown(conversation: RecordedConversation, turns: Iterable[RecordedTurn]) -> Figures:
    """What Opencode shows for a conversation; the sum of its answers where it keeps no total."""
    counted = _sum(map(_of_turn, turns))
    if conversation.row is None:
        return counted
    return _of_agent(conversation.row, requests=counted.requests)


def _unseen(turns: Iterable[RecordedTurn], matches: Sequence[Match]) -> list[RecordedTurn]:
    """Answers the gateway surely did not serve: none of its exchanges can have been them."""
    turns = list(turns)
    excused = _matched(matches) | _copies(turns, matches)
    nameless = [match.exchange for match in matches if match.conversation_id is None]
    return [
        turn
        for turn in turns
        if turn.is_answer
        and turn.id not in excused
        and not any(could_be(exchange, turn) for exchange in nameless)
    ]


def _copies(turns: Iterable[RecordedTurn], matches: Iterable[Match]) -> frozenset[str]:
    """Turns that a fork took over: the same to the millisecond as one the gateway served."""
    served = {_likeness(match.turn) for match in matches if match.turn is not None}
    return frozenset(turn.id for turn in turns if _likeness(turn) in served) - _matched(matches)


def _likeness(turn: RecordedTurn) -> tuple[object, ...]:
    return (
        turn.started_at_us,
        turn.ended_at_us,
        turn.provider_id,
        turn.model_id,
        turn.figures,
    )


def _matched(matches: Iterable[Match]) -> frozenset[str]:
    return frozenset(match.turn.id for match in matches if match.turn is not None)


def _bypasses(
    turns: Iterable[RecordedTurn], direct: Collection[str], *, is_certain: bool
) -> Iterable[Bypass]:
    groups: dict[tuple[str, str], list[RecordedTurn]] = {}
    for turn in turns:
        groups.setdefault((turn.provider_id, turn.model_id), []).append(turn)
    for (provider_id, model_id), group in groups.items():
        yield Bypass(
            provider_name=provider_id,
            model=model_id or None,
            answers=len(group),
            figures=_sum(map(_of_turn, group)),
            is_expected=provider_id in direct,
            is_certain=is_certain,
        )


def _by_conversation(turns: Iterable[RecordedTurn]) -> dict[str, list[RecordedTurn]]:
    groups: dict[str, list[RecordedTurn]] = {}
    for turn in turns:
        groups.setdefault(turn.conversation_id, []).append(turn)
    return groups


def _sum(figures: Iterable[Figures]) -> Figures:
    return sum(figures, NOTHING)


def _of_exchange(exchange: ExchangeRecord) -> Figures:
    usage = exchange.usage
    return Figures(
        requests=int(exchange.operation is Operation.GENERATE),
        input_tokens=_known(usage.input_tokens),
        output_tokens=_known(usage.output),
        cost_nano_usd=_known(exchange.cost_nano_usd),
    )


def _of_turn(turn: RecordedTurn) -> Figures:
    return _of_agent(turn.figures, requests=int(turn.is_answer))


def _of_agent(figures: AgentFigures, *, requests: int) -> Figures:
    cost_usd = figures.cost_usd
    return Figures(
        requests=requests,
        input_tokens=_known(figures.usage.input_tokens),
        output_tokens=_known(figures.usage.output),
        cost_nano_usd=0 if cost_usd is None else nano_usd(cost_usd),
    )


def _reported(exchanges: Iterable[ExchangeRecord]) -> Figures:
    stated = [one for one in exchanges if one.reported_cost_nano_usd is not None]
    return Figures(
        requests=len(stated),
        input_tokens=sum(_known(one.usage.input_tokens) for one in stated),
        output_tokens=sum(_known(one.usage.output) for one in stated),
        cost_nano_usd=sum(_known(one.reported_cost_nano_usd) for one in stated),
    )


def _is_refused(exchange: ExchangeRecord) -> bool:
    status = exchange.http_status
    return status is not None and status >= 400 and exchange.usage.is_empty


def _is_unpriced(exchange: ExchangeRecord) -> bool:
    return exchange.cost_nano_usd is None and asks_for_cost(exchange)


def _known(count: int | None) -> int:
    return 0 if count is None else count
