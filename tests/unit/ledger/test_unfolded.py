"""Whether the journals of other processes still hold something of a session."""

import os
from pathlib import Path

import pytest

from opencode_gate.ledger.journal import Journal
from opencode_gate.ledger.unfolded import Unfolded, unfolded
from tests.support.ledger_records import a_session, an_exchange, an_open_exchange

NOTHING = Unfolded()


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """That of another process."""
    return Journal.create(tmp_path, session=a_session())


def test_what_has_ended_is_held_until_it_is_folded(tmp_path: Path, journal: Journal) -> None:
    record = an_open_exchange()
    assert unfolded(tmp_path, record.session_id, but="mine") == NOTHING
    journal.opened(record)
    assert unfolded(tmp_path, record.session_id, but="mine") == Unfolded(has_running=True)
    journal.finished(an_exchange(id=record.id, session_id=record.session_id))
    assert unfolded(tmp_path, record.session_id, but="mine") == Unfolded(has_ended=True)
    journal.folded([record.id])
    assert unfolded(tmp_path, record.session_id, but="mine") == NOTHING


def test_other_sessions_and_the_own_journal_do_not_matter(tmp_path: Path, journal: Journal) -> None:
    record = an_exchange()
    journal.finished(record)
    assert unfolded(tmp_path, "another", but="mine") == NOTHING
    assert unfolded(tmp_path, record.session_id, but=journal.process_id) == NOTHING


def test_what_is_not_ours_to_open_is_passed_over(tmp_path: Path, journal: Journal) -> None:
    """Else one file of another user would leave every session without its account."""
    (tmp_path / "0.jsonl").mkdir()
    record = an_exchange()
    assert unfolded(tmp_path, record.session_id, but="mine") == NOTHING
    journal.finished(record)
    assert unfolded(tmp_path, record.session_id, but="mine") == Unfolded(has_ended=True)


def test_what_a_dead_process_left_is_told_apart(tmp_path: Path, journal: Journal) -> None:
    """Nobody folds that by itself."""
    record = an_exchange()
    journal.finished(record)
    # As the kernel lets go of a lock whose process died.
    os.close(journal._descriptor)
    found = unfolded(tmp_path, record.session_id, but="mine")
    assert found == Unfolded(has_ended=True, is_left=True)
    journal.path.unlink()
    assert unfolded(tmp_path, record.session_id, but="mine") == NOTHING
