"""What Opencode recorded of a run is read whole, or not at all, and never disturbed."""

import sqlite3
from decimal import Decimal
from pathlib import Path

import pytest

from opencode_gate.agents.opencode.run_record import RunRecord, prompt_texts, run_record
from opencode_gate.core.usage import TokenUsage
from tests.support.agent_database import FOLDER, AgentDatabase

SINCE_US, UNTIL_US = 1_000_000, 2_000_000


@pytest.fixture
def opencode(tmp_path: Path):
    database = AgentDatabase(tmp_path / "opencode.db")
    yield database
    database.close()


def read(opencode: AgentDatabase, *ids: str, **options) -> RunRecord:
    found = run_record(opencode.path, SINCE_US, UNTIL_US, conversation_ids=ids, **options)
    assert found is not None
    return found


def test_a_given_conversation_brings_its_whole_family(opencode):
    """Up to the root, also where only a sub-agent passed the gateway, and down to every branch."""
    opencode.conversation("ses_root", at=10)
    opencode.conversation("ses_sub", at=1100, parent="ses_root")
    opencode.conversation("ses_deeper", at=1200, parent="ses_sub", agent="explore")
    opencode.conversation("ses_sister", at=1300, parent="ses_root")
    opencode.conversation("ses_stranger", at=1100, directory="/elsewhere")
    found = read(opencode, "ses_sub")
    names = [one.id for one in found.conversations]
    assert names == ["ses_root", "ses_sub", "ses_deeper", "ses_sister"]
    assert all(one.is_given for one in found.conversations)
    deeper = found.conversations[2]
    assert (deeper.parent_id, deeper.agent_name, deeper.title, deeper.directory) == (
        "ses_sub", "explore", "A title", FOLDER,
    )  # fmt: skip


def test_conversations_used_in_the_folder_are_found_but_not_taken_for_ours(opencode):
    opencode.conversation("ses_resumed", at=20)
    opencode.connection.execute("UPDATE session SET time_updated = 1500")
    opencode.conversation("ses_here", at=1100)
    opencode.conversation("ses_foreign", at=1100)
    opencode.conversation("ses_old", at=10)
    opencode.conversation("ses_far", at=1100, directory="/elsewhere")
    found = read(opencode, directories=[FOLDER], foreign_ids=["ses_foreign"])
    assert [(one.id, one.is_given, one.is_new) for one in found.conversations] == [
        ("ses_resumed", False, False),
        ("ses_here", False, True),
    ]


def test_a_turn_has_its_prompt_its_model_its_times_and_its_figures(opencode):
    opencode.conversation("ses_1", at=1000)
    opencode.turn("msg_1", "ses_1", at=1100, until=1200, cost=0.1, prompt="msg_p")
    (turn,) = read(opencode, "ses_1").turns
    assert (turn.prompt_id, turn.agent_name) == ("msg_p", "build")
    assert (turn.provider_id, turn.model_id) == ("acme", "big")
    assert (turn.started_at_us, turn.ended_at_us) == (1_100_000, 1_200_000)
    assert turn.figures.cost_usd == Decimal("0.1")
    assert turn.figures.usage == TokenUsage(
        input_uncached=100, cache_read=7, cache_write_5m=0, output=20, reasoning=0
    )
    assert turn.is_answer
    assert not turn.is_compaction


def test_what_asked_no_model_or_got_no_answer_is_no_answer(opencode):
    """A command run by a sub-agent has a finish and no step; an aborted one has neither."""
    opencode.conversation("ses_1", at=1000)
    opencode.turn("msg_1", "ses_1", at=1100, until=1200, tokens=None, finish="tool-calls")
    opencode.turn(
        "msg_2", "ses_1", at=1300, until=1400, tokens=None, error={"name": "MessageAbortedError"}
    )
    opencode.turn("msg_3", "ses_1", at=1500, until=1600, tokens=(0, 0, 0), cost=0, finish="stop")
    opencode.turn("msg_4", "ses_1", at=1700, until=1800, summary=True)
    turns = read(opencode, "ses_1").turns
    assert [turn.is_answer for turn in turns] == [False, False, True, True]
    assert turns[1].error_name == "MessageAbortedError"
    assert [turn.is_compaction for turn in turns] == [False, False, False, True]


def test_a_running_total_counts_only_what_it_grew_by_in_the_span(opencode):
    """A conversation that is taken up again has cost something before, and may later."""
    opencode.conversation("ses_1", at=10)
    opencode.turn("msg_1", "ses_1", at=20, until=30, cost=0.5)
    opencode.turn("msg_2", "ses_1", at=1500, until=1600, cost=0.1, tokens=(30, 4, 5))
    opencode.turn("msg_3", "ses_1", at=2500, until=2600, cost=0.7)
    found = read(opencode, "ses_1")
    assert [turn.id for turn in found.turns] == ["msg_2"]
    row = found.conversations[0].row
    assert row is not None
    assert round(row.cost_usd, 9) == Decimal("0.1")
    assert (row.usage.input_uncached, row.usage.cache_read, row.usage.output) == (30, 4, 5)


def test_what_a_person_typed_is_told_from_what_opencode_wrote_itself(opencode):
    text = {"type": "text", "text": "Mend it."}
    opencode.conversation("ses_1", at=1000)
    opencode.prompt("msg_1", "ses_1", at=1100, agent="plan")
    opencode.prompt("msg_2", "ses_1", at=1200, parts=[{"type": "compaction", "auto": True}])
    opencode.prompt("msg_3", "ses_1", at=1300, parts=[{**text, "synthetic": True}])
    opencode.prompt("msg_4", "ses_1", at=1400, parts=[{"type": "compaction", "auto": False}])
    opencode.prompt("msg_5", "ses_1", at=1500, parts=[text, {**text, "synthetic": True}])
    opencode.prompt("msg_6", "ses_1", at=1600, parts=[{"type": "file", "filename": "a.png"}])
    opencode.prompt("msg_7", "ses_1", at=1700, parts=[])
    prompts = read(opencode, "ses_1").prompts
    assert [prompt.is_typed for prompt in prompts] == [True, False, False, True, True, True, True]
    assert prompts[0].agent_name == "plan"


def test_a_question_opencode_repeats_after_making_room_is_not_typed_twice(opencode):
    """Only that one: the same words typed again later are a prompt of their own."""
    opencode.conversation("ses_1", at=1000)
    overflow = {"type": "compaction", "auto": True, "overflow": True}
    opencode.prompt("msg_1", "ses_1", at=1100)
    opencode.prompt("msg_2", "ses_1", at=1200, parts=[overflow])
    opencode.prompt("msg_3", "ses_1", at=1300)
    opencode.prompt("msg_4", "ses_1", at=1400)
    typed = [prompt.id for prompt in read(opencode, "ses_1").prompts if prompt.is_typed]
    assert typed == ["msg_1", "msg_4"]


def test_the_text_of_prompts_is_given_only_where_it_is_asked_for(opencode):
    opencode.conversation("ses_1", at=1000)
    text = {"type": "text", "text": "Mend the parser."}
    hidden = {"type": "text", "text": "Called the Read tool", "synthetic": True}
    opencode.prompt("msg_1", "ses_1", at=1100, parts=[text, hidden, {**text, "text": "Please."}])
    assert "Mend" not in repr(read(opencode, "ses_1"))
    assert prompt_texts(opencode.path, ["msg_1", "msg_2"]) == {"msg_1": "Mend the parser.\nPlease."}


def test_a_database_from_before_totals_and_agents_were_kept_is_still_read(opencode):
    opencode.conversation("ses_1", at=1000)
    opencode.turn("msg_1", "ses_1", at=1100, until=1200)
    for column in ("agent", "cost", "tokens_cache_read"):
        opencode.connection.execute(f"ALTER TABLE session DROP COLUMN {column}")
    found = read(opencode, "ses_1")
    assert found.conversations[0].row is None
    assert found.conversations[0].agent_name == "build", "its turns say so"
    assert len(found.turns) == 1


def test_amounts_and_counts_that_are_no_numbers_are_unknown(opencode):
    opencode.conversation("ses_1", at=1000)
    opencode.turn("msg_1", "ses_1", at=1100, until=None, tokens=None)
    opencode.connection.execute(
        "UPDATE message SET data = json_set(data, '$.cost', 'much', '$.tokens.input', 'many',"
        " '$.time.completed', 'soon')"
    )
    (turn,) = read(opencode, "ses_1").turns
    assert turn.figures.cost_usd is None
    assert turn.figures.usage.input_uncached is None
    assert turn.ended_at_us is None


def test_what_cannot_be_read_gives_none(tmp_path):
    broken = tmp_path / "broken.db"
    broken.write_bytes(b"not a database, but long enough to look like a file" * 100)
    other = tmp_path / "other.db"
    sqlite3.connect(other).executescript("CREATE TABLE session (id TEXT); CREATE TABLE message (x)")
    for path in (None, tmp_path / "absent.db", broken, other):
        assert run_record(path, 0, UNTIL_US, conversation_ids=["ses_1"]) is None
        assert prompt_texts(path, ["msg_1"]) is None


def test_it_is_read_while_opencode_writes_and_nothing_is_left_behind(opencode, tmp_path):
    opencode.conversation("ses_1", at=1000)
    opencode.connection.execute("BEGIN IMMEDIATE")
    assert len(read(opencode, "ses_1").conversations) == 1
    opencode.connection.execute("COMMIT")
    opencode.close()
    before = sorted(file.name for file in tmp_path.iterdir())
    assert before == ["home", "opencode.db"]
    assert len(read(opencode, "ses_1").conversations) == 1
    assert sorted(file.name for file in tmp_path.iterdir()) == before
