"""`ogate usage tools`: the table of servers, the tools nobody calls, and the document."""

import json
from pathlib import Path
from typing import Any

import pytest

from opencode_gate.cli.main import main
from opencode_gate.config.paths import paths
from opencode_gate.core import clock
from opencode_gate.core.usage import TokenUsage
from opencode_gate.ledger.sqlite import open_store
from tests.support.ledger_records import NOON_US, a_session, an_exchange

PRICES = '[prices."acme/m"]\ninput = 3\noutput = 15\ncache_read = 0.3\n'
TOOLS = {"bash": 4000, "read": 2000, "git_log": 4000, "git_push": 8000, "mine": 400}


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setattr(clock.SystemClock, "now_us", lambda _: NOON_US + 3_600_000_000)
    project = tmp_path / "project"
    project.mkdir()
    (project / "opencode.json").write_text('{"mcp": {"git": {"type": "local", "command": []}}}')
    paths().config_file.parent.mkdir(parents=True)
    paths().config_file.write_text(PRICES)
    store = open_store(paths().ledger_file)
    sessions = [a_session(directory=str(project)), a_session(directory="/gone")]
    for session in sessions:
        store.add_session(session)
    store.put_tool_set("aa", TOOLS)

    def call(session: int, **changes: Any) -> Any:
        fields: dict[str, Any] = {
            "session_id": sessions[session].id,
            "provider_name": "acme",
            "request_model": "m",
            "response_model": None,
            "tool_set": "aa",
            "usage": TokenUsage(input_uncached=1000, cache_read=9000, output=100),
        }
        return an_exchange(**{**fields, **changes})

    store.fold(
        [
            call(0, tools_called=("bash", "git_log")),
            call(0),
            call(1, tools_called=("bash",)),
            call(1, tool_set=None),
            call(1, tool_set="lost"),
        ]
    )
    store.close()


def run(capsys: pytest.CaptureFixture[str], *line: str) -> str:
    assert main(["usage", "tools", *line]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


@pytest.mark.usefixtures("ledger")
def test_the_screen(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        run(capsys)
        == """\
this month: tool definitions take ~28 % of 50.0 k input tokens (5 requests, 2 sessions with tools)

server            tools   never called   requests   a request   a session   of input         cost
git                   2              1          3      ~3.0 k      ~4.5 k      ~18 %     ~$ 0.005
Opencode's own        2              1          3      ~1.5 k      ~2.2 k       ~9 %     ~$ 0.003
no known server       1              1          3        ~100        ~150       ~1 %   ~< $ 0.001
total                 5              3          3      ~4.6 k      ~6.9 k      ~28 %     ~$ 0.008

never called   server            a request   in all         cost
git_push       git                  ~2.0 k   ~6.0 k     ~$ 0.003
read           Opencode's own         ~500   ~1.5 k     ~$ 0.001
mine           no known server        ~100     ~300   ~< $ 0.001

without the 3 tools never called, it would have been ~7.8 k tokens and ~< $0.01 less

~ is estimated: tokens from the size of each definition, money from what an input token of the same requests cost on average
no known server: plugins' and custom tools, and those of servers that are not in Opencode's configuration now
1 request offered tools of which nothing is kept
"""  # noqa: E501
    )


@pytest.mark.usefixtures("ledger")
def test_the_document(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(run(capsys, "--today", "--json"))
    assert found["version"] == 1
    assert (found["requests"], found["input_tokens"], found["unmeasured_requests"]) == (
        5,
        50_000,
        1,
    )
    git, own, other = found["servers"]
    assert [(s["server"], s["owner"]) for s in (git, own, other)] == [
        ("git", "mcp"),
        (None, "opencode"),
        (None, "unknown"),
    ]
    assert (git["tool_requests"], git["sessions"], git["calls"]) == (3, 2, 1)
    assert git["tokens_per_request"] == 3000
    assert git["tokens_per_session"] == 4500
    assert git["share_of_input"] == 0.18
    assert [tool["name"] for tool in git["tools"]] == ["git_push", "git_log"]
    # 9000 tokens at nine tenths of $0.30 and one of $3 a million.
    assert float(git["cost_usd"]) == pytest.approx(9000 * 0.57 / 1e6)
    never = found["never_called"]
    assert never["tools"] == ["git_push", "read", "mine"]
    assert never["tokens"] == 3 * (2000 + 500 + 100)
    assert float(never["cost_usd"]) == pytest.approx(never["tokens"] * 0.57 / 1e6)


@pytest.mark.usefixtures("ledger")
def test_without_a_price_there_is_no_amount(capsys: pytest.CaptureFixture[str]) -> None:
    paths().config_file.write_text("")
    screen = run(capsys)
    assert "$" not in screen
    assert "? less" in screen


def test_a_span_without_tools_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys) == "this month: no request with tools was recorded\n"
    assert not paths().ledger_file.exists()


def test_one_span_at_a_time(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["usage", "tools", "--today", "--week"]) == 2
    assert "more than one span" in capsys.readouterr().err
