"""An exchange is given to the turn it was, the prompt behind it, and nothing else."""

import pytest

from opencode_gate.agents.opencode.run_record import RunRecord
from opencode_gate.core.semconv import ConversationKind, ExchangeStatus, Operation, UsageQuality
from opencode_gate.ledger.records import ExchangeRecord
from opencode_gate.session.matching import Match, match_exchanges
from tests.support.recorded_run import conversation, exchange, prompt, turn

MAIN = conversation("ses_main")
SUB = conversation("ses_sub", parent_id="ses_main", agent_name="explore")
DEEP = conversation("ses_deep", parent_id="ses_sub", agent_name="general")


def matched(record: RunRecord, *exchanges: ExchangeRecord) -> dict[str, Match]:
    return {match.exchange.id: match for match in match_exchanges(exchanges, record)}


def turn_ids(matches: dict[str, Match]) -> dict[str, str | None]:
    return {id: None if match.turn is None else match.turn.id for id, match in matches.items()}


def test_each_step_of_a_conversation_has_its_turn():
    record = RunRecord(
        conversations=(MAIN,),
        prompts=(prompt("msg_p", "ses_main", 100),),
        turns=(
            turn("msg_1", "ses_main", 110, 200, (1, 1), prompt_id="msg_p"),
            turn("msg_2", "ses_main", 201, 300, (2, 2), prompt_id="msg_p"),
        ),
    )
    first, second = (
        exchange("x1", "ses_main", 120, (1, 1)),
        exchange("x2", "ses_main", 201, (2, 2)),
    )
    found = matched(record, first, second)
    assert turn_ids(found) == {"x1": "msg_1", "x2": "msg_2"}
    assert all(match.is_kept for match in found.values())
    assert {(match.prompt_id, match.mode) for match in found.values()} == {("msg_p", "build")}


def test_tries_share_the_turn_and_the_one_opencode_counted_is_kept():
    record = RunRecord(conversations=(MAIN,), turns=(turn("msg_1", "ses_main", 100, 900, (5, 5)),))
    found = matched(
        record,
        exchange("refused", "ses_main", 110, None),
        exchange("cut", "ses_main", 200, (9, 9), status=ExchangeStatus.UPSTREAM_ERROR),
        exchange("whole", "ses_main", 300, (5, 5)),
    )
    assert set(turn_ids(found).values()) == {"msg_1"}
    assert [id for id, match in found.items() if match.is_kept] == ["whole"]
    assert not any(match.is_aside for match in found.values())


def test_of_tries_without_the_same_counts_the_last_whole_one_is_kept():
    """Opencode may have read other counts than the gateway, or none."""
    record = RunRecord(conversations=(MAIN,), turns=(turn("msg_1", "ses_main", 100, 900, None),))
    found = matched(
        record,
        exchange("whole", "ses_main", 110, (5, 5)),
        exchange("cut", "ses_main", 200, (5, 5), status=ExchangeStatus.CLIENT_DISCONNECTED),
    )
    assert [id for id, match in found.items() if match.is_kept] == ["whole"]


def test_what_ran_beside_an_answer_is_no_try_of_it():
    """A title call that nobody can tell by its words: tries never run at the same time."""
    record = RunRecord(conversations=(MAIN,), turns=(turn("msg_1", "ses_main", 100, 900, (5, 5)),))
    found = matched(
        record,
        exchange("aside", "ses_main", 110, (1, 1), length_ms=50),
        exchange("answer", "ses_main", 120, (5, 5), length_ms=50),
    )
    assert found["aside"].is_aside
    assert found["aside"].kind is ConversationKind.OTHER
    assert found["answer"].is_kept


@pytest.mark.parametrize("ms", [50, 205, 950])
def test_outside_every_turn_there_is_none(ms: int):
    """Before the first, between two, after the last: its own was undone or never written."""
    record = RunRecord(
        conversations=(MAIN,),
        turns=(
            turn("msg_1", "ses_main", 100, 200, (5, 5)),
            turn("msg_2", "ses_main", 300, 900, (5, 5)),
        ),
    )
    (match,) = matched(record, exchange("x", "ses_main", ms, (5, 5))).values()
    assert (match.turn, match.prompt_id, match.is_kept) == (None, None, False)


def test_a_turn_that_was_never_ended_lasts_until_the_next():
    """Opencode was killed."""
    record = RunRecord(conversations=(MAIN,), turns=(turn("msg_1", "ses_main", 100, None, None),))
    found = matched(record, exchange("x", "ses_main", 5_000, (5, 5)))
    assert turn_ids(found) == {"x": "msg_1"}


def test_times_rounded_to_milliseconds_do_not_matter():
    record = RunRecord(conversations=(MAIN,), turns=(turn("msg_1", "ses_main", 100, 100, (1, 1)),))
    sent = exchange("x", "ses_main", 100, (1, 1))
    late = exchange("y", "ses_main", 100, (1, 1), started_at_us=sent.started_at_us + 999)
    assert turn_ids(matched(record, sent)) == {"x": "msg_1"}
    assert turn_ids(matched(record, late)) == {"y": "msg_1"}


def test_a_sub_agents_work_belongs_to_the_prompt_a_person_typed():
    """Also that of a sub-agent's sub-agent, and to the mode the person was in."""
    record = RunRecord(
        conversations=(MAIN, SUB, DEEP),
        prompts=(
            prompt("msg_plan", "ses_main", 100, agent_name="plan"),
            prompt("msg_build", "ses_main", 500),
            prompt("msg_sub", "ses_sub", 120, agent_name="explore"),
            prompt("msg_deep", "ses_deep", 140, agent_name="general"),
        ),
        turns=(
            turn("msg_1", "ses_main", 110, 400, (1, 1), prompt_id="msg_plan"),
            turn("msg_5", "ses_main", 510, 900, (1, 1), prompt_id="msg_build"),
            turn("msg_2", "ses_sub", 130, 300, (1, 1), prompt_id="msg_sub"),
            turn("msg_3", "ses_deep", 150, 200, (1, 1), prompt_id="msg_deep"),
        ),
    )
    found = matched(
        record,
        exchange("sub", "ses_sub", 135, (1, 1)),
        exchange("deep", "ses_deep", 155, (1, 1)),
        exchange("later", "ses_main", 520, (1, 1)),
    )
    assert (found["sub"].prompt_id, found["sub"].mode) == ("msg_plan", "plan")
    assert (found["deep"].prompt_id, found["deep"].mode) == ("msg_plan", "plan")
    assert (found["later"].prompt_id, found["later"].mode) == ("msg_build", "build")
    assert found["sub"].kind is ConversationKind.SUBAGENT, "its request did not name a parent"


def test_what_opencode_goes_on_with_by_itself_belongs_to_what_was_typed_before():
    """After a compaction, or when it changes from plan to build: the new mode, the old prompt."""
    record = RunRecord(
        conversations=(MAIN,),
        prompts=(
            prompt("msg_typed", "ses_main", 100, agent_name="plan"),
            prompt("msg_auto", "ses_main", 200, agent_name="build", is_typed=False),
        ),
        turns=(
            turn("msg_1", "ses_main", 210, 300, (1, 1), prompt_id="msg_auto", is_compaction=True),
        ),
    )
    (match,) = matched(record, exchange("x", "ses_main", 220, (1, 1))).values()
    assert (match.prompt_id, match.mode) == ("msg_typed", "build")
    assert match.kind is ConversationKind.COMPACTION


def test_a_title_belongs_to_the_prompt_it_is_made_of_and_to_no_turn():
    record = RunRecord(
        conversations=(MAIN,),
        prompts=(prompt("msg_p", "ses_main", 100, agent_name="plan"),),
        turns=(turn("msg_1", "ses_main", 110, 900, (5, 5), prompt_id="msg_p"),),
    )
    found = matched(
        record,
        exchange("title", "ses_main", 115, (1, 1), kind=ConversationKind.TITLE),
        exchange("early", "ses_main", 50, (1, 1), kind=ConversationKind.TITLE),
    )
    assert (found["title"].turn, found["title"].prompt_id) == (None, "msg_p")
    assert found["title"].mode == "plan"
    assert found["early"].prompt_id is None


def test_an_exchange_that_names_no_conversation_is_found_by_time_provider_and_counts():
    record = RunRecord(
        conversations=(MAIN, conversation("ses_other")),
        turns=(
            turn("msg_1", "ses_main", 100, 900, (5, 5)),
            turn("msg_2", "ses_other", 100, 900, (6, 6)),
            turn("msg_3", "ses_other", 950, 990, (7, 7), provider_id="else"),
        ),
    )
    found = matched(
        record,
        exchange("exact", None, 110, (6, 6)),
        exchange("nobodys", None, 110, (8, 8)),
        exchange("elsewhere", None, 960, (7, 7)),
        exchange("unclear", None, 120, (6, 6), usage_quality=UsageQuality.ESTIMATED,
                 status=ExchangeStatus.INTERRUPTED),
    )  # fmt: skip
    assert found["exact"].conversation_id == "ses_other"
    assert found["nobodys"].conversation_id is None
    assert found["elsewhere"].conversation_id is None


def test_a_title_that_names_no_conversation_belongs_to_the_last_prompt_of_those_in_use():
    record = RunRecord(
        conversations=(MAIN, conversation("ses_stranger")),
        prompts=(prompt("msg_p", "ses_main", 100), prompt("msg_x", "ses_stranger", 104)),
        turns=(turn("msg_1", "ses_main", 110, 900, (5, 5), prompt_id="msg_p"),),
    )
    found = matched(
        record,
        exchange("title", None, 105, (1, 1), kind=ConversationKind.TITLE),
        exchange("answer", None, 120, (5, 5)),
    )
    assert {(one.conversation_id, one.prompt_id) for one in found.values()} == {
        ("ses_main", "msg_p")
    }


def test_what_asked_for_no_answer_or_was_denied_has_no_turn():
    record = RunRecord(conversations=(MAIN,), turns=(turn("msg_1", "ses_main", 100, 900, (5, 5)),))
    found = matched(
        record,
        exchange("listing", "ses_main", 110, (0, 0), operation=Operation.LIST_MODELS),
        exchange("denied", "ses_main", 120, None, status=ExchangeStatus.DENIED),
    )
    assert turn_ids(found) == {"listing": None}


def test_conversations_that_are_their_own_parents_end():
    """A damaged database is no reason to hang."""
    record = RunRecord(
        conversations=(
            conversation("ses_a", parent_id="ses_b"),
            conversation("ses_b", parent_id="ses_a"),
        ),
        prompts=(prompt("msg_a", "ses_a", 100), prompt("msg_b", "ses_b", 100)),
        turns=(
            turn("msg_1", "ses_a", 100, 900, (5, 5), prompt_id="msg_a"),
            turn("msg_2", "ses_b", 100, 900, (5, 5), prompt_id="msg_b"),
        ),
    )
    (match,) = matched(record, exchange("x", "ses_a", 110, (5, 5))).values()
    assert match.prompt_id in ("msg_a", "msg_b")
