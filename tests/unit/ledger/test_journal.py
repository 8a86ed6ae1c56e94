"""The journal: what was appended can be read back, whatever happened to the file or the process."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from opencode_gate.core.errors import LedgerError
from opencode_gate.core.semconv import ExchangeStatus
from opencode_gate.core.usage import TokenUsage
from opencode_gate.ledger import journal as journal_module
from opencode_gate.ledger.journal import (
    Journal,
    claimed,
    is_living,
    journals,
    orphans,
    read_journal,
    session_id_of,
)
from tests.support.ledger_records import NOON_US, a_session, an_exchange, an_open_exchange


class StoppedClock:
    """Time stands still."""

    def now_us(self) -> int:
        return NOON_US + 2_000_000

    def monotonic_s(self) -> float:
        return 0.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journals"


@pytest.fixture
def journal(folder: Path):
    journal = Journal.create(folder, session=a_session(), clock=StoppedClock())
    yield journal
    journal.close()


def test_what_was_appended_is_read_back_merged(journal: Journal):
    """One entry per exchange: its end if there was one, else what progress told last."""
    done, running, fresh = an_exchange(), an_open_exchange(), an_open_exchange()
    journal.opened(msgspec.structs.replace(done, status=ExchangeStatus.OPEN, usage=TokenUsage()))
    journal.opened(running)
    journal.progressed(running.id, TokenUsage(input_uncached=3, output=1), 10)
    journal.progressed(running.id, TokenUsage(input_uncached=3, output=2), 33)
    journal.opened(fresh, input_bytes=4321)
    journal.finished(done)
    contents = read_journal(journal.path)
    assert contents.exchanges == {
        done.id: done,
        running.id: msgspec.structs.replace(
            running, usage=TokenUsage(input_uncached=3, output=2), duration_us=2_000_000
        ),
        fresh.id: fresh,
    }
    assert contents.delivered_text_chars == {running.id: 33}
    assert contents.input_bytes == {fresh.id: 4321}
    assert contents.last_seen_us == NOON_US + 2_000_000


def test_the_session_is_the_first_line(folder: Path):
    """So that settling can restore a session row that was never written."""
    session = a_session(agent_version=None, branch=None)
    journal = Journal.create(folder, session=session)
    assert read_journal(journal.path).session == session
    assert session_id_of(journal.path) == session.id
    journal.close()


def test_progress_after_the_end_changes_nothing(journal: Journal):
    """The end is what was billed."""
    done = an_exchange()
    journal.finished(done)
    journal.progressed(done.id, TokenUsage(output=1), 1)
    assert read_journal(journal.path).exchanges == {done.id: done}


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_torn_last_line_counts_as_unwritten(journal: Journal, cut: int):
    """Whatever part of it reached the disk."""
    first, second = an_exchange(), an_exchange()
    journal.finished(first)
    journal.finished(second)
    whole = journal.path.read_bytes()
    os.truncate(journal.path, len(whole) - cut)
    left = read_journal(journal.path).exchanges
    assert left == ({first.id: first} if cut > 1 else {first.id: first, second.id: second})


def test_a_damaged_line_costs_only_itself(journal: Journal):
    """Zeros, nonsense and lines of a later version are passed over."""
    first, second = an_exchange(), an_exchange()
    journal.finished(first)
    with journal.path.open("ab") as file:
        file.write(b"\x00\x00\n\xff{]\n" + b'{"event":"later","x":1}\n\n[]\n{"event":"opened"}\n')
    journal.finished(second)
    assert list(read_journal(journal.path).exchanges) == [first.id, second.id]


def test_closing_removes_a_settled_journal(folder: Path):
    """Nothing is left of a clean session."""
    journal = Journal.create(folder, session=a_session())
    exchange = an_exchange()
    journal.opened(msgspec.structs.replace(exchange, status=ExchangeStatus.OPEN))
    journal.finished(exchange)
    journal.folded([exchange.id])
    journal.close()
    journal.close()
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("is_finished", [False, True])
def test_closing_leaves_what_is_not_folded(folder: Path, is_finished: bool):
    """The next start finds it as an orphan."""
    journal = Journal.create(folder, session=a_session())
    exchange = an_exchange()
    (journal.finished if is_finished else journal.opened)(exchange)
    journal.close()
    assert orphans(folder) == [journal.path]
    journal.opened(an_exchange())
    assert list(read_journal(journal.path).exchanges) == [exchange.id]


def test_a_journal_is_for_its_owner_only(journal: Journal):
    """Names of models and projects are nobody else's business."""
    assert journal.path.stat().st_mode & 0o777 == 0o600
    assert journal.path.parent.stat().st_mode & 0o777 == 0o700


def test_a_living_journal_is_no_orphan(journal: Journal, folder: Path):
    """Not even for its own process."""
    assert journals(folder) == [journal.path]
    assert orphans(folder) == []
    with claimed(journal.path) as claim:
        assert claim is None


def test_no_folder_has_no_journals(tmp_path: Path):
    """The first start of all."""
    assert journals(tmp_path / "none") == []
    with claimed(tmp_path / "none" / "x.jsonl") as claim:
        assert claim is None


def test_a_journal_that_cannot_be_opened_hides_no_other(folder: Path):
    """It may be of another user; whether its process lives cannot be said."""
    (folder / "0.jsonl").mkdir(parents=True)
    journal = Journal.create(folder, session=a_session())
    journal.opened(an_open_exchange())
    journal.close()
    assert orphans(folder) == [journal.path]


def test_a_claim_excludes_others_and_removes_only_when_settled(folder: Path):
    """Two processes that start at once settle a journal once."""
    journal = Journal.create(folder, session=a_session())
    journal.opened(an_exchange())
    journal.close()
    with claimed(journal.path) as claim:
        assert claim is not None
        with claimed(journal.path) as second:
            assert second is None
    assert journal.path.exists()
    with claimed(journal.path) as claim:
        assert claim is not None
        claim.is_settled = True
    assert not journal.path.exists()


def test_a_file_taken_before_it_was_locked_is_given_up(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    """A settler that removes the still unlocked file does not get the new journal's lines."""
    attempts: list[Path] = []
    real = journal_module.try_lock

    def robbed_once(descriptor: int) -> bool:
        attempts.extend(set(folder.iterdir()) - set(attempts))
        if len(attempts) == 1:
            attempts[0].unlink()
        return real(descriptor)

    monkeypatch.setattr(journal_module, "try_lock", robbed_once)
    journal = Journal.create(folder, session=a_session())
    assert len(attempts) == 2
    assert journal.path == attempts[1]
    assert journal.path.exists()
    journal.close()


def test_a_long_lived_journal_is_emptied_when_nothing_is_open(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    """A team's gateway runs for months; the session line stays first."""
    monkeypatch.setattr(journal_module, "_COMPACT_EVERY_BYTES", 10_000)
    session = a_session()
    journal = Journal.create(folder, session=session)
    exchanges = [an_exchange() for _ in range(50)]
    for exchange in exchanges:
        journal.finished(exchange)
    assert journal.path.stat().st_size > 10_000
    same = journal.path.stat().st_ino
    journal.folded([exchange.id for exchange in exchanges])
    assert (journal.path.stat().st_size < 1_000, journal.path.stat().st_ino) == (True, same)
    last = an_exchange()
    journal.finished(last)
    contents = read_journal(journal.path)
    assert (contents.session, list(contents.exchanges)) == (session, [last.id])
    journal.folded([last.id])
    journal.close()


def test_a_journal_in_which_something_is_always_open_stays_small(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    """A team's gateway may have no moment without a request; what is not settled stays whole."""
    monkeypatch.setattr(journal_module, "_COMPACT_EVERY_BYTES", 10_000)
    session, started, waiting = a_session(), an_open_exchange(), an_exchange()
    journal = Journal.create(folder, session=session)
    journal.opened(started, input_bytes=11)
    journal.progressed(started.id, TokenUsage(output=2), 9)
    journal.finished(waiting)
    before = an_open_exchange()
    journal.opened(before)
    journal.progressed(before.id, TokenUsage(output=1), 4)
    for _ in range(200):
        after = an_open_exchange()
        journal.opened(after)
        journal.finished(replace(an_exchange(), id=before.id))
        journal.folded([before.id])
        before = after
        assert journal.path.stat().st_size < 20_000
        assert is_living(journal.path)
        assert orphans(folder) == []
    contents = read_journal(journal.path)
    assert contents.session == session
    assert contents.exchanges.keys() - contents.folded_ids == {started.id, waiting.id, before.id}
    assert contents.exchanges[waiting.id] == waiting
    assert contents.exchanges[started.id].usage == TokenUsage(output=2)
    assert (contents.input_bytes, contents.delivered_text_chars[started.id]) == (
        {started.id: 11},
        9,
    )
    journal.close()
    assert orphans(folder) == [journal.path]
    assert list(folder.iterdir()) == [journal.path]


def test_a_journal_that_cannot_be_made_anew_goes_on_as_it_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    """A disk without room for a moment; nothing was lost, and nothing is said to be."""
    monkeypatch.setattr(journal_module, "_COMPACT_EVERY_BYTES", 1_000)
    journal = Journal.create(folder, session=a_session())
    in_the_way = journal.path.with_suffix(".new")
    in_the_way.mkdir()
    still_open, ended = an_open_exchange(), [an_exchange() for _ in range(20)]
    journal.opened(still_open)
    for exchange in ended:
        journal.finished(exchange)
        journal.folded([exchange.id])
    assert journal.failure is None
    assert len(read_journal(journal.path).exchanges) == 21
    in_the_way.rmdir()
    for exchange in ended:
        journal.finished(exchange)
        journal.folded([exchange.id])
    assert still_open.id in read_journal(journal.path).exchanges
    assert journal.path.stat().st_size < 5_000
    journal.close()


def test_a_full_disk_is_remembered_and_never_raised(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """The relay goes on; whoever asks learns that recovery has a hole."""
    monkeypatch.setattr(
        journal_module,
        "_create_locked",
        lambda _: (folder / "x", os.open("/dev/full", os.O_WRONLY)),
    )
    journal = Journal.create(folder, session=a_session())
    exchange = an_exchange()
    assert not journal.opened(exchange)
    journal.progressed(exchange.id, TokenUsage(), 0)
    journal.finished(exchange)
    journal.folded([exchange.id])
    assert journal.failure is not None
    assert "No space left" in str(journal.failure)
    journal.close()


def test_a_line_the_disk_cut_short_does_not_spoil_the_next(folder: Path):
    """Space comes back: the half line is lost, what follows is whole."""
    journal = Journal.create(folder, session=a_session())
    first, cut, after = an_exchange(), an_exchange(), an_exchange()
    journal.finished(first)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        size = journal.path.stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, limit[1]))
        journal.finished(cut)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert journal.path.stat().st_size == size + 100
    assert journal.failure is not None
    journal.finished(after)
    assert list(read_journal(journal.path).exchanges) == [first.id, after.id]
    journal.close()


def test_a_name_that_is_no_unicode_is_remembered_and_never_raised(journal: Journal):
    """A client's nonsense is no reason to break an answer."""
    journal.finished(an_exchange(request_model="\ud800"))
    assert journal.failure is not None
    after = an_exchange()
    assert journal.opened(after)
    assert list(read_journal(journal.path).exchanges) == [after.id]


def test_a_count_beyond_all_sense_does_not_spoil_the_line(journal: Journal):
    """What a provider reports is written down as it came."""
    huge = an_exchange(usage=TokenUsage(output=2**80))
    journal.finished(huge)
    assert read_journal(journal.path).exchanges == {huge.id: huge}


def test_a_folder_that_cannot_be_made_is_a_ledger_error(tmp_path: Path):
    """Before anything is started."""
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerError) as caught:
        Journal.create(tmp_path / "file" / "journals", session=a_session())
    assert caught.value.code == "ledger-unwritable"


def test_the_lock_ends_with_the_process_even_by_sigkill(folder: Path):
    """The kernel lets go of it."""
    code = (
        "import sys; from pathlib import Path\n"
        "from opencode_gate.ledger.journal import Journal\n"
        "from tests.support.ledger_records import a_session\n"
        "journal = Journal.create(Path(sys.argv[1]), session=a_session())\n"
        "print('locked', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"locked\n"
        assert len(journals(folder)) == 1
        assert orphans(folder) == []
        child.kill()
        child.wait()
    assert orphans(folder) == journals(folder)
    assert len(orphans(folder)) == 1
