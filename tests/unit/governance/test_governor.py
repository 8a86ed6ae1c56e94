"""Who may ask what, in the order the rules are asked, over a real ledger and a clock of our own."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import pytest

from opencode_gate.core.errors import PolicyDenied
from opencode_gate.core.semconv import Operation
from opencode_gate.core.tasks import spawn
from opencode_gate.governance.admission import Caller
from opencode_gate.governance.decisions import Denied
from opencode_gate.governance.governor import Governor
from opencode_gate.governance.grants import Ask, Grant
from opencode_gate.governance.policy import (
    Budget,
    Customer,
    ModelRules,
    Owner,
    RateLimit,
    Rules,
    Team,
    VirtualKey,
)
from opencode_gate.governance.prices import PriceRule
from opencode_gate.governance.request_case import ModelTerms
from opencode_gate.governance.standing import standings
from opencode_gate.ledger.records import ExchangeRecord, FoldedExchange, Taken
from opencode_gate.ledger.sqlite import open_store
from opencode_gate.ledger.sqlite.governance import open_governance
from opencode_gate.wire.facts import read_facts
from opencode_gate.wire.routes import identify
from tests.support.ledger_records import an_exchange
from tests.support.rules import TERMS, a_governor, give

CHAT = "/p/stub/v1/chat/completions"
SESSION, USER = Owner("session", "01S"), Owner("user", "dev")
KEY, TEAM, CUSTOMER = Owner("vkey", "alice"), Owner("team", "core"), Owner("customer", "acme")
DOLLAR = 1_000_000_000


@dataclass
class Hand:
    """A clock that is set by hand; whoever waits by it has soon waited long."""

    at: datetime = datetime(2026, 11, 21, 12, tzinfo=UTC)
    passed_s: float = 0.0

    def now_us(self) -> int:
        return round(self.at.timestamp() * 1_000_000)

    def monotonic_s(self) -> float:
        self.passed_s += 10
        return self.passed_s

    def set(self, *parts: int, zone: str = "UTC") -> None:
        self.at = datetime(*parts, tzinfo=ZoneInfo(zone))


@dataclass
class Gate:
    """One gateway process; `ask` sends, `settle` has the ledger charge what was sent."""

    ledger: Path
    clock: Hand
    governor: Governor
    sent: list[tuple[Grant, ExchangeRecord]] = field(default_factory=list)

    async def ask(
        self,
        *,
        path: str = CHAT,
        max_tokens: int | None = 1_000,
        key: str | None = None,
        conversation: str | None = None,
        **more: object,
    ) -> Grant:
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **more}
        if max_tokens is not None:
            body["max_tokens"] = max_tokens
        text = json.dumps(body).encode()
        route = identify("POST", path)
        is_generation = route.operation is Operation.GENERATE
        grant = Grant("01X")
        ask = Ask(
            exchange_id="01X",
            caller=Caller("01S", "dev", key, b"token"),
            provider_id="stub",
            route=route,
            facts=read_facts(route, text) if is_generation else None,
            body=text,
            conversation_id=conversation,
        )
        try:
            await self.governor.admit(ask, grant)
        except Denied:
            self.governor.ended(grant, msgspec.structs.replace(an_exchange(), attempts=0))
            raise
        self.sent.append(
            (grant, msgspec.structs.replace(an_exchange(), charges=grant.charges, attempts=1))
        )
        return grant

    def settle(self, cost_nano_usd: int) -> None:
        """Charges all that was sent, each with that cost."""
        store = open_store(self.ledger)
        records = [
            msgspec.structs.replace(record, cost_nano_usd=cost_nano_usd) for _, record in self.sent
        ]
        store.fold(records, process_id="process")
        store.close()
        for grant, record in self.sent:
            self.governor.ended(grant, record)
        self.sent.clear()
        self.governor.folded(
            [
                FoldedExchange(
                    record.id,
                    record.session_id,
                    tuple(
                        Taken(one.budget_id, one.window_start_us, one.reserved, cost_nano_usd)
                        for one in record.charges
                    ),
                    None,
                    cost_nano_usd,
                )
                for record in records
            ]
        )

    async def denied(self, **more: object) -> Denied:
        with pytest.raises(Denied) as refusal:
            await self.ask(**more)
        return refusal.value


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    ledger = tmp_path / "ledger.db"
    open_store(ledger).close()
    clock = Hand()
    gate = Gate(ledger, clock, a_governor(ledger, clock=clock, zone="Europe/Berlin"))
    yield gate
    gate.governor._reservations.stop()
    gate.governor._rulebook.close()


def usd(amount: str, window: str = "total", **more: object) -> Rules:
    return Rules(budgets=(Budget(window=window, usd=Decimal(amount), **more),))


def a_key(**more: object) -> VirtualKey:
    return VirtualKey(public_id="abcdefghijkl", secret_hash="a$b", **more)


async def test_without_rules_everything_passes(gate: Gate) -> None:
    grant = await gate.ask()
    assert (grant.charges, grant.decisions, grant.reserved_cost_nano_usd) == ((), [], None)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"active": False}, "virtual-key-disabled"),
        ({"expires_at": "2026-11-21T11:59:59Z"}, "virtual-key-expired"),
        ({"expires_at": "2026-11-21T12:00:00Z"}, "virtual-key-expired"),
    ],
)
async def test_a_key_that_is_off_learns_nothing_else(gate: Gate, changes, code: str) -> None:
    """Its model is not allowed and its team has nothing left; it hears of neither."""
    none_left = Team(budgets=usd("0").budgets)
    rules = a_key(team="core", models=ModelRules(deny=("*",)), **changes)
    give(gate.ledger, (KEY, rules), (TEAM, none_left))
    refusal = await gate.denied(key="alice")
    assert (refusal.http_status, refusal.code) == (401, code)
    assert "core" not in refusal.message
    give(gate.ledger, (KEY, msgspec.structs.replace(rules, active=True, expires_at=None)))
    assert (await gate.denied(key="alice")).code in ("model-denied", "provider-denied")


async def test_a_rule_that_fails_refuses_for_good_and_holds_nothing(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is no refusal would be a server's error to the agent, which tries again."""
    give(gate.ledger, (USER, usd("5")))

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(gate.governor._budgeting, "_note_soft", fail)
    give(gate.ledger, (SESSION, usd("1", at_end="warn")))
    denied = await gate.denied()
    assert (denied.code, denied.http_status) == ("policy-unreadable", 403)
    assert "ZeroDivisionError" in denied.message
    assert not any(gate.governor._reservations.reserved().values())


async def test_a_key_nobody_knows_is_refused(gate: Gate) -> None:
    refusal = await gate.denied(key="bob")
    assert (refusal.http_status, refusal.code) == (401, "unknown-virtual-key")


async def test_a_change_of_rules_acts_on_the_next_request(gate: Gate) -> None:
    give(gate.ledger, (KEY, a_key()))
    await gate.ask(key="alice")
    give(gate.ledger, (KEY, a_key(active=False)))
    assert (await gate.denied(key="alice")).code == "virtual-key-disabled"
    give(gate.ledger, (KEY, a_key(models=ModelRules(allow=("stub/x",)))))
    assert (await gate.denied(key="alice")).http_status == 403


async def test_models_a_router_might_take_instead_are_asked_about_too(gate: Gate) -> None:
    give(gate.ledger, (USER, Rules(models=ModelRules(deny=("stub/dear",)))))
    await gate.ask()
    assert (await gate.denied(models=["dear"])).code == "model-denied"


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("/v1/embeddings", {}, None),
        ("/v1/embeddings", {"model": "secret"}, "model-denied"),
        ("/v1/embeddings", {"model": None}, "model-denied"),
        ("/v1/completions", {"model": "secret"}, "model-denied"),
        ("/v1/messages/count_tokens", {"model": "secret"}, "model-denied"),
        ("/v1beta/models/secret:embedContent", {}, "model-denied"),
        ("/v1beta/models/m:embedContent", {"model": "models/secret"}, "model-denied"),
        ("/v1beta/models/m:countTokens", {}, None),
    ],
)
async def test_a_list_of_models_holds_for_what_is_not_counted_too(
    gate: Gate, path: str, body: dict[str, object], code: str | None
) -> None:
    """Whatever of path and body names the model: no other way in leads past the list."""
    give(gate.ledger, (USER, Rules(models=ModelRules(allow=("stub/m",)))))
    if code is None:
        await gate.ask(path=path, **body)
    else:
        assert (await gate.denied(path=path, **body)).code == code


async def test_a_deployment_in_the_path_is_asked_about_like_the_model(gate: Gate) -> None:
    """Azure goes by the path, whatever model the body names."""
    path = "/p/stub/openai/deployments/{}/chat/completions"
    give(gate.ledger, (USER, Rules(models=ModelRules(deny=("stub/dear",)))))
    await gate.ask(path=path.format("m"))
    assert (await gate.denied(path=path.format("dear"))).code == "model-denied"


@pytest.mark.parametrize("level", [SESSION, USER, KEY, TEAM, CUSTOMER])
async def test_each_level_can_stop_a_request_alone(gate: Gate, level: Owner) -> None:
    limits = dict.fromkeys((SESSION, USER, KEY, TEAM, CUSTOMER), "1000")
    limits[level] = "0.001"
    budgets = {
        owner: (Budget(window=window, usd=Decimal(limits[owner])),)
        for owner, window in (
            (SESSION, "session"),
            (USER, "day"),
            (KEY, "month"),
            (TEAM, "month"),
            (CUSTOMER, "year"),
        )
    }
    give(
        gate.ledger,
        (SESSION, Rules(budgets=budgets[SESSION])),
        (USER, Rules(budgets=budgets[USER])),
        (KEY, a_key(team="core", budgets=budgets[KEY])),
        (TEAM, Team(customer="acme", budgets=budgets[TEAM])),
        (CUSTOMER, Customer(budgets=budgets[CUSTOMER])),
    )
    refusal = await gate.denied(key="alice")
    assert (refusal.http_status, refusal.code) == (402, "budget-exceeded")
    assert refusal.decision.owner == str(level)
    assert refusal.decision.limit == DOLLAR // 1000
    store = open_governance(gate.ledger)
    ids = [budget.id_for(owner) for owner, owned in budgets.items() for budget in owned]
    assert store.latest_windows(ids) == {}
    store.close()


async def test_a_refusal_says_what_is_spent_when_it_resets_and_what_raises_it(gate: Gate) -> None:
    give(gate.ledger, (USER, usd("0.02", "day")))
    await gate.ask()
    gate.settle(15_000_000)
    decision = (await gate.denied()).decision
    assert (decision.spent, decision.reserved, decision.limit) == (15_000_000, 0, 20_000_000)
    midnight = datetime(2026, 11, 22, tzinfo=ZoneInfo("Europe/Berlin"))
    assert decision.resets_at_us == round(midnight.timestamp() * 1_000_000)
    assert decision.command == "ogate budgets raise day 1"


@pytest.mark.parametrize(
    ("window", "before", "after"),
    [
        ("day", (2026, 11, 21, 23, 59, 59), (2026, 11, 22, 0, 0, 0)),
        ("month", (2026, 11, 30, 23, 59, 59), (2026, 12, 1, 0, 0, 0)),
        ("month", (2028, 2, 29, 23, 59, 59), (2028, 3, 1, 0, 0, 0)),
        ("week", (2026, 11, 22, 23, 59, 59), (2026, 11, 23, 0, 0, 0)),
        ("year", (2026, 12, 31, 23, 59, 59), (2027, 1, 1, 0, 0, 0)),
        # The clocks go forward and back in Berlin.
        ("day", (2027, 3, 28, 23, 59, 59), (2027, 3, 29, 0, 0, 0)),
        ("day", (2027, 10, 31, 23, 59, 59), (2027, 11, 1, 0, 0, 0)),
        ("hour", (2026, 11, 21, 23, 59, 59), (2026, 11, 22, 0, 0, 0)),
    ],
)
async def test_a_window_begins_anew_where_the_owners_calendar_says(
    gate: Gate, window: str, before, after
) -> None:
    give(gate.ledger, (USER, usd("0.02", window)))
    gate.clock.set(*before, zone="Europe/Berlin")
    await gate.ask()
    gate.settle(15_000_000)
    await gate.denied()
    gate.clock.set(*after, zone="Europe/Berlin")
    await gate.ask()


async def test_a_clock_that_is_set_back_opens_no_window_again(gate: Gate) -> None:
    give(gate.ledger, (USER, usd("0.02", "day")))
    gate.clock.set(2026, 11, 22, 12)
    await gate.ask()
    gate.settle(15_000_000)
    gate.clock.set(2026, 11, 20, 12)
    await gate.denied()


@pytest.mark.parametrize(
    "rules",
    [
        usd("0.02", "day", at_end="warn"),
        usd("0.02", "day", mode="shadow"),
        usd("0.02", "day", at_end="downgrade:cheap"),
    ],
)
async def test_what_refuses_nothing_is_counted_in_no_earlier_window_either(
    gate: Gate, rules: Rules
) -> None:
    """Else nobody would see what was spent, as all who look see the latest window."""
    give(gate.ledger, (USER, rules))
    gate.clock.set(2026, 11, 22, 12)
    await gate.ask()
    gate.settle(20_000_000)
    gate.clock.set(2026, 11, 20, 12)
    for _ in range(2):
        grant = await gate.ask()
        assert grant.decisions, "it is spent, and that is said"
        gate.settle(5_000_000)
    store = open_governance(gate.ledger)
    [standing] = standings(
        store, [(USER, rules)], at_us=gate.clock.now_us(), time_zone="Europe/Berlin"
    )
    store.close()
    assert standing.spent == 30_000_000


async def test_windows_follow_the_zone_of_their_owner(gate: Gate) -> None:
    rules = msgspec.structs.replace(usd("0.02", "day"), time_zone="America/New_York")
    give(gate.ledger, (USER, rules))
    gate.clock.set(2026, 11, 21, 23, 30, zone="Europe/Berlin")
    await gate.ask()
    gate.settle(15_000_000)
    gate.clock.set(2026, 11, 22, 0, 30, zone="Europe/Berlin")
    await gate.denied()
    gate.clock.set(2026, 11, 22, 6, 30, zone="Europe/Berlin")
    await gate.ask()


async def test_raising_a_budget_lets_a_waiting_session_go_on(gate: Gate) -> None:
    give(gate.ledger, (SESSION, usd("0.02", "session")))
    await gate.ask()
    gate.settle(15_000_000)
    await gate.denied()
    give(gate.ledger, (SESSION, usd("0.04", "session")))
    await gate.ask()


async def test_what_is_held_too_long_lowers_the_answer_to_what_is_free(gate: Gate) -> None:
    """Of $0.10, $0.081 are held by a request that does not end: 1,786 tokens still fit."""
    give(gate.ledger, (USER, usd("0.1")))
    await gate.ask(max_tokens=8_000)
    grant = await gate.ask(max_tokens=4_000)
    assert grant.output_limit_tokens is not None
    assert 1_024 < grant.output_limit_tokens < 2_000
    assert [decision.outcome for decision in grant.decisions] == ["lower"]
    assert (await gate.denied(max_tokens=4_000)).code == "budget-held"


async def test_several_budgets_may_end_in_the_same_cheaper_model(gate: Gate) -> None:
    """It is swapped once; and who asks for it is served as who is given it."""
    spent = usd("0", "total", at_end="downgrade:cheap").budgets
    give(gate.ledger, (USER, Rules(budgets=spent)), (SESSION, Rules(budgets=spent)))
    grant = await gate.ask()
    assert (grant.model, grant.downgraded_from) == ("cheap", "m")
    assert [decision.outcome for decision in grant.decisions] == ["downgrade"]
    asked = await gate.ask(model="cheap")
    assert (asked.model, asked.decisions) == (None, [])
    assert [charge.reserved for charge in asked.charges] == [0, 0]
    routed = await gate.ask(model="cheap", models=["dear"])
    assert routed.model == "cheap"


async def test_who_waits_for_money_as_the_next_window_begins_has_that_of_the_next(
    gate: Gate,
) -> None:
    give(gate.ledger, (USER, usd("0.1", "hour")))
    gate.clock.set(2026, 11, 21, 23, 59, 50)
    await gate.ask(max_tokens=8_000)
    waiting = spawn(gate.ask(max_tokens=8_000), name="waiting")
    await asyncio.sleep(0)
    gate.clock.set(2026, 11, 22, 0, 0, 10)
    [charge] = (await waiting).charges
    assert charge.window_start_us == 1_000_000 * int(datetime(2026, 11, 22, tzinfo=UTC).timestamp())


async def test_tokens_are_budgeted_too(gate: Gate) -> None:
    give(gate.ledger, (USER, Rules(budgets=(Budget(window="day", tokens=3_000),))))
    grant = await gate.ask()
    assert grant.charges[0].unit == "tokens"
    assert 2_000 < grant.charges[0].reserved < 3_000
    assert (await gate.denied()).decision.unit == "tokens"


async def test_what_cannot_be_counted_is_refused_under_a_hard_budget_only(gate: Gate) -> None:
    embeddings = "/p/stub/v1/embeddings"
    await gate.ask(path=embeddings)
    give(gate.ledger, (USER, usd("10")))
    assert (await gate.denied(path=embeddings)).code == "operation-denied"
    assert (await gate.denied(background=True, path="/p/stub/v1/responses")).http_status == 403
    searching = {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}
    assert (await gate.denied(**searching)).code == "operation-denied"
    give(gate.ledger, (USER, usd("10", at_end="warn")))
    await gate.ask(path=embeddings)
    await gate.ask(**searching)


async def test_a_price_nobody_knows_is_refused_under_a_budget_in_dollars(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.db"
    open_store(ledger).close()
    unknown = ModelTerms(context_tokens=1_000, output_tokens=1_000)
    gate = Gate(ledger, Hand(), a_governor(ledger, terms_of=lambda *_: unknown))
    await gate.ask()
    give(ledger, (USER, usd("10")))
    refusal = await gate.denied()
    assert (refusal.code, refusal.http_status) == ("unknown-price", 403)
    assert "ogate config set" in (refusal.decision.command or "")
    give(ledger, (USER, Rules(budgets=(Budget(window="day", tokens=10_000),))))
    await gate.ask()


async def test_shadow_and_warning_budgets_count_and_refuse_nothing(gate: Gate) -> None:
    give(
        gate.ledger,
        (SESSION, usd("0.001", mode="shadow")),
        (USER, usd("0.001", at_end="warn")),
    )
    grant = await gate.ask()
    assert [one.reserved for one in grant.charges] == [0, 0]
    assert [one.outcome for one in grant.decisions] == ["shadow"]
    gate.settle(2_000_000)
    grant = await gate.ask()
    assert [one.outcome for one in grant.decisions] == ["shadow", "warn"]


async def test_a_model_rule_in_shadow_is_said_and_not_held_against_anybody(gate: Gate) -> None:
    give(gate.ledger, (USER, Rules(models=ModelRules(deny=("stub/m",), mode="shadow"))))
    grant = await gate.ask()
    assert [(one.rule, one.outcome) for one in grant.decisions] == [("model", "shadow")]


async def test_a_short_rate_limit_is_waited_out_and_a_long_one_is_final(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.db"
    open_store(ledger).close()
    gate = Gate(ledger, Hand(), a_governor(ledger))
    give(ledger, (USER, Rules(limits=(RateLimit(concurrent=1),))))
    await gate.ask()
    waiting = spawn(gate.ask(), name="waiting")
    for _ in range(5):
        await asyncio.sleep(0)
    assert not waiting.done()
    gate.settle(0)
    assert [one.outcome for one in (await waiting).decisions] == ["wait"]
    give(ledger, (USER, Rules(limits=(RateLimit(requests=1, per="minute"),))))
    await gate.ask()
    refusal = await gate.denied()
    assert (refusal.http_status, refusal.retry_after_s) == (429, 60)
    give(ledger, (USER, Rules(limits=(RateLimit(requests=1, per="day"),))))
    await gate.ask()
    refusal = await gate.denied()
    assert (refusal.http_status, refusal.retry_after_s) == (402, None)


async def test_a_refused_request_takes_nothing_of_its_rate(gate: Gate) -> None:
    limits = (RateLimit(concurrent=2),)
    give(gate.ledger, (USER, Rules(limits=limits, budgets=usd("0.001").budgets)))
    for _ in range(5):
        await gate.denied()
    give(gate.ledger, (USER, Rules(limits=limits)))
    await gate.ask()
    grant = await gate.ask()
    assert grant.decisions == []


@pytest.mark.parametrize(
    ("models", "code"),
    [(ModelRules(deny=("stub/cheap",)), "model-denied"), (None, "unknown-price")],
)
async def test_the_model_a_budget_swaps_to_is_held_to_the_same_rules(
    gate: Gate, models: ModelRules | None, code: str
) -> None:
    """A budget's end is no way round a list of models, nor to one without a price."""
    give(
        gate.ledger,
        (USER, Rules(models=models, budgets=usd("0", at_end="downgrade:cheap").budgets)),
    )
    if models is None:
        assert (await gate.ask()).model == "cheap"
        gate.governor._price_rule = PriceRule(lambda provider, model: model != "cheap")
    with pytest.raises(PolicyDenied) as refusal:
        await gate.ask()
    assert refusal.value.code == code
    assert not any(gate.governor._reservations.reserved().values())


async def test_damaged_rules_refuse_everything_until_they_are_mended(gate: Gate) -> None:
    give(gate.ledger, (USER, usd("10")))
    await gate.ask()
    store = open_governance(gate.ledger)
    store._connection.execute("UPDATE policy_documents SET document = '{'")
    store._connection.execute("UPDATE policy_revisions SET revision = revision + 1")
    refusal = await gate.denied()
    assert (refusal.http_status, refusal.code) == (403, "policy-unreadable")
    store._connection.execute("DELETE FROM policy_documents")
    store._connection.execute("UPDATE policy_revisions SET revision = revision + 1")
    store.close()
    await gate.ask()


async def test_an_unlimited_answer_gets_a_limit_it_is_paid_for(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.db"
    open_store(ledger).close()
    unknown = msgspec.structs.replace(TERMS, output_tokens=None)
    gate = Gate(ledger, Hand(), a_governor(ledger, terms_of=lambda *_: unknown))
    give(ledger, (USER, usd("10")))
    assert (await gate.ask(max_tokens=None)).output_limit_tokens == 32_000
    assert (await gate.ask(max_tokens=500)).output_limit_tokens is None
