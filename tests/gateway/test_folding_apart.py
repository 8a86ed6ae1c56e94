"""Gateway and folding process as they run: whoever of the two dies, and what the other one has."""

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from opencode_gate.catalog.practice import practice_row
from opencode_gate.ledger.journal import journals
from opencode_gate.ledger.recovery import settle_orphans
from opencode_gate.ledger.sqlite import open_store
from opencode_gate.ledger.sqlite.audit import open_audit
from opencode_gate.ledger.sqlite.governance import open_governance
from tests.support.folding_gateways import COST_NANO_USD, KEY, RESERVED_NANO_USD, gateway
from tests.support.gateway import TOKEN, RunningGateway, running_gateway
from tests.support.ledger_children import unpriced

LONG_S = 30.0
BODY = b'{"model":"scripted","messages":[{"role":"user","content":"hello"}]}'


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def has_ended(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"


def until(came: Callable[[], object]) -> None:
    give_up_s = time.monotonic() + LONG_S
    while not came():
        assert time.monotonic() < give_up_s
        time.sleep(0.01)


def wait_for_end(pid: int) -> None:
    until(lambda: has_ended(pid))


def folding_child(running: RunningGateway) -> int:
    """The folding process of a gateway, once it has started."""
    until(lambda: children_of(running.process.pid))
    [child] = children_of(running.process.pid)
    return child


def ask(running: RunningGateway) -> None:
    answer = httpx.post(
        running.url("practice", "/v1/chat/completions"),
        content=BODY,
        headers={"authorization": f"Bearer {TOKEN}"},
        timeout=LONG_S,
    )
    assert answer.status_code == 200


def listening_inodes() -> set[str]:
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return {fields[9] for line in lines if (fields := line.split())[3] == "0A"}


def sockets_of(pid: int) -> set[str]:
    links = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
    return {link[8:-1] for link in links if link.startswith("socket:")}


def test_the_folding_process_has_no_key_and_no_way_in() -> None:
    """It reads what was said and sent; it can neither be asked nor ask."""
    key = "sk-practice-secret"
    with running_gateway([practice_row()], keys={"practice": key}) as running:
        ask(running)
        child = folding_child(running)
        until(running.exchanges)
        for name in ("cmdline", "environ"):
            text = Path(f"/proc/{child}/{name}").read_bytes()
            assert key.encode() not in text
            assert TOKEN.encode() not in text
        listening = listening_inodes()
        assert sockets_of(running.process.pid) & listening
        assert not sockets_of(child) & listening
        assert os.readlink(f"/proc/{child}/fd/2") == str(running.log)
        running.finish()
        wait_for_end(child)


def test_a_gateway_goes_on_when_its_folding_process_is_killed() -> None:
    with running_gateway([practice_row()]) as running:
        for _ in range(3):
            ask(running)
            child = folding_child(running)
            os.kill(child, signal.SIGKILL)
            wait_for_end(child)
        ask(running)
        assert running.finish()["is_whole"]
        assert len(running.exchanges()) == 4


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_the_whole_group_leaves_the_end_to_the_gateway(number: signal.Signals) -> None:
    """As a service manager sends it; the gateway has answers to finish and rows to fold."""
    with running_gateway([practice_row()]) as running:
        ask(running)
        child = folding_child(running)
        until(running.exchanges)
        os.kill(child, number)
        ask(running)
        assert running.finish()["is_whole"]
        assert len(running.exchanges()) == 2
        assert b"has ended" not in running.log.read_bytes()


@pytest.mark.parametrize("lines", [1, 40, 400, 1500])
def test_a_killed_gateway_leaves_one_row_one_charge_and_one_event(
    tmp_path: Path, lines: int
) -> None:
    """Though its folding process and the next start fold the same exchanges at the same time."""
    folder, ledger_file = tmp_path / "journals", tmp_path / "ledger.db"
    with gateway(folder, ledger_file, "01S") as process:
        assert process.stdout is not None
        child = int(process.stdout.readline().split()[1])
        said = [process.stdout.readline() for _ in range(lines)]
        process.kill()
        said += process.stdout.readlines()
        process.wait()
    store = open_store(ledger_file)
    settle_orphans(folder, store, unpriced)
    wait_for_end(child)
    settle_orphans(folder, store, unpriced)
    finished = {line.split()[1].decode() for line in said if line.endswith(b"\n")}
    rows = {row.id: row for row in store.exchanges("01S")}
    assert finished <= rows.keys()
    assert len(rows.keys() - finished) <= 1
    with closing(open_audit(ledger_file)) as trail:
        told = Counter(json.loads(event.document)["exchange"] for event in trail.events())
    assert {told[id] for id in finished} == {1}
    with closing(open_governance(ledger_file)) as governance:
        assert governance.lease_holders() == set()
        spent = governance.standings([KEY])[KEY].spent
    assert 0 <= spent - COST_NANO_USD * len(finished) <= RESERVED_NANO_USD
    assert store.integrity() == []
    assert journals(folder) == []
    store.close()
