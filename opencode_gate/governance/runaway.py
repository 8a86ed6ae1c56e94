"""Stops an agent that has run away: it repeats itself, or spends far more than ever.

Four things are watched. *The same tool call* over and over, with the same arguments and results.
*The same question* re-sent for ever: Opencode does so several times a second, without a word,
when an answer ends in a way it does not know, each time with what the model has said so far
behind it, so that no two of these requests need be equal. *Failures* without one success in
between. *Spending* in a session that is many times the person's own.

The invariants: each warns when half of its limit is reached and stops at all of it, with the
numbers; what an honest agent does stays below: Opencode's own tries (six), sub-agents (each is
a conversation of its own), long work with different arguments, a call that waits for something;
and in an ordinary request nobody looks into the prompt.
"""

import sys
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from math import ceil
from typing import TypeAlias

import msgspec

from opencode_gate.config.settings import RunawaySettings
from opencode_gate.core.clock import Clock
from opencode_gate.core.money import nano_usd
from opencode_gate.core.semconv import ExchangeStatus, Operation
from opencode_gate.governance.decisions import Decision, Outcome
from opencode_gate.governance.grants import Ask, Conversation
from opencode_gate.governance.policy import Unit
from opencode_gate.governance.wording import amount_text
from opencode_gate.ledger.records import ExchangeRecord
from opencode_gate.wire.tool_calls import repeated_tool_call
from opencode_gate.wire.turns import turns_asked

QUESTIONS_WITHIN_S = 30.0
FAILURES_WITHIN_S = 300.0
SPENDING_WITHIN_S = 300.0
WAITED_S = 5.0
"""A tool that takes as long waits for something, and may well do so again."""
DIFFERENT_RESULTS = 3
"""So many times more often may a call be made whose results differ: it may turn pages."""

_CONVERSATIONS = 1024
_QUESTIONS = 16
_SESSIONS = 256
_NAME_CHARS = 80

Usual: TypeAlias = Callable[[], int | None]


class _Conversation(msgspec.Struct):
    """What is remembered of one conversation.

    Attributes:
        asked_s: when it last asked, as often as the same question may come and once more.
        questions: the same for each of the last questions, while they come fast.
        look_in: after how many requests its prompt is looked into; before that, nothing can have
            repeated often enough.
        looked_in: what that was set to when it was last looked into.
        question: the one it had then, and `same` in how many requests it has been that one.
        since_wait: its requests since a tool took long.
        ended_s: when an answer of its last ended.
        failed_s: when its tries failed since the last success.
    """

    asked_s: deque[float]
    questions: OrderedDict[Hashable, deque[float]]
    look_in: int
    looked_in: int
    failed_s: deque[float]
    question: Hashable = None
    same: int = 0
    since_wait: int = 0
    ended_s: float | None = None


class _Session(msgspec.Struct):
    """What a session spent lately, in nano-dollars."""

    spent: deque[tuple[float, int]]
    sum_nano_usd: int = 0


class Runaway:
    """Watches all conversations of a gateway. For one event loop.

    Args:
        usual_nano_usd_per_minute: the person's own spending, asked only when a session spends
            half of what it may in any case; must not block. `None` where nobody can say.
    """

    def __init__(
        self, settings: RunawaySettings, clock: Clock, usual_nano_usd_per_minute: Usual
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._usual = usual_nano_usd_per_minute
        self._is_on = settings.mode != "off"
        self._calls_warned = -(-settings.same_tool_calls // 2)
        self._asks_max = settings.same_questions + 1 if settings.same_questions else 0
        looks = (self._calls_warned, settings.same_questions)
        self._first_look = min((look for look in looks if look), default=sys.maxsize)
        self._free_nano_usd = nano_usd(settings.spend_usd_per_minute)
        self._conversations: OrderedDict[Conversation, _Conversation] = OrderedDict()
        self._sessions: OrderedDict[str, _Session] = OrderedDict()

    def check(self, ask: Ask) -> Decision | None:
        """Counts a request that generates; what is to be said about it, `deny` or `warn`."""
        if not self._is_on:
            return None
        now_s = self._clock.monotonic_s()
        session = self._sessions.get(ask.caller.session_id)
        found = None if session is None else self._spending(ask, session, now_s)
        named = ask.conversation
        if named is None or ask.facts is None:
            return found
        conversation = self._conversation(named)
        if conversation.failed_s:
            found = _graver(found, self._failures(conversation, now_s))
        asked_s = conversation.asked_s
        asked_s.append(now_s)
        if _is_full_within(asked_s, QUESTIONS_WITHIN_S, now_s):
            found = _graver(found, self._questions(conversation, ask, now_s))
        if conversation.ended_s is not None and now_s - conversation.ended_s >= WAITED_S:
            conversation.since_wait = 0
        conversation.since_wait += 1
        conversation.look_in -= 1
        if conversation.look_in <= 0:
            found = _graver(found, self._look_into(conversation, ask))
        return found

    def ended(self, record: ExchangeRecord) -> None:
        """Takes note of how a request that generates has ended. One that never left is none."""
        if not self._is_on or record.conversation_id is None or not record.attempts:
            return
        if record.operation is not Operation.GENERATE:
            return
        conversation = self._conversations.get((record.session_id, record.conversation_id))
        if conversation is None:
            return
        now_s = self._clock.monotonic_s()
        conversation.ended_s = now_s
        if record.status is not ExchangeStatus.COMPLETED:
            # Asked again because it was not answered: then failures are what counts.
            conversation.question, conversation.same = None, 0
        if record.status is ExchangeStatus.UPSTREAM_ERROR or (
            record.http_status is not None and record.http_status >= 400
        ):
            conversation.failed_s.append(now_s)
        elif record.status is ExchangeStatus.COMPLETED:
            conversation.failed_s.clear()

    def spent(self, session_id: str, cost_nano_usd: int) -> None:
        """Takes note of what a settled exchange cost."""
        if not self._is_on or cost_nano_usd <= 0:
            return
        session = self._sessions.get(session_id)
        if session is None:
            session = self._sessions[session_id] = _Session(deque())
            if len(self._sessions) > _SESSIONS:
                self._sessions.popitem(last=False)
        session.spent.append((self._clock.monotonic_s(), cost_nano_usd))
        session.sum_nano_usd += cost_nano_usd

    def _conversation(self, named: Conversation) -> _Conversation:
        conversation = self._conversations.get(named)
        if conversation is not None:
            self._conversations.move_to_end(named)
            return conversation
        settings = self._settings
        conversation = _Conversation(
            asked_s=deque(maxlen=self._asks_max),
            questions=OrderedDict(),
            look_in=self._first_look,
            looked_in=self._first_look,
            failed_s=deque(maxlen=settings.failed_attempts),
        )
        self._conversations[named] = conversation
        if len(self._conversations) > _CONVERSATIONS:
            self._conversations.popitem(last=False)
        return conversation

    def _questions(self, conversation: _Conversation, ask: Ask, now_s: float) -> Decision | None:
        question = _question(ask)
        times_s = conversation.questions.pop(question, None)
        if times_s is None:
            times_s = deque(maxlen=self._asks_max)
        conversation.questions[question] = times_s
        if len(conversation.questions) > _QUESTIONS:
            conversation.questions.popitem(last=False)
        times_s.append(now_s)
        allowed, times = self._settings.same_questions, len(times_s)
        within_s = now_s - times_s[0]
        if times <= allowed // 2 or within_s >= QUESTIONS_WITHIN_S:
            return None
        return self._decision(
            code="request-loop",
            is_over=times > allowed,
            what=(
                f"the agent sent the same question {times} times within {ceil(within_s)} seconds, "
                f"where {allowed} are allowed within half a minute"
            ),
            remedy="Send a new prompt, or choose another model.",
            spent=times,
            limit=allowed,
        )

    def _look_into(self, conversation: _Conversation, ask: Ask) -> Decision | None:
        """Looks for what repeats, however slowly, and says when to look again."""
        look_in, found = sys.maxsize, None
        if self._settings.same_questions:
            question = _question(ask)
            is_same = question == conversation.question
            conversation.same = conversation.same + conversation.looked_in if is_same else 1
            conversation.question = question
            found = self._same_question(conversation.same)
            look_in = 1 if is_same else self._settings.same_questions
        if self._settings.same_tool_calls:
            repeated = repeated_tool_call(ask.body)
            alike = min(repeated.times_alike, conversation.since_wait)
            times = min(repeated.times, conversation.since_wait)
            found = _graver(found, self._same_call(repeated.name, times, alike))
            # A request adds one step at most, so until then there is nothing to be seen.
            warned = self._calls_warned
            look_in = min(look_in, warned - alike, DIFFERENT_RESULTS * warned - times)
        conversation.look_in = conversation.looked_in = max(1, look_in)
        return found

    def _same_question(self, times: int) -> Decision | None:
        allowed = 2 * self._settings.same_questions
        if times <= self._settings.same_questions:
            return None
        return self._decision(
            code="request-loop",
            is_over=times > allowed,
            what=(
                f"the agent sent the same question {times} times in a row though it was answered, "
                f"where {allowed} are allowed"
            ),
            remedy="Send a new prompt, or choose another model.",
            spent=times,
            limit=allowed,
        )

    def _same_call(self, name: str, times: int, alike: int) -> Decision | None:
        allowed, warned = self._settings.same_tool_calls, self._calls_warned
        results = "the same result"
        if times >= DIFFERENT_RESULTS * allowed or alike < warned:
            alike, results = times, "various results"
            allowed, warned = DIFFERENT_RESULTS * allowed, DIFFERENT_RESULTS * warned
        if alike < warned:
            return None
        return self._decision(
            code="runaway",
            is_over=alike >= allowed,
            what=(
                f"the agent called {name[:_NAME_CHARS]} {alike} times in a row with the same "
                f"arguments and {results}, where fewer than {allowed} are allowed"
            ),
            remedy="Send a new prompt that says what to do instead.",
            spent=alike,
            limit=allowed,
        )

    def _failures(self, conversation: _Conversation, now_s: float) -> Decision | None:
        failed_s, allowed = conversation.failed_s, self._settings.failed_attempts
        warned = -(-allowed // 2)
        if len(failed_s) < warned or now_s - failed_s[-warned] >= FAILURES_WITHIN_S:
            return None
        times = sum(now_s - at_s < FAILURES_WITHIN_S for at_s in failed_s)
        over_in_s = FAILURES_WITHIN_S - (now_s - failed_s[0])
        return self._decision(
            code="runaway",
            is_over=times >= allowed,
            what=(
                f"{times} tries of this conversation failed in a row within five minutes, "
                f"where fewer than {allowed} are allowed"
            ),
            remedy=f"It may go on in {_minutes(over_in_s)}, or with another model in a new one.",
            spent=times,
            limit=allowed,
            over_in_s=over_in_s,
        )

    def _spending(self, ask: Ask, session: _Session, now_s: float) -> Decision | None:
        spent, factor = session.spent, self._settings.spend_factor
        while spent and now_s - spent[0][0] >= SPENDING_WITHIN_S:
            session.sum_nano_usd -= spent.popleft()[1]
        rate = session.sum_nano_usd * 60 // int(SPENDING_WITHIN_S)
        if 2 * rate <= self._free_nano_usd or not factor:
            return None
        usual = self._usual()
        if usual is None:
            return None
        allowed = max(self._free_nano_usd, factor * usual)
        if 2 * rate <= allowed:
            return None
        over_in_s = _falls_to(session, allowed, now_s)
        return self._decision(
            code="runaway",
            is_over=rate > allowed,
            what=(
                f"this session spent {amount_text(rate, 'usd')} a minute in the last five "
                f"minutes, where at most {amount_text(usual, 'usd')} is usual and "
                f"{amount_text(allowed, 'usd')} allowed"
            ),
            remedy=f"It may go on in {_minutes(over_in_s)}.",
            spent=rate,
            limit=allowed,
            over_in_s=over_in_s,
            unit="usd",
            owner=f"session {ask.caller.session_id}",
        )

    def _decision(
        self,
        *,
        code: str,
        is_over: bool,
        what: str,
        remedy: str,
        spent: int,
        limit: int,
        over_in_s: float | None = None,
        unit: Unit | None = None,
        owner: str | None = None,
    ) -> Decision:
        outcome: Outcome = "deny" if is_over and self._settings.mode == "enforce" else "warn"
        if outcome == "deny":
            message = f"ogate stopped this conversation: {what}. {remedy}"
        elif is_over:
            message = f"ogate would have stopped this conversation: {what}."
        else:
            message = f"ogate may soon stop this conversation: {what}."
        at_us = None if over_in_s is None else self._clock.now_us() + round(over_in_s * 1_000_000)
        return Decision(
            rule="runaway",
            outcome=outcome,
            code=code,
            owner=owner,
            message=message,
            unit=unit,
            spent=spent,
            limit=limit,
            resets_at_us=at_us if is_over else None,
            command="ogate config set runaway.mode warn",
        )


def _graver(first: Decision | None, second: Decision | None) -> Decision | None:
    if first is None or (second is not None and second.outcome == "deny" != first.outcome):
        return second
    return first


def _is_full_within(times_s: deque[float], within_s: float, now_s: float) -> bool:
    return len(times_s) == times_s.maxlen and bool(times_s) and now_s - times_s[0] < within_s


def _question(ask: Ask) -> Hashable:
    """What tells one question from another, however much the model has said to it since."""
    place = turns_asked(ask.body)
    if place is None or ask.facts is None:
        return (len(ask.body), hash(ask.body))
    return (ask.facts.instructions_head, place)


def _falls_to(session: _Session, rate_nano_usd: int, now_s: float) -> float:
    """In how many seconds the spending has fallen to a rate, if nothing is added."""
    left = session.sum_nano_usd
    for at_s, amount in session.spent:
        left -= amount
        if left * 60 // int(SPENDING_WITHIN_S) <= rate_nano_usd:
            return at_s + SPENDING_WITHIN_S - now_s
    return 0.0


def _minutes(duration_s: float) -> str:
    minutes = max(1, ceil(duration_s / 60))
    return "a minute" if minutes == 1 else f"{minutes} minutes"
