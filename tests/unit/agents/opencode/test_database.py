"""Opencode's own records must be read whatever state its database is in, and never disturbed."""

import json
import sqlite3
from decimal import Decimal
from pathlib import Path

import pytest

from opencode_gate.agents.opencode.database import (
    has_organisation,
    history,
    last_model,
    last_session,
    newest_major,
    recent_models,
    session_model,
)

SCHEMA = """
CREATE TABLE project (id TEXT PRIMARY KEY, worktree TEXT NOT NULL, name TEXT);
CREATE TABLE session (id TEXT PRIMARY KEY, project_id TEXT NOT NULL, parent_id TEXT,
  directory TEXT NOT NULL, title TEXT NOT NULL, version TEXT NOT NULL, agent TEXT, model TEXT,
  time_created INTEGER NOT NULL, time_updated INTEGER NOT NULL);
CREATE TABLE message (id TEXT PRIMARY KEY, session_id TEXT NOT NULL,
  time_created INTEGER NOT NULL, time_updated INTEGER NOT NULL, data TEXT NOT NULL);
CREATE TABLE account_state (id INTEGER PRIMARY KEY, active_org_id TEXT);
"""
FOLDER = "/home/u/repo"
MODEL = json.dumps({"id": "gpt-5", "providerID": "openai", "variant": "default"})


class Writer:
    """Opencode's side: its tables, written as it writes them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connection = sqlite3.connect(path)
        self.connection.execute("PRAGMA journal_mode=WAL")
        self.connection.executescript(SCHEMA)
        self.connection.execute("INSERT INTO project VALUES ('p', '/home/u/repo', NULL)")
        self.count = 0

    def session(self, session_id, *, at, parent=None, directory=FOLDER, model=MODEL, updated=None):
        self.connection.execute(
            "INSERT INTO session VALUES (?, 'p', ?, ?, 'A title', '1.18.33', 'build', ?, ?, ?)",
            (session_id, parent, directory, model, at, updated or at),
        )
        self.connection.commit()

    def message(self, session_id, at, **data):
        self.count += 1
        self.connection.execute(
            "INSERT INTO message VALUES (?, ?, ?, ?, ?)",
            (f"msg_{self.count:04}", session_id, at, at, json.dumps(data)),
        )
        self.connection.commit()

    def question(self, session_id, at, model=("openai", "gpt-5")):
        named = {"providerID": model[0], "modelID": model[1]}
        self.message(session_id, at, role="user", model=named)

    def answer(self, session_id, at, model=("openai", "gpt-5"), *, cost=0.25, **changes):
        tokens = {"input": 100, "output": 20, "reasoning": 5, "cache": {"read": 7, "write": 3}}
        data = {
            "role": "assistant",
            "providerID": model[0],
            "modelID": model[1],
            "agent": "build",
            "cost": cost,
            "tokens": tokens,
            "finish": "stop",
            **changes,
        }
        self.message(session_id, at, **data)


@pytest.fixture
def opencode(tmp_path: Path):
    writer = Writer(tmp_path / "opencode.db")
    yield writer
    writer.connection.close()


def test_a_message_that_reached_no_provider_is_no_answer(opencode):
    opencode.session("ses_1", at=1000)
    nothing = {"input": 0, "output": 0, "reasoning": 0, "cache": {"read": 0, "write": 0}}
    opencode.answer("ses_1", 1500, finish=None, tokens=nothing, error={"name": "AuthError"})
    opencode.answer("ses_1", 1600, finish=None, tokens={**nothing, "output": 3})
    (found,) = history(opencode.path, 1_000_000, 2_000_000)
    assert found.usage.output == 3


def test_history_tells_when_where_and_what(opencode):
    opencode.session("ses_1", at=1000, directory="/home/u/repo/sub")
    opencode.answer("ses_1", 1500, cost=0.1)
    opencode.answer("ses_1", 9999)
    (row,) = history(opencode.path, 0, 2_000_000)
    assert (row.at_us, row.conversation_id, row.project) == (1_500_000, "ses_1", "repo")
    assert (row.provider_id, row.model_id, row.agent_name) == ("openai", "gpt-5", "build")
    assert row.cost_usd == Decimal("0.1")
    assert row.usage.input_tokens == 110
    assert row.usage.output == 25


def test_the_model_a_conversation_goes_on_with_is_its_last_one(opencode):
    opencode.session("ses_1", at=1000)
    opencode.question("ses_1", 1100, ("openai", "gpt-5"))
    opencode.question("ses_1", 1200, ("anthropic", "claude"))
    opencode.session("ses_2", at=900)
    assert str(session_model(opencode.path, "ses_1")) == "anthropic/claude"
    assert str(session_model(opencode.path, "ses_2")) == "openai/gpt-5"
    assert session_model(opencode.path, "ses_absent") is None


def test_continue_means_the_folders_last_conversation_that_is_no_sub_agents(opencode):
    opencode.session("ses_1", at=1000, updated=5000)
    opencode.session("ses_2", at=2000)
    opencode.session("ses_3", at=6000, parent="ses_1")
    opencode.session("ses_4", at=7000, directory="/far")
    opencode.question("ses_1", 1100, ("a", "one"))
    opencode.question("ses_2", 2100, ("b", "two"))
    folder = Path(FOLDER)
    assert last_session(opencode.path, folder) == "ses_1"
    assert str(session_model(opencode.path, None, folder=folder)) == "a/one"
    assert str(last_model(opencode.path, folder)) == "b/two"
    assert last_session(opencode.path, Path("/nowhere")) is None
    assert last_model(opencode.path, Path("/nowhere")) is None


def test_an_organisation_and_a_newer_opencode_are_noticed(opencode):
    assert not has_organisation(opencode.path)
    opencode.session("ses_1", at=1)
    assert newest_major(opencode.path) == 1
    opencode.connection.execute("INSERT INTO account_state VALUES (1, 'org')")
    opencode.connection.execute("UPDATE session SET version = '2.0.1'")
    opencode.connection.commit()
    assert has_organisation(opencode.path)
    assert newest_major(opencode.path) == 2


def everything(path: Path | None) -> list[object]:
    span = (0, 2_000_000)
    return [
        history(path, *span),
        last_session(path, Path(FOLDER)),
        last_model(path, Path(FOLDER)),
        session_model(path, "ses_1"),
        newest_major(path),
    ]


def test_what_cannot_be_read_gives_none(tmp_path):
    broken = tmp_path / "broken.db"
    broken.write_bytes(b"not a database, but long enough to look like a file" * 100)
    empty = tmp_path / "empty.db"
    empty.touch()
    other = tmp_path / "other.db"
    sqlite3.connect(other).executescript("CREATE TABLE session (id TEXT); CREATE TABLE message (x)")
    for path in (None, tmp_path / "absent.db", tmp_path, broken, empty, other):
        assert everything(path) == [None] * 5
        assert not has_organisation(path)


def test_a_database_from_before_agents_were_kept_is_still_read(tmp_path):
    path = tmp_path / "old.db"
    writer = Writer(path)
    writer.session("ses_1", at=1000)
    writer.answer("ses_1", 1500)
    writer.connection.execute("ALTER TABLE session DROP COLUMN agent")
    writer.connection.execute("ALTER TABLE session DROP COLUMN model")
    writer.connection.commit()
    assert session_model(path, "ses_1") is None
    assert len(history(path, 0, 2_000_000)) == 1
    writer.connection.close()


def test_what_is_only_in_the_log_yet_is_seen_while_opencode_writes(opencode):
    opencode.session("ses_1", at=1000)
    assert opencode.path.with_name("opencode.db-wal").stat().st_size > 0
    opencode.connection.execute("BEGIN IMMEDIATE")
    assert last_session(opencode.path, Path(FOLDER)) == "ses_1"


def test_reading_leaves_no_file_behind(tmp_path):
    writer = Writer(tmp_path / "opencode.db")
    writer.session("ses_1", at=1000)
    writer.connection.close()
    before = sorted(file.name for file in tmp_path.iterdir())
    assert before == ["home", "opencode.db"]
    assert last_session(tmp_path / "opencode.db", Path(FOLDER)) == "ses_1"
    assert sorted(file.name for file in tmp_path.iterdir()) == before


def test_nothing_can_be_written(opencode):
    from opencode_gate.agents.opencode.database_reading import reading

    with reading(opencode.path) as connection, pytest.raises(sqlite3.OperationalError):
        connection.execute("DELETE FROM session")


def test_models_chosen_last_come_from_opencodes_own_list(tmp_path):
    file = tmp_path / "model.json"
    assert recent_models(file) == ()
    file.write_text(
        '{"recent":[{"providerID":"a","modelID":"1"},{"bad":1},{"providerID":"b","modelID":"2"}]}'
    )
    assert [str(model) for model in recent_models(file)] == ["a/1", "b/2"]
    for text in ("[]", "{", '{"recent":5}'):
        file.write_text(text)
        assert recent_models(file) == ()
