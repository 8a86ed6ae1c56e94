"""The summary: the screen of the design and the document others parse."""

import io
import json
from decimal import Decimal

import pytest
from msgspec.structs import replace
from rich.console import Console

from opencode_gate.cli.render import print_blocks
from opencode_gate.cli.summary_view import cost_notes, summary_blocks, summary_document
from opencode_gate.core.semconv import ConversationKind, CostQuality
from opencode_gate.governance.decisions import Decision
from opencode_gate.governance.policy import Budget, Owner
from opencode_gate.governance.standing import BudgetStanding
from opencode_gate.ledger.records import ConversationRecord
from opencode_gate.ledger.totals import Totals
from opencode_gate.session.decided import Decided, Firing, Refused, Replaced
from opencode_gate.session.reconciliation import Bypass
from opencode_gate.session.summary import (
    ConversationTotals,
    ModelTotals,
    Summary,
    Timing,
    Trouble,
)
from tests.support.ledger_records import a_session

SESSION = a_session(
    id="01JDABCDEFGHJKMNPQRSTVW58K",
    project="my-repo",
    ended_at_us=1_795_262_400_000_000 + 42 * 60_000_000,
    exit_status=0,
)


def _totals(cost_nano_usd: int | None, **changes: object) -> Totals:
    fields: dict[str, object] = {
        "requests": 61,
        "input_tokens": 1_924_000,
        "cache_read_input_tokens": 1_750_840,
        "cache_creation_input_tokens": 7,
        "output_tokens": 48_100,
        "reasoning_output_tokens": 33,
        "cost_nano_usd": cost_nano_usd,
        "cost_quality": CostQuality.PRICED,
    }
    return Totals(**{**fields, **changes})  # type: ignore[arg-type]


def _conversation(id: str, kind: ConversationKind, cost_nano_usd: int) -> ConversationTotals:
    record = ConversationRecord(id=id, session_id=SESSION.id, kind=kind, title="A title")
    return ConversationTotals(record=record, totals=_totals(cost_nano_usd))


def _standing(owner: Owner, window: str, limit: str, spent: int) -> BudgetStanding:
    """One whose window never ends, so that it is today's whenever this runs."""
    return BudgetStanding(
        owner=owner,
        budget=Budget(window=window, usd=Decimal(limit)),  # type: ignore[arg-type]
        start_us=0,
        resets_at_us=None,
        time_zone="UTC",
        spent=spent,
        held=0,
    )


FULL = Summary(
    session=SESSION,
    totals=_totals(2_185_000_000, requests=75),
    models=(
        ModelTotals(
            provider_name="anthropic",
            request_model="claude-sonnet-5",
            response_model="claude-sonnet-5-20260901",
            totals=_totals(2_137_000_000),
        ),
    ),
    conversations=(
        _conversation("ses_1", ConversationKind.MAIN, 1_610_000_000),
        _conversation("ses_1", ConversationKind.TITLE, 20_000_000),
        _conversation("ses_1", ConversationKind.COMPACTION, 30_000_000),
        _conversation("ses_2", ConversationKind.SUBAGENT, 500_000_000),
        _conversation("ses_3", ConversationKind.SUBAGENT, 30_000_000),
    ),
    trouble=Trouble(retries=2, failovers=1, interrupted=1, contradicted=1),
    timing=Timing(
        time_to_first_chunk_s_p50=1.2345678,
        time_to_first_chunk_s_p95=4.0,
        output_tokens_per_s=71.4,
        gateway_us_p50=312.5,
    ),
    hidden=("OPENAI_API_KEY",),
    resume="ogate run -- -s ses_1",
    check="Opencode counted $1.60: it leaves out sub-agents and titles ($0.58)",
    cache_saved_nano_usd=9_840_000_000,
    budgets=(
        _standing(Owner("session", SESSION.id), "session", "5", 2_185_000_000),
        _standing(Owner("user", "ada"), "day", "20", 6_400_000_000),
    ),
)
EMPTY = Summary(session=SESSION, totals=Totals())


def _screen(summary: Summary) -> str:
    out = io.StringIO()
    print_blocks(Console(file=out, width=200), summary_blocks(summary), indent=1)
    return out.getvalue()


def test_the_screen_is_the_one_of_the_design() -> None:
    assert (
        _screen(FULL)
        == """\
 ogate · session 01JD…W58K · my-repo (main) · 42 min

 model                       requests    input   cached   output      cost
 anthropic/claude-sonnet-5         61   1.92 M     91 %   48.1 k   $ 2.137
 total                             75   1.92 M     91 %   48.1 k   $ 2.185

 by conversation   main $1.61 · 2 sub-agents $0.53 · titles and compaction $0.05
 cache             saved $9.84 against uncached prices
 speed             first token 1.2 s median, 4.0 s p95 · 71 tokens/s · gateway's own 0.31 ms
 trouble           2 retries, 1 failover, 1 interrupted answer, 1 answer whose counts do not fit it
 budget            session $2.19 of $5.00 · today $6.40 of $20.00
 check             Opencode counted $1.60: it leaves out sub-agents and titles ($0.58)
 hidden            OPENAI_API_KEY was not shown to Opencode (keep_env keeps it)
 resume            ogate run -- -s ses_1
"""
    )


def test_a_title_that_was_refused_has_no_part_in_the_cost() -> None:
    refused = _conversation("ses_1", ConversationKind.TITLE, 0)
    refused = replace(refused, totals=Totals())
    summary = replace(FULL, conversations=(FULL.conversations[0], refused))
    assert "by conversation" not in _screen(summary)


def test_lines_with_nothing_to_say_are_left_out() -> None:
    assert (
        _screen(EMPTY)
        == """\
 ogate · session 01JD…W58K · my-repo (main) · 42 min

 no model call went through the gateway

"""
    )


def test_an_empty_bill_is_not_shown_as_zero_and_a_bypass_is_said() -> None:
    bypassed = Summary(
        session=SESSION,
        totals=Totals(),
        bypass=(
            Bypass(provider_name="openai", model="gpt-6", answers=3, mend="ogate keys add openai"),
            Bypass(provider_name="acme", model="m", answers=2, is_certain=False),
            Bypass(provider_name="anthropic", model="claude", answers=1, is_expected=True),
        ),
    )
    screen = " ".join(_screen(bypassed).split())
    assert "$" not in screen
    said = "not counted: 3 answers of openai/gpt-6 did not pass the gateway: ogate keys add openai"
    assert said in screen
    assert "2 answers of acme/m did not pass the gateway (if another Opencode ran" in screen
    assert "1 answer of anthropic/claude not through the gateway, covered by plan" in screen


def test_a_bypass_is_red_on_a_terminal() -> None:
    out = io.StringIO()
    bypassed = Summary(
        session=SESSION,
        totals=Totals(),
        bypass=(Bypass(provider_name="openai", model="gpt-6", answers=3),),
    )
    console = Console(file=out, force_terminal=True, width=120, no_color=False, _environ={})
    print_blocks(console, summary_blocks(bypassed))
    line = next(line for line in out.getvalue().splitlines() if "not counted" in line)
    assert "\x1b[1;31m" in line


@pytest.mark.parametrize(
    ("totals", "cell", "note"),
    [
        (_totals(None, cost_quality=CostQuality.UNKNOWN, unknown_cost_requests=61), "?", "? has"),
        (
            _totals(1_000_000_000, cost_quality=CostQuality.UNKNOWN, unknown_cost_requests=1),
            "$ 1.000 + ?",
            "? has no known price (1 request)",
        ),
        (
            _totals(1_000_000_000, cost_quality=CostQuality.ESTIMATED),
            "~$ 1.000",
            "~ is estimated",
        ),
    ],
)
def test_marks_are_explained(totals, cell, note) -> None:
    """`~` and `?` stand in the table and a line says why."""
    model = ModelTotals(provider_name="p", request_model="m", response_model=None, totals=totals)
    screen = _screen(Summary(session=SESSION, totals=totals, models=(model,)))
    assert f"{cell}\n" in screen
    assert note in screen


@pytest.mark.parametrize(
    ("saved_nano_usd", "unknown", "line"),
    [
        (9_840_000_000, 0, "cache   saved $9.84 against uncached prices\n"),
        (9_840_000_000, 3, "cache   saved $9.84 + ? against uncached prices\n"),
        (-120_000_000, 0, "cache   cost $0.12 more than uncached prices: more was written"),
        (0, 0, None),
        (None, 0, None),
        (None, 2, None),
    ],
)
def test_what_the_cache_saved_is_said_where_it_is_known(saved_nano_usd, unknown, line) -> None:
    summary = Summary(
        session=SESSION,
        totals=_totals(1_000_000_000),
        cache_saved_nano_usd=saved_nano_usd,
        cache_unknown_requests=unknown,
    )
    screen = _screen(summary)
    assert (line in screen) if line else ("cache" not in screen)


def test_an_estimate_is_not_blamed_on_a_cut_answer_alone() -> None:
    """Some providers report no usage at all."""
    [note] = cost_notes(_totals(1, cost_quality=CostQuality.ESTIMATED))
    assert "cut before its usage arrived" in note
    assert "its provider reports no usage" in note


def test_control_characters_of_a_model_name_do_not_reach_the_terminal() -> None:
    model = ModelTotals(
        provider_name="p", request_model="m\x1b]0;x\x07", response_model=None, totals=_totals(1)
    )
    assert "\x1b" not in _screen(Summary(session=SESSION, totals=_totals(1), models=(model,)))


T = {
    "requests": int,
    "input_tokens": int,
    "cache_read_input_tokens": int,
    "cache_creation_input_tokens": int,
    "output_tokens": int,
    "reasoning_output_tokens": int,
    "cost_usd": str,
    "cost_quality": str,
    "unknown_cost_requests": int,
}


def _types(document: dict[str, object]) -> dict[str, type]:
    return {name: type(value) for name, value in document.items()}


def test_the_document_has_exactly_the_published_names() -> None:
    document = json.loads(json.dumps(summary_document(FULL)))
    assert list(document) == [
        "version",
        "session",
        "totals",
        "models",
        "conversations",
        "trouble",
        "timing",
        "budgets",
        "rules",
    ]
    assert document["version"] == 1
    assert document["session"] == {
        "id": SESSION.id,
        "user": "ada",
        "agent": "opencode",
        "agent_version": "1.18.33",
        "project": "my-repo",
        "repository": "git@example.org:ada/engine.git",
        "branch": "main",
        "commit": "0123abc",
        "started_at": "2026-11-21T12:00:00.000000Z",
        "ended_at": "2026-11-21T12:42:00.000000Z",
        "exit_status": 0,
    }
    assert _types(document["totals"]) == T
    [model] = document["models"]
    assert _types(model) == {
        **T,
        "provider_name": str,
        "request_model": str,
        "response_model": str,
    }
    assert _types(document["conversations"][0]) == {
        **T,
        "id": str,
        "parent_id": type(None),
        "title": str,
        "kind": str,
    }
    assert {found["kind"] for found in document["conversations"]} == {
        "main",
        "title",
        "compaction",
        "subagent",
    }
    assert document["trouble"] == {
        "retries": 2, "failovers": 1, "interrupted": 1, "errors": 0, "contradicted": 1,
    }  # fmt: skip
    assert document["timing"] == {
        "time_to_first_chunk_s_p50": 1.235,
        "time_to_first_chunk_s_p95": 4.0,
        "output_tokens_per_s": 71.4,
        "gateway_us_p50": 312.5,
    }
    assert [found["spent"] for found in document["budgets"]] == ["2.185", "6.4"]
    assert document["rules"] == {
        "refused": [],
        "downgraded": [],
        "runaway": [],
        "lowered_output_limits": 0,
        "stopped_answers": 0,
        "waited_requests": 0,
        "waited_s": 0.0,
        "would_have_been_refused": 0,
        "beyond_reservation_requests": 0,
        "beyond_reservation_usd": "0",
    }


REFUSAL = Decision(
    rule="budget",
    outcome="deny",
    code="budget-exceeded",
    owner="session 01S",
    message="ogate: the session budget of $5 is spent ($4.98 spent, $0.00 reserved).",
    unit="usd",
    spent=4_980_000_000,
    limit=5_000_000_000,
    command="ogate budgets raise session 5",
)
LOOP = Decision(rule="runaway", outcome="warn", message="ogate: the same tool call 8 times.")


def test_what_rules_did_is_said_line_by_line() -> None:
    decided = Decided(
        refused=(Refused(code="budget-exceeded", requests=3, last=REFUSAL),),
        replaced=(Replaced(asked="acme/big", taken="acme/small", requests=2),),
        firings=tuple(Firing(exchange_id=SESSION.id, decision=LOOP) for _ in range(4)),
        lowered_requests=4,
        stopped_requests=1,
        waited_requests=2,
        waited_us=3_000_000,
        shadow_requests=1,
        excess_requests=1,
        excess_nano_usd=20_500_000,
    )
    budgets = (_standing(Owner("session", SESSION.id), "session", "5", 4_980_000_000),)
    screen = _screen(Summary(session=SESSION, totals=Totals(), decided=decided, budgets=budgets))
    lines = [" ".join(line.split()) for line in screen.splitlines()[4:]]
    assert lines == [
        "budget session $4.98 of $5.00",
        "warning 99 % of the session budget of $5 is used: $4.98 spent. It never begins anew."
        " → ogate budgets raise session 5",
        "refused 3 requests: the session budget of $5 is spent ($4.98 spent, $0.00 reserved)."
        " → ogate budgets raise session 5",
        "downgraded 2 requests: acme/small answered for acme/big",
        "limited 4 answers got a lower output limit, to fit what a budget had left"
        " · 1 answer cut at what was reserved",
        *["runaway the same tool call 8 times. → ogate policy why 01JD…W58K"] * 3,
        "runaway 1 more before these",
        "waited 3.0 s for rate limits, in 2 requests",
        "excess $0.0205 was billed beyond what was reserved, in 1 request",
        "shadow 1 request would have been refused by rules that only record",
    ]


def test_a_refusal_in_the_document_has_its_numbers() -> None:
    decided = Decided(refused=(Refused(code="budget-exceeded", requests=3, last=REFUSAL),))
    document = summary_document(Summary(session=SESSION, totals=Totals(), decided=decided))
    [refused] = document["rules"]["refused"]  # type: ignore[index]
    assert (refused["code"], refused["requests"]) == ("budget-exceeded", 3)
    assert (refused["last"]["spent"], refused["last"]["limit"]) == ("4.98", "5")
    assert refused["last"]["command"] == "ogate budgets raise session 5"


def test_amounts_in_the_document_are_exact_strings_or_null() -> None:
    document = summary_document(FULL)
    assert document["totals"]["cost_usd"] == "2.185"  # type: ignore[index]
    unknown = summary_document(EMPTY)["totals"]
    assert unknown == dict.fromkeys(T) | {
        "requests": 0,
        "cost_quality": "unknown",
        "unknown_cost_requests": 0,
    }
