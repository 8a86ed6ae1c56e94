"""What is decided at once is what would be decided with all the time there is.

Two gateways of equal rules are asked the same; one of them may take no short way.
"""

import asyncio
import json
import random
import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from opencode_gate.core.clock import SystemClock
from opencode_gate.governance.admission import Caller
from opencode_gate.governance.decisions import Denied
from opencode_gate.governance.governor import SETTLED_AT_ONCE, Governor
from opencode_gate.governance.grants import Ask, Grant
from opencode_gate.governance.policy import Budget, ModelRules, Owner, RateLimit, Rules
from opencode_gate.ledger.records import ExchangeRecord, FoldedExchange, Taken
from opencode_gate.ledger.sqlite import open_store
from opencode_gate.wire.facts import read_facts
from opencode_gate.wire.routes import identify
from tests.support.ledger_records import an_exchange
from tests.support.rules import a_governor, give

CHAT = identify("POST", "/p/stub/v1/chat/completions")
COUNT = identify("POST", "/p/stub/v1/messages/count_tokens")
CALLER = Caller("01S", "dev", None, b"token")
USER, SESSION = Owner("user", "dev"), Owner("session", "01S")


class Still:
    """A clock that stands still, so that gateways live in the same moment; waits soon are long."""

    def __init__(self) -> None:
        self.at_us = SystemClock().now_us()
        self._passed_s = 0.0

    def now_us(self) -> int:
        return self.at_us

    def monotonic_s(self) -> float:
        self._passed_s += 10
        return self._passed_s


class Gate:
    def __init__(self, ledger: Path, clock: Still, *, takes_short_ways: bool) -> None:
        open_store(ledger).close()
        self.ledger = ledger
        self.governor: Governor = a_governor(ledger, clock=clock)
        if not takes_short_ways:
            self.governor._pacing.admit_now = lambda *_: False  # type: ignore[method-assign]
            self.governor._budgeting.reserve_now = lambda *_: False  # type: ignore[method-assign]

    async def ask(self, number: int, body: bytes, route=CHAT) -> object:
        """All that is said of a request."""
        facts = read_facts(route, body) if route is CHAT else None
        ask = Ask(
            exchange_id=f"exchange {number}",
            caller=CALLER,
            provider_id="stub",
            route=route,
            facts=facts,
            body=body,
            conversation_id=f"ses_{number}",
        )
        self.grant = grant = Grant(ask.exchange_id)
        try:
            await self.governor.admit(ask, grant)
        except Denied as denied:
            self.governor.ended(grant, an_exchange(attempts=0))
            return denied.decision, denied.http_status
        allowance = grant.allowance
        return (
            grant.charges,
            grant.reserved_cost_nano_usd,
            grant.output_limit_tokens,
            grant.model,
            grant.decisions_text,
            None if allowance is None else (allowance.output_tokens(), allowance.stop()),
        )

    def end(self) -> None:
        self.governor._reservations.stop()
        self.governor._rulebook.close()


@pytest.fixture
def gates(tmp_path: Path) -> Iterator[tuple[Gate, Gate]]:
    clock = Still()
    short = Gate(tmp_path / "short" / "ledger.db", clock, takes_short_ways=True)
    long = Gate(tmp_path / "long" / "ledger.db", clock, takes_short_ways=False)
    yield short, long
    short.end()
    long.end()


def some_rules(chance: random.Random) -> dict[Owner, Rules]:
    def budgets() -> tuple[Budget, ...]:
        found = []
        for window in chance.sample(("day", "month", "total", "session"), chance.randint(0, 3)):
            more = chance.choice(({}, {}, {}, {"mode": "shadow"}, {"at_end": "warn"}))
            if chance.random() < 0.6:
                usd = Decimal(chance.choice(("3", "100000", "900000", "900000")))
                found.append(Budget(window=window, usd=usd, **more))
            else:
                tokens = chance.choice((200_000, 10**12, 10**12, 10**12))
                found.append(Budget(window=window, tokens=tokens, **more))
        return tuple(found)

    def limits() -> tuple[RateLimit, ...]:
        return tuple(
            chance.sample(
                (
                    RateLimit(requests=10**6, per="minute"),
                    RateLimit(tokens=10**9, per="hour"),
                    RateLimit(concurrent=10**6),
                    RateLimit(requests=3, per="day", mode="shadow"),
                    RateLimit(tokens=100, per="day", mode="shadow"),
                ),
                chance.randint(0, 3),
            )
        )

    models = (None, ModelRules(allow=("stub/*",), deny=("*/secret",)))
    return {
        owner: Rules(budgets=budgets(), limits=limits(), models=chance.choice(models))
        for owner in (USER, SESSION)
    }


def some_body(chance: random.Random) -> bytes:
    body: dict[str, object] = {
        "model": chance.choice(("m",) * 8 + ("other", "secret", None)),
        "messages": [{"role": "user", "content": "x" * chance.choice((2, 900, 40_000))}],
    }
    for member, values in {
        "max_tokens": (100, 2_000, 8_000, 90_000, 0),
        "n": (2,),
        "service_tier": ("priority", "default"),
        "models": (["other"], ["secret"]),
        "tools": ([{"type": "function", "function": {"name": "f"}}], [{"type": "web_search"}]),
        "modalities": (["audio"],),
        "background": (True,),
    }.items():
        often = {"max_tokens": 0.7, "tools": 0.3}.get(member, 0.1)
        if chance.random() < often:
            body[member] = chance.choice(values)
    return json.dumps(body).encode()


@pytest.mark.parametrize("seed", range(32))
async def test_the_short_way_grants_and_refuses_the_same(gates: tuple[Gate, Gate], seed: int):
    chance = random.Random(seed)
    for owner, rules in some_rules(chance).items():
        for gate in gates:
            give(gate.ledger, (owner, rules))
    short, long = gates
    sent: list[ExchangeRecord] = []
    for number in range(20):
        body, route = some_body(chance), chance.choice((CHAT,) * 9 + (COUNT,))
        assert await short.ask(number, body, route) == await long.ask(number, body, route)
        reserved = [gate.governor._reservations.reserved() for gate in gates]
        amounts = [{key: one for key, one in each.items() if one} for each in reserved]
        assert amounts[0] == amounts[1]
        if short.grant.charges and chance.random() < 0.5:
            # It is settled, so that what was reserved for it comes back in part.
            sent.append(an_exchange(id=f"01{number}", charges=short.grant.charges))
            for gate in gates:
                settled(gate, sent[-1], chance.randint(0, 10**9))


def settled(gate: Gate, record: ExchangeRecord, cost_nano_usd: int) -> None:
    gate.governor.ended(gate.grant, record)
    taken = tuple(
        Taken(one.budget_id, one.window_start_us, one.reserved, min(one.reserved, 1_000))
        for one in record.charges
    )
    gate.governor.folded([FoldedExchange(record.id, record.session_id, taken, 5, 1_000)])


async def test_much_that_is_folded_is_settled_a_part_in_each_turn(gates: tuple[Gate, Gate]) -> None:
    """By whichever thread it is told."""
    gate, _ = gates
    give(gate.ledger, (USER, Rules(budgets=(Budget(window="total", tokens=10**12),))))
    folded = []
    for number in range(3 * SETTLED_AT_ONCE + 1):
        await gate.ask(number, b'{"model":"m","messages":[],"max_tokens":10}')
        [charge] = gate.grant.charges
        taken = Taken(charge.budget_id, charge.window_start_us, charge.reserved, 1)
        folded.append(FoldedExchange(str(number), "01S", (taken,), 1, None))
    [before] = gate.governor._reservations.reserved().values()
    each = before // len(folded)
    gate.governor.folded(folded[1:])
    [now] = gate.governor._reservations.reserved().values()
    assert before - now == SETTLED_AT_ONCE * each
    teller = threading.Thread(target=gate.governor.folded, args=(folded[:1],))
    teller.start()
    teller.join()
    async with asyncio.timeout(30):
        while any(gate.governor._reservations.reserved().values()):
            await asyncio.sleep(0)


async def test_a_shadow_rule_speaks_each_time(gates: tuple[Gate, Gate]) -> None:
    """Only what no rule has anything against is remembered."""
    gate, _ = gates
    give(gate.ledger, (USER, Rules(models=ModelRules(deny=("*/m",), mode="shadow"))))
    for number in range(3):
        await gate.ask(number, b'{"model":"m","messages":[]}')
        assert [one.outcome for one in gate.grant.decisions] == ["shadow"]
    assert not gate.governor._rulebook.law_for(CALLER, 0.0).passed


async def test_models_that_pass_are_remembered_in_bounds(gates: tuple[Gate, Gate]) -> None:
    gate, _ = gates
    give(gate.ledger, (USER, Rules(models=ModelRules(deny=("*/secret",)))))
    for number in range(100):
        await gate.ask(number, msgspec.json.encode({"model": f"m{number}", "messages": []}))
        await gate.ask(number, msgspec.json.encode({"model": "x" * 600, "messages": []}))
    law = gate.governor._rulebook.law_for(CALLER, 0.0)
    assert 0 < len(law.passed) <= 16
    assert all(len(model or "") <= 512 for _, model in law.passed)
    give(gate.ledger, (USER, Rules(models=ModelRules(deny=("*/m99",)))))
    decision, status = await gate.ask(1, b'{"model":"m99","messages":[]}')
    assert (decision.code, status) == ("model-denied", 403)
