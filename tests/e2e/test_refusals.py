"""What Opencode does when a rule says no: it shows our sentence, asks no more, and can go on.

Every refused turn is one request to the gateway and none to the provider. Calls that only make
a title are kept away (`--title`) or looked at apart.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from msgspec.structs import replace

from opencode_gate.config.editing import set_values
from opencode_gate.config.paths import paths
from opencode_gate.core.semconv import ConversationKind, ExchangeStatus, WireFormat
from opencode_gate.governance.policy import Budget, Owner, RateLimit, Rules, Team
from opencode_gate.governance.standing import read_policy
from opencode_gate.governance.stopping import BUDGET_STOP
from opencode_gate.ledger.governance_store import WindowKey
from opencode_gate.ledger.records import ExchangeRecord
from opencode_gate.ledger.sqlite import open_store
from opencode_gate.ledger.sqlite.governance import open_governance
from opencode_gate.session.decided import decisions_of
from opencode_gate.session.operator import os_user
from opencode_gate.wire.refusals import RETRY_PATTERN, neutralise
from tests.support.four_formats import (
    ANSWER,
    BASES,
    END_OF_SAGA,
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    FourFormats,
    four_formats,
)
from tests.support.launcher import ledger
from tests.support.real_session import Person, query, until
from tests.support.rules import give
from tests.support.terminal_screen import TerminalScreen

pytestmark = pytest.mark.e2e

DOLLAR = 1_000_000_000
PLAIN = ("--title", "T")
"""A session that has a title asks for none."""


@pytest.fixture
def provider() -> Iterator[FourFormats]:
    with four_formats() as running:
        yield running


@pytest.fixture
def person(tmp_path: Path) -> Person:
    return Person(tmp_path)


def offer(
    provider: FourFormats,
    model: str = "m-1",
    *,
    wire: WireFormat = WireFormat.OPENAI_CHAT,
    provider_id: str = "own",
    input_usd: float = 1.0,
    output_usd: float = 500.0,
) -> None:
    """Tells `ogate` of the provider, and what a million tokens cost there."""
    own, price = ("providers", provider_id), ("prices", f"{provider_id}/{model}")
    set_values(
        paths(),
        {
            (*own, "base_url"): provider.base_url(wire),
            (*own, "wire"): wire.value,
            (*own, "keyless"): True,
            (*own, "models", model, "context"): 100_000,
            (*own, "models", model, "output"): 4_000,
            (*price, "input"): input_usd,
            (*price, "output"): output_usd,
        },
    )


def order(*given: tuple[Owner, Rules | None]) -> None:
    """Puts rules in force."""
    open_store(paths().ledger_file).close()
    give(paths().ledger_file, *given)


def me() -> Owner:
    return Owner("user", os_user())


def prompt(
    person: Person, text: str, *options: str, model: str = "own/m-1", agent: Sequence[str] = PLAIN
) -> CompletedProcess[str]:
    """`ogate run OPTIONS -- run TEXT`."""
    return person.ogate("run", "--no-input", *options, "--", "run", *agent, "-m", model, text)


def errors_shown(complaints: str) -> list[str]:
    """What Opencode shows as errors, without colours."""
    plain = re.sub(r"\x1b\[[\d;]*m", "", complaints)
    return re.findall(r"^Error: (.*)$", plain, re.MULTILINE)


def turns() -> list[ExchangeRecord]:
    """The exchanges of the last session that are no title calls."""
    return [one for one in ledger().exchanges if one.kind is not ConversationKind.TITLE]


def refusals() -> list[ExchangeRecord]:
    return [one for one in turns() if one.status is ExchangeStatus.DENIED]


def sentence_of(refused: ExchangeRecord) -> str:
    """What the one who was refused has to be shown."""
    denial = decisions_of(refused)[-1]
    assert denial.outcome == "deny"
    return f"{denial.message} ({denial.command})"


def assert_refused_once(done: CompletedProcess[str], code: str) -> str:
    """Opencode said exactly why, once, and failed; returns the sentence as it was meant."""
    assert done.returncode == 1, done.stderr
    [refused] = refusals()
    assert refused.denial == code
    sentence = sentence_of(refused)
    assert errors_shown(done.stderr) == [neutralise(sentence)]
    assert RETRY_PATTERN.search(errors_shown(done.stderr)[0]) is None
    return sentence


@pytest.mark.parametrize("wire", BASES)
def test_a_spent_budget_ends_the_turn_with_one_request_and_our_sentence(
    person: Person, provider: FourFormats, wire: WireFormat
) -> None:
    offer(provider, wire=wire)
    done = prompt(person, "hello", "--budget", "0.01", agent=())
    sentence = assert_refused_once(done, "budget-exceeded")
    assert "the session budget of $0.01" in sentence
    assert sentence.endswith("(ogate budgets raise session 4)")
    assert provider.arrived == []
    titles = [one for one in ledger().exchanges if one.kind is ConversationKind.TITLE]
    assert [one.status for one in titles] == [ExchangeStatus.DENIED]
    assert turns()[0].wire_format is wire


@pytest.mark.parametrize(
    ("allow", "code", "said"),
    [
        ("own/other-*", "model-denied", "virtual key ci may not use own/m-1. Allowed: own/other-*"),
        ("elsewhere/*", "provider-denied", "virtual key ci may not use provider own."),
    ],
)
def test_what_is_not_on_the_list_of_a_key_ends_the_turn(
    person: Person, provider: FourFormats, allow: str, code: str, said: str
) -> None:
    offer(provider)
    person.configure("vkeys", "create", "ci", "--allow", allow)
    done = prompt(person, "hello", "--vkey", "ci")
    assert said in assert_refused_once(done, code)
    assert provider.arrived == []


def in_a_held_turn(
    person: Person, provider: FourFormats, meanwhile: Callable[[], None], *options: str
) -> CompletedProcess[str]:
    """A turn of two requests, with something done while the first one is answered."""
    words = ("run", "--no-input", *options, "--", "run", *PLAIN, "-m", "own/m-1", "hold, look")
    with person.started(*words) as process:
        until(lambda: len(provider.turns) == 1, "the first request")
        meanwhile()
        provider.release.set()
        said, complained = process.communicate(timeout=60)
    return CompletedProcess(words, process.returncode, said, complained)


def assert_second_request_refused(provider: FourFormats) -> None:
    statuses = [one.status for one in turns()]
    assert statuses == [ExchangeStatus.COMPLETED, ExchangeStatus.DENIED]
    assert len(provider.arrived) == 1


def test_a_key_that_is_switched_off_ends_the_turn_that_runs(
    person: Person, provider: FourFormats
) -> None:
    offer(provider)
    person.configure("vkeys", "create", "ci")
    done = in_a_held_turn(
        person, provider, lambda: person.configure("vkeys", "disable", "ci"), "--vkey", "ci"
    )
    sentence = assert_refused_once(done, "virtual-key-disabled")
    assert sentence == "ogate: virtual key ci is switched off. (ogate vkeys enable ci)"
    assert_second_request_refused(provider)
    again = prompt(person, "hello", "--vkey", "ci")
    assert (again.returncode, len(provider.arrived)) == (125, 1)
    assert "hint: ogate vkeys enable ci" in again.stderr


def test_a_key_that_expires_ends_the_turn_that_runs(person: Person, provider: FourFormats) -> None:
    """It holds when the session starts, and no longer when the model has thought."""
    offer(provider)
    person.configure("vkeys", "create", "ci")
    store = open_governance(paths().ledger_file)
    key = read_policy(store).virtual_keys["ci"]
    store.close()
    ends_at = datetime.now(UTC)

    def soon_over() -> None:
        nonlocal ends_at
        ends_at = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=2)
        order((Owner("vkey", "ci"), replace(key, expires_at=ends_at.isoformat())))
        until(lambda: datetime.now(UTC) > ends_at, "the end of the key")

    done = in_a_held_turn(person, provider, soon_over, "--vkey", "ci")
    sentence = assert_refused_once(done, "virtual-key-expired")
    at = f"{ends_at:%Y-%m-%d %H:%M:%S}".removesuffix(":00")
    assert sentence == f"ogate: virtual key ci has expired: {at} (UTC). (ogate vkeys rotate ci)"
    assert_second_request_refused(provider)


def test_a_limit_that_clears_in_an_hour_ends_the_turn(
    person: Person, provider: FourFormats
) -> None:
    offer(provider)
    order((me(), Rules(limits=(RateLimit(requests=1, per="hour"),))))
    done = in_a_held_turn(person, provider, lambda: None)
    sentence = assert_refused_once(done, "rate-limited")
    assert f"user {os_user()} may make 1 request in any hour, and has." in sentence
    assert turns()[-1].http_status == 402
    assert_second_request_refused(provider)


def test_a_limit_that_clears_soon_is_waited_out_without_a_word(
    person: Person, provider: FourFormats
) -> None:
    """Title and answer want to run at once and may not: the later one waits in the gateway."""
    offer(provider)
    provider.thinks_s = 1.5
    order((me(), Rules(limits=(RateLimit(concurrent=1),))))
    done = prompt(person, "hello", agent=())
    assert (done.returncode, errors_shown(done.stderr)) == (0, [])
    assert ANSWER in done.stdout
    asked = ledger().exchanges
    assert [one.status for one in asked] == [ExchangeStatus.COMPLETED] * 2
    [waited] = [one for one in asked if one.decisions is not None]
    [decision] = decisions_of(waited)
    assert (decision.rule, decision.outcome) == ("rate", "wait")
    assert waited.queued_us is not None
    assert waited.queued_us > 500_000
    assert len(provider.arrived) == 2


def test_a_limit_that_takes_a_while_is_waited_out_by_opencode_itself(
    person: Person, provider: FourFormats
) -> None:
    """Title and answer may not run at once; the later one is told when to come back."""
    offer(provider)
    provider.holds = True
    order((me(), Rules(limits=(RateLimit(concurrent=1),))))

    def denied() -> list[ExchangeRecord]:
        return [one for one in ledger().exchanges if one.status is ExchangeStatus.DENIED]

    with person.started("run", "--no-input", "--", "run", "-m", "own/m-1", "hello") as process:
        until(lambda: provider.arrived and denied(), "a refusal")
        provider.release.set()
        said, complained = process.communicate(timeout=60)
    assert (process.returncode, errors_shown(complained)) == (0, [])
    assert ANSWER in said
    assert {(one.http_status, one.denial) for one in denied()} == {(429, "rate-limited")}
    assert len(provider.turns) == 1


@pytest.mark.parametrize("amount", ["500", "429.50", "1,503"])
def test_amounts_and_names_that_look_like_statuses_still_make_one_request(
    person: Person, provider: FourFormats, amount: str
) -> None:
    offer(provider, "gpt-4-0429", input_usd=1_000_000, output_usd=1_000_000)
    budget = Budget(window="month", usd=Decimal(amount.replace(",", "")))
    order((Owner("team", "team-502"), Team(budgets=(budget,))))
    person.configure("vkeys", "create", "ci-503", "--team", "team-502")
    done = prompt(person, "hello", "--vkey", "ci-503", model="own/gpt-4-0429")
    sentence = assert_refused_once(done, "budget-exceeded")
    assert f"the monthly budget of ${amount} of team team-502" in sentence
    assert sentence.endswith("--team team-502)")
    assert provider.arrived == []


def test_a_model_whose_name_looks_like_a_status_is_refused_once(
    person: Person, provider: FourFormats
) -> None:
    offer(provider, "gpt-4-0429", provider_id="team-502")
    person.configure("vkeys", "create", "ci-503", "--deny", "*/gpt-4-0429")
    done = prompt(person, "hello", "--vkey", "ci-503", model="team-502/gpt-4-0429")
    sentence = assert_refused_once(done, "model-denied")
    assert "virtual key ci-503 may not use team-502/gpt-4-0429: */gpt-4-0429 is denied" in sentence
    assert provider.arrived == []


@pytest.mark.parametrize("wire", BASES)
def test_an_answer_beyond_its_budget_is_cut_and_the_retry_is_told_why(
    person: Person, provider: FourFormats, wire: WireFormat
) -> None:
    """The story would cost some 1.45 USD, and the provider keeps to no limit."""
    offer(provider, wire=wire)
    done = prompt(person, "tell the saga", "--budget", "1")
    assert done.returncode == 1
    cut, refused = turns()
    assert (cut.status, cut.error_type) == (ExchangeStatus.INTERRUPTED, BUDGET_STOP)
    assert cut.output_limit_tokens is not None
    assert cut.cost_nano_usd is not None
    assert DOLLAR * 8 // 10 < cut.cost_nano_usd <= DOLLAR
    assert refused.status is ExchangeStatus.DENIED
    assert refused.decisions is not None
    [shown] = errors_shown(done.stderr)
    assert shown == neutralise(sentence_of(refused))
    assert "the answer was cut" in shown
    assert len(provider.arrived) == 1
    assert END_OF_SAGA not in done.stdout
    assert "1 answer cut at what was reserved" in done.stderr
    assert "refused   1 request: the answer was cut" in done.stderr


def test_two_sessions_share_a_day(person: Person, provider: FourFormats) -> None:
    """Both want more than half of it: one gets it, the other is cut where it ends."""
    offer(provider, output_usd=100)
    budget = Budget(window="day", usd=Decimal("0.5"))
    order((me(), Rules(budgets=(budget,))))
    words = ("run", "--no-input", "--", "run", *PLAIN, "-m", "own/m-1", "hold, tell the saga")
    database = person.home / ".local/share/opencode/opencode.db"
    answers = "SELECT id FROM message WHERE data ->> 'role' = 'assistant'"
    with person.started(*words) as one:
        # An Opencode that starts while another makes the database of a new home fails.
        until(lambda: provider.arrived, "the first request")
        with person.started(*words) as other:
            until(lambda: len(query(database, answers)) == 2, "the second request")
            provider.release.set()
            said = [process.communicate(timeout=60) for process in (one, other)]
            assert sorted([one.returncode, other.returncode]) == [0, 1], said
    assert len(provider.arrived) == 2, said
    assert sum(END_OF_SAGA in out for out, _ in said) == 1
    [shown] = errors_shown(said[0][1] + said[1][1])
    assert "your daily budget of $0.50" in shown
    store = open_governance(paths().ledger_file)
    [(budget_id, start_us)] = store.latest_windows([budget.id_for(me())]).items()
    standing = store.standings([WindowKey(budget_id, start_us)])[WindowKey(budget_id, start_us)]
    store.close()
    assert standing.held == 0
    assert DOLLAR * 4 // 10 < standing.spent <= DOLLAR // 2


def test_a_session_under_a_key_is_counted_for_it_its_team_and_its_customer(
    person: Person, provider: FourFormats
) -> None:
    offer(provider)
    person.configure("customers", "create", "acme")
    person.configure("teams", "create", "core", "--customer", "acme")
    person.configure("vkeys", "create", "ci", "--team", "core")
    assert prompt(person, "hello", "--vkey", "ci").returncode == 0
    assert prompt(person, "hello").returncode == 0
    cost_usd = Decimal(INPUT_TOKENS + 500 * OUTPUT_TOKENS) / 10**6
    for group, name in (("vkey", "ci"), ("team", "core"), ("customer", "acme")):
        told = person.ogate("usage", "--by", group, "--json")
        rows = json.loads(told.stdout)["rows"]
        assert {row[group]: row["requests"] for row in rows} == {name: 1, None: 1}
        assert {Decimal(str(row["cost_usd"])) for row in rows} == {cost_usd}


def test_a_cheaper_model_answers_at_the_end_of_a_budget_and_the_summary_says_so(
    person: Person, provider: FourFormats
) -> None:
    offer(provider)
    offer(provider, "cheap", output_usd=1)
    budget = Budget(window="day", usd=Decimal("0.3"), at_end="downgrade:own/cheap")
    order((me(), Rules(budgets=(budget,))))
    done = prompt(person, "hello")
    assert (done.returncode, errors_shown(done.stderr)) == (0, [])
    assert ANSWER in done.stdout
    assert [one.model for one in provider.arrived] == ["cheap"]
    assert re.search("downgraded +1 request: own/cheap answers instead of own/m-1", done.stderr)
    [record] = turns()
    assert (record.downgraded_from, record.response_model) == ("m-1", "cheap")


def test_what_is_foretold_of_each_request_is_what_happens(
    person: Person, provider: FourFormats
) -> None:
    """Asked before each run with the size of the requests that Opencode really makes."""
    offer(provider)
    offer(provider, "cheap", output_usd=1)
    assert prompt(person, "hello").returncode == 0
    tokens = str(len(json.dumps(provider.turns[0].body)) // 4)

    def day(usd: str, **more: str) -> Rules:
        return Rules(budgets=(Budget(window="day", usd=Decimal(usd), **more),))

    for rules, outcome in (
        (day("1.5"), "lower"),
        (day("0.3", at_end="downgrade:own/cheap"), "downgrade"),
        (day("0.3"), "deny"),
    ):
        order((me(), rules))
        foretold = person.ogate(
            "policy", "check", "--model", "own/m-1", "--tokens", tokens, "--json"
        )
        told = json.loads(foretold.stdout)
        done = prompt(person, "hello")
        assert (foretold.returncode, done.returncode) == ((7, 1) if outcome == "deny" else (0, 0))
        [record] = turns()
        assert record.denial == told["code"]
        assert (record.status is ExchangeStatus.DENIED) is not told["allowed"]
        assert [one["outcome"] for one in told["decisions"]] == [outcome]
        assert [one.outcome for one in decisions_of(record)] == [outcome]
        if told["allowed"]:
            assert f"own/{provider.turns[-1].model}" == told["answered_by"]
        if told["output_limit_tokens"] is not None:
            assert record.output_limit_tokens is not None
            assert abs(record.output_limit_tokens / told["output_limit_tokens"] - 1) < 0.02


@pytest.fixture
def screen(person: Person, tmp_path: Path) -> Iterator[TerminalScreen]:
    """A shell in the project."""
    environ = person.shell_environ()
    with TerminalScreen(tmp_path, columns=120, rows=40, environ=environ) as terminal:
        terminal.run(["cd", str(person.project)])
        yield terminal


def start(screen: TerminalScreen, *options: str) -> None:
    """Opencode's screen, drawn and waiting for a prompt."""
    screen.run(["ogate", "run", "--model", "own/m-1", *options])
    screen.wait_for("Ask anything")


def ask(screen: TerminalScreen, text: str) -> None:
    """Types a prompt and sends it."""
    screen.type(text)
    screen.wait_for(text)
    screen.press("Enter")


def leave(screen: TerminalScreen) -> str:
    """Ends Opencode; the screen with the account."""
    screen.type("/exit")
    screen.wait_for(lambda text: re.search(r"/exit +\w", text) is not None)
    screen.press("Enter")
    return screen.wait_for(
        lambda text: re.search(r"resume +ogate run -- -s ses_", text) is not None
    )


def joined(screen_text: str) -> str:
    """The words on a screen, whatever lines and frames they are broken into."""
    return " ".join(re.sub("[\u2060┃│█▀▄]", " ", screen_text).split())


def test_on_the_screen_a_raised_budget_lets_the_same_prompt_go_on(
    screen: TerminalScreen, person: Person, provider: FourFormats
) -> None:
    offer(provider)
    start(screen, "--budget", "0.01")
    ask(screen, "say hello")
    screen.wait_for(lambda text: "ogate budgets raise session 4" in joined(text))
    assert "the session budget of $0.01 has $0.01 left" in joined(screen.text())
    assert provider.arrived == []
    raised = person.ogate("budgets", "raise", "session", "5")
    assert raised.returncode == 0, raised.stderr
    ask(screen, "say hello")
    screen.wait_for(ANSWER)
    account = leave(screen)
    assert "of $5.01" in account
    assert [one.status for one in turns()] == [ExchangeStatus.DENIED, ExchangeStatus.COMPLETED]
    assert len({one.conversation_id for one in turns()}) == 1
    assert len(provider.turns) == 1


def test_on_the_screen_a_key_switched_on_again_lets_the_same_prompt_go_on(
    screen: TerminalScreen, person: Person, provider: FourFormats
) -> None:
    offer(provider)
    person.configure("vkeys", "create", "ci")
    start(screen, "--vkey", "ci")
    person.configure("vkeys", "disable", "ci")
    ask(screen, "say hello")
    screen.wait_for(lambda text: "virtual key ci is switched off. (ogate vkeys" in joined(text))
    assert provider.arrived == []
    person.configure("vkeys", "enable", "ci")
    ask(screen, "say hello")
    screen.wait_for(ANSWER)
    leave(screen)
    assert [one.status for one in turns()] == [ExchangeStatus.DENIED, ExchangeStatus.COMPLETED]
    assert len({one.conversation_id for one in turns()}) == 1


def test_on_the_screen_an_answer_that_was_cut_is_given_whole_once_the_budget_is_raised(
    screen: TerminalScreen, person: Person, provider: FourFormats
) -> None:
    offer(provider)
    start(screen, "--budget", "1")
    ask(screen, "tell the saga")
    screen.wait_for(lambda text: "the answer was cut" in joined(text))
    person.configure("budgets", "raise", "session", "5")
    ask(screen, "tell the saga")
    screen.wait_for(lambda text: END_OF_SAGA in joined(text))
    assert "1 answer cut" in joined(leave(screen))
    cut, refused, whole = turns()
    assert (cut.status, cut.error_type) == (ExchangeStatus.INTERRUPTED, BUDGET_STOP)
    spent = [one.cost_nano_usd or 0 for one in ledger().exchanges if one.id < refused.id]
    assert DOLLAR * 8 // 10 < sum(spent) <= DOLLAR
    assert (refused.status, whole.status) == (ExchangeStatus.DENIED, ExchangeStatus.COMPLETED)
    assert len(provider.turns) == 2
