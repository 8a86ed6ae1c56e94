"""A thousand requests at once against a budget that fits 37, over eight gateways on one ledger."""

import asyncio
import contextlib
import json
from collections.abc import Iterator
from decimal import Decimal

import httpx
import pytest

from opencode_gate.config.paths import paths
from opencode_gate.core.money import nano_usd
from opencode_gate.core.semconv import ExchangeStatus
from opencode_gate.core.tasks import spawn
from opencode_gate.governance.policy import Budget, Owner, Rules
from opencode_gate.ledger.governance_store import Standing, WindowKey
from opencode_gate.ledger.sqlite import open_store
from opencode_gate.ledger.sqlite.governance import open_governance
from tests.support.gateway import TOKEN, RunningGateway, running_gateway
from tests.support.priced_provider import PricedProvider, nano_usd_of, priced_provider
from tests.support.rules import give

FITS = 37
GATEWAYS = 8
OWNER = Owner("user", "tester")
MAX_TOKENS = 200


def body_of(prompt: str) -> bytes:
    """A request of always the same size."""
    message = {"role": "user", "content": prompt.ljust(40, ".")}
    return json.dumps({"model": "m", "max_tokens": MAX_TOKENS, "messages": [message]}).encode()


WORST = nano_usd_of(len(body_of("")), MAX_TOKENS)


def limit_to(amount_nano_usd: int) -> WindowKey:
    """A budget that never begins anew, over all sessions of this user."""
    open_store(paths().ledger_file).close()
    budget = Budget(window="total", usd=Decimal(amount_nano_usd).scaleb(-9))
    assert nano_usd(budget.usd) == amount_nano_usd
    give(paths().ledger_file, (OWNER, Rules(budgets=(budget,))))
    return WindowKey(budget.id_for(OWNER), 0)


def standing(key: WindowKey) -> Standing:
    store = open_governance(paths().ledger_file)
    found = store.standings([key])[key]
    store.close()
    return found


async def ask(client: httpx.AsyncClient, gateway: RunningGateway, prompt: str) -> int | None:
    """The status, `None` where there was none."""
    try:
        answer = await client.post(
            gateway.url("stub", "/v1/chat/completions"),
            content=body_of(prompt),
            headers={"authorization": f"Bearer {TOKEN}", "content-type": "application/json"},
        )
    except httpx.TransportError:
        return None
    return answer.status_code


@contextlib.contextmanager
def gateways(provider: PricedProvider, count: int) -> Iterator[list[RunningGateway]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(running_gateway([provider.row])) for _ in range(count)]


async def finish(running: list[RunningGateway]) -> None:
    await asyncio.gather(*(asyncio.to_thread(gateway.finish) for gateway in running))


@pytest.mark.parametrize("share", [100, 40])
async def test_the_last_nano_dollar_is_spent_once(share: int) -> None:
    """Whoever fits is sent, nobody else; what is left is less than one request may cost."""
    key = limit_to(FITS * WORST)
    async with priced_provider(share=share) as provider, httpx.AsyncClient(timeout=90) as client:
        with gateways(provider, GATEWAYS) as running:
            statuses = await asyncio.gather(
                *(ask(client, running[n % GATEWAYS], f"hello {n}") for n in range(1_000))
            )
            await finish(running)
    spent, held, _ = standing(key)
    answered = statuses.count(200)
    assert set(statuses) == {200, 402}
    assert answered == len(provider.bodies)
    assert held == 0
    assert FITS * WORST - WORST < spent <= FITS * WORST
    if share == 100:
        assert (answered, spent) == (FITS, FITS * WORST)


async def test_failures_and_kills_lose_no_money_and_spend_no_more() -> None:
    """Errors and cuts cost what they cost; what a killed gateway held comes free by itself."""
    key = limit_to(FITS * WORST)
    async with priced_provider() as provider, httpx.AsyncClient(timeout=90) as client:
        with gateways(provider, GATEWAYS) as running:

            async def batch(prompt: str, through: list[RunningGateway], count: int) -> list:
                asked = (
                    ask(client, through[n % len(through)], f"{prompt} {n}") for n in range(count)
                )
                return await asyncio.gather(*asked)

            hanging = spawn(batch("hang", running[:3], 12), name="hanging")
            while len(provider.bodies) < 12:
                await asyncio.sleep(0.02)
            for gateway in running[:3]:
                gateway.process.kill()
            await hanging
            others = running[3:]
            statuses = await asyncio.gather(
                batch("fail", others, 150), batch("hello", others, 600), batch("reset", others, 50)
            )
            await finish(others)
        answered = statuses[1].count(200)
        assert set(statuses[1]) == {200, 402}
    store = open_store(paths().ledger_file)
    killed = [record for gateway in running[:3] for record in store.exchanges(gateway.session.id)]
    store.close()
    assert len(killed) == 12
    assert {record.status for record in killed} == {ExchangeStatus.INTERRUPTED}
    spent, held, _ = standing(key)
    assert held == 0
    assert FITS * WORST - WORST < spent <= FITS * WORST
    assert answered >= FITS - 12
