"""`ogate audit`: the trail listed, exported, and proven to be what was written."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from opencode_gate.cli.main import main
from opencode_gate.config.paths import paths
from opencode_gate.core.semconv import ExchangeStatus
from opencode_gate.ledger.governance_store import PolicyDocument
from opencode_gate.ledger.sqlite import open_store
from opencode_gate.ledger.sqlite.governance import open_governance
from tests.support.ledger_records import NOON_US, a_session, an_exchange


def record(exchanges: int = 1) -> None:
    """A change of rules, some exchanges and a refusal: each time three events and more."""
    with closing(open_governance(paths().ledger_file)) as governance:
        revision = governance.policy_revision()
        rules = f'{{"time_zone":"UTC","n":{revision}}}'
        governance.put_policy(
            [PolicyDocument("team", "core", rules)], operator="ada", at_us=NOON_US
        )
    with closing(open_store(paths().ledger_file)) as store:
        store.add_session(a_session(id="01S", user="ada"))
        store.fold([an_exchange(session_id="01S") for _ in range(exchanges)])
        store.fold(
            [
                an_exchange(
                    session_id="01S",
                    virtual_key="ci",
                    status=ExchangeStatus.DENIED,
                    denial="budget-exceeded",
                )
            ]
        )


def tamper(statement: str) -> None:
    with closing(sqlite3.connect(paths().ledger_file)) as database, database:
        database.execute(statement)


def findings(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, object]]:
    status = main(["audit", "verify", "--json", *arguments])
    found = json.loads(capsys.readouterr().out)["findings"]
    assert status == (1 if found else 0)
    return found


def test_the_trail_names_who_did_what(capsys: pytest.CaptureFixture[str]) -> None:
    record()
    assert main(["audit", "list"]) == 0
    policy, exchange, refusal = capsys.readouterr().out.splitlines()[1:]
    assert "ada" in policy and "rules of team core made" in policy
    assert "practice/scripted" in exchange and "114 in, 17 out" in exchange
    assert "vkey ci" in refusal and "budget-exceeded" in refusal


def test_the_list_is_of_the_latest_and_can_be_narrowed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    record(exchanges=5)
    for arguments, expected in (
        (["--limit", "2"], [6, 7]),
        (["--limit", str(10**20)], [1, 2, 3, 4, 5, 6, 7]),
        (["--kind", "policy"], [1]),
        (["--kind", "exchange", "--limit", "1"], [6]),
        (["--since", "2126-01-01"], []),
    ):
        assert main(["audit", "list", "--json", *arguments]) == 0
        events = json.loads(capsys.readouterr().out)["events"]
        assert [event["seq"] for event in events] == expected


def test_an_export_goes_on_where_the_last_one_ended(capsys: pytest.CaptureFixture[str]) -> None:
    """One JSON object a line, each with its number."""
    record()
    assert main(["audit", "export"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["kind"] for line in lines] == ["policy", "exchange", "refusal"]
    assert lines[1]["event"]["cost_nano_usd"] == 1_234_567
    record()
    assert main(["audit", "export", "--after", str(lines[-1]["seq"])]) == 0
    more = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["seq"] for line in more] == [4, 5, 6]
    for beyond in (["--since", "2126-01-01"], ["--after", str(10**20)]):
        assert main(["audit", "export", *beyond]) == 0
        assert capsys.readouterr().out == ""


def test_no_name_in_an_export_can_drive_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """U+009B begins an escape sequence as ESC [ does."""
    with closing(open_store(paths().ledger_file)) as store:
        store.add_session(a_session(id="01S"))
        store.fold([an_exchange(session_id="01S", request_model="m\x9b2J\x1b[2J")])
    assert main(["audit", "export"]) == 0
    out = capsys.readouterr().out
    assert json.loads(out)["event"]["model"] == "m\x9b2J\x1b[2J"
    assert not {"\x9b", "\x1b"} & set(out)


def test_a_sound_trail_is_said_to_be_sound(capsys: pytest.CaptureFixture[str]) -> None:
    record()
    assert main(["audit", "verify"]) == 0
    captured = capsys.readouterr()
    assert "sound" in captured.out
    assert captured.err == ""


def test_a_ledger_without_events_is_sound(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is made by looking, least of all a key."""
    open_store(paths().ledger_file).close()
    assert findings(capsys) == []
    assert not paths().audit_key.exists()


@pytest.mark.parametrize(
    ("statement", "seq"),
    [
        ("UPDATE audit_events SET document = replace(document, 'ada', 'bob') WHERE seq = 4", 4),
        ("DELETE FROM audit_events WHERE seq = 3", 3),
        ("DELETE FROM audit_events WHERE seq > 4", 5),
        ("UPDATE audit_heads SET seq = 4", 4),
        ("DELETE FROM audit_heads", 7),
    ],
)
def test_whoever_writes_into_the_trail_is_found_out(
    capsys: pytest.CaptureFixture[str], statement: str, seq: int
) -> None:
    """With the place, and status 1."""
    record(exchanges=4)
    tamper(statement)
    assert findings(capsys)[0]["seq"] == seq
    assert main(["audit", "verify"]) == 1
    assert "broken" in capsys.readouterr().out


@pytest.mark.parametrize(
    "statements",
    [
        ["DELETE FROM audit_events WHERE seq > 4"],
        ["DELETE FROM audit_events WHERE seq > 4", "DELETE FROM audit_heads"],
        ["DELETE FROM audit_events", "DELETE FROM audit_heads"],
        ["UPDATE audit_heads SET seal = hash"],
        ["DELETE FROM audit_heads"],
    ],
)
@pytest.mark.parametrize("has_head_outside", [True, False])
def test_a_trail_that_was_cut_goes_on_and_stays_found_out(
    capsys: pytest.CaptureFixture[str], statements: list[str], has_head_outside: bool
) -> None:
    """What is recorded afterwards does not cover it up."""
    record(exchanges=4)
    for statement in statements:
        tamper(statement)
    if not has_head_outside:
        if len(statements) == 2 and "WHERE" not in statements[0]:
            return  # Nothing is left that could tell.
        paths().audit_head.unlink()
    record()
    record(exchanges=9)
    assert findings(capsys)


def test_a_ledger_put_back_from_a_copy_is_found_out_and_says_so_for_ever(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """By the head outside; and by an event of its own, once somebody writes again."""
    record()
    copy = tmp_path / "copy.db"
    assert main(["ledger", "backup", str(copy)]) == 0
    record()
    for name in ("ledger.db-wal", "ledger.db-shm"):
        paths().ledger_file.with_name(name).unlink(missing_ok=True)
    paths().ledger_file.write_bytes(copy.read_bytes())
    capsys.readouterr()
    [cut] = findings(capsys)
    assert (cut["seq"], cut["until"]) == (4, 6)
    record(exchanges=5)
    found = findings(capsys)
    assert [each["seq"] for each in found] == [4]
    assert "known to be" in str(found[0]["what"])
    assert main(["audit", "list", "--kind", "break"]) == 0
    assert "should end with event 6, and was found to end with 3" in capsys.readouterr().out


def test_a_backup_is_verified_by_itself(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Also after the ledger went on, and elsewhere with a copy of the key."""
    record()
    copy, key = tmp_path / "copy.db", tmp_path / "copy.key"
    assert main(["ledger", "backup", str(copy)]) == 0
    record()
    key.write_bytes(paths().audit_key.read_bytes())
    capsys.readouterr()
    assert findings(capsys, "--ledger", str(copy)) == []
    paths().audit_key.unlink()
    paths().audit_head.unlink()
    assert main(["audit", "verify", "--ledger", str(copy)]) == 6
    capsys.readouterr()
    assert findings(capsys, "--ledger", str(copy), "--key", str(key)) == []
    with closing(sqlite3.connect(copy)) as database, database:
        database.execute("UPDATE audit_events SET at_us = 1 WHERE seq = 2")
    [finding] = findings(capsys, "--ledger", str(copy), "--key", str(key))
    assert finding["seq"] == 2


def test_a_missing_head_outside_is_said_and_is_no_finding(
    capsys: pytest.CaptureFixture[str],
) -> None:
    record()
    paths().audit_head.unlink()
    assert main(["audit", "verify"]) == 0
    assert "would not show" in capsys.readouterr().err


def test_key_and_head_are_for_their_owner_only() -> None:
    record()
    for file in (paths().audit_key, paths().audit_head):
        assert file.stat().st_mode & 0o777 == 0o600


def test_no_ledger_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "verify"]) == 6
    assert "no ledger" in capsys.readouterr().err
