"""An answer that would cost more than a budget is cut, said so, and goes on once that is raised."""

import json
from decimal import Decimal

import httpx

from opencode_gate.config.paths import paths
from opencode_gate.core.semconv import CostQuality, ExchangeStatus
from opencode_gate.governance.policy import Budget, Owner, Rules
from opencode_gate.governance.stopping import BUDGET_STOP
from opencode_gate.ledger.governance_store import WindowKey
from opencode_gate.ledger.sqlite import open_store
from opencode_gate.ledger.sqlite.governance import open_governance
from tests.support.gateway import TOKEN, RunningGateway, running_gateway
from tests.support.priced_provider import priced_provider
from tests.support.rules import give

OWNER = Owner("user", "tester")
DOLLAR = 1_000_000_000


def allow(usd: str, **more: object) -> WindowKey:
    open_store(paths().ledger_file).close()
    budget = Budget(window="total", usd=Decimal(usd), **more)
    give(paths().ledger_file, (OWNER, Rules(budgets=(budget,))))
    return WindowKey(budget.id_for(OWNER), 0)


def ask_of(prompt: str, **more: object) -> dict[str, object]:
    return {"model": "m", "messages": [{"role": "user", "content": prompt}], **more}


def headers() -> dict[str, str]:
    return {"authorization": f"Bearer {TOKEN}", "x-session-id": "ses_1"}


async def stream(client: httpx.AsyncClient, gateway: RunningGateway, prompt: str, **more: object):
    """Status, headers, what was said, and whether it came to its own end."""
    said, is_whole = "", False
    asked = ask_of(prompt, stream=True, **more)
    url = gateway.url("stub", "/v1/chat/completions")
    async with client.stream("POST", url, json=asked, headers=headers()) as answer:
        try:
            async for line in answer.aiter_lines():
                said += line + "\n"
            is_whole = "[DONE]" in said
        except httpx.RemoteProtocolError:
            pass
    return answer.status_code, answer.headers, said, is_whole


async def test_a_stream_beyond_its_budget_is_cut_then_refused_then_goes_on_when_raised() -> None:
    """The provider keeps to no limit: at 30 USD a million it would go on for about 8 USD."""
    key = allow("1")
    async with priced_provider() as provider, httpx.AsyncClient(timeout=60) as client:
        with running_gateway([provider.row]) as gateway:
            status, told, said, is_whole = await stream(client, gateway, "endless")
            assert status == 200
            assert not is_whole
            assert len(said) > 10_000
            assert 30_000 < int(told["x-ogate-output-limit"]) < 33_334
            assert provider.bodies[0]["max_tokens"] == int(told["x-ogate-output-limit"])
            status, _, refusal, _ = await stream(client, gateway, "endless")
            assert status == 402
            assert len(provider.bodies) == 1
            error = json.loads(refusal)["error"]
            assert error["code"] == error["type"] == "insufficient_quota"
            assert "$1" in error["message"]
            assert "ogate budgets raise total" in error["message"]
            allow("3")
            status, _, _, is_whole = await stream(client, gateway, "go on", max_tokens=2_000)
            assert (status, is_whole) == (200, True)
            gateway.finish()
            records = gateway.exchanges()
    cut = records[0]
    assert (cut.status, cut.error_type) == (ExchangeStatus.INTERRUPTED, BUDGET_STOP)
    assert cut.cost_quality is CostQuality.ESTIMATED
    assert cut.cost_nano_usd is not None
    assert 0.9 * DOLLAR < cut.cost_nano_usd <= DOLLAR
    store = open_governance(paths().ledger_file)
    spent, held, _ = store.standings([key])[key]
    store.close()
    assert held == 0
    assert spent == sum(record.cost_nano_usd for record in records if record.cost_nano_usd)
    assert records[1].denial == "budget-exceeded"
    told = [json.loads(record.decisions)[-1]["outcome"] for record in records[:2]]
    assert told == ["stop", "deny"]


async def test_what_arrived_whole_is_delivered_though_it_costs_more_than_was_reserved() -> None:
    """It is paid for either way; the difference is charged and named, and nothing more fits."""
    key = allow("0.1")
    async with priced_provider() as provider, httpx.AsyncClient(timeout=60) as client:
        with running_gateway([provider.row]) as gateway:
            status, _, _, is_whole = await stream(client, gateway, "all at once")
            assert (status, is_whole) == (200, True)
            again, _, _, _ = await stream(client, gateway, "go on")
            gateway.finish()
            whole, refused = gateway.exchanges()
    assert again == 402
    assert (whole.status, refused.status) == (ExchangeStatus.COMPLETED, ExchangeStatus.DENIED)
    assert whole.reserved_cost_nano_usd is not None
    assert whole.cost_nano_usd is not None
    assert whole.cost_nano_usd > whole.reserved_cost_nano_usd
    store = open_governance(paths().ledger_file)
    assert store.standings([key])[key][:2] == (whole.cost_nano_usd, 0)
    store.close()


async def test_the_output_limit_is_lowered_to_what_fits_and_that_is_told() -> None:
    """0.10 USD pay for some 2,900 tokens of output beside the input, not for 8,000."""
    allow("0.1")
    async with priced_provider() as provider, httpx.AsyncClient(timeout=60) as client:
        with running_gateway([provider.row]) as gateway:
            status, told, _, is_whole = await stream(client, gateway, "hello", max_tokens=8_000)
            gateway.finish()
            [record] = gateway.exchanges()
    assert (status, is_whole) == (200, True)
    limit = int(told["x-ogate-output-limit"])
    assert provider.bodies[0]["max_tokens"] == limit == record.output_limit_tokens
    assert 2_500 < limit < 3_000
    [decision] = json.loads(record.decisions)
    assert (decision["outcome"], decision["rule"]) == ("lower", "budget")
    assert record.cost_nano_usd == record.reserved_cost_nano_usd <= DOLLAR // 10


async def test_at_its_end_a_budget_may_swap_to_a_cheaper_model() -> None:
    allow("0.012", at_end="downgrade:stub/cheap")
    async with priced_provider() as provider, httpx.AsyncClient(timeout=60) as client:
        with running_gateway([provider.row]) as gateway:
            status, told, _, _ = await stream(client, gateway, "hello", max_tokens=4_000)
            gateway.finish()
            [record] = gateway.exchanges()
    assert status == 200
    assert provider.bodies[0]["model"] == "cheap"
    assert told["x-ogate-model"] == "cheap"
    assert (record.downgraded_from, record.request_model) == ("m", "cheap")
    assert json.loads(record.decisions)[0]["outcome"] == "downgrade"


async def test_what_a_provider_bills_beyond_the_limits_is_charged_and_named() -> None:
    key = allow("10")
    async with priced_provider(share=300) as provider, httpx.AsyncClient(timeout=60) as client:
        with running_gateway([provider.row]) as gateway:
            await stream(client, gateway, "hello", max_tokens=4_000)
            gateway.finish()
            [record] = gateway.exchanges()
    assert record.reserved_cost_nano_usd is not None
    assert record.cost_nano_usd is not None
    assert record.cost_nano_usd > 2 * record.reserved_cost_nano_usd
    store = open_governance(paths().ledger_file)
    assert store.standings([key])[key][:2] == (record.cost_nano_usd, 0)
    store.close()
