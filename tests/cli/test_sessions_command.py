"""`ogate sessions`: the list, the summary again, and the rows for other programs."""

import json
import stat
from pathlib import Path

import pytest

from opencode_gate.cli.main import main
from opencode_gate.config.paths import paths
from opencode_gate.core.semconv import CostQuality
from opencode_gate.ledger.sqlite import open_store
from tests.support.ledger_records import NOON_US, a_conversation, a_session, an_exchange

OLD = "01JDAAAAAAAAAAAAAAAAAAAAAA"
NEW = "01JEBBBBBBBBBBBBBBBBBBBBBB"


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    """An old session with a bill and a new one without any call."""
    monkeypatch.setenv("TZ", "UTC")
    store = open_store(paths().ledger_file)
    store.add_session(a_session(id=OLD))
    store.end_session(OLD, ended_at_us=NOON_US + 90_000_000, exit_status=3)
    store.add_session(a_session(id=NEW, started_at_us=NOON_US + 1_000_000, branch=None))
    store.put_conversations([a_conversation(OLD)])
    store.fold(
        [
            an_exchange(id="01A", session_id=OLD),
            an_exchange(
                id="01B", session_id=OLD, cost_nano_usd=None, cost_quality=CostQuality.UNKNOWN
            ),
        ]
    )
    store.close()


def _json(capsys: pytest.CaptureFixture[str], *line: str) -> dict[str, object]:
    assert main(list(line)) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return json.loads(out)


@pytest.mark.usefixtures("ledger")
def test_the_list_has_the_newest_first_with_what_each_cost(capsys) -> None:
    document = _json(capsys, "sessions", "list", "--json")
    assert document["version"] == 1
    assert [session["id"] for session in document["sessions"]] == [NEW, OLD]
    totals = document["sessions"][1]["totals"]
    assert (totals["requests"], totals["cost_usd"]) == (2, "0.001234567")
    assert totals["unknown_cost_requests"] == 1
    assert document["sessions"][0]["totals"]["cost_usd"] is None


@pytest.mark.usefixtures("ledger")
def test_people_get_a_table_where_no_call_is_no_zero(capsys) -> None:
    assert main(["sessions", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["01JE…BBBB", "2026-11-21", "12:00", "engine", "–", "0", "–", "–"]
    assert lines[2].split()[-6:] == ["2", "$", "0.001", "+", "?", "3"]


@pytest.mark.usefixtures("ledger")
@pytest.mark.parametrize("name", [OLD, "01JD", "01JD…AAAA"])
def test_a_session_is_found_by_id_beginning_or_as_it_is_shown(capsys, name) -> None:
    document = _json(capsys, "sessions", "show", name, "--json")
    assert document["session"]["id"] == OLD
    assert document["session"]["exit_status"] == 3


@pytest.mark.usefixtures("ledger")
def test_show_is_the_summary_with_the_way_to_go_on(capsys) -> None:
    assert main(["sessions", "show", OLD]) == 0
    out = capsys.readouterr().out
    assert "ogate · session 01JD…AAAA · engine (main) · 1 min" in out
    assert "resume   ogate run -- -s ses_1" in out


@pytest.mark.usefixtures("ledger")
def test_the_last_session_is_shown_when_none_is_named(capsys) -> None:
    assert _json(capsys, "sessions", "show", "--json")["session"]["id"] == NEW


@pytest.mark.parametrize("line", [["sessions", "show"], ["sessions", "show", "01ZZ"]])
def test_no_such_session_is_an_error_with_a_hint(capsys, line) -> None:
    assert main(line) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "[no-such-session]" in err
    assert "hint: " in err


@pytest.mark.usefixtures("ledger")
def test_export_is_one_line_of_json_a_call(capsys) -> None:
    assert main(["sessions", "export"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["id"] for row in rows] == ["01A", "01B"]
    assert {name: rows[0][name] for name in ("session_id", "input_tokens", "cost_usd", "user")} == {
        "session_id": OLD,
        "input_tokens": 114,
        "cost_usd": "0.001234567",
        "user": "ada",
    }
    assert rows[1]["cost_usd"] is None


@pytest.mark.usefixtures("ledger")
def test_export_into_a_file_is_for_its_owner_alone(capsys, tmp_path: Path) -> None:
    target = tmp_path / "rows.jsonl"
    target.touch(mode=0o644)
    assert main(["sessions", "export", OLD, "--output", str(target)]) == 0
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"2 model calls written to {target}\n")
    assert len(target.read_text().splitlines()) == 2
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


@pytest.mark.usefixtures("ledger")
def test_export_into_a_folder_that_is_not_there_is_a_clear_error(capsys, tmp_path: Path) -> None:
    assert main(["sessions", "export", "-o", str(tmp_path / "no" / "rows.jsonl")]) == 3
    assert "[folder-unwritable]" in capsys.readouterr().err
