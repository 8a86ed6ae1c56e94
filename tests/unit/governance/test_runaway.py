"""An agent that runs away is stopped with the numbers; nothing an honest one does is."""

import re
from collections.abc import Callable
from decimal import Decimal

import pytest

from opencode_gate.config.settings import RunawaySettings
from opencode_gate.core.errors import CODES
from opencode_gate.core.money import NANO_PER_USD
from opencode_gate.core.semconv import ExchangeStatus, WireFormat
from opencode_gate.governance import runaway as module
from opencode_gate.governance.admission import Caller
from opencode_gate.governance.decisions import Decision, Denied
from opencode_gate.governance.grants import Ask, Grant
from opencode_gate.governance.runaway import FAILURES_WITHIN_S, WAITED_S, Runaway
from opencode_gate.governance.watched import SPENDING_WITHIN_S
from opencode_gate.wire.facts import read_facts
from opencode_gate.wire.refusals import OVERFLOW_PATTERN, RETRY_PATTERN, refusal_body
from tests.support.agent_conversations import (
    COMPACTION_INSTRUCTIONS,
    FORMATS,
    TITLE_INSTRUCTIONS,
    Step,
    body_of,
)
from tests.support.ledger_records import NOON_US, an_exchange
from tests.support.wire_corpus import route_of

SESSION = "01SESSION"
SETTINGS = RunawaySettings()
READ = Step("read", {"filePath": "/a"}, "text")
BACKOFF_S = (2, 4, 9, 17, 40)
"""How long Opencode waits before each of its five further tries."""


class HandClock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic_s(self) -> float:
        return self.now_s

    def now_us(self) -> int:
        return NOON_US + round((self.now_s - 1000) * 1_000_000)


class Agent:
    """Asks as Opencode does, and keeps what is said about it."""

    def __init__(
        self,
        wire_format: WireFormat = WireFormat.OPENAI_CHAT,
        *,
        usual_usd: float | None = None,
        **settings: object,
    ) -> None:
        self.clock = HandClock()
        self.format = wire_format
        usual = None if usual_usd is None else round(usual_usd * NANO_PER_USD)
        self.asked_for_usual = 0
        self._usual = usual
        self.runaway = Runaway(RunawaySettings(**settings), self.clock, self._ask_usual)
        self.said: list[Decision] = []
        self._grants: dict[str | None, Grant] = {}

    def _ask_usual(self) -> int | None:
        self.asked_for_usual += 1
        return self._usual

    def ask(self, body: bytes, conversation: str | None = "ses_1") -> Decision | None:
        route = route_of(self.format)
        ask = Ask(
            exchange_id="01",
            caller=Caller(SESSION, "ada", None, b""),
            provider_id="acme",
            route=route,
            facts=read_facts(route, body),
            body=body,
            conversation_id=conversation,
        )
        grant = self._grants[conversation] = Grant("01")
        decision = self.runaway.check(ask, grant, self.clock.now_s)
        if decision is not None:
            self.said.append(decision)
        return decision

    def answered(self, conversation: str = "ses_1", *, after_s: float = 3.0) -> None:
        self.clock.now_s += after_s
        self._ended(conversation, attempts=1, http_status=200)

    def failed(self, conversation: str = "ses_1", *, after_s: float = 0.2, **record) -> None:
        self.clock.now_s += after_s
        fields = {"status": ExchangeStatus.UPSTREAM_ERROR, "attempts": 1, **record}
        self._ended(conversation, **fields)

    def _ended(self, conversation: str, **fields) -> None:
        grant = self._grants.get(conversation)
        if grant is not None and grant.watched is not None and fields["attempts"]:
            self.runaway.ended(grant.watched, an_exchange(conversation_id=conversation, **fields))

    def works(self, steps: list[Step], *, answer_s: float = 3.0, tool_s: float = 0.1, **more):
        """Takes steps, one request each, as far as it is let."""
        for number in range(len(steps) + 1):
            decision = self.ask(body_of(self.format, steps[:number], **more))
            if decision is not None and decision.outcome == "deny":
                return number
            self.answered(after_s=answer_s)
            self.clock.now_s += tool_s
        return None


# What honest agents do.


@pytest.mark.parametrize("wire_format", FORMATS)
def test_long_work_with_different_arguments_says_nothing(wire_format):
    agent = Agent(wire_format)
    steps = [Step("read", {"filePath": f"/{number}"}, "same text") for number in range(120)]
    assert agent.works(steps, answer_s=0.05, tool_s=0.01) is None
    assert agent.said == []


def test_two_hundred_edits_and_test_runs_in_turn_say_nothing():
    agent = Agent()
    steps = [
        step
        for number in range(100)
        for step in (
            Step("edit", {"filePath": "/a", "newString": str(number)}, "done"),
            Step("bash", {"command": "pytest"}, "1 failed"),
        )
    ]
    assert agent.works(steps, answer_s=1, tool_s=1) is None
    assert agent.said == []


@pytest.mark.parametrize("waits_s", [BACKOFF_S, (1,) * 5, (0.1,) * 5])
def test_opencodes_own_tries_say_nothing_with_a_title_beside_them(waits_s):
    """Six tries of the turn and three of the title, in the same conversation."""
    agent = Agent()
    title = body_of(agent.format, [], instructions=TITLE_INSTRUCTIONS, with_tools=False)
    turn = body_of(agent.format, [])
    for number, wait_s in enumerate((*waits_s, 0)):
        if number < 3:
            agent.ask(title)
            agent.failed(http_status=503)
        agent.ask(turn)
        agent.failed(http_status=503)
        agent.clock.now_s += wait_s
    assert agent.said == []


def test_a_person_who_tries_again_while_the_provider_is_down_is_not_stopped():
    """Each prompt of theirs is tried six times, as fast as it goes."""
    agent = Agent()
    for prompt in range(12):
        body = body_of(agent.format, [], said_last="again " * prompt if prompt else None)
        for wait_s in (*BACKOFF_S, 0):
            agent.ask(body)
            agent.failed()
            agent.clock.now_s += wait_s
    assert [decision for decision in agent.said if decision.outcome == "deny"] == []


def test_sub_agents_side_by_side_say_nothing():
    """Thirty of them with the same first question, each a conversation of its own."""
    agent = Agent(usual_usd=0.5)
    for number in range(6):
        for child in range(30):
            steps = [Step("grep", {"pattern": f"{child}-{step}"}, "x") for step in range(number)]
            agent.ask(body_of(agent.format, steps), f"ses_{child}")
            agent.answered(f"ses_{child}", after_s=0.01)
            agent.runaway.spent(SESSION, NANO_PER_USD // 20)
    assert agent.said == []


def test_titles_and_compactions_say_nothing():
    """A title beside the first turn, a compaction whenever the context is full, then on."""
    agent = Agent()
    title = body_of(agent.format, [], instructions=TITLE_INSTRUCTIONS, with_tools=False)
    agent.ask(title)
    for part in range(5):
        steps = [Step("read", {"filePath": f"/{part}/{step}"}, "x") for step in range(20)]
        assert agent.works(steps, answer_s=0.3, prompt=f"go on from summary {part}") is None
        compaction = body_of(
            agent.format, steps, instructions=COMPACTION_INSTRUCTIONS, said_last="Summarize."
        )
        agent.ask(compaction)
        agent.answered(after_s=1)
    assert agent.said == []


def test_a_call_that_waits_for_something_may_come_again_and_again():
    """A build is looked at every half minute, with the same words and the same answer."""
    agent = Agent()
    poll = Step("bash", {"command": "sleep 30; gh run view"}, "in progress")
    assert agent.works([poll] * 60, tool_s=30) is None
    assert agent.said == []


def test_turning_pages_may_take_longer_than_doing_the_same():
    agent = Agent()
    pages = [Step("next_page", {}, f"page {number}") for number in range(14)]
    assert agent.works(pages) is None
    assert agent.said == []


def test_the_users_word_begins_anew():
    agent = Agent()
    steps = [READ] * 9
    for number in range(3):
        assert agent.works(steps, said_before=dict.fromkeys((0, 4, 8), "on")) is None, number
    assert agent.said == []


def test_nobody_looks_into_the_prompt_of_an_ordinary_request(monkeypatch):
    """It is where what is in it can have repeated often enough since the last look."""
    looks = []

    def look(name: str) -> None:
        real: Callable[[bytes], object] = getattr(module, name)
        monkeypatch.setattr(module, name, lambda body: (looks.append(name), real(body))[1])

    look("repeated_tool_call")
    look("turns_asked")
    agent = Agent()
    agent.works([Step("read", {"n": number}, "x") for number in range(100)], answer_s=5)
    # First after five requests, then where the one call there is could have come so often.
    assert looks.count("repeated_tool_call") == 1 + (101 - 5) // 4
    assert looks.count("turns_asked") == looks.count("repeated_tool_call")


def test_without_a_conversation_only_spending_is_watched():
    agent = Agent()
    for _ in range(100):
        agent.ask(body_of(agent.format, [READ] * 40), None)
    assert agent.said == []


# What is stopped.


def explains_itself(decision: Decision, *words: str) -> None:
    """The sentence has the numbers, reads as one, and makes nobody try again."""
    assert decision.rule == "runaway"
    assert decision.code in CODES
    assert decision.command is not None
    for word in words:
        assert word in decision.message
    assert str(decision.limit) in decision.message or decision.unit == "usd"
    for wire_format in WireFormat:
        text = refusal_body(
            wire_format,
            http_status=402,
            message=f"{decision.message} {decision.command}",
            error_type="insufficient_quota",
            code=decision.code,
        ).decode()
        assert not RETRY_PATTERN.search(text)
        assert not OVERFLOW_PATTERN.search(text)
    if decision.outcome == "deny":
        assert Denied(decision, http_status=402).code == decision.code


@pytest.mark.parametrize("wire_format", FORMATS)
@pytest.mark.parametrize(
    "circle",
    [[READ], [READ, Step("grep", {}, "-")], [READ, Step("a", {}, "1"), Step("b", {}, "2")]],
)
def test_the_same_tool_calls_over_and_over_are_warned_of_and_stopped(wire_format, circle):
    agent = Agent(wire_format)
    stopped_at = agent.works(circle * 20)
    # The first turn of a circle is complete with its first step where it began.
    assert stopped_at == SETTINGS.same_tool_calls * len(circle)
    first, last = agent.said[0], agent.said[-1]
    assert (first.outcome, first.spent) == ("warn", SETTINGS.same_tool_calls // 2)
    assert (last.outcome, last.spent, last.limit) == ("deny", 10, 10)
    names = ", ".join(dict.fromkeys(step.name for step in circle))
    explains_itself(first, "may soon stop", names, "5 times")
    explains_itself(last, "stopped", names, "10 times", "the same result", "Send a new prompt")


def test_slow_thinking_makes_a_circle_no_better():
    agent = Agent()
    assert agent.works([READ] * 20, answer_s=120) == SETTINGS.same_tool_calls


def test_the_same_call_with_other_results_is_stopped_later():
    agent = Agent()
    pages = [Step("next_page", {}, f"page {number}") for number in range(80)]
    assert agent.works(pages) == 3 * SETTINGS.same_tool_calls
    explains_itself(agent.said[-1], "next_page", "30 times", "various results")


def test_a_conversation_taken_up_in_its_circle_is_still_found():
    """The first requests of a process cannot tell; what they bring is seen soon."""
    agent = Agent()
    body = body_of(agent.format, [READ] * 50)
    decisions = [agent.ask(body_of(agent.format, [READ] * (50 + more))) for more in range(12)]
    assert body
    assert decisions[SETTINGS.same_tool_calls - 1].outcome == "deny"


def test_a_question_that_comes_back_for_ever_is_stopped():
    agent = Agent()
    asked = 0
    while not agent.said or agent.said[-1].outcome != "deny":
        agent.ask(body_of(agent.format, []))
        agent.answered(after_s=0.25)
        asked += 1
    assert asked == 2 * SETTINGS.same_questions + 1
    assert [said.outcome for said in agent.said[-2:]] == ["warn", "deny"]
    explains_itself(agent.said[-1], "same question 7 times within 2 seconds", "another model")
    assert agent.said[-1].code == "request-loop"


def test_a_circle_whose_answers_take_seconds_is_stopped_too():
    agent = Agent()
    outcomes = []
    for _ in range(18):
        decision = agent.ask(body_of(agent.format, []))
        outcomes.append(decision.outcome if decision is not None else None)
        agent.answered(after_s=30 / 7)
    assert "deny" in outcomes


def test_a_stop_is_over_with_the_next_question():
    agent = Agent()
    for _ in range(20):
        agent.ask(body_of(agent.format, []))
    for pause_s in (0, 30, 3000):
        agent.clock.now_s += pause_s
        assert agent.ask(body_of(agent.format, [])).outcome == "deny"
    assert agent.ask(body_of(agent.format, [], said_last="go on")) is None


@pytest.mark.parametrize("same_tool_calls", [10, 0])
def test_a_question_that_comes_back_slowly_is_stopped_too(same_tool_calls):
    """Each answer takes a minute."""
    agent = Agent(same_tool_calls=same_tool_calls)
    while not agent.said or agent.said[-1].outcome != "deny":
        agent.ask(body_of(agent.format, []))
        agent.answered(after_s=60)
    assert agent.said[0].outcome == "warn"
    assert agent.said[-1].spent == 2 * SETTINGS.same_questions + 1
    explains_itself(agent.said[-1], "the same question 13 times in a row though it was answered")


def test_a_question_that_nobody_answers_is_left_to_the_count_of_failures():
    """To Anthropic, what is typed after a failure goes into the same turn as what failed."""
    agent = Agent(WireFormat.ANTHROPIC_MESSAGES)
    for _ in range(20):
        for end in (agent.failed, lambda: agent.failed(status=ExchangeStatus.CLIENT_DISCONNECTED)):
            agent.ask(body_of(agent.format, []))
            end()
            agent.clock.now_s += 40
    assert agent.said == []


def test_fast_work_is_no_circle():
    """Each step of it is a new question."""
    agent = Agent()
    assert agent.works([Step("x", {"n": n}, "y") for n in range(60)], answer_s=0, tool_s=0) is None
    assert agent.said == []


def test_failures_without_a_success_between_them_are_stopped_until_they_are_past():
    agent = Agent(same_questions=0)
    for number in range(SETTINGS.failed_attempts):
        decision = agent.ask(body_of(agent.format, []))
        assert (decision is None) == (number < SETTINGS.failed_attempts // 2), number
        assert decision is None or decision.outcome == "warn"
        agent.failed(after_s=1)
    stopped = agent.ask(body_of(agent.format, []))
    assert stopped is not None
    assert (stopped.outcome, stopped.spent) == ("deny", SETTINGS.failed_attempts)
    explains_itself(stopped, "40 tries of this conversation failed in a row", "5 minutes")
    assert stopped.resets_at_us is not None
    agent.clock.now_s += FAILURES_WITHIN_S - 40
    assert agent.clock.now_us() < stopped.resets_at_us
    assert agent.ask(body_of(agent.format, [])).outcome == "deny"
    agent.clock.now_s = 1000 + (stopped.resets_at_us - NOON_US) / 1e6
    assert agent.ask(body_of(agent.format, [])).outcome == "warn"
    agent.answered()
    assert agent.ask(body_of(agent.format, [])) is None


def test_what_never_left_or_whom_the_client_left_is_no_failure():
    agent = Agent(same_questions=0)
    for _ in range(100):
        agent.ask(body_of(agent.format, []))
        agent.failed(attempts=0, status=ExchangeStatus.DENIED, http_status=402)
        agent.failed(status=ExchangeStatus.CLIENT_DISCONNECTED, http_status=200)
    assert agent.said == []


def test_spending_far_above_the_usual_is_warned_of_and_stopped_until_it_falls():
    agent = Agent(usual_usd=1)
    body = body_of(agent.format, [READ])
    for dollars, expected in ((50, None), (51, "warn"), (100, "warn"), (101, "deny")):
        agent.runaway.spent(SESSION, dollars * NANO_PER_USD - _spent(agent))
        decision = agent.ask(body)
        assert (decision.outcome if decision is not None else None) == expected
    stopped = agent.said[-1]
    assert (stopped.unit, stopped.spent, stopped.limit) == (
        "usd",
        20_200_000_000,
        20 * NANO_PER_USD,
    )
    assert stopped.owner == f"session {SESSION}"
    explains_itself(stopped, "$20.20 a minute", "at most $1 is usual", "$20 allowed", "5 minutes")
    assert stopped.resets_at_us == agent.clock.now_us() + 300_000_000
    agent.clock.now_s += 300
    assert agent.ask(body) is None


def _spent(agent: Agent) -> int:
    session = agent.runaway._sessions.get(SESSION)
    return 0 if session is None else session.sum_nano_usd


def test_the_usual_is_not_asked_for_where_little_is_spent():
    """Ten dollars a minute are allowed in any case, and half of that is nothing to warn of."""
    agent = Agent(usual_usd=0.0001)
    for _ in range(50):
        agent.runaway.spent(SESSION, NANO_PER_USD // 2)
        agent.ask(body_of(agent.format, []), None)
    assert agent.asked_for_usual == 0
    assert agent.said == []
    for dollars, outcome in ((2, "warn"), (25, "deny")):
        agent.runaway.spent(SESSION, dollars * NANO_PER_USD)
        decision = agent.ask(body_of(agent.format, []), None)
        assert (decision.outcome, decision.limit) == (outcome, 10 * NANO_PER_USD)


def test_who_has_no_history_is_never_stopped_for_spending():
    agent = Agent()
    agent.runaway.spent(SESSION, 100_000 * NANO_PER_USD)
    assert agent.ask(body_of(agent.format, [])) is None


def test_another_sessions_spending_is_none_of_this_one():
    agent = Agent(usual_usd=0.01)
    agent.runaway.spent("01OTHER", 100_000 * NANO_PER_USD)
    assert agent.ask(body_of(agent.format, [])) is None


# What the settings say.


def test_warn_never_stops():
    agent = Agent(mode="warn", usual_usd=0.1)
    agent.runaway.spent(SESSION, 1000 * NANO_PER_USD)
    assert agent.works([READ] * 40, answer_s=0.1) is None
    assert {said.outcome for said in agent.said} == {"warn"}
    assert any("would have stopped" in said.message for said in agent.said)
    for said in agent.said:
        explains_itself(said)


def test_off_looks_at_nothing():
    agent = Agent(mode="off", usual_usd=0.1)
    agent.runaway.spent(SESSION, 1000 * NANO_PER_USD)
    agent.failed()
    assert agent.works([READ] * 60, answer_s=0) is None
    assert agent.said == []


def test_each_check_can_be_switched_off_by_itself():
    off = {"same_tool_calls": 0, "same_questions": 0, "failed_attempts": 0, "spend_factor": 0}
    agent = Agent(usual_usd=0.01, **off)
    agent.runaway.spent(SESSION, 1000 * NANO_PER_USD)
    assert agent.works([READ] * 60, answer_s=0, tool_s=0) is None
    for _ in range(100):
        agent.ask(body_of(agent.format, []))
        agent.failed(after_s=0)
    assert agent.said == []


def test_what_stops_comes_before_what_warns():
    agent = Agent(usual_usd=0.5, spend_usd_per_minute=Decimal(1), same_tool_calls=4)
    agent.runaway.spent(SESSION, 40 * NANO_PER_USD)
    for number in range(5):
        decision = agent.ask(body_of(agent.format, [READ] * number))
        agent.answered()
    assert decision.outcome == "deny"
    assert decision.unit is None


@pytest.mark.parametrize(
    "name", ["rate limit", "500", "x" * 5000, "read\nfile", "429 try again later"]
)
def test_a_tools_name_makes_nobody_try_again(name):
    agent = Agent(same_tool_calls=500)
    agent.works([Step(name, {}, "x")] * 127, answer_s=0.1)
    agent = Agent(same_tool_calls=4)
    agent.works([Step(name, {}, "x")] * 8)
    explains_itself(agent.said[-1])
    assert len(agent.said[-1].message) < 500


def test_what_is_remembered_is_bounded():
    agent = Agent()
    for number in range(5000):
        agent.ask(body_of(agent.format, [], instructions="x"), f"ses_{number}")
        agent.runaway.spent(f"s{number}", 1)
    remembered = agent.runaway._conversations, agent.runaway._older
    assert sum(map(len, remembered)) <= 1024
    assert len(agent.runaway._sessions) <= 256


def test_the_settings_page_says_the_numbers_that_hold():
    """Five seconds, half a minute, five minutes: in words there, as numbers here."""
    assert (WAITED_S, module.QUESTIONS_WITHIN_S, FAILURES_WITHIN_S) == (5, 30, 300)
    assert SPENDING_WITHIN_S == 300
    described = re.sub(r"\s+", " ", RunawaySettings.__doc__ or "")
    for words in ("five seconds", "half a minute", "five minutes", "three times as often"):
        assert words in described
