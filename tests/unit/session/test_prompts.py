"""What a prompt and a mode cost is everything that came of it, once."""

from opencode_gate.core.semconv import ConversationKind, ExchangeStatus
from opencode_gate.ledger.records import ConversationRecord
from opencode_gate.ledger.totals import total_of
from opencode_gate.session.prompts import mode_costs, prompt_costs, with_texts
from tests.support.recorded_run import PRICE_NANO_USD, at_us, exchange

EXCHANGES = [
    exchange("t", "ses_main", 0, (1, 0), kind=ConversationKind.TITLE, prompt_id="p1", mode="plan"),
    exchange("m1", "ses_main", 5, (10, 0), prompt_id="p1", mode="plan"),
    exchange(
        "s1", "ses_sub", 20, (100, 0), kind=ConversationKind.SUBAGENT,
        parent_conversation_id="ses_main", prompt_id="p1", mode="plan",
    ),
    exchange("m2", "ses_main", 300, (1_000, 0), prompt_id="p2", mode="build"),
    exchange("lost", "ses_main", 400, (10_000, 0)),
    exchange("loose", None, 500, (100_000, 0)),
    exchange("denied", "ses_main", 600, None, prompt_id="p3", status=ExchangeStatus.DENIED),
]  # fmt: skip


def test_a_prompt_costs_what_it_led_to_with_sub_agents_and_titles():
    first, second, *_ = prompt_costs(EXCHANGES, [])
    assert (first.prompt_id, first.conversation_id, first.mode) == ("p1", "ses_main", "plan")
    assert first.totals.requests == 3
    assert first.totals.cost_nano_usd == 111 * PRICE_NANO_USD
    assert first.started_at_us == at_us(0)
    assert (second.prompt_id, second.totals.cost_nano_usd) == ("p2", 1_000 * PRICE_NANO_USD)


def test_the_parts_are_the_session():
    """What belongs to no known prompt or mode is said last, not left out."""
    everything = total_of(EXCHANGES)
    prompts, modes = prompt_costs(EXCHANGES, []), mode_costs(EXCHANGES)
    for costs in (prompts, modes):
        assert sum(cost.totals.requests for cost in costs) == everything.requests
        assert sum(cost.totals.cost_nano_usd or 0 for cost in costs) == everything.cost_nano_usd
    assert [cost.prompt_id for cost in prompts] == ["p1", "p2", None, None]
    assert [cost.conversation_id for cost in prompts[2:]] == ["ses_main", None]


def test_modes_stand_the_dearest_first():
    modes = mode_costs(EXCHANGES)
    assert [(cost.mode, cost.prompts) for cost in modes] == [("build", 1), ("plan", 1), (None, 0)]
    assert modes[1].totals.cost_nano_usd == 111 * PRICE_NANO_USD


def test_a_prompt_stands_under_its_root_also_where_the_requests_name_no_parent():
    sub = exchange("s", "ses_sub", 20, (1, 1), prompt_id="p1")
    records = [ConversationRecord(id="ses_sub", session_id="01S", parent_id="ses_main")]
    (cost,) = prompt_costs([sub], records)
    assert cost.conversation_id == "ses_main"


def test_the_words_of_a_prompt_come_only_from_the_one_who_asks():
    costs = prompt_costs(EXCHANGES, [])
    assert all(cost.text is None for cost in costs)
    shown = with_texts(costs, {"p1": "Find the bug.", "p9": "Another's."})
    assert [cost.text for cost in shown] == ["Find the bug.", None, None, None]
    assert with_texts(costs, None) == costs
