"""What `ogate policy check` foretells is what a gateway then decides, and costs nothing."""

import asyncio
import sqlite3
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opencode_gate.catalog.catalogue import open_catalogue
from opencode_gate.catalog.prices import PriceBook
from opencode_gate.config.paths import paths
from opencode_gate.config.settings import RunawaySettings, Settings
from opencode_gate.core.clock import SystemClock
from opencode_gate.core.semconv import WireFormat
from opencode_gate.governance.budgeting import Budgeting
from opencode_gate.governance.decisions import Denied
from opencode_gate.governance.governor import Governor
from opencode_gate.governance.grants import Grant
from opencode_gate.governance.pacing import Pacing
from opencode_gate.governance.policy import (
    Budget,
    ModelRules,
    Owner,
    Policy,
    RateLimit,
    Rules,
    Team,
    document_of,
)
from opencode_gate.governance.rates import RateMeter
from opencode_gate.governance.request_case import Cases
from opencode_gate.governance.reservations import Reservations
from opencode_gate.governance.rulebook import Rulebook
from opencode_gate.governance.runaway import Runaway
from opencode_gate.governance.terms import terms_from
from opencode_gate.ledger.governance_store import LeaseWish, PolicyDocument, WindowKey
from opencode_gate.ledger.sqlite import open_store
from opencode_gate.ledger.sqlite.governance import open_governance
from opencode_gate.session import policy_check
from opencode_gate.session.policy_check import Question, Verdict, verdict
from opencode_gate.session.policy_sense import OWNER_KINDS, owned
from opencode_gate.wire.estimates import estimated_tokens
from tests.support.ledger_records import a_charge, an_exchange
from tests.support.policies import virtual_key

SONNET, HAIKU, OPUS = "claude-sonnet-4-5", "claude-haiku-4-5", "claude-opus-4-1"
CENT = 10_000_000


def test_a_token_is_as_many_bytes_as_the_gateway_takes_it_for() -> None:
    question = Question(provider_id="openai", model_id="gpt-5", input_tokens=12_345)
    body = policy_check._body(question)
    assert estimated_tokens(len(body), WireFormat.OPENAI_CHAT) == 12_345


@pytest.fixture(scope="module")
def prices(tmp_path_factory) -> PriceBook:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OGATE_HOME", str(tmp_path_factory.mktemp("home")))
        return PriceBook(open_catalogue(paths(), Settings()), Settings())


def put(policy: Policy) -> None:
    store = open_governance(paths().ledger_file)
    _, former = store.policy()
    changes = {(one.kind, one.name): None for one in former}
    changes |= {
        (kind, name): document_of(rules)
        for kind in OWNER_KINDS
        for name, rules in owned(policy, kind).items()
    }
    documents = [PolicyDocument(*owner, text) for owner, text in changes.items()]
    store.put_policy(documents, operator="test", at_us=1)
    store.close()


def spend(budget_id: str, nano_usd: int) -> None:
    store = open_store(paths().ledger_file)
    charges = a_charge(budget_id=budget_id, window_start_us=0, reserved=0)
    store.fold([an_exchange(cost_nano_usd=nano_usd, charges=charges)])
    store.close()


def ask(prices, *, policy=None, blocks=False, model=SONNET, tokens=1000, **about) -> Verdict:
    about = about or {"virtual_key": "anna"}
    return verdict(
        Question(provider_id="anthropic", model_id=model, input_tokens=tokens, **about),
        lambda: open_governance(paths().ledger_file, read_only=True),
        prices,
        clock=SystemClock(),
        time_zone="UTC",
        refuses_unknown_prices=blocks,
        policy=policy,
    )


def of_team(**rules) -> Policy:
    return Policy(virtual_keys={"anna": virtual_key(team="core")}, teams={"core": Team(**rules)})


def in_all(usd, **more) -> Budget:
    return Budget(window="total", usd=Decimal(usd), **more)


def test_without_rules_everything_is_allowed(prices) -> None:
    found = ask(prices, user="ada")
    assert found == Verdict(model_id=SONNET)
    assert not paths().ledger_file.exists()


@pytest.mark.parametrize(
    ("policy", "code", "status"),
    [
        (Policy(), "unknown-virtual-key", 401),
        (Policy(virtual_keys={"anna": virtual_key(active=False)}), "virtual-key-disabled", 401),
        (
            Policy(virtual_keys={"anna": virtual_key(expires_at="2020-01-01T00:00:00+00:00")}),
            "virtual-key-expired",
            401,
        ),
        (of_team(models=ModelRules(deny=("*sonnet*",))), "model-denied", 403),
        (of_team(models=ModelRules(allow=("openai/*",))), "provider-denied", 403),
        (of_team(budgets=(in_all("0.01"),)), "budget-exceeded", 402),
    ],
)
def test_each_rule_can_refuse_and_says_what_mends_it(prices, policy, code, status) -> None:
    put(policy)
    found = ask(prices)
    assert (found.code, found.http_status, found.is_allowed) == (code, status, False)
    assert found.decisions[-1].outcome == "deny"
    assert found.decisions[-1].command


def test_the_worst_case_is_what_would_be_reserved(prices) -> None:
    put(of_team(budgets=(in_all(100),)))
    small, large = ask(prices, tokens=1_000), ask(prices, tokens=100_000)
    assert small.is_allowed
    assert 0 < small.reserved_nano_usd < large.reserved_nano_usd


def test_an_answer_that_would_be_shortened_says_to_what(prices) -> None:
    put(of_team(budgets=(in_all("0.50"),)))
    found = ask(prices)
    assert found.is_allowed
    assert 1024 <= found.output_limit_tokens < 64_000
    assert found.decisions[0].outcome == "lower"


def test_a_model_that_would_be_put_in_place_is_named(prices) -> None:
    put(of_team(budgets=(in_all("0.01", at_end=f"downgrade:{HAIKU}"), in_all(50, mode="shadow"))))
    found = ask(prices)
    assert (found.is_allowed, found.model_id) == (True, HAIKU)
    assert found.decisions[0].outcome == "downgrade"


def test_money_that_running_requests_hold_counts_as_gone(prices) -> None:
    put(of_team(budgets=(in_all(2),)))
    store = open_governance(paths().ledger_file)
    key = WindowKey("team:core/total/usd", 0)
    store.lease("01PROCESS", [LeaseWish(key, 200 * CENT, 199 * CENT, 199 * CENT)])
    store.close()
    found = ask(prices)
    assert (found.code, found.decisions[-1].reserved) == ("budget-held", 199 * CENT)


def test_a_model_without_a_price_is_refused_where_the_settings_say_so(prices) -> None:
    found = ask(prices, model="nobody-knows", blocks=True, user="ada")
    assert (found.code, found.decisions[-1].rule) == ("unknown-price", "price")
    assert ask(prices, model="nobody-knows", user="ada").is_allowed


def test_rules_that_cannot_be_read_refuse(prices) -> None:
    store = open_governance(paths().ledger_file)
    store.put_policy([PolicyDocument("team", "core", "{")], operator="test", at_us=1)
    store.close()
    assert ask(prices).code == "policy-unreadable"


def test_rules_can_be_tried_before_they_hold(prices) -> None:
    put(of_team(budgets=(in_all(50),)))
    spend("team:core/total/usd", 40 * 100 * CENT)
    assert ask(prices).is_allowed
    tried = of_team(budgets=(in_all(40),))
    assert ask(prices, policy=tried).code == "budget-exceeded"
    assert ask(prices).is_allowed


def test_the_rules_of_a_running_session_stay_when_others_are_tried(prices) -> None:
    session = Rules(budgets=(Budget(window="session", usd=Decimal("0.01")),))
    put(Policy(sessions={"01S": session}))
    found = ask(prices, policy=Policy(), session_id="01S")
    assert (found.code, found.decisions[-1].owner) == ("budget-exceeded", "session 01S")


def test_limits_that_only_the_gateway_counts_are_named(prices) -> None:
    put(of_team(limits=(RateLimit(requests=1, per="minute"), RateLimit(concurrent=1))))
    assert ask(prices).uncounted == (Owner("team", "core"),)


def test_nothing_is_written_and_nothing_is_held(prices) -> None:
    put(of_team(budgets=(in_all(50),)))
    ledger = sqlite3.connect(paths().ledger_file)
    tables = [
        name for (name,) in ledger.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    ]

    def contents():
        return {name: ledger.execute(f'SELECT * FROM "{name}"').fetchall() for name in tables}

    before = contents()
    for tokens in (1_000, 5_000_000):
        ask(prices, tokens=tokens)
    assert contents() == before
    ledger.close()


async def decided(prices, question: Question) -> Verdict:
    """What a gateway decides, with leases of its own."""
    clock = SystemClock()
    rulebook = Rulebook(lambda: open_governance(paths().ledger_file), zone="UTC")
    reservations = Reservations(
        "01GATEWAY",
        lambda: open_governance(paths().ledger_file),
        clock=clock,
        recover=lambda: None,
        hurry=lambda: None,
    )
    governor = Governor(
        rulebook=rulebook,
        reservations=reservations,
        budgeting=Budgeting(
            reservations, rulebook.standings, Cases(terms_from(prices), clock), clock
        ),
        pacing=Pacing(RateMeter(), clock),
        runaway=Runaway(RunawaySettings(), clock, lambda: None),
        count_text=lambda *_: 0,
        price_rule=None,
        clock=clock,
    )
    grant, denial = Grant(exchange_id="01X"), None
    request = policy_check._ask(question)
    try:
        await governor.admit(request, grant)
    except Denied as denied:
        denial = denied
    reservations.stop()
    rulebook.close()
    store = open_store(paths().ledger_file)
    store.end_process("01GATEWAY")
    store.close()
    return Verdict(
        http_status=denial and denial.http_status,
        code=denial and denial.code,
        decisions=(*grant.decisions, *([denial.decision] if denial else [])),
        model_id=grant.model or request.model,
        output_limit_tokens=grant.output_limit_tokens,
        reserved_nano_usd=grant.reserved_cost_nano_usd,
    )


@st.composite
def _budgets(draw) -> tuple[Budget, ...]:
    windows = draw(st.lists(st.sampled_from(["total", "day", "month"]), max_size=2, unique=True))
    return tuple(
        Budget(
            window=window,
            usd=draw(st.decimals("0.001", "3", places=3)),
            at_end=draw(st.sampled_from(["block", "warn", f"downgrade:{HAIKU}"])),
            mode=draw(st.sampled_from(["enforce", "enforce", "shadow"])),
        )
        for window in windows
    )


_rules = {
    "models": st.none()
    | st.builds(
        ModelRules,
        allow=st.none() | st.sampled_from([("*haiku*", "*sonnet*"), ("openai/*",)]),
        deny=st.sampled_from([(), ("*opus*",)]),
        mode=st.sampled_from(["enforce", "shadow"]),
    ),
    "budgets": _budgets(),
}


@given(
    team=st.builds(Team, **_rules),
    key=st.builds(virtual_key, team=st.just("core"), **_rules),
    spent=st.integers(0, 300),
    model=st.sampled_from([SONNET, HAIKU, OPUS]),
    tokens=st.integers(0, 300_000),
    output=st.none() | st.integers(1, 64_000),
)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_what_is_foretold_is_what_is_decided(
    prices, team, key, spent, model, tokens, output
) -> None:
    put(Policy(virtual_keys={"anna": key}, teams={"core": team}))
    ledger = sqlite3.connect(paths().ledger_file)
    with ledger:
        ledger.execute("DELETE FROM budget_windows")
        ledger.execute("DELETE FROM charges")
    ledger.close()
    spend("team:core/total/usd", spent * CENT)
    question = Question(
        provider_id="anthropic",
        model_id=model,
        input_tokens=tokens,
        output_tokens=output,
        virtual_key="anna",
    )
    foretold = ask(prices, model=model, tokens=tokens, output_tokens=output, virtual_key="anna")
    assert foretold == asyncio.run(decided(prices, question))
