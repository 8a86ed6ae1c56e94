"""Opencode's figure and the ledger's are one bill: every difference has a reason and is exact."""

import random
from decimal import Decimal

import pytest
from msgspec.structs import replace

from opencode_gate.agents.opencode.run_record import (
    AgentFigures,
    RecordedConversation,
    RecordedTurn,
    RunRecord,
)
from opencode_gate.core.semconv import (
    ConversationKind,
    CostQuality,
    ExchangeStatus,
    UsageQuality,
)
from opencode_gate.core.usage import TokenUsage
from opencode_gate.ledger.records import ExchangeRecord
from opencode_gate.session.differences import reconcile
from opencode_gate.session.matching import match_exchanges
from opencode_gate.session.reconciliation import (
    Bypass,
    Figures,
    Reason,
    Reconciliation,
    decoded,
    encoded,
)
from tests.support.recorded_run import (
    PRICE_NANO_USD,
    conversation,
    exchange,
    figures,
    turn,
)

MAIN = conversation("ses_main")


def compared(
    exchanges: list[ExchangeRecord],
    turns: list[RecordedTurn],
    conversations: tuple[RecordedConversation, ...] = (MAIN,),
    direct: tuple[str, ...] = (),
) -> Reconciliation:
    record = RunRecord(conversations=conversations, turns=tuple(turns))
    found = reconcile(match_exchanges(exchanges, record), record, direct=direct)
    assert sum((each.figures for each in found.differences), found.agent) == found.ledger
    return found


def reasons(found: Reconciliation) -> dict[Reason, Figures]:
    return {difference.reason: difference.figures for difference in found.differences}


def tokens(input_tokens: int, output_tokens: int, *, requests: int = 1) -> Figures:
    return Figures(
        requests=requests,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cost_nano_usd=(input_tokens + output_tokens) * PRICE_NANO_USD,
    )


def test_where_both_counted_the_same_there_is_nothing_to_say():
    found = compared(
        [exchange("x", "ses_main", 110, (100, 10))], [turn("m", "ses_main", 100, 200, (100, 10))]
    )
    assert found.agent == found.ledger == tokens(100, 10)
    assert found.differences == found.bypasses == ()
    (row,) = found.rows
    assert (row.conversation_id, row.title) == ("ses_main", "Title of ses_main")
    assert row.ledger == row.agent
    assert row.running_total is None


def test_titles_are_what_opencode_leaves_out():
    found = compared(
        [
            exchange("t", "ses_main", 105, (7, 3), kind=ConversationKind.TITLE),
            exchange("x", "ses_main", 110, (100, 10)),
        ],
        [turn("m", "ses_main", 100, 200, (100, 10))],
    )
    assert reasons(found) == {Reason.TITLES: tokens(7, 3)}


def test_sub_agents_are_not_in_what_opencode_shows():
    """Their own answers are matched: they are one difference, not two."""
    sub = conversation("ses_sub", parent_id="ses_main")
    found = compared(
        [exchange("x", "ses_main", 110, (100, 10)), exchange("s", "ses_sub", 130, (5, 5))],
        [turn("m", "ses_main", 100, 200, (100, 10)), turn("s", "ses_sub", 120, 150, (5, 5))],
        (MAIN, sub),
    )
    assert found.agent == tokens(100, 10)
    assert reasons(found) == {Reason.SUB_AGENTS: tokens(5, 5)}
    assert [row.parent_id for row in found.rows] == [None, "ses_main"]


@pytest.mark.parametrize(
    ("changes", "turn_changes", "reason"),
    [
        ({"status": ExchangeStatus.CLIENT_DISCONNECTED}, {}, Reason.INTERRUPTED),
        ({"status": ExchangeStatus.INTERRUPTED}, {}, Reason.INTERRUPTED),
        ({}, {"error_name": "MessageAbortedError"}, Reason.INTERRUPTED),
        ({}, {"is_answer": True}, Reason.UNREAD_USAGE),
        ({"usage_quality": UsageQuality.ESTIMATED}, {"is_answer": True}, Reason.ESTIMATED),
    ],
)
def test_an_answer_opencode_counted_nothing_of(changes, turn_changes, reason):
    found = compared(
        [exchange("x", "ses_main", 110, (100, 10), **changes)],
        [turn("m", "ses_main", 100, 200, None, **turn_changes)],
    )
    assert list(reasons(found)) == [reason]
    assert found.bypasses == ()


def test_a_try_that_was_billed_before_the_one_that_counts():
    found = compared(
        [
            exchange("cut", "ses_main", 110, (100, 2), status=ExchangeStatus.UPSTREAM_ERROR),
            exchange("x", "ses_main", 150, (100, 10)),
        ],
        [turn("m", "ses_main", 100, 200, (100, 10))],
    )
    assert reasons(found) == {Reason.RETRIES: tokens(100, 2)}


def test_a_request_the_provider_refused_cost_nothing():
    found = compared(
        [exchange("x", "ses_main", 110, None, http_status=413)],
        [turn("m", "ses_main", 100, 200, None)],
    )
    assert reasons(found) == {Reason.REFUSED: Figures(requests=1)}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"cost_nano_usd": 5}, Reason.PRICES),
        (
            {"cost_nano_usd": 5, "reported_cost_nano_usd": 5, "cost_quality": CostQuality.REPORTED},
            Reason.REPORTED_COST,
        ),
        ({"cost_nano_usd": None, "cost_quality": CostQuality.UNKNOWN}, Reason.NO_PRICE),
    ],
)
def test_the_same_tokens_at_another_amount(changes, reason):
    found = compared(
        [exchange("x", "ses_main", 110, (100, 10), **changes)],
        [turn("m", "ses_main", 100, 200, (100, 10))],
    )
    (difference,) = found.differences
    assert (difference.reason, difference.cases) == (reason, 1)
    assert difference.figures == Figures(
        cost_nano_usd=(changes["cost_nano_usd"] or 0) - 110 * PRICE_NANO_USD
    )
    assert found.unpriced_requests == (changes["cost_nano_usd"] is None)


def test_what_providers_said_it_costs_stands_beside():
    stated = exchange("x", "ses_main", 110, (100, 10), reported_cost_nano_usd=77)
    silent = exchange("y", "ses_main", 120, (1, 1))
    found = compared([stated, silent], [])
    assert found.reported == Figures(
        requests=1, input_tokens=100, output_tokens=10, cost_nano_usd=77
    )


def test_an_amount_off_by_the_last_digit_is_rounding():
    found = compared(
        [exchange("x", "ses_main", 110, (100, 10), cost_nano_usd=110 * PRICE_NANO_USD + 1)],
        [turn("m", "ses_main", 100, 200, (100, 10))],
    )
    assert reasons(found) == {Reason.ROUNDING: Figures(cost_nano_usd=1)}


def test_what_no_reason_explains_is_called_unknown():
    found = compared(
        [exchange("x", "ses_main", 110, (100, 10))], [turn("m", "ses_main", 100, 200, (90, 10))]
    )
    assert reasons(found) == {Reason.UNKNOWN: tokens(10, 0, requests=0)}


def test_an_answer_the_gateway_never_saw_is_a_bypass():
    found = compared(
        [exchange("x", "ses_main", 110, (100, 10))],
        [
            turn("m", "ses_main", 100, 200, (100, 10)),
            turn("n", "ses_main", 300, 400, (5, 5), provider_id="sneaky", model_id="m-1"),
            turn("o", "ses_main", 500, 600, (5, 5), provider_id="sneaky", model_id="m-1"),
            turn("failed", "ses_main", 700, 800, None, provider_id="sneaky"),
        ],
    )
    assert reasons(found) == {Reason.BYPASS: Figures() - tokens(10, 10, requests=2)}
    assert found.bypasses == (
        Bypass(provider_name="sneaky", model="m-1", answers=2, figures=tokens(10, 10, requests=2)),
    )


def test_a_bypass_of_a_provider_the_gateway_also_serves_is_seen():
    """A plugin may send some of a provider's requests past it."""
    found = compared(
        [exchange("x", "ses_main", 110, (100, 10))],
        [
            turn("m", "ses_main", 100, 200, (100, 10)),
            turn("n", "ses_main", 300, 400, (100, 10)),
        ],
    )
    assert [bypass.answers for bypass in found.bypasses] == [1]


def test_a_subscription_left_direct_is_no_alarm():
    found = compared(
        [], [turn("n", "ses_main", 300, 400, (5, 5), provider_id="plan")], direct=("plan",)
    )
    assert list(reasons(found)) == [Reason.DIRECT]
    assert found.bypasses[0].is_expected


def test_answers_of_a_conversation_that_may_be_anothers_are_named_and_not_counted():
    stranger = conversation("ses_x", is_given=False)
    resumed = conversation("ses_y", is_given=False, is_new=False)
    found = compared(
        [exchange("x", "ses_main", 110, (100, 10))],
        [
            turn("m", "ses_main", 100, 200, (100, 10)),
            turn("n", "ses_x", 100, 200, (5, 5)),
            turn("o", "ses_y", 100, 200, (5, 5)),
        ],
        (MAIN, stranger, resumed),
    )
    assert found.differences == ()
    (bypass,) = found.bypasses
    assert (bypass.answers, bypass.is_certain) == (1, False)


def test_a_fork_does_not_make_its_copies_bypasses():
    """Opencode copies messages with their times and figures."""
    original = turn("m", "ses_main", 100, 200, (100, 10))
    copy = replace(original, id="copy", conversation_id="ses_fork")
    found = compared(
        [exchange("x", "ses_main", 110, (100, 10))],
        [original, copy],
        (MAIN, conversation("ses_fork")),
    )
    assert reasons(found) == {Reason.COPIES: Figures() - tokens(100, 10)}
    assert found.bypasses == ()


def test_what_opencode_has_forgotten_is_said():
    """Undone there, or never its own: something else used the gateway's address."""
    found = compared([exchange("x", "ses_gone", 110, (100, 10))], [])
    assert reasons(found) == {Reason.NOT_RECORDED: tokens(100, 10)}


def test_an_answer_that_may_have_come_by_a_nameless_request_is_no_bypass():
    """Some versions name no conversation; two answers at once can then not be told apart."""
    estimated = exchange("x", None, 110, (1, 1), usage_quality=UsageQuality.ESTIMATED)
    found = compared(
        [estimated],
        [turn("m", "ses_main", 100, 200, (100, 10)), turn("n", "ses_main", 105, 200, (90, 10))],
    )
    assert found.bypasses == ()
    assert Reason.UNKNOWN in reasons(found)


def test_a_running_total_that_is_not_the_sum_of_its_answers_is_said():
    """It is what Opencode shows, so it is what the ledger is compared with."""
    row = AgentFigures(
        usage=TokenUsage(input_uncached=80, cache_read=0, output=10), cost_usd=Decimal("0.00009")
    )
    found = compared(
        [exchange("x", "ses_main", 110, (100, 10))],
        [turn("m", "ses_main", 100, 200, (100, 10))],
        (replace(MAIN, row=row),),
    )
    assert found.agent == replace(tokens(80, 10), requests=1)
    assert reasons(found) == {Reason.RUNNING_TOTAL: tokens(20, 0, requests=0)}
    assert found.rows[0].running_total == found.agent


def test_a_session_without_requests_has_nothing_to_compare():
    found = compared([], [], ())
    assert found == Reconciliation(ledger=Figures(), agent=Figures(), reported=Figures())


def test_it_adds_up_whatever_happened():
    """Opencode's figure and the differences are the ledger's, in every column (`compared`)."""
    chance = random.Random(5)
    for _ in range(200):
        conversations = (
            replace(MAIN, row=chance.choice((None, figures((9, 9))))),
            conversation("ses_sub", parent_id="ses_main"),
            conversation("ses_x", is_given=False),
        )
        ids = [one.id for one in conversations]
        counts = [None, (0, 0), (1, 1), (5, 3), (100, 10)]
        turns = [
            turn(
                f"m{number}",
                chance.choice(ids),
                number * 50,
                chance.choice((None, number * 50 + 40)),
                chance.choice(counts),
                provider_id=chance.choice(("acme", "plan")),
            )
            for number in range(8)
        ]
        exchanges = [
            exchange(
                f"x{number}",
                chance.choice((*ids, "ses_gone", None)),
                chance.randrange(450),
                chance.choice(counts),
                kind=chance.choice(list(ConversationKind)),
            )
            for number in range(8)
        ]
        found = compared(exchanges, turns, conversations, direct=("plan",))
        assert decoded(encoded(found)) == found


def test_a_comparison_of_another_version_is_not_read_wrongly():
    assert decoded('{"ledger":{}}') is None
    assert decoded("not json") is None
