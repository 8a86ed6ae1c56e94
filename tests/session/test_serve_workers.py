"""Several processes behind one address: every promise of one holds for all of them together."""

import collections
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from opencode_gate.config.paths import paths
from opencode_gate.core.semconv import ExchangeStatus
from opencode_gate.governance.policy import RateLimit
from opencode_gate.ledger.sqlite import open_store
from tests.support.scripted_upstream import certificates
from tests.support.scripted_upstream_thread import ThreadedUpstream
from tests.support.served_gateway import (
    ServedGateway,
    change_key,
    not_served,
    put_key,
    recorded,
    running_sessions,
    served,
    until,
)
from tests.support.served_workers import each_worker


def test_it_says_that_it_serves_once_all_do_and_every_one_answers(tmp_path: Path, ada: str) -> None:
    """One line for all of them; clients of each are let in, and nothing is lost at the end."""
    with served(tmp_path, "--workers", "3") as gateway:
        assert len(gateway.workers) == 3
        with each_worker(gateway) as workers:
            for one in workers.values():
                assert one.chat(ada).status == 200
        assert gateway.stop() == 0
    assert sum("serving" in line for line in gateway.said) == 1
    assert len(recorded()) == 3
    (session,) = {record.session_id for record in recorded()}
    store = open_store(paths().ledger_file, read_only=True)
    assert store.session(session).ended_at_us is not None
    store.close()


@pytest.mark.parametrize("number", ["0", "-1", "65"])
def test_a_number_that_makes_no_sense_is_refused(tmp_path: Path, number: str) -> None:
    done = not_served(tmp_path, "--port", "0", "--workers", number)
    assert done.returncode == 2
    assert "--workers takes 1 to 64" in done.stderr


def test_an_address_that_another_server_shares_out_is_taken_all_the_same(tmp_path: Path) -> None:
    """Nobody's requests land with a second server by chance."""
    with served(tmp_path, "--workers", "2") as gateway:
        done = not_served(tmp_path, "--port", str(gateway.port), "--workers", "2")
    assert done.returncode == 5
    assert "cannot listen" in done.stderr


def test_one_that_cannot_serve_ends_all_with_its_message(tmp_path: Path) -> None:
    """Nobody is left connecting to a socket that is not accepted from."""
    (tmp_path / "other").mkdir()
    own = certificates(tmp_path, "127.0.0.1")
    others = certificates(tmp_path / "other", "127.0.0.1")
    files = ("--tls-cert", str(own.server_file), "--tls-key", str(others.server_file))
    done = not_served(tmp_path, "--port", "0", "--workers", "3", *files)
    assert done.returncode == 5
    assert done.stderr.count("cannot be used for TLS") == 1


def test_one_that_dies_again_and_again_ends_all_of_them(
    tmp_path: Path, ada: str, endless: ThreadedUpstream
) -> None:
    """As one alone would end; answers of the others are still given to their end."""
    with served(tmp_path, "--workers", "2") as gateway:
        with each_worker(gateway) as workers:
            kept = next(iter(workers))
            stream = workers[kept].stream(ada, "acme")
            for death in range(1, 7):
                (dying,) = (pid for pid in gateway.workers if pid != kept)
                os.kill(dying, signal.SIGKILL)
                # It says so when each successor serves, and of the last one there is none.
                until(lambda: _times_serving(gateway) > death or gateway.refuses())  # noqa: B023
            endless.release.set()
            assert b"[DONE]" in stream.read()
        assert gateway.process.wait(30) == 5
    assert any("died 6 times within a minute" in line for line in gateway.said)


def test_the_death_of_one_disturbs_no_other(
    tmp_path: Path, ada: str, endless: ThreadedUpstream
) -> None:
    """Answers of the others go on; who connects to the dead one's socket waits for its successor;
    what it had answered is in the ledger, and what it was answering too.
    """
    with served(tmp_path, "--workers", "2") as gateway:
        with each_worker(gateway) as workers:
            one, other = workers.values()
            for worker in (one, other):
                assert worker.chat(ada).status == 200
            streams = {worker.pid: worker.stream(ada, "acme") for worker in (one, other)}
            os.kill(one.pid, signal.SIGKILL)
            for _ in range(20):
                assert gateway.chat(ada).status == 200
            assert one.pid not in gateway.workers
            assert other.pid in gateway.workers
            assert len(gateway.workers) == 2
            endless.release.set()
            assert b"[DONE]" in streams[other.pid].read()
        assert gateway.stop() == 0
    statuses = collections.Counter(record.status for record in recorded())
    assert statuses == {ExchangeStatus.COMPLETED: 23, ExchangeStatus.INTERRUPTED: 1}


def test_sigterm_lets_the_answers_of_all_end(
    tmp_path: Path, ada: str, endless: ThreadedUpstream
) -> None:
    """They are whole, and so are their records."""
    with served(tmp_path, "--workers", "2") as gateway:
        with each_worker(gateway) as workers:
            streams = [worker.stream(ada, "acme") for worker in workers.values()]
            gateway.process.send_signal(signal.SIGTERM)
            _until_said(gateway, "answers that run have 30 s")
            endless.release.set()
            assert all(b"[DONE]" in stream.read() for stream in streams)
        assert gateway.process.wait(30) == 0
    assert [record.status for record in recorded()] == [ExchangeStatus.COMPLETED] * 2


def test_a_second_signal_waits_for_none(
    tmp_path: Path, ada: str, endless: ThreadedUpstream
) -> None:
    with served(tmp_path, "--workers", "2") as gateway, each_worker(gateway) as workers:
        for worker in workers.values():
            worker.stream(ada, "acme")
        gateway.process.send_signal(signal.SIGTERM)
        _until_said(gateway, "answers that run have 30 s")
        gateway.process.send_signal(signal.SIGTERM)
        assert gateway.process.wait(20) == 0
    assert [record.status for record in recorded()] == [ExchangeStatus.INTERRUPTED] * 2


def test_when_their_parent_dies_all_let_answers_end_and_go(
    tmp_path: Path, ada: str, endless: ThreadedUpstream
) -> None:
    """The port is free at once for the next ones; no answer is cut."""
    with served(tmp_path, "--workers", "2") as gateway, each_worker(gateway) as workers:
        streams = [worker.stream(ada, "acme") for worker in workers.values()]
        gateway.process.kill()
        gateway.process.wait()
        until(gateway.refuses)
        with served(tmp_path, "--workers", "2", port=gateway.port) as successor:
            assert successor.chat(ada).status == 200
            endless.release.set()
            assert all(b"[DONE]" in stream.read() for stream in streams)
            until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
            assert successor.stop() == 0
    assert [record.status for record in recorded()] == [ExchangeStatus.COMPLETED] * 3


def test_a_change_of_a_key_holds_on_every_worker_from_the_next_request_on(
    tmp_path: Path, ada: str
) -> None:
    with (
        served(tmp_path, "--workers", "3") as gateway,
        each_worker(gateway) as workers,
    ):
        for active in (True, False, True, False):
            change_key("ada", active=active)
            for one in workers.values():
                assert one.chat(ada).status == (200 if active else 401)


def test_a_session_that_has_ended_has_ended_on_every_worker(tmp_path: Path, ada: str) -> None:
    """Also on those that have let it in before."""
    with (
        served(tmp_path, "--workers", "3") as gateway,
        each_worker(gateway) as workers,
    ):
        for ending in workers.values():
            session_id, token = gateway.open_session(ada)
            for one in workers.values():
                assert one.chat(token).status == 200
            ended = ending.ask("POST", "/ogate/v1/session/end", token, {"exit_status": 0})
            assert len(ended.document["exchanges"]) == len(workers)
            assert {one["session_id"] for one in ended.document["exchanges"]} == {session_id}
            for one in workers.values():
                assert one.chat(token).code == "unknown-virtual-key"


def test_what_runs_is_seen_whichever_worker_runs_it(
    tmp_path: Path, ada: str, endless: ThreadedUpstream
) -> None:
    """`ogate top` has one session with the requests of all, as the ledger has it later."""
    with served(tmp_path, "--workers", "2") as gateway, each_worker(gateway) as workers:
        session_id, token = gateway.open_session(ada)
        for one in workers.values():
            one.stream(token, "acme")
        running = running_sessions()
    (found,) = (one for one in running if one["session"]["id"] == session_id)
    assert len(found["in_flight"]) == 2


def test_rate_limits_hold_over_all_workers(tmp_path: Path) -> None:
    """Not one request more than allowed, and not one fewer, however many ask whom."""
    few = put_key("few", limits=(RateLimit(requests=40, per="day"),))
    with served(tmp_path, "--workers", "3") as gateway:
        with each_worker(gateway) as workers, ThreadPoolExecutor(len(workers)) as pool:
            asked = [
                pool.submit(lambda one: [one.chat(few).status for _ in range(30)], one)
                for one in workers.values()
            ]
            statuses = collections.Counter(status for one in asked for status in one.result())
        assert gateway.stop() == 0
    assert statuses[200] == 40
    assert sum(statuses.values()) == 90
    done = [record for record in recorded() if record.status is ExchangeStatus.COMPLETED]
    assert len(done) == 40


def test_what_runs_at_once_is_counted_over_all_workers_and_ends_with_a_death(
    tmp_path: Path, endless: ThreadedUpstream
) -> None:
    """A slot of one worker is seen by another; one that is free is taken at once; those of a
    worker that was killed are free again.
    """
    two = put_key("two", limits=(RateLimit(concurrent=2),))
    with served(tmp_path, "--workers", "2") as gateway, each_worker(gateway) as workers:
        one, other = workers.values()
        one.stream(two, "acme")
        second = other.stream(two, "acme")
        waiting = threading.Thread(target=lambda: statuses.append(gateway.chat(two).status))
        statuses: list[int] = []
        waiting.start()
        os.kill(one.pid, signal.SIGKILL)
        waiting.join(30)
        assert statuses == [200]
        endless.release.set()
        assert b"[DONE]" in second.read()


def _until_said(gateway: ServedGateway, text: str) -> None:
    until(lambda: any(text in line for line in gateway.said))


def _times_serving(gateway: ServedGateway) -> int:
    return sum("serving" in line for line in gateway.said)
