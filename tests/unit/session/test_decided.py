"""What rules did is counted from what is recorded, in the words it was decided in."""

import msgspec

from opencode_gate.core.semconv import ExchangeStatus
from opencode_gate.governance.decisions import Decision
from opencode_gate.session.decided import Decided, decided, decisions_of, excess_of
from tests.support.ledger_records import an_exchange


def told(*decisions: Decision, **changes: object):
    text = msgspec.json.encode(decisions).decode()
    return an_exchange(decisions=text, **changes)


def denied(code: str, message: str):
    decision = Decision(rule="budget", outcome="deny", code=code, message=message)
    return told(decision, status=ExchangeStatus.DENIED, denial=code)


def test_where_no_rule_had_a_say_there_is_nothing() -> None:
    """A refusal that is no rule's (an unknown path) is trouble, not a decision."""
    assert decided(
        [an_exchange(), an_exchange(status=ExchangeStatus.DENIED, denial="no-route")]
    ) == (Decided())


def test_refusals_are_counted_by_reason_with_the_last_words() -> None:
    """One line says how often, and what Opencode was told last."""
    found = decided(
        [
            denied("budget-exceeded", "a"),
            denied("model-denied", "m"),
            denied("budget-exceeded", "b"),
        ]
    )
    assert [(one.code, one.requests, one.last.message) for one in found.refused] == [
        ("budget-exceeded", 2, "b"),
        ("model-denied", 1, "m"),
    ]


def test_every_change_of_a_request_is_counted() -> None:
    """Lowered limits, other models, cut answers, waiting, what shadows recorded."""
    wait = Decision(rule="rate", outcome="wait", message="w")
    stop = Decision(rule="budget", outcome="stop", code="budget-exceeded", message="s")
    shadow = Decision(rule="budget", outcome="shadow", message="x")
    swap = Decision(rule="budget", outcome="downgrade", message="d")
    found = decided(
        [
            told(wait, queued_us=2_000_000),
            told(wait, queued_us=1_000_000, output_limit_tokens=1024),
            told(stop),
            told(shadow),
            told(swap, downgraded_from="big", response_model="small-1", provider_name="acme"),
            told(swap, downgraded_from="big", response_model="small-1", provider_name="acme"),
            told(downgraded_from="big", response_model=None, provider_name="acme"),
        ]
    )  # fmt: skip
    assert (found.waited_requests, found.waited_us) == (2, 3_000_000)
    assert (found.lowered_requests, found.stopped_requests, found.shadow_requests) == (1, 1, 1)
    assert [(one.asked, one.taken, one.requests, one.last) for one in found.replaced] == [
        ("acme/big", "acme/small-1", 2, swap),
        ("acme/big", None, 1, None),
    ]
    assert found.refused == ()


def test_each_firing_of_the_breaker_is_named_with_its_exchange() -> None:
    """So that it can be explained."""
    warn = Decision(rule="runaway", outcome="warn", message="loop")
    deny = Decision(rule="runaway", outcome="deny", code="runaway", message="loop")
    first, second = told(warn), told(deny, status=ExchangeStatus.DENIED, denial="runaway")
    found = decided([first, second])
    assert [(one.exchange_id, one.decision) for one in found.firings] == [
        (first.id, warn),
        (second.id, deny),
    ]
    assert [one.code for one in found.refused] == ["runaway"]


def test_what_was_billed_beyond_a_reservation_is_named() -> None:
    """Only where something was reserved, and only the difference."""
    over = an_exchange(cost_nano_usd=150, reserved_cost_nano_usd=100)
    under = an_exchange(cost_nano_usd=80, reserved_cost_nano_usd=100)
    unknown = an_exchange(cost_nano_usd=None, reserved_cost_nano_usd=100)
    without = an_exchange(cost_nano_usd=999, reserved_cost_nano_usd=None)
    assert [excess_of(one) for one in (over, under, unknown, without)] == [50, 0, 0, 0]
    found = decided([over, under, unknown, without])
    assert (found.excess_requests, found.excess_nano_usd) == (1, 50)


def test_decisions_that_cannot_be_read_cost_no_summary() -> None:
    """A ledger of another version may have others."""
    assert decisions_of(an_exchange(decisions="{")) == ()
    assert decisions_of(an_exchange(decisions='[{"rule": "weather"}]')) == ()
