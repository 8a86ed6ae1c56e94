"""The end of a session: the ledger completed, the comparison kept, and what to do about it."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from opencode_gate.agents.opencode.folders import agent_folders
from opencode_gate.catalog.rows import ProviderRow
from opencode_gate.config.paths import Paths, paths
from opencode_gate.core.clock import SystemClock
from opencode_gate.core.semconv import ConversationKind
from opencode_gate.core.usage import TokenUsage
from opencode_gate.ledger.records import ExchangeRecord
from opencode_gate.ledger.sqlite import SqliteStore, open_store
from opencode_gate.session.reconcile import account_for
from opencode_gate.session.reconciliation import Reason, decoded
from opencode_gate.session.summary import Summary
from tests.support.agent_database import AgentDatabase
from tests.support.ledger_records import a_session, an_exchange

FOLDER = "/home/u/repo"
START_MS = SystemClock().now_us() // 1000 - 60_000
"""The session began a minute ago; every other time of a test is counted from there."""


class Run:
    """A session that has just ended."""

    def __init__(self, where: Paths, environ: dict[str, str]) -> None:
        self.where = where
        self.environ = environ
        self.folders = agent_folders(environ)
        self.folders.data.mkdir(parents=True)
        self.opencode = AgentDatabase(self.folders.data / "opencode.db")
        self.session = a_session(id="01OURS", directory=FOLDER, started_at_us=START_MS * 1000)
        self.store.add_session(self.session)
        self.plan = SimpleNamespace(
            session=self.session,
            hidden=(),
            direct=(),
            rows=(ProviderRow(id="acme", name="Acme", base_url=None),),
            disable_default_plugins=False,
            resumes=None,
        )
        self.sign_ins: dict[str, str | None] = {}

    @property
    def store(self) -> SqliteStore:
        return open_store(self.where.ledger_file)

    def log(self, *conversation_ids: str) -> None:
        """Opencode's log names the run and its conversations."""
        lines = ["run=1 message=loading path=/r/01OURS/opencode.json"]
        lines += [f"run=1 message=created id={each}" for each in conversation_ids]
        (self.folders.data / "log").mkdir()
        (self.folders.data / "log/opencode.log").write_text("\n".join(lines))

    def conversation(self, id: str, **options) -> None:
        self.opencode.conversation(id, at=START_MS + 100, directory=FOLDER, **options)

    def answer(self, id: str, conversation_id: str, at_ms: int, model=("acme", "big")) -> None:
        """A turn that Opencode recorded."""
        start_ms = START_MS + at_ms
        self.opencode.turn(
            id, conversation_id, at=start_ms, until=start_ms + 40, model=model, tokens=(100, 7, 20)
        )

    def serve(self, at_ms: int, conversation_id: str | None = "ses_1", **changes) -> ExchangeRecord:
        """The exchange behind one."""
        exchange = an_exchange(
            session_id="01OURS",
            conversation_id=conversation_id,
            provider_name="acme",
            request_model="big",
            started_at_us=(START_MS + at_ms) * 1000,
            duration_us=10_000,
            usage=TokenUsage(input_uncached=100, cache_read=7, output=20),
            cost_nano_usd=250_000_000,
            **changes,
        )
        self.store.fold([exchange])
        return exchange

    def account(self) -> Summary:
        discovery = SimpleNamespace(folders=self.folders, sign_ins=self.sign_ins)
        return account_for(self.plan, discovery, self.where, self.environ)  # type: ignore[arg-type]


@pytest.fixture
def run(isolated_home: Path) -> Iterator[Run]:
    run = Run(paths(), {"HOME": str(isolated_home)})
    yield run
    run.opencode.close()


def test_the_ledger_learns_titles_prompts_and_modes_and_keeps_the_comparison(run: Run):
    run.conversation("ses_1", title="Mend the loom")
    run.opencode.prompt("msg_p", "ses_1", at=START_MS + 150, agent="plan")
    run.answer("msg_1", "ses_1", 200)
    run.serve(205)
    summary = run.account()
    assert summary.check == "Opencode counted the same: $0.2500"
    assert summary.resume == "ogate run -- -s ses_1"
    (conversation,) = run.store.conversations("01OURS")
    assert (conversation.title, conversation.directory) == ("Mend the loom", FOLDER)
    (exchange,) = run.store.exchanges("01OURS")
    assert (exchange.prompt_id, exchange.mode) == ("msg_p", "plan")
    document = run.store.reconciliation("01OURS")
    assert document is not None
    found = decoded(document)
    assert found is not None and found.differences == ()
    assert "Mend it." not in document


def test_a_request_without_a_conversation_gets_the_one_it_was_in(run: Run):
    run.conversation("ses_1")
    run.answer("msg_1", "ses_1", 200)
    run.serve(205, conversation_id=None)
    assert run.account().resume == "ogate run -- -s ses_1"
    (exchange,) = run.store.exchanges("01OURS")
    assert exchange.conversation_id == "ses_1"


def test_the_log_tells_whose_conversations_they_are(run: Run):
    """Ours though the gateway saw nothing of it, and not ours though it is in our folder."""
    run.conversation("ses_ours")
    run.conversation("ses_other")
    run.answer("msg_1", "ses_ours", 200, ("sneaky", "m"))
    run.answer("msg_2", "ses_other", 200, ("theirs", "m"))
    run.log("ses_ours")
    (bypass,) = run.account().bypass
    assert (bypass.provider_name, bypass.answers, bypass.is_certain) == ("sneaky", 1, True)


def test_a_conversation_taken_up_again_is_ours_whatever_the_log_lost(run: Run):
    """A run that ends at once leaves a log without its last lines."""
    run.conversation("ses_resumed")
    run.answer("msg_1", "ses_resumed", 200, ("sneaky", "m"))
    run.log()
    run.plan.resumes = "ses_resumed"
    (bypass,) = run.account().bypass
    assert (bypass.provider_name, bypass.answers, bypass.is_certain) == ("sneaky", 1, True)


def test_without_the_log_a_stranger_in_the_folder_is_named_with_a_doubt(run: Run):
    """But for conversations that another session of ogate served."""
    run.conversation("ses_stranger")
    run.conversation("ses_sibling")
    run.answer("msg_1", "ses_stranger", 200, ("sneaky", "m"))
    run.answer("msg_2", "ses_sibling", 200)
    run.store.add_session(a_session(id="01SIBLING", started_at_us=START_MS * 1000))
    run.store.fold([an_exchange(session_id="01SIBLING", conversation_id="ses_sibling")])
    (bypass,) = run.account().bypass
    assert (bypass.provider_name, bypass.is_certain) == ("sneaky", False)


@pytest.mark.parametrize(
    ("provider_id", "signed_in", "disabled", "mend"),
    [
        ("sneaky", False, False, "ogate keys add sneaky"),
        ("acme", True, False, "ogate providers edit acme --subscription key"),
        ("acme", True, True, "ogate doctor"),
        ("acme", False, False, "ogate doctor"),
    ],
)
def test_a_bypass_comes_with_the_command_that_mends_it(
    run: Run, provider_id: str, signed_in: bool, disabled: bool, mend: str
):
    """No key, a sign-in whose plugin rewrites the address, or something only a look can find."""
    run.sign_ins = {provider_id: None} if signed_in else {}
    run.plan.disable_default_plugins = disabled
    run.conversation("ses_1")
    run.answer("msg_1", "ses_1", 200, (provider_id, "m"))
    run.log("ses_1")
    (bypass,) = run.account().bypass
    assert bypass.mend == mend


def test_a_subscription_left_direct_needs_no_mending(run: Run):
    run.plan.direct = ("plan",)
    run.conversation("ses_1")
    run.answer("msg_1", "ses_1", 200, ("plan", "m"))
    run.log("ses_1")
    (bypass,) = run.account().bypass
    assert (bypass.is_expected, bypass.mend) == (True, None)


def test_a_sub_agent_that_alone_passed_the_gateway_leads_back_to_its_conversation(run: Run):
    run.conversation("ses_1")
    run.conversation("ses_sub", parent="ses_1", agent="explore")
    run.answer("msg_1", "ses_1", 200, ("sneaky", "m"))
    run.answer("msg_2", "ses_sub", 210)
    run.serve(215, conversation_id="ses_sub")
    summary = run.account()
    assert summary.resume == "ogate run -- -s ses_1"
    assert [bypass.provider_name for bypass in summary.bypass] == ["sneaky"]
    kinds = {each.id: each.kind for each in run.store.conversations("01OURS")}
    assert kinds == {"ses_1": ConversationKind.MAIN, "ses_sub": ConversationKind.SUBAGENT}


@pytest.mark.parametrize("damage", ["DROP TABLE part", "DROP TABLE message", "DROP TABLE session"])
def test_a_changed_database_costs_only_the_comparison(run: Run, damage: str):
    run.conversation("ses_1")
    run.answer("msg_1", "ses_1", 200)
    run.serve(205)
    run.opencode.connection.execute(damage)
    summary = run.account()
    assert summary.totals.requests == 1
    assert (summary.check, summary.bypass, summary.resume) == (None, (), None)
    assert run.store.reconciliation("01OURS") is None


def test_a_second_account_of_the_same_session_says_the_same(run: Run):
    """The command may be interrupted and run again."""
    run.conversation("ses_1")
    run.answer("msg_1", "ses_1", 200)
    run.serve(205)
    run.serve(210, kind=ConversationKind.TITLE)
    first, second = run.account(), run.account()
    assert first == second
    document = run.store.reconciliation("01OURS")
    assert document is not None
    found = decoded(document)
    assert found is not None
    assert [difference.reason for difference in found.differences] == [Reason.TITLES]
