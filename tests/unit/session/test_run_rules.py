"""The rules of a session before it starts: the truth about them, and no way round hard ones."""

from decimal import Decimal
from pathlib import Path

import pytest

from opencode_gate.core.errors import GateError, PolicyDenied, UsageError
from opencode_gate.governance.policy import (
    Budget,
    ModelRules,
    Owner,
    RateLimit,
    Rules,
    Team,
    VirtualKey,
    rules_of,
)
from opencode_gate.ledger.sqlite import SqliteStore, open_store
from opencode_gate.session.run_rules import (
    RunRules,
    put_session_rules,
    require_no_way_round,
    require_own_process,
    rules_of_run,
)
from tests.support.governance_fake import GovernanceFake
from tests.support.ledger_records import NOON_US, a_session

ADA = Owner("user", "ada")
DAY_US = 86_400_000_000


def usd(amount: str, window: str = "day", **more: object) -> Budget:
    return Budget(window=window, usd=Decimal(amount), **more)  # type: ignore[arg-type]


def a_key(**changes: object) -> VirtualKey:
    return VirtualKey(**{"public_id": "p" * 12, "secret_hash": "s$h", **changes})  # type: ignore[arg-type]


def of_run(store: GovernanceFake, budget: str | None = None, key: str | None = None) -> RunRules:
    return rules_of_run(
        store,
        budget_usd=None if budget is None else Decimal(budget),
        virtual_key=key,
        user="ada",
        now_us=NOON_US,
    )


def test_without_any_rule_there_is_none() -> None:
    """The usual case starts as it always did."""
    assert of_run(GovernanceFake()) == RunRules()


def test_a_budget_asked_for_is_the_sessions_own_and_hard() -> None:
    """`--budget 5` is a budget for the whole of the session."""
    rules = of_run(GovernanceFake(), "5")
    assert rules.own == Rules(budgets=(usd("5", "session"),))
    assert rules.hard == ("the budget of this session",)


@pytest.mark.parametrize(
    ("rules", "is_hard"),
    [
        (Rules(budgets=(usd("20"),)), True),
        (Rules(budgets=(usd("20", at_end="downgrade:openai/nano"),)), True),
        (Rules(budgets=(usd("20", at_end="warn"),)), False),
        (Rules(budgets=(usd("20", mode="shadow"),)), False),
        (Rules(models=ModelRules(allow=("openai/*",))), True),
        (Rules(models=ModelRules(deny=("openai/*",))), True),
        (Rules(models=ModelRules(allow=("openai/*",), mode="shadow")), False),
        (Rules(limits=(RateLimit(requests=3, per="minute"),)), False),
    ],
)
def test_what_is_hard_is_what_refuses(rules: Rules, is_hard: bool) -> None:
    """What only warns or only records keeps nobody from working as they like."""
    store = GovernanceFake()
    store.give(ADA, rules)
    store.give(Owner("user", "bob"), Rules(budgets=(usd("1"),)))
    assert bool(of_run(store).hard) is is_hard


def test_a_virtual_key_brings_the_rules_of_its_team() -> None:
    """A session under a key is under all that the key is under."""
    store = GovernanceFake()
    store.give(Owner("vkey", "ci"), a_key(team="core"))
    store.give(Owner("team", "core"), Team(budgets=(usd("500", "month"),)))
    assert of_run(store).hard == ()
    assert of_run(store, key="ci").hard == ("the budget of team core",)


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("c1", "no-such-owner", "ogate vkeys list"),
        ("off", "virtual-key-disabled", "off"),
        ("old", "virtual-key-expired", "old"),
    ],
)
def test_a_key_that_is_worth_nothing_is_found_before_anything_starts(name, code, said) -> None:
    """Every request would be refused."""
    store = GovernanceFake()
    store.give(Owner("vkey", "ci"), a_key())
    store.give(Owner("vkey", "off"), a_key(active=False))
    store.give(Owner("vkey", "old"), a_key(expires_at="2026-11-20T00:00:00+01:00"))
    with pytest.raises(GateError) as raised:
        of_run(store, key=name)
    assert raised.value.code == code
    assert said in (raised.value.hint or "")
    assert isinstance(raised.value, UsageError) is (code == "no-such-owner")


def test_a_virtual_key_typed_where_its_name_belongs_is_not_shown_again() -> None:
    """Only its owner may know it."""
    key = "ogk-0123456789abcdef"
    with pytest.raises(UsageError) as raised:
        of_run(GovernanceFake(), key=key)
    assert key not in f"{raised.value.message} {raised.value.hint} {raised.value.details}"


def test_unreadable_rules_stop_a_start() -> None:
    """The gateway would refuse every request; a person hears it before Opencode opens."""
    store = GovernanceFake(documents={("user", "ada"): "{"}, revision=1)
    with pytest.raises(PolicyDenied) as raised:
        of_run(store)
    assert raised.value.code == "policy-unreadable"


@pytest.mark.parametrize(
    ("way", "sentence", "hint"),
    [
        (
            {"direct": ["anthropic"]},
            "the subscription of anthropic is left direct",
            "ogate providers edit anthropic --subscription key",
        ),
        (
            {"plugins": ["acme-auth"]},
            "the plugin acme-auth may send requests elsewhere",
            "ogate run -- --pure",
        ),
        (
            {"overruled": ["every provider is enabled"]},
            "every provider is enabled",
            "ogate run -- debug config",
        ),
    ],
)
def test_a_hard_rule_has_no_way_round_it(way, sentence, hint) -> None:
    """Refused with the way and with what closes it; allowed where no rule is hard."""
    ways = {"direct": (), "plugins": (), "overruled": (), **way}
    require_no_way_round((), **ways)
    require_no_way_round(("the budget of this session",), direct=(), plugins=(), overruled=())
    with pytest.raises(PolicyDenied) as raised:
        require_no_way_round(("the budget of this session",), **ways)
    assert raised.value.code == "way-round"
    assert "the budget of this session" in raised.value.message
    assert raised.value.details == (sentence,)
    assert (raised.value.hint or "").startswith(hint)


def test_another_opencode_is_no_way_round_either() -> None:
    """Its requests are not ours to count."""
    require_own_process((), "http://127.0.0.1:4096")
    require_own_process(("the budget of this session",), None)
    with pytest.raises(PolicyDenied, match="another process"):
        require_own_process(("the budget of this session",), "http://127.0.0.1:4096")


@pytest.fixture
def ledger(tmp_path: Path) -> SqliteStore:
    opened = open_store(tmp_path / "ledger.db")
    yield opened
    opened.close()


def test_the_sessions_rules_are_written_under_its_id_by_its_user(ledger: SqliteStore) -> None:
    """So that gateway, commands and audit trail all know them."""
    store, session = GovernanceFake(), a_session()
    rules = of_run(store, "5")
    assert rules.own is not None
    put_session_rules(store, ledger, session, rules.own, rules)
    _, [document] = store.policy()
    assert (document.kind, document.name) == ("session", session.id)
    assert rules_of("session", document.text or "") == rules.own
    assert store.operators == [session.user]


def test_rules_of_sessions_long_over_are_forgotten_and_no_others(ledger: SqliteStore) -> None:
    """Else every start would read those of all sessions there ever were."""
    store = GovernanceFake()
    ends = {"01OLD": NOON_US - 31 * DAY_US, "01NEW": NOON_US - 29 * DAY_US, "01RUNS": None}
    for id, ended_at_us in ends.items():
        ledger.add_session(a_session(id=id, started_at_us=NOON_US - 90 * DAY_US))
        if ended_at_us is not None:
            ledger.end_session(id, ended_at_us=ended_at_us, exit_status=0)
        store.give(Owner("session", id), Rules(budgets=(usd("5", "session"),)))
    rules = of_run(store, "5")
    assert rules.own is not None
    put_session_rules(store, ledger, a_session(id="01NOW"), rules.own, rules)
    assert {name for _, name in store.documents} == {"01NEW", "01RUNS", "01NOW"}
