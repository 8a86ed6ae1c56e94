"""`ogate sessions show --cache`: the screen, the document, what is said where little is known."""

import json
from typing import Any

import pytest

from opencode_gate.cli.cache_view import because
from opencode_gate.cli.main import main
from opencode_gate.config.paths import paths
from opencode_gate.core.semconv import ConversationKind
from opencode_gate.core.usage import TokenUsage
from opencode_gate.ledger.records import ExchangeRecord, SessionRecord
from opencode_gate.ledger.sqlite import open_store
from opencode_gate.session.cache_doctor import Cause, Fall
from opencode_gate.wire.prompt_parts import prompt_parts, tool_set_of
from opencode_gate.wire.routes import identify
from tests.support.ledger_records import NOON_US, a_conversation, a_session, an_exchange

MINUTE_US = 60_000_000
PRICES = '[prices."acme/m-1"]\ninput = 3\noutput = 15\ncache_read = 0.3\n'


def parts(*said: str, tools: tuple[str, ...] = ("bash",)) -> bytes:
    messages = [{"role": "user", "content": text} for text in said]
    body = {"messages": messages, "tools": [{"name": name} for name in tools]}
    packed = prompt_parts(identify("POST", "/chat/completions"), json.dumps(body).encode(), b"k")
    assert packed is not None
    return packed


def asked(
    session: SessionRecord,
    minute: float,
    uncached: int,
    read: int | None,
    shape: bytes,
    **more: Any,
) -> ExchangeRecord:
    fields: dict[str, Any] = {
        "session_id": session.id,
        "started_at_us": NOON_US + round(minute * MINUTE_US),
        "provider_name": "acme",
        "request_model": "m-1",
        "response_model": None,
        "usage": TokenUsage(input_uncached=uncached, cache_read=read, output=10),
        "parts": shape,
        "tool_set": tool_set_of(shape),
    }
    return an_exchange(**{**fields, **more})


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> SessionRecord:
    monkeypatch.setenv("TZ", "UTC")
    return a_session(id="01JDABCDEFGHJKMNPQRSTVW58K")


def record(session: SessionRecord, *exchanges: ExchangeRecord, prices: str = PRICES) -> None:
    paths().config_file.parent.mkdir(parents=True, exist_ok=True)
    paths().config_file.write_text(prices)
    store = open_store(paths().ledger_file)
    store.add_session(session)
    store.put_conversations([a_conversation(session.id)])
    store.put_tool_set(tool_set_of(parts()) or "", {"bash": 10})
    store.put_tool_set(
        tool_set_of(parts(tools=("bash", "git_log"))) or "", {"bash": 10, "git_log": 9}
    )
    store.fold(exchanges)
    store.close()


def a_long_day(session: SessionRecord) -> list[ExchangeRecord]:
    more = ("bash", "git_log")
    return [
        asked(session, 0, 10_000, 0, parts("one")),
        asked(session, 1, 100, 10_000, parts("one", "two")),
        asked(session, 2, 10_200, 0, parts("one", "two", "three", tools=more)),
        asked(session, 3, 100, 10_200, parts("one", "two", "three", "four", tools=more)),
        asked(session, 20, 10_400, 0, parts("one", "two", "three", "four", tools=more)),
        asked(
            session,
            21,
            500,
            0,
            parts("sub"),
            conversation_id="ses_2",
            parent_conversation_id="ses_1",
            kind=ConversationKind.SUBAGENT,
        ),
    ]


def test_the_screen(session: SessionRecord, capsys: pytest.CaptureFixture[str]) -> None:
    record(session, *a_long_day(session))
    assert main(["sessions", "show", "last", "--cache"]) == 0
    assert (
        capsys.readouterr().out
        == """\
ogate · session 01JD…W58K · engine (main) · prompt cache

main: Fix the loom
5 requests · 51.0 k input · 40 % from the cache
▁█▁█▁  cached share of each request
at      cached   before   read anew   cost more   because
12:02      0 %     99 %      10.1 k     $ 0.027   the tools changed: + git_log
12:20      0 %     99 %      10.3 k     $ 0.028   a pause of 17 min; the cache keeps for 5 min

sub-agent ses_2
1 request · 500 input · nothing was ever read from a cache: it may have none for this model

2 falls: 20.4 k tokens read anew, $0.06 more than from the cache
"""
    )


def test_the_document(session: SessionRecord, capsys: pytest.CaptureFixture[str]) -> None:
    record(session, *a_long_day(session))
    assert main(["sessions", "show", "last", "--cache", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["version"] == 1
    assert document["session"]["id"] == session.id
    assert document["lost_tokens"] == 20_400
    assert document["extra_cost_usd"] == "0.05508"
    whole, sub = document["conversations"]
    assert (whole["id"], whole["kind"], whole["title"]) == ("ses_1", "main", "Fix the loom")
    assert [request["cache_read_input_tokens"] for request in whole["requests"]] == [
        0,
        10_000,
        0,
        10_200,
        0,
    ]
    first, second = whole["falls"]
    assert (first["cause"], first["tools_added"], first["tools_removed"]) == (
        "tools",
        ["git_log"],
        [],
    )
    assert (second["cause"], second["pause_s"], second["lifetime_s"]) == ("pause", 1020, 300)
    assert sub["is_cached"] is False
    assert "one" not in json.dumps(document["conversations"][0]["requests"])


def test_without_prices_the_tokens_are_said_and_the_money_is_not(
    session: SessionRecord, capsys: pytest.CaptureFixture[str]
) -> None:
    record(session, *a_long_day(session), prices="")
    assert main(["sessions", "show", "last", "--cache"]) == 0
    screen = capsys.readouterr().out
    assert "2 falls: 20.4 k tokens read anew, ? more than from the cache" in screen
    assert "$" not in screen


def test_a_session_whose_providers_say_nothing(
    session: SessionRecord, capsys: pytest.CaptureFixture[str]
) -> None:
    record(session, asked(session, 0, 900, None, parts("one")))
    assert main(["sessions", "show", "--cache"]) == 0
    assert "no provider said what it read from a prompt cache" in capsys.readouterr().out


def test_a_conversation_that_kept_its_cache_says_so(
    session: SessionRecord, capsys: pytest.CaptureFixture[str]
) -> None:
    record(session, *a_long_day(session)[:2])
    assert main(["sessions", "show", "--cache"]) == 0
    assert "nothing fell out of the cache" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"cause": Cause.MODEL}, "the model was acme/m-1 and is acme/m-1"),
        ({"cause": Cause.KEY}, "another key"),
        ({"cause": Cause.COMPACTION}, "compacted"),
        ({"cause": Cause.TOOLS}, "the tools changed: their order or wording"),
        (
            {"cause": Cause.TOOLS, "tools_added": tuple("abcde"), "tools_removed": ("x",)},
            "the tools changed: + a, b, c and 2 more, − x",
        ),
        ({"cause": Cause.TOOLS, "tools_resized": ("x",)}, "the tools changed: reworded x"),
        ({"cause": Cause.SYSTEM}, "the system prompt changed"),
        ({"cause": Cause.MESSAGE, "position": 6, "messages": 31}, "message 7 of 31 changed"),
        (
            {"cause": Cause.PAUSE, "lifetime_us": 60 * MINUTE_US},
            "a pause of 1 h 10 min; the cache keeps for 1 h 00 min",
        ),
        ({"cause": Cause.UNKNOWN}, "nothing changed here: the provider let go of it"),
    ],
)
def test_every_cause_has_words(session: SessionRecord, fields: dict[str, Any], words: str) -> None:
    exchange = asked(session, 0, 1, 1, parts("one"))
    defaults: dict[str, Any] = {
        "exchange": exchange,
        "before": exchange,
        "lost_tokens": 1,
        "pause_us": 70 * MINUTE_US,
        "lifetime_us": 5 * MINUTE_US,
    }
    assert words in because(Fall(**{**defaults, **fields}))


def test_a_cause_that_cannot_be_seen_any_more_is_not_blamed_on_the_provider(
    session: SessionRecord,
) -> None:
    bare = asked(session, 0, 1, 1, parts("one"), parts=None)
    fall = Fall(
        exchange=bare, before=bare, cause=Cause.UNKNOWN, lost_tokens=1, pause_us=0, lifetime_us=1
    )
    assert "not known" in because(fall)
