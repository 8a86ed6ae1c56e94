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

import math
import sys
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from typing import TypeAlias

from opencode_gate.config.settings import RunawaySettings
from opencode_gate.core.clock import Clock
from opencode_gate.core.money import nano_usd
from opencode_gate.core.semconv import ExchangeStatus
from opencode_gate.governance.decisions import Decision, Outcome
from opencode_gate.governance.grants import Ask, Conversation, Grant
from opencode_gate.governance.policy import Unit
from opencode_gate.governance.watched import SpentLately, Watched
from opencode_gate.governance.wording import amount_text
from opencode_gate.ledger.records import ExchangeRecord
from opencode_gate.wire.tool_calls import repeated_tool_call
from opencode_gate.wire.turns import turns_asked

QUESTIONS_WITHIN_S = 30.0
FAILURES_WITHIN_S = 300.0
WAITED_S = 5.0
"""A tool that takes as long waits for something, and may well do so again."""
DIFFERENT_RESULTS = 3
"""So many times more often may a call be made whose results differ: it may turn pages."""

_CONVERSATIONS = 512
"""So many that were used last are remembered, and as many before them."""
_QUESTIONS = 16
_SESSIONS = 256
_NAME_CHARS = 80
_NEVER = sys.maxsize
_COMPLETED = ExchangeStatus.COMPLETED

Usual: TypeAlias = Callable[[], int | None]


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
        asks = settings.same_questions
        self._asks_max = asks + 1
        # Where questions do not count, nothing is ever asked within less than no time.
        self._questions_within_s = QUESTIONS_WITHIN_S if asks else -1.0
        self._first_look = min(
            (look for look in (self._calls_warned, asks) if look), default=_NEVER
        )
        self._free_nano_usd = nano_usd(settings.spend_usd_per_minute)
        # In two parts, so that using one costs nothing: when the first is full it becomes the
        # second, and what is not used until then is forgotten.
        self._conversations: dict[Conversation, Watched] = {}
        self._older: dict[Conversation, Watched] = {}
        self._sessions: OrderedDict[str, SpentLately] = OrderedDict()
        self._spenders: set[str] = set()

    def check(self, ask: Ask, grant: Grant, now_s: float) -> Decision | None:
        """Counts a request that generates; what is to be said about it, `deny` or `warn`.

        `grant` is told what to tell of its end; `now_s` is the clock's.
        """
        if not self._is_on:
            return None
        conversation_id, session_id = ask.conversation_id, ask.caller.session_id
        if conversation_id is None:
            return self._spending(session_id, now_s) if self._spenders else None
        named = session_id, conversation_id
        watched = self._conversations.get(named)
        if watched is None:
            watched = self._remembered(named)
        grant.watched = watched
        watched.asked = asked = watched.asked + 1
        asked_s = watched.asked_s
        asked_s.append(now_s)
        if now_s - watched.ended_s >= WAITED_S:
            watched.waited_at = asked - 1
        if (
            asked < watched.look_at
            and now_s - asked_s[0] >= self._questions_within_s
            and not watched.failed_s
            and not self._spenders
        ):
            return None
        return self._checked(watched, ask, now_s)

    def ended(self, watched: Watched, record: ExchangeRecord) -> None:
        """Takes note of how a request that was sent has ended."""
        watched.ended_s = now_s = self._clock.monotonic_s()
        status, http_status = record.status, record.http_status
        if status is _COMPLETED and (http_status is None or http_status < 400):
            if watched.failed_s:
                watched.failed_s.clear()
            return
        if status is not _COMPLETED:
            # Asked again because it was not answered: then failures are what counts.
            watched.question, watched.same = None, 0
        if status is ExchangeStatus.UPSTREAM_ERROR or (
            http_status is not None and http_status >= 400
        ):
            if watched.failed_s is None:
                watched.failed_s = deque(maxlen=self._settings.failed_attempts)
            watched.failed_s.append(now_s)

    def spent(self, session_id: str, cost_nano_usd: int) -> None:
        """Takes note of what settled exchanges cost."""
        if not self._is_on or cost_nano_usd <= 0:
            return
        sessions, now_s = self._sessions, self._clock.monotonic_s()
        session = sessions.get(session_id)
        if session is None:
            session = sessions[session_id] = SpentLately(deque())
            if len(sessions) > _SESSIONS:
                self._spenders.discard(sessions.popitem(last=False)[0])
        sessions.move_to_end(session_id)
        session.add(cost_nano_usd, now_s)
        if 2 * session.rate_nano_usd(now_s) > self._free_nano_usd and self._settings.spend_factor:
            self._spenders.add(session_id)

    def _remembered(self, named: Conversation) -> Watched:
        """A conversation that was not asked in lately, or never."""
        watched = self._older.pop(named, None)
        if watched is None:
            long_ago = [-math.inf] * self._asks_max
            watched = Watched(
                deque(long_ago, self._asks_max), self._first_look, looked_in=self._first_look
            )
        if len(self._conversations) >= _CONVERSATIONS:
            self._older, self._conversations = self._conversations, {}
        self._conversations[named] = watched
        return watched

    def _checked(self, watched: Watched, ask: Ask, now_s: float) -> Decision | None:
        found = self._spending(ask.caller.session_id, now_s) if self._spenders else None
        if watched.failed_s:
            found = _graver(found, self._failures(watched.failed_s, now_s))
        if now_s - watched.asked_s[0] < self._questions_within_s:
            found = _graver(found, self._questions(watched, ask, now_s))
        if watched.asked >= watched.look_at:
            found = _graver(found, self._look_into(watched, ask))
        return found

    def _questions(self, watched: Watched, ask: Ask, now_s: float) -> Decision | None:
        question = _question(ask)
        if watched.questions is None:
            watched.questions = {}
        questions = watched.questions
        times_s = questions.pop(question, None)
        if times_s is None:
            times_s = deque(maxlen=self._asks_max)
        questions[question] = times_s
        if len(questions) > _QUESTIONS:
            del questions[next(iter(questions))]
        times_s.append(now_s)
        allowed, times = self._settings.same_questions, len(times_s)
        within_s = now_s - times_s[0]
        if times <= allowed // 2 or within_s >= QUESTIONS_WITHIN_S:
            return None
        return self._decision(
            code="request-loop",
            is_over=times > allowed,
            what=(
                f"the agent sent the same question {times} times within {math.ceil(within_s)} "
                f"seconds, where {allowed} are allowed within half a minute"
            ),
            remedy="Send a new prompt, or choose another model.",
            spent=times,
            limit=allowed,
        )

    def _look_into(self, watched: Watched, ask: Ask) -> Decision | None:
        """Looks for what repeats, however slowly, and says when to look again."""
        look_in, found = _NEVER, None
        if self._settings.same_questions:
            question = _question(ask)
            is_same = question == watched.question
            watched.same = watched.same + watched.looked_in if is_same else 1
            watched.question = question
            found = self._same_question(watched.same)
            look_in = 1 if is_same else self._settings.same_questions
        if self._settings.same_tool_calls:
            repeated = repeated_tool_call(ask.body)
            since_wait = watched.asked - watched.waited_at
            alike = min(repeated.times_alike, since_wait)
            times = min(repeated.times, since_wait)
            found = _graver(found, self._same_call(repeated.name, times, alike))
            # A request adds one step at most, so until then there is nothing to be seen.
            warned = self._calls_warned
            look_in = min(look_in, warned - alike, DIFFERENT_RESULTS * warned - times)
        watched.looked_in = max(1, look_in)
        watched.look_at = watched.asked + watched.looked_in
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

    def _failures(self, failed_s: deque[float], now_s: float) -> Decision | None:
        allowed = self._settings.failed_attempts
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

    def _spending(self, session_id: str, now_s: float) -> Decision | None:
        if session_id not in self._spenders:
            return None
        session, factor = self._sessions[session_id], self._settings.spend_factor
        rate = session.rate_nano_usd(now_s)
        if 2 * rate <= self._free_nano_usd:
            self._spenders.discard(session_id)
            return None
        usual = self._usual()
        if usual is None:
            return None
        allowed = max(self._free_nano_usd, factor * usual)
        if 2 * rate <= allowed:
            return None
        over_in_s = session.falls_to_s(allowed, now_s)
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
            owner=f"session {session_id}",
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


def _question(ask: Ask) -> Hashable:
    """What tells one question from another, however much the model has said to it since."""
    place = turns_asked(ask.body)
    if place is None or ask.facts is None:
        return (len(ask.body), hash(ask.body))
    return (ask.facts.instructions_head, place)


def _minutes(duration_s: float) -> str:
    minutes = max(1, math.ceil(duration_s / 60))
    return "a minute" if minutes == 1 else f"{minutes} minutes"
