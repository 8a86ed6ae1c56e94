"""An agent that asks the same thing for ever is stopped; honest retries and real work are not."""

import pytest

from opencode_gate.governance.loops import LIMIT, WINDOW_S, LoopBreaker, RequestLoop


def ask(breaker: LoopBreaker, question: object, now_s: float, conversation: str = "ses_1") -> None:
    breaker.check(conversation, lambda: question, now_s)


def test_a_question_that_comes_back_for_ever_is_stopped_with_402() -> None:
    breaker = LoopBreaker()
    with pytest.raises(RequestLoop) as stop:
        for attempt in range(2 * LIMIT + 1):
            ask(breaker, 7, attempt * 0.25)
            assert attempt < 2 * LIMIT
    assert stop.value.http_status == 402


def test_a_circle_whose_answers_take_seconds_is_stopped_too() -> None:
    breaker = LoopBreaker()
    with pytest.raises(RequestLoop):
        for attempt in range(3 * LIMIT):
            ask(breaker, 7, attempt * WINDOW_S / (LIMIT + 1))


def test_the_agents_own_retries_pass() -> None:
    breaker = LoopBreaker()
    for now_s in (0, 2, 6, 15, 32, 72):
        ask(breaker, 7, now_s)


def test_work_passes_however_fast_it_is() -> None:
    """Each step of it is a new question, and conversations do not count together."""
    breaker = LoopBreaker()
    for number in range(100):
        ask(breaker, number, 0)
        ask(breaker, 7, 0, f"ses_{number}")


def test_nobody_looks_at_the_question_of_requests_that_do_not_come_fast() -> None:
    breaker = LoopBreaker()

    def question() -> int:
        raise AssertionError("it costs time")

    for number in range(100):
        breaker.check("ses_1", question, now_s=number * WINDOW_S / LIMIT)


def test_a_stop_is_over_when_the_window_has_passed() -> None:
    breaker = LoopBreaker()
    with pytest.raises(RequestLoop):
        for _ in range(3 * LIMIT):
            ask(breaker, 7, 0)
    ask(breaker, 7, WINDOW_S)
