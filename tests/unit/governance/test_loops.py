"""An agent that sends the same request for ever is stopped; honest retries are not."""

import pytest

from opencode_gate.governance.loops import LIMIT, WINDOW_S, LoopBreaker, RequestLoop


def test_the_request_after_the_limit_is_stopped_with_402() -> None:
    breaker = LoopBreaker()
    for attempt in range(LIMIT):
        breaker.check("ses_1", b"{}", now_s=attempt * 0.25)
    with pytest.raises(RequestLoop) as stop:
        breaker.check("ses_1", b"{}", now_s=LIMIT * 0.25)
    assert stop.value.http_status == 402


def test_the_agents_own_retries_pass() -> None:
    breaker = LoopBreaker()
    for now_s in (0, 2, 6, 15, 32, 72):
        breaker.check("ses_1", b"{}", now_s=now_s)


def test_other_bodies_and_other_conversations_are_counted_apart() -> None:
    breaker = LoopBreaker()
    for number in range(100):
        breaker.check("ses_1", b"%d" % number, now_s=0)
        breaker.check(f"ses_{number}", b"{}", now_s=0)


def test_the_window_slides_on() -> None:
    breaker = LoopBreaker()
    for _ in range(LIMIT):
        breaker.check("ses_1", b"{}", now_s=0)
    breaker.check("ses_1", b"{}", now_s=WINDOW_S)
