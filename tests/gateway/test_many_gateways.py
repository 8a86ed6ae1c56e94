"""Many sessions at once on one ledger: no row is lost, none is doubled, nobody waits in vain."""

import asyncio
import contextlib

import httpx

from opencode_gate.catalog.practice import practice_row
from opencode_gate.core.semconv import ExchangeStatus
from tests.support.gateway import TOKEN, RunningGateway, running_gateway

GATEWAYS = 10
REQUESTS = 12


async def _ask(client: httpx.AsyncClient, gateway: RunningGateway) -> None:
    answer = await client.post(
        gateway.url("practice", "/v1/chat/completions"),
        json={"model": "scripted", "messages": [{"role": "user", "content": "hello"}]},
        headers={"authorization": f"Bearer {TOKEN}"},
    )
    assert answer.status_code == 200


async def test_ten_gateways_fold_into_one_ledger() -> None:
    with contextlib.ExitStack() as stack:
        gateways = [stack.enter_context(running_gateway([practice_row()])) for _ in range(GATEWAYS)]
        async with httpx.AsyncClient(timeout=60) as client:
            await asyncio.gather(
                *(_ask(client, gateway) for gateway in gateways for _ in range(REQUESTS))
            )
        settled = await asyncio.gather(*(asyncio.to_thread(gateway.finish) for gateway in gateways))
        assert [last["exchanges"] for last in settled] == [REQUESTS] * GATEWAYS
        rows = [row for gateway in gateways for row in gateway.exchanges()]
        logs = [gateway.log.read_text() for gateway in gateways]
    assert len({row.id for row in rows}) == len(rows) == GATEWAYS * REQUESTS
    assert {row.status for row in rows} == {ExchangeStatus.COMPLETED}
    assert not any("locked" in log for log in logs)
