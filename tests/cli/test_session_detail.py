"""`ogate sessions show`: the tree, the prompts, the modes, the comparison, and what-if."""

import json
from pathlib import Path
from typing import Any

import pytest

from opencode_gate.cli.main import main
from opencode_gate.config.paths import paths
from opencode_gate.core.semconv import ConversationKind
from opencode_gate.core.usage import TokenUsage
from opencode_gate.ledger.records import ConversationRecord, ExchangeRecord, SessionRecord
from opencode_gate.ledger.sqlite import open_store
from opencode_gate.session.check_line import WORDS
from opencode_gate.session.reconciliation import (
    Bypass,
    Difference,
    Figures,
    Reason,
    Reconciled,
    Reconciliation,
    encoded,
)
from tests.support.agent_database import AgentDatabase
from tests.support.ledger_records import NOON_US, a_session, an_exchange

MINUTE_US = 60_000_000
SESSION = a_session(id="01JDABCDEFGHJKMNPQRSTVW58K", ended_at_us=NOON_US + 42 * MINUTE_US)


def _call(minute: float, cost_usd: str, **changes: Any) -> ExchangeRecord:
    fields: dict[str, Any] = {
        "session_id": SESSION.id,
        "started_at_us": NOON_US + round(minute * MINUTE_US),
        "duration_us": MINUTE_US,
        "conversation_id": "ses_1",
        "kind": ConversationKind.MAIN,
        "provider_name": "acme",
        "request_model": "m",
        "response_model": "m",
        "usage": TokenUsage(input_uncached=1000, cache_read=3000, output=100),
        "cost_nano_usd": round(float(cost_usd) * 10**9),
        "prompt_id": "msg_1",
        "mode": "plan",
    }
    return an_exchange(**{**fields, **changes})


CALLS = [
    _call(0, "0.5"),
    _call(0.5, "0.01", kind=ConversationKind.TITLE),
    _call(
        1,
        "0.25",
        conversation_id="ses_2",
        parent_conversation_id="ses_1",
        kind=ConversationKind.SUBAGENT,
    ),
    _call(
        3,
        "0.125",
        conversation_id="ses_3",
        parent_conversation_id="ses_2",
        kind=ConversationKind.SUBAGENT,
    ),
    _call(10, "1", prompt_id="msg_2", mode="build"),
    _call(20, "0.05", prompt_id="msg_2", mode="build", kind=ConversationKind.COMPACTION),
    _call(30, "0.0625", conversation_id="ses_9", prompt_id=None, mode=None),
]
CONVERSATIONS = [
    ConversationRecord(id="ses_1", session_id=SESSION.id, title="Fix the loom"),
    ConversationRecord(
        id="ses_2",
        session_id=SESSION.id,
        parent_id="ses_1",
        title="Find usages",
        kind=ConversationKind.SUBAGENT,
        agent_name="explore",
        directory="/elsewhere",
    ),
]  # fmt: skip
DONE = Figures(requests=7, input_tokens=28_000, output_tokens=700, cost_nano_usd=1_997_500_000)
SEEN = Figures(requests=3, input_tokens=12_000, output_tokens=300, cost_nano_usd=1_512_500_000)
COMPARED = Reconciliation(
    ledger=DONE,
    agent=SEEN,
    reported=Figures(),
    unpriced_requests=2,
    rows=(
        Reconciled(
            conversation_id="ses_1",
            parent_id=None,
            title="Fix the loom",
            ledger=Figures(cost_nano_usd=1_560_000_000),
            agent=Figures(cost_nano_usd=1_500_000_000),
            running_total=Figures(cost_nano_usd=1_500_000_000),
            reported=Figures(requests=1, cost_nano_usd=5_000_000),
        ),
        Reconciled(
            conversation_id="ses_2",
            parent_id="ses_1",
            title="Find usages",
            ledger=Figures(cost_nano_usd=250_000_000),
            agent=Figures(cost_nano_usd=250_000_000),
            running_total=None,
            reported=Figures(),
        ),
    ),
    differences=(
        Difference(
            reason=Reason.SUB_AGENTS,
            cases=2,
            figures=Figures(
                requests=2, input_tokens=8000, output_tokens=200, cost_nano_usd=375_000_000
            ),
        ),
        Difference(
            reason=Reason.TITLES,
            cases=2,
            figures=Figures(
                requests=3, input_tokens=12_000, output_tokens=300, cost_nano_usd=122_500_000
            ),
        ),
        Difference(
            reason=Reason.BYPASS,
            cases=1,
            figures=Figures(
                requests=-1, input_tokens=-4000, output_tokens=-100, cost_nano_usd=-12_500_000
            ),
        ),
    ),
    bypasses=(
        Bypass(provider_name="openai", model="gpt", answers=1, mend="ogate keys add openai"),
        Bypass(provider_name="anthropic", model="claude", answers=4, is_expected=True),
    ),
)  # fmt: skip


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    record(CALLS, CONVERSATIONS, COMPARED)


def record(
    calls: list[ExchangeRecord],
    conversations: list[ConversationRecord],
    compared: Reconciliation | None = None,
    session: SessionRecord = SESSION,
) -> None:
    store = open_store(paths().ledger_file)
    store.add_session(session)
    if session.ended_at_us is not None:
        store.end_session(session.id, ended_at_us=session.ended_at_us, exit_status=0)
    store.fold(calls)
    store.put_conversations(conversations)
    if compared is not None:
        store.put_reconciliation(session.id, encoded(compared))
    store.close()


def show(capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    assert main(["sessions", "show", SESSION.id, *flags]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def document(capsys: pytest.CaptureFixture[str], *flags: str) -> Any:
    return json.loads(show(capsys, *flags, "--json"))


def typed(monkeypatch: pytest.MonkeyPatch, **texts: str) -> None:
    """Lets Opencode's database have these prompts."""
    monkeypatch.setattr(
        "opencode_gate.agents.opencode.run_record.prompt_texts",
        lambda _, ids: {id: text for id, text in texts.items() if id in ids},
    )


@pytest.mark.usefixtures("ledger")
def test_the_screen(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    typed(monkeypatch, msg_1="  Plan\n the\tloom  ", msg_2="Build it. " * 20)
    _, _, rest = show(capsys).partition("resume ")
    assert (
        rest.partition("\n")[2]
        == """
conversation                                        requests    input   cached   output      cost     time
Fix the loom                                               6   24.0 k     75 %      600   $ 1.935   21 min
├─ its own turns                                           2    8.0 k     75 %      200   $ 1.500
├─ title                                                   1    4.0 k     75 %      100   $ 0.010    1 min
├─ sub-agent explore: Find usages (in /elsewhere)          2    8.0 k     75 %      200   $ 0.375    3 min
│  ├─ its own turns                                        1    4.0 k     75 %      100   $ 0.250
│  └─ sub-agent: ses_3                                     1    4.0 k     75 %      100   $ 0.125    1 min
└─ compaction                                              1    4.0 k     75 %      100   $ 0.050    1 min
ses_9                                                      1    4.0 k     75 %      100   $ 0.063    1 min

at      mode    prompt                                                         requests    input   cached   output      cost
12:00   plan    Plan the loom                                                         4   16.0 k     75 %      400   $ 0.885
12:10   build   Build it. Build it. Build it. Build it. Build it. Build it.…          2    8.0 k     75 %      200   $ 1.050
12:30   –       of no known prompt                                                    1    4.0 k     75 %      100   $ 0.063

mode    prompts   requests    input   cached   output      cost
build         1          2    8.0 k     75 %      200   $ 1.050
plan          1          4   16.0 k     75 %      400   $ 0.885
–             0          1    4.0 k     75 %      100   $ 0.063
"""  # noqa: E501
    )


@pytest.mark.usefixtures("ledger")
def test_the_lines_under_a_conversation_add_up_to_it(capsys: pytest.CaptureFixture[str]) -> None:
    """Sub-agents roll up to their root, theirs to them."""

    def check(node: Any) -> None:
        cost = float(node["rolled_up"]["cost_usd"])
        own = float(node["own"]["cost_usd"] or 0)
        below = sum(float(child["rolled_up"]["cost_usd"]) for child in node["children"])
        assert cost == pytest.approx(own + below)
        for child in node["children"]:
            check(child)

    found = document(capsys)
    for node in found["tree"]:
        check(node)
    assert sum(float(node["rolled_up"]["cost_usd"]) for node in found["tree"]) == pytest.approx(
        float(found["totals"]["cost_usd"])
    )
    for name in ("prompts", "modes"):
        assert sum(float(one["cost_usd"]) for one in found[name]) == pytest.approx(1.9975)


@pytest.mark.usefixtures("ledger")
def test_what_was_typed_is_shown_to_the_person_and_kept_out_of_documents(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A document may lie around; the ledger never had the text."""
    typed(monkeypatch, msg_1="vermilion-question")
    assert "vermilion-question" in show(capsys)
    found = show(capsys, "--json")
    assert "vermilion-question" not in found
    assert [prompt["prompt_id"] for prompt in json.loads(found)["prompts"]] == [
        "msg_1",
        "msg_2",
        None,
    ]
    assert all(
        b"vermilion" not in file.read_bytes() for file in paths().data.rglob("*") if file.is_file()
    )


@pytest.mark.usefixtures("ledger")
def test_without_opencodes_database_a_prompt_is_its_id(capsys: pytest.CaptureFixture[str]) -> None:
    screen = show(capsys)
    assert "12:00   plan    msg_1 " in screen


@pytest.mark.usefixtures("ledger")
def test_the_document_has_the_tree_nested(capsys: pytest.CaptureFixture[str]) -> None:
    root, other = document(capsys)["tree"]
    assert (root["id"], root["kind"], root["title"]) == ("ses_1", "main", "Fix the loom")
    title, sub, compaction = root["children"]
    assert (title["kind"], compaction["kind"]) == ("title", "compaction")
    assert (sub["agent_name"], sub["directory"], sub["duration_s"]) == (
        "explore",
        "/elsewhere",
        180.0,
    )
    assert [child["id"] for child in sub["children"]] == ["ses_3"]
    assert (other["id"], other["children"]) == ("ses_9", [])


def test_a_session_nobody_annotated_has_its_tree_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """No empty tables, and no mode called nothing."""
    record([_call(0, "1", prompt_id=None, mode=None)], [])
    screen = show(capsys)
    assert "conversation " in screen
    assert "prompt" not in screen
    assert "mode " not in screen


def test_calls_without_a_conversation_have_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    record([_call(0, "1", conversation_id=None)], [])
    assert "calls that named no conversation" in show(capsys)


@pytest.mark.usefixtures("ledger")
def test_the_summary_says_again_what_its_end_said(capsys: pytest.CaptureFixture[str]) -> None:
    screen = show(capsys)
    assert "not counted: 1 answer of openai/gpt did not pass the gateway: ogate keys add" in screen
    assert "4 answers of anthropic/claude not through the gateway, covered by plan" in screen
    assert "check             Opencode counted $1.51, ogate $2.00 + ?: sub-agents +$0.38" in screen


@pytest.mark.usefixtures("ledger")
def test_the_comparison_adds_up_column_by_column(capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, "--reconcile")["reconciliation"]
    for column in ("requests", "input_tokens", "output_tokens", "cost_usd"):
        left = float(found["opencode"][column])
        steps = sum(float(difference[column]) for difference in found["differences"])
        assert left + steps == pytest.approx(float(found["ogate"][column]))
    [ours, theirs] = found["bypasses"]
    assert (ours["mend"], ours["is_expected"]) == ("ogate keys add openai", False)
    assert (theirs["mend"], theirs["is_expected"]) == (None, True)


@pytest.mark.usefixtures("ledger")
def test_the_screen_of_the_comparison(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        show(capsys, "--reconcile")
        == """\
ogate · session 01JD…W58K · engine (main) · 42 min · compared with Opencode

                                          requests     input   output           cost
Opencode counted                                 3    12,000      300       $ 1.5125
  sub-agents                                    +2    +8,000     +200     + $ 0.3750
  titles                                        +3   +12,000     +300     + $ 0.1225
  answers that did not pass the gateway         -1    -4,000     -100     − $ 0.0125
ogate counted                                    7    28,000      700   $ 1.9975 + ?

not counted: 1 answer of openai/gpt did not pass the gateway: ogate keys add openai
4 answers of anthropic/claude not through the gateway, covered by plan

conversation       ogate   Opencode   its total   reported
Fix the loom    $ 1.5600   $ 1.5000    $ 1.5000   $ 0.0050
  Find usages   $ 0.2500   $ 0.2500           –          –

2 requests of unknown cost: in no amount here
"""
    )


def test_a_session_that_was_not_compared_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    record(CALLS, CONVERSATIONS)
    assert "not compared: " in show(capsys, "--reconcile")
    assert document(capsys, "--reconcile")["reconciliation"] is None


def test_every_reason_has_words() -> None:
    assert set(WORDS) == set(Reason)


@pytest.mark.usefixtures("ledger")
def test_a_session_is_priced_on_other_models(capsys: pytest.CaptureFixture[str]) -> None:
    """7 requests of 1000 + 3000 cached in and 100 out at $3, $0.30 and $15 a million."""
    found = document(capsys, "--what-if", "anthropic/claude-sonnet-4-5,openai/gpt-5")["what_if"]
    assert [one["model"] for one in found["models"]] == ["claude-sonnet-4-5", "gpt-5"]
    assert found["actual"]["cost_usd"] == "1.9975"
    assert float(found["models"][0]["cost_usd"]) == pytest.approx(
        7 * (1000 * 3 + 3000 * 0.3 + 100 * 15) / 1e6
    )
    assert "as it was" in show(capsys, "--what-if", "openai/gpt-5")


@pytest.mark.parametrize(
    "flags",
    [
        ("--cache", "--reconcile"),
        ("--cache", "--what-if", "a/b"),
        ("--reconcile", "--what-if", "a/b"),
    ],
)
def test_one_view_at_a_time(capsys: pytest.CaptureFixture[str], flags: tuple[str, ...]) -> None:
    assert main(["sessions", "show", *flags]) == 2
    assert "only one of" in capsys.readouterr().err


def test_prompts_come_from_opencodes_own_database(
    isolated_home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it is, and as it is stored there."""
    monkeypatch.setenv("TZ", "UTC")
    record(CALLS, CONVERSATIONS)
    (isolated_home / ".local/share/opencode").mkdir(parents=True)
    database = AgentDatabase(isolated_home / ".local/share/opencode/opencode.db")
    database.conversation("ses_1", at=10)
    text = {"type": "text", "text": "Mend the loom"}
    database.prompt("msg_1", "ses_1", at=20, parts=[text])
    database.close()
    assert "plan    Mend the loom" in show(capsys)
