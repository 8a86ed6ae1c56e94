"""`ogate usage`: what it counts, when its days begin, and what it prints where."""

import csv
import io
import json
import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import get_args, get_type_hints

import pytest

from opencode_gate.agents.opencode.database import RecordedAnswer
from opencode_gate.cli.agent_history import usage_rows
from opencode_gate.cli.commands.usage import usage
from opencode_gate.cli.main import main
from opencode_gate.config.paths import paths
from opencode_gate.core import clock
from opencode_gate.core.semconv import ConversationKind, CostQuality
from opencode_gate.core.usage import TokenUsage
from opencode_gate.governance.policy import Budget, Owner, Rules, VirtualKey, document_of
from opencode_gate.ledger.governance_store import PolicyDocument
from opencode_gate.ledger.journal import Journal
from opencode_gate.ledger.records import Charge
from opencode_gate.ledger.sqlite import SqliteStore, open_store
from opencode_gate.ledger.sqlite.governance import open_governance
from opencode_gate.ledger.totals import GROUPINGS, UsageQuery
from opencode_gate.session.operator import os_user
from tests.support.ledger_records import a_session, an_exchange, an_open_exchange


def _us(text: str) -> int:
    return round(datetime.fromisoformat(text).astimezone(UTC).timestamp() * 1_000_000)


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls on three local days, seen from a Saturday noon in Berlin."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    now_us = _us("2026-11-21T12:00:00+01:00")
    monkeypatch.setattr(clock.SystemClock, "now_us", lambda _: now_us)
    store = open_store(paths().ledger_file)
    session = a_session(started_at_us=_us("2026-11-20T23:00:00+01:00"))
    store.add_session(session)

    def call(at: str, cost_nano_usd: int | None, model: str = "m") -> object:
        return an_exchange(
            session_id=session.id,
            started_at_us=_us(at),
            request_model=model,
            cost_nano_usd=cost_nano_usd,
            cost_quality=CostQuality.UNKNOWN if cost_nano_usd is None else CostQuality.PRICED,
            usage=TokenUsage(input_uncached=900, cache_read=100, output=50, reasoning=5),
        )

    store.fold(
        [
            call("2026-10-31T23:59:59+01:00", 8_000_000_000),
            call("2026-11-01T00:00:00+01:00", 4_000_000_000),
            # Still Friday in UTC, already Saturday in Berlin.
            call("2026-11-21T00:30:00+01:00", 1_000_000_000),
            call("2026-11-21T11:00:00+01:00", None, model="other"),
        ]
    )
    store.close()


def _json(capsys: pytest.CaptureFixture[str], *line: str) -> dict[str, object]:
    assert main([*line, "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return json.loads(out)


@pytest.mark.usefixtures("ledger")
@pytest.mark.parametrize(
    ("flags", "requests", "cost_usd"),
    [
        (["--today"], 2, "1"),
        (["--week"], 2, "1"),
        (["--month"], 3, "5"),
        ([], 3, "5"),
        (["--since", "2026-10-31"], 4, "13"),
        (["--since", "2026-10-31", "--until", "2026-10-31"], 1, "8"),
        (["--until", "2026-11-01"], 2, "12"),
        (["--since", "2026-11-21T01:00"], 1, None),
    ],
)
def test_days_begin_at_local_midnight(capsys, flags, requests, cost_usd) -> None:
    totals = _json(capsys, "usage", *flags)["totals"]
    assert (totals["requests"], totals["cost_usd"]) == (requests, cost_usd)


@pytest.mark.usefixtures("ledger")
def test_the_document_uses_the_names_of_the_summary(capsys) -> None:
    document = _json(capsys, "usage", "--today")
    assert document["version"] == 1
    assert document["since"] == "2026-11-20T23:00:00.000000Z"
    assert document["time_zone"] == "Europe/Berlin"
    assert document["rows"] == [
        {
            "provider_name": "practice",
            "request_model": "m",
            "requests": 1,
            "input_tokens": 1000,
            "cache_read_input_tokens": 100,
            "cache_creation_input_tokens": None,
            "output_tokens": 50,
            "reasoning_output_tokens": 5,
            "cost_usd": "1",
            "cost_quality": "priced",
            "unknown_cost_requests": 0,
        },
        {
            "provider_name": "practice",
            "request_model": "other",
            "requests": 1,
            "input_tokens": 1000,
            "cache_read_input_tokens": 100,
            "cache_creation_input_tokens": None,
            "output_tokens": 50,
            "reasoning_output_tokens": 5,
            "cost_usd": None,
            "cost_quality": "unknown",
            "unknown_cost_requests": 1,
        },
    ]


@pytest.mark.usefixtures("ledger")
def test_several_groups_with_commas_or_repeated(capsys) -> None:
    document = _json(capsys, "usage", "--by", "day,project", "--by", "day")
    assert document["by"] == ["day", "project"]
    assert [(row["day"], row["project"]) for row in document["rows"]] == [
        ("2026-11-01", "engine"),
        ("2026-11-21", "engine"),
    ]


@pytest.mark.usefixtures("ledger")
def test_csv_has_the_names_of_the_document_and_no_row_of_sums(capsys) -> None:
    """A spreadsheet adds up itself; what is unknown is an empty cell, not a zero."""
    assert main(["usage", "--today", "--by", "model,hour", "--csv"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    rows = list(csv.DictReader(io.StringIO(out)))
    totals = _json(capsys, "usage", "--today", "--by", "model,hour")["rows"]
    assert rows == [
        {name: "" if value is None else str(value) for name, value in row.items()} for row in totals
    ]
    assert [(row["request_model"], row["hour"], row["cost_usd"]) for row in rows] == [
        ("m", "00", "1"),
        ("other", "11", ""),
    ]


def test_csv_cannot_drive_a_terminal(capsys) -> None:
    """A model is called what a client calls it."""
    store = open_store(paths().ledger_file)
    store.fold([an_exchange(request_model="m\x1b[2J\x9b")])
    store.close()
    assert main(["usage", "--since", "2020-01-01", "--csv"]) == 0
    assert not {"\x1b", "\x9b"} & set(capsys.readouterr().out)


@pytest.mark.usefixtures("ledger")
def test_the_sum_is_that_of_its_rows_while_a_session_writes(capsys, monkeypatch) -> None:
    """A call that is recorded between two questions is in the answers to both or to none."""
    usage = SqliteStore.usage
    other = open_store(paths().ledger_file)

    def and_one_more(store: SqliteStore, query: UsageQuery) -> object:
        found = usage(store, query)
        other.fold([an_exchange(started_at_us=_us("2026-11-21T00:10:00+01:00"))])
        return found

    monkeypatch.setattr(SqliteStore, "usage", and_one_more)
    assert main(["usage", "--json"]) == 0
    other.close()
    document = json.loads(capsys.readouterr().out)
    rows = sum(row["requests"] for row in document["rows"])
    assert document["totals"]["requests"] == rows


def test_csv_of_nothing_is_its_header(capsys) -> None:
    assert main(["usage", "--by", "user,commit", "--csv"]) == 0
    [header] = capsys.readouterr().out.splitlines()
    assert header.startswith("user,commit,requests,input_tokens,")


def test_csv_keeps_a_value_with_a_comma_or_a_quote(capsys) -> None:
    store = open_store(paths().ledger_file)
    session = a_session(branch='a,"b"')
    store.add_session(session)
    store.fold([an_exchange(session_id=session.id)])
    store.close()
    assert main(["usage", "--since", "2020-01-01", "--by", "branch", "--csv"]) == 0
    [row] = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert row["branch"] == 'a,"b"'


@pytest.mark.usefixtures("ledger")
@pytest.mark.parametrize("name", GROUPINGS)
def test_every_grouping_has_a_table_a_document_and_stands_in_the_help(capsys, name: str) -> None:
    """And the rows of each add up to the whole."""
    assert main(["usage", "--by", name]) == 0
    assert capsys.readouterr().out.splitlines()[2].startswith(name)
    document = _json(capsys, "usage", "--by", name)
    assert sum(row["requests"] for row in document["rows"]) == document["totals"]["requests"] == 3
    [_, option] = get_args(get_type_hints(usage, include_extras=True)["by"])
    assert re.search(rf" {name}[,;]", option.help)


@pytest.mark.usefixtures("ledger")
def test_short_is_one_line_about_today(capsys) -> None:
    assert main(["usage", "--short"]) == 0
    assert capsys.readouterr().out == "today: $1.00 + ? · 2 requests · 2.0 k in, 100 out\n"


def test_short_says_when_there_was_nothing(capsys) -> None:
    assert main(["usage", "--short"]) == 0
    assert capsys.readouterr().out == "today: no requests\n"


def test_nothing_counted_is_not_a_bill_of_zero(capsys) -> None:
    assert main(["usage"]) == 0
    assert capsys.readouterr().out == "this month: nothing was counted\n"
    assert not paths().ledger_file.exists()


@pytest.mark.usefixtures("ledger")
def test_people_get_a_table_a_plot_over_the_days_and_the_marks_explained(capsys) -> None:
    assert main(["usage"]) == 0
    assert (
        capsys.readouterr().out
        == """\
this month

model            requests   input   cached   output          cost
practice/m              2   2.0 k     10 %      100       $ 5.000
practice/other          1   1.0 k     10 %       50             ?
total                   3   3.0 k     10 %      150   $ 5.000 + ?

$4.00 ┤█
      ┤█
      ┤█                                       ▆
       Nov 1                              Nov 21

? has no known price (1 request), and is not in the sum
"""
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["--today", "--week"], "more than one span of time"),
        (["--today", "--since", "2026-11-01"], "more than one span of time"),
        (["--by", "mood"], "cannot be grouped by 'mood'"),
        (["--since", "soon"], "is not a day or a time"),
        (["--source", "elsewhere"], "--source"),
        (["--csv", "--json"], "--csv goes with neither"),
        (["--csv", "--short"], "--csv goes with neither"),
    ],
)
def test_what_makes_no_sense_is_refused(capsys, line, message) -> None:
    assert main(["usage", *line]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert "[usage]" in err


def _answer(**changes: object) -> RecordedAnswer:
    fields: dict[str, object] = {
        "at_us": _us("2026-11-21T00:30:00+01:00"),
        "conversation_id": "ses_1",
        "parent_id": None,
        "title": "t",
        "directory": "/w",
        "project": "w",
        "agent_name": "build",
        "provider_id": "anthropic",
        "model_id": "claude",
        "usage": TokenUsage(input_uncached=10, output=5),
        "cost_usd": Decimal("0.5"),
    }
    return RecordedAnswer(**{**fields, **changes})  # type: ignore[arg-type]


def test_opencodes_history_is_added_up_by_the_same_rules() -> None:
    """Its zero is no price: it writes one for subscriptions and for prices it does not know."""
    query = UsageQuery(
        by=("model", "day", "kind", "hour", "mode", "conversation"), time_zone="Europe/Berlin"
    )
    rows = usage_rows(
        [_answer(), _answer(cost_usd=Decimal(0)), _answer(parent_id="ses_0", cost_usd=None)], query
    )
    assert [row.key for row in rows] == [
        {
            "model": "anthropic/claude",
            "day": "2026-11-21",
            "kind": kind,
            "hour": "00",
            "mode": "build",
            "conversation": "ses_1",
        }
        for kind in (ConversationKind.MAIN, ConversationKind.SUBAGENT)
    ]
    main_row, sub_row = (row.totals for row in rows)
    assert (main_row.requests, main_row.input_tokens, main_row.cost_nano_usd) == (
        2,
        20,
        500_000_000,
    )
    assert main_row.unknown_cost_requests == 1
    assert (sub_row.cost_nano_usd, sub_row.unknown_cost_requests) == (None, 1)


def test_without_a_history_of_opencode_it_says_so(capsys) -> None:
    assert main(["usage", "--source", "opencode"]) == 2
    assert "Opencode has no history here" in capsys.readouterr().err


def _charged(owner: Owner, limit: str, spent_nano_usd: int, key: str | None = None) -> None:
    """A daily budget of an owner with something spent today."""
    budget = Budget(window="day", usd=Decimal(limit))
    kind = VirtualKey if owner.kind == "vkey" else Rules
    more = {"public_id": "p" * 12, "secret_hash": "s$h"} if owner.kind == "vkey" else {}
    rules = kind(time_zone="Europe/Berlin", budgets=(budget,), **more)
    governance = open_governance(paths().ledger_file)
    change = PolicyDocument(owner.kind, owner.name, document_of(rules))
    governance.put_policy([change], operator="test", at_us=0)
    governance.close()
    store = open_store(paths().ledger_file)
    charge = Charge(budget.id_for(owner), _us("2026-11-21T00:00:00+01:00"), "usd", 0)
    store.fold(
        [
            an_exchange(
                started_at_us=_us("2026-11-21T10:00:00+01:00"),
                cost_nano_usd=spent_nano_usd,
                virtual_key=key,
                charges=(charge,),
            )
        ]
    )
    store.close()


@pytest.mark.usefixtures("ledger")
@pytest.mark.parametrize(
    ("spent_nano_usd", "end"),
    [
        (9_900_000_000, " out"),
        (10_000_000_000, " · today 50 % of $20.00"),
        (20_500_000_000, " · today 102 % of $20.00"),
    ],
)
def test_short_names_a_budget_from_its_first_threshold_on(capsys, spent_nano_usd, end) -> None:
    _charged(Owner("user", os_user()), "20", spent_nano_usd)
    assert main(["usage", "--short"]) == 0
    assert capsys.readouterr().out.endswith(f"{end}\n")


@pytest.mark.usefixtures("ledger")
def test_short_looks_above_what_runs_too(capsys) -> None:
    """The key a running session is under, and no key of anybody else."""
    _charged(Owner("vkey", "ci"), "1", 900_000_000, key="ci")
    _charged(Owner("vkey", "other"), "1", 900_000_000, key="other")
    session = a_session()
    journal = Journal.create(paths().journals, session=session)
    journal.opened(an_open_exchange(session_id=session.id, virtual_key="ci"))
    assert main(["usage", "--short"]) == 0
    journal.close()
    assert capsys.readouterr().out.endswith(" out · key ci today 90 % of $1.00\n")


@pytest.mark.usefixtures("ledger")
def test_short_says_that_rules_cannot_be_read(capsys) -> None:
    governance = open_governance(paths().ledger_file)
    governance.put_policy([PolicyDocument("user", "ada", "{")], operator="test", at_us=0)
    governance.close()
    assert main(["usage", "--short"]) == 0
    assert capsys.readouterr().out.endswith(" · the rules cannot be read: ogate doctor\n")


@pytest.mark.usefixtures("ledger")
def test_usage_by_virtual_key_team_and_customer(capsys) -> None:
    """What came under no key is a row of its own, and nothing is lost."""
    store = open_store(paths().ledger_file)
    asked = {"started_at_us": _us("2026-11-21T10:00:00+01:00"), "cost_nano_usd": 10**9}
    owners = {"virtual_key": "ci", "team": "core", "customer": "acme"}
    store.fold([an_exchange(**asked, **owners), an_exchange(**asked, virtual_key="solo")])
    store.close()
    assert main(["usage", "--today", "--by", "vkey,team,customer", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    rows = [
        (row["vkey"], row["team"], row["customer"], row["cost_usd"]) for row in document["rows"]
    ]
    assert sorted(rows, key=str) == [
        ("ci", "core", "acme", "1"),
        ("solo", None, None, "1"),
        (None, None, None, "1"),
    ]
    assert document["totals"]["cost_usd"] == "3"
